//! MultiLoRA: twins against finite differences, kernels against twins, whole steps against PyTorch, and what its users rely on.

use crate::common::{Bench, assert_close, close, gpu, gradcheck, noise};
use serde_json::{Value, json};
use weblora::adapters::{AdapterConfig, AdapterLayout, initial_buffer};
use weblora::analysis::report::report;
use weblora::analysis::{SiteModules, mean_scales, scale_words};
use weblora::demo;
use weblora::export::folder::Folder;
use weblora::export::peft::PeftAdapter;
use weblora::export::update::site_factors;
use weblora::formats::{ByteSource, Bytes, ModelFile};
use weblora::generate::Generator;
use weblora::gpu::{Gpu, Tuner};
use weblora::kernels::lowrank::{NO_GRADIENT, Segment, SiteRow};
use weblora::kernels::lowrank_twin::{TwinSite, lowrank_backward_twin, lowrank_forward_twin};
use weblora::kernels::multilora::{ModuleGrid, ModuleRow, Modules, expand_twin, gradient_twin};
use weblora::kernels::optimizer::Hyper as HyperRow;
use weblora::model::Recompute;
use weblora::model::decoder::Decoder;
use weblora::model::inputs::HostBatch;
use weblora::settings::{Map, Settings};
use weblora::text::{DataOptions, Dataset, Example, Tokenizer, read_rows};
use weblora::train::session::{Hyper, Planned, Session, Shape};
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};
use weblora::train::{Checkpoint, TrainConfig};

const GGUF: &[u8] = include_bytes!("../golden/tiny_llama/model.gguf");
const BATCHES: &str = include_str!("../golden/tiny_llama/golden.json");
const GOLDEN: &str = include_str!("../golden/multilora.json");

/// Ten steps of AdamW with scales at ten times the rate amplify the rounding of f32: PyTorch's own f32 and f64 differ by up to 2e-4.
const CURVE: f64 = 1e-3;

fn block<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

// ---- kernels ----------------------------------------------------------------------------------------------------------------------------

/// Rows whose buffers lie one after the other with gaps, the lengths of values and gradients.
fn table(sites: &[(usize, usize, usize)], scalar: bool) -> (Vec<ModuleRow>, usize, usize) {
    let (mut values, mut grads) = (3, 5);
    let mut rows = Vec::new();
    for (modules, rank, outputs) in sites {
        let (factor, scales) = (modules * rank * outputs, if scalar { *modules } else { modules * outputs });
        rows.push(ModuleRow {
            b_offset: values as u32,
            scale_offset: (values + factor + 1) as u32,
            effective_offset: (values + factor + scales + 3) as u32,
            grad_b_offset: grads as u32,
            grad_scale_offset: (grads + factor + 2) as u32,
            outputs: *outputs as u32,
            rank: *rank as u32,
            modules: *modules as u32,
            ..ModuleRow::default()
        });
        (values, grads) = (values + 2 * factor + scales + 4, grads + factor + scales + 3);
    }
    (rows, values, grads)
}

#[test]
fn kernels_match_twins_over_awkward_sizes() {
    let Some(gpu) = gpu() else { return };
    let sites = [(3, 2, 65), (1, 1, 1), (2, 7, 64), (5, 3, 63), (3, 8, 331), (2, 17, 5)];
    for scalar in [false, true] {
        let (mut rows, values_len, grads_len) = table(&sites, scalar);
        // A frozen site among trained ones: its words must stay. So must those of a job that does not step now.
        (rows[2].grad_b_offset, rows[2].grad_scale_offset) = (NO_GRADIENT, NO_GRADIENT);
        rows[4].job = 1;
        let (values, grads) = (noise(1, values_len), noise(2, grads_len));
        let mut bench = Bench::new();
        // Two rows of another kind come first in the table.
        let skipped = [ModuleRow { b_offset: u32::MAX, outputs: 9, rank: 9, modules: 9, ..ModuleRow::default() }; 2];
        let unused = [ModuleRow::default(); 2];
        let table = bench.put("table", &[&skipped[..], &rows, &unused].concat());
        let hyper = bench.put("hyper", &[HyperRow { steps_now: 1, ..HyperRow::default() }, HyperRow::default()]);
        let (v, g) = (bench.put("values", &values), bench.put("grads", &grads));
        let most = |of: fn(&ModuleRow) -> u32| rows.iter().map(of).max().unwrap() as usize;
        let grid = ModuleGrid { rows: rows.len() + unused.len(), outputs: most(|r| r.outputs), modules: most(|r| r.modules) };
        let modules = Modules { table, first: 2, grid, scalar };
        let found = bench.run(gpu, &Tuner::for_device(gpu), &[v, g], |rec| {
            modules.expand(rec, v);
            modules.gradient(rec, v, g, hyper);
        });
        let (mut want_v, mut want_g) = (values.clone(), grads.clone());
        expand_twin(&rows, scalar, &mut want_v);
        let trained: Vec<ModuleRow> = rows.iter().filter(|r| r.grad_b_offset != NO_GRADIENT && r.job == 0).copied().collect();
        gradient_twin(&trained, scalar, &want_v, &mut want_g);
        assert_eq!(found[0], want_v, "one product has one rounding (scalar {scalar})");
        assert_close(&format!("gradients, scalar {scalar}"), &found[1], &want_g, 4e-5, 1e-5);
        // The comparison sees a scale of the neighbouring output and a module that is mixed up.
        let mut wrong = values.clone();
        wrong[rows[0].scale_offset as usize..].rotate_left(1);
        let mut other = grads;
        gradient_twin(&trained, scalar, &wrong, &mut other);
        assert!(close(&found[1], &other, 4e-5, 1e-5).is_err());
    }
}

#[test]
fn gradients_match_finite_differences() {
    let (modules, rank, k, n, t) = (3usize, 2usize, 5usize, 4usize, 3usize);
    let ranks = modules * rank;
    for scalar in [false, true] {
        let scales = if scalar { modules } else { modules * n };
        let (b, s, a) = (0, ranks * n, ranks * n + scales);
        let effective = a + ranks * k;
        let row = ModuleRow {
            b_offset: b as u32,
            scale_offset: s as u32,
            effective_offset: effective as u32,
            grad_b_offset: 0,
            grad_scale_offset: (ranks * (n + k)) as u32,
            outputs: n as u32,
            rank: rank as u32,
            modules: modules as u32,
            ..ModuleRow::default()
        };
        let site = SiteRow {
            rank: ranks as u16,
            half: 0,
            a_offset: a as u32,
            b_offset: effective as u32,
            grad_a_offset: (ranks * n) as u32,
            grad_b_offset: 0,
            train_begin: 0,
            train_end: ranks as u32,
            scale: 0.75,
        };
        let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
        let (parameters, x, dy) = (wide(noise(3, effective)), wide(noise(4, t * k)), wide(noise(5, t * n)));
        let (jobs, sites) = ([Segment::new(0..t)], [site]);
        let expanded = |parameters: &[f64]| {
            let mut values = [parameters, &vec![0.0; ranks * n]].concat();
            expand_twin(&[row], scalar, &mut values);
            values
        };
        let twin = |values: &[f64]| {
            lowrank_forward_twin(&TwinSite { sizes: [t, k, n, ranks], dropout_key: 0, jobs: &jobs, sites: &sites, adapter: values }, &x)
        };
        let loss = |parameters: &[f64]| -> f64 { twin(&expanded(parameters)).1.iter().zip(&dy).map(|(y, d)| y * d).sum() };
        let values = expanded(&parameters);
        let (h, _) = twin(&values);
        let found = TwinSite { sizes: [t, k, n, ranks], dropout_key: 0, jobs: &jobs, sites: &sites, adapter: &values };
        let mut grads = lowrank_backward_twin(&found, &x, &dy, &h, ranks * (n + k) + scales).grads;
        gradient_twin(&[row], scalar, &values, &mut grads);
        let gradient = [&grads[..ranks * n], &grads[ranks * (n + k)..], &grads[ranks * n..ranks * (n + k)]].concat();
        gradcheck(&format!("dB, ds, dA, scalar {scalar}"), &parameters, &gradient, 1, loss);
    }
}

// ---- against PyTorch --------------------------------------------------------------------------------------------------------------------

fn tiny() -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", GGUF));
    block(ModelFile::open_gguf(vec![source])).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// A golden batch of the tiny model in `rows` rows.
fn batch(value: &Value, rows: usize) -> HostBatch {
    let ints = |key: &str| -> Vec<i64> { value[key].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect() };
    let (tokens, labels) = (ints("tokens"), ints("labels"));
    let (mut starts, mut positions) = (Vec::new(), Vec::new());
    for length in ints("lengths") {
        let start = starts.len() as u32;
        starts.extend((0..length).map(|_| start));
        positions.extend(0..length as u32);
    }
    let mut ids: Vec<u32> = tokens.iter().map(|t| *t as u32).collect();
    let mut targets: Vec<i32> = labels[1..].iter().map(|l| if *l < 0 { -1 } else { *l as i32 }).collect();
    targets.push(-1);
    for row in ids.len()..rows {
        ids.push(0);
        targets.push(-1);
        starts.push(row as u32);
        positions.push(0);
    }
    let count = targets.iter().filter(|t| **t >= 0).count();
    HostBatch::new(&ids, &targets, &starts, &positions, 1.0 / count as f32)
}

fn settings(value: Value) -> AdapterConfig {
    let map: Map = value.as_object().unwrap().clone();
    AdapterConfig::read(&mut Settings::new(&map)).unwrap()
}

fn of_run(run: &Value) -> AdapterConfig {
    settings(json!({
        "method": "multilora", "modules": run["modules"], "rank": run["rank"], "alpha": run["alpha"], "scale": run["scale"],
        "scale-lr": run["scale_lr"], "init-b": run["init_b"], "rslora": run["rslora"], "targets": run["targets"],
    }))
}

const ROWS: usize = 49;

fn open(gpu: &Gpu, layout: &AdapterLayout, values: &[f32]) -> Session {
    let file = tiny();
    let shape = Shape { rows: ROWS, positions: 64, recompute: Recompute::Off, quantize: None, training: true };
    let planned = Planned::new(&file, &[layout], shape, gpu.plan_limits(), &Tuner::for_device(gpu)).unwrap();
    let session = block(planned.realize(gpu, &file, |_, _| {})).unwrap();
    assert_eq!(session.footprint().total(), session.allocated_bytes(), "planned and allocated bytes");
    session.write_values(gpu, 0, values).unwrap();
    session
}

fn mean(losses: &[f32]) -> f64 {
    losses.iter().map(|l| f64::from(*l)).sum::<f64>() / losses.len() as f64
}

fn accumulate(gpu: &Gpu, session: &mut Session, host: &HostBatch) -> f64 {
    mean(&block(session.accumulate(gpu, host, &[Segment::new(0..ROWS)])).unwrap())
}

#[test]
fn ten_step_curves_equal_pytorch() {
    let Some(gpu) = gpu() else { return };
    let (golden, batches): (Value, Value) = (serde_json::from_str(GOLDEN).unwrap(), serde_json::from_str(BATCHES).unwrap());
    let batches: Vec<HostBatch> = batches["batches"].as_array().unwrap().iter().map(|b| batch(b, ROWS)).collect();
    let differ = |got: &[f64], want: &[f64], by: f64| got.iter().zip(want).any(|(g, w)| (g - w).abs() > by * w.abs());
    for (name, case) in golden["curves"].as_object().unwrap() {
        let run = &case["run"];
        let layout = of_run(run).layout(&tiny().config).unwrap();
        let mut session = open(gpu, &layout, &initial_buffer(&layout.params, 0));
        let betas = numbers(&run["betas"]);
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for step in 1..=10u64 {
            losses.push(accumulate(gpu, &mut session, &batches[(step - 1) as usize % batches.len()]));
            let number = |key: &str| run[key].as_f64().unwrap();
            let hyper = Hyper {
                lr: number("lr"),
                betas: (betas[0], betas[1]),
                eps: number("eps"),
                weight_decay: number("weight_decay"),
                clip: number("clip"),
                step,
            };
            norms.push(f64::from(block(session.update(gpu, &[(0, hyper)])).unwrap()[0]));
        }
        let (want, norm) = (numbers(&case["loss"]), numbers(&case["grad_norm"]));
        assert!(!differ(&losses, &want, CURVE), "{name} loss\n got {losses:?}\nwant {want:?}");
        assert!(!differ(&norms, &norm, 5.0 * CURVE), "{name} norm\n got {norms:?}\nwant {norm:?}");
        assert_eq!(losses.len(), want.len());
        if name == "out" {
            assert!(differ(&losses, &numbers(&golden["slow_scales"]), CURVE), "scales at the factors' rate would pass");
            assert!(differ(&losses, &numbers(&golden["curves"]["scalar"]["loss"]), CURVE), "scalar scales would pass");
        }
    }
}

#[test]
fn every_gradient_equals_pytorch_also_when_accumulated() {
    let Some(gpu) = gpu() else { return };
    let (golden, batches): (Value, Value) = (serde_json::from_str(GOLDEN).unwrap(), serde_json::from_str(BATCHES).unwrap());
    let host = batch(&batches["batches"][0], ROWS);
    for case in golden["gradient_cases"].as_array().unwrap() {
        let layout = of_run(&case["run"]).layout(&tiny().config).unwrap();
        let mut values = initial_buffer(&layout.params, 0);
        let bound = case["s_bound"].as_f64().unwrap();
        for spec in layout.params.specs.iter().filter(|s| s.name.contains("lora_scaling")) {
            spec.put_hf(&weblora::rng::fill_uniform(&format!("0/{}", spec.name), spec.len(), bound), &mut values);
        }
        // Three micro-batches of the same rows: with β1 = 0 the first moment is the sum of their gradients.
        let mut session = open(gpu, &layout, &values);
        let losses: Vec<f64> = (0..3).map(|_| accumulate(gpu, &mut session, &host)).collect();
        assert!((losses[2] - case["loss"].as_f64().unwrap()).abs() < 2e-5 * losses[2], "loss {losses:?}");
        let hyper = Hyper { lr: 1e-3, betas: (0.0, 0.9), eps: 1e-8, weight_decay: 0.0, clip: 0.0, step: 1 };
        let norm = f64::from(block(session.update(gpu, &[(0, hyper)])).unwrap()[0]);
        let (sum, _) = block(session.read_moments(gpu, 0)).unwrap();
        let (offsets, _) = layout.params.gradient_offsets();
        let mut squares = 0.0;
        for (spec, offset) in layout.params.specs.iter().zip(offsets) {
            let digest = numbers(&case["gradients"][&spec.name]);
            let got: Vec<f64> = spec.to_hf_at(&sum, offset).into_iter().map(|g| f64::from(g) / 3.0).collect();
            let square: f64 = got.iter().map(|g| g * g).sum();
            let size = (digest[digest.len() - 1] / got.len() as f64).sqrt();
            for (g, want) in got.iter().zip(&digest[..digest.len() - 1]) {
                assert!((g - want).abs() < 2e-4 * (size + want.abs()), "{}: {g}, PyTorch says {want}", spec.name);
            }
            assert!((square - digest[digest.len() - 1]).abs() < 5e-4 * square, "{}: Σ g² {square}, PyTorch says {digest:?}", spec.name);
            squares += digest[digest.len() - 1];
        }
        // The norm that clipping sees is that of the parameters.
        assert!((norm - 3.0 * squares.sqrt()).abs() < 1e-3 * norm, "norm {norm}, expected {}", 3.0 * squares.sqrt());
    }
}

#[test]
fn the_start_is_the_base_and_two_steps_move_everything() {
    let Some(gpu) = gpu() else { return };
    let batches: Value = serde_json::from_str(BATCHES).unwrap();
    let host = batch(&batches["batches"][0], ROWS);
    let nobody = HostBatch { row_job: vec![u32::MAX; ROWS], ..host.clone() };
    for scale in ["out", "scalar"] {
        let layout = settings(json!({"method": "multilora", "rank": 2, "scale": scale})).layout(&tiny().config).unwrap();
        let start = initial_buffer(&layout.params, 0);
        let mut session = open(gpu, &layout, &start);
        let evaluate = |session: &mut Session, host: &HostBatch| block(session.evaluate(gpu, host, &[Segment::new(0..ROWS)])).unwrap();
        let base = evaluate(&mut session, &nobody);
        assert_eq!(evaluate(&mut session, &host), base, "s = 0 is the base, bit for bit");
        let mut before = start;
        for step in 1..=2 {
            accumulate(gpu, &mut session, &host);
            let hyper = Hyper { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-10, weight_decay: 0.0, clip: 0.0, step };
            block(session.update(gpu, &[(0, hyper)])).unwrap();
            let after = block(session.read_values(gpu, 0)).unwrap();
            for spec in &layout.params.specs {
                let moved = after[spec.range()] != before[spec.range()];
                assert_eq!(moved, step == 2 || spec.name.contains("lora_scaling"), "{} after step {step}", spec.name);
            }
            before = after;
        }
        assert_ne!(evaluate(&mut session, &host), base, "evaluation sees the present scales");
        // What was written anew is seen at once, too.
        session.write_values(gpu, 0, &initial_buffer(&layout.params, 0)).unwrap();
        assert_eq!(evaluate(&mut session, &host), base, "after the start values were written again");
    }
}

// ---- the method as users meet it --------------------------------------------------------------------------------------------------------

fn trainer(gpu: &Gpu, more: Value) -> Trainer {
    let file = block(demo::model()).unwrap();
    let tokenizer = Tokenizer::of_model(&file).unwrap();
    let rows = |bytes: &[u8]| -> Vec<Example> {
        Dataset::build("rows", &read_rows("rows", bytes).unwrap(), &tokenizer, DataOptions::new(64)).unwrap().examples
    };
    let data = TrainData { train: rows(demo::TRAIN), held_out: rows(demo::HELD_OUT), ..TrainData::default() };
    let mut map = demo::settings();
    map.extend(json!({"method": "multilora", "rank": 4, "alpha": 8, "eps": 1e-10, "batch": 4}).as_object().unwrap().clone());
    map.extend(more.as_object().unwrap().clone());
    let config = TrainConfig::from_map(&map).unwrap();
    let mut tuner = Tuner::for_device(gpu);
    let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), &tuner).unwrap();
    block(Trainer::new(gpu, &file, config, data, plan, None, &mut tuner, false, |_, _| {})).unwrap()
}

fn get<'f>(files: &'f [(&str, Vec<u8>)], name: &str) -> &'f [u8] {
    files.iter().find(|(n, _)| *n == name).map(|(_, bytes)| bytes.as_slice()).unwrap()
}

#[test]
fn the_exported_lora_is_the_same_model_bit_for_bit_in_its_factors() {
    let Some(gpu) = gpu() else { return };
    let file = block(demo::model()).unwrap();
    let tokenizer = Tokenizer::of_model(&file).unwrap();
    let prompt = tokenizer.encode("Anna has a red hat. Ben has a green cup.", true).unwrap();
    for more in [json!({"scale": "out"}), json!({"scale": "scalar", "rslora": true, "modules": 2})] {
        let mut trainer = trainer(gpu, more.clone());
        (0..6).for_each(|_| drop(block(trainer.step(gpu)).unwrap()));
        let files = block(trainer.export(gpu)).unwrap();
        let folder = Folder {
            name: "multi",
            config: get(&files, "adapter_config.json"),
            weights: get(&files, "adapter_model.safetensors"),
            note: None,
            chain: None,
        };
        let adapter = PeftAdapter::read(folder, &file.config).unwrap();
        let modules = if more["rslora"] == true { 2 } else { 3 };
        assert!(adapter.sites.iter().all(|site| site.rank == 4 * modules), "rank n·r");
        let layout = AdapterConfig::read(&mut Settings::new(&adapter.settings())).unwrap().layout(&file.config).unwrap();
        let scale = trainer.layout().sites[0].slices[0].scale;
        assert!(layout.sites.iter().all(|site| site.slices[0].scale == scale), "the common scale is kept");
        let values = adapter.to_buffer("multi", &layout).unwrap();
        let (adapters, mut tuner) = ([(layout, values)], Tuner::for_device(gpu));
        let mut generator = block(Generator::open(gpu, &file, &adapters, None, 64, &mut tuner, false, |_, _| {})).unwrap();
        let saved = block(generator.logits(gpu, &prompt, Some(0))).unwrap();
        let base = block(generator.logits(gpu, &prompt, None)).unwrap();
        let (store, model, tables) = trainer.session().parts();
        let mut decoder = block(Decoder::new(gpu, store, model, Some(tables), 64, &mut Tuner::for_device(gpu), false)).unwrap();
        let live = block(decoder.push(gpu, store, &prompt, Some(0))).unwrap();
        assert_close("logits of plain LoRA of rank n·r", &saved, &live, 1e-5, 1e-5);
        assert!(close(&base, &live, 1e-3, 1e-3).is_err(), "the adapter has no effect");
        // Modules cannot be taken apart again.
        let error = adapter.to_buffer("multi", trainer.layout()).unwrap_err().to_string();
        assert!(error.contains("sum of its modules") && error.contains("--method lora"), "{error}");
    }
}

#[test]
fn a_resumed_run_is_the_same_run_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    for scale in ["out", "scalar"] {
        let more = json!({"steps": 6, "scale": scale, "dropout": 0.1, "grad-accum": 2, "weight-decay": 0.01});
        let mut whole = trainer(gpu, more.clone());
        let curve: Vec<f64> = (0..6).map(|_| block(whole.step(gpu)).unwrap().loss).collect();
        let mut first = trainer(gpu, more.clone());
        (0..3).for_each(|_| drop(block(first.step(gpu)).unwrap()));
        let saved = block(first.checkpoint(gpu)).unwrap();
        let mut second = trainer(gpu, more);
        second.resume(gpu, "checkpoint", &saved).unwrap();
        let rest: Vec<f64> = (0..3).map(|_| block(second.step(gpu)).unwrap().loss).collect();
        assert_eq!(rest, curve[3..]);
        assert_eq!(block(second.checkpoint(gpu)).unwrap(), block(whole.checkpoint(gpu)).unwrap(), "final states");
    }
}

/// The checkpoint gives the modules that the run has, they add up to the adapter that it saves, and another step's do not.
#[test]
fn a_runs_modules_are_read_from_its_checkpoint() {
    let Some(gpu) = gpu() else { return };
    for more in [json!({"alpha-pattern": {"q_proj": 4}}), json!({"scale": "scalar", "rslora": true, "modules": 2})] {
        let mut trainer = trainer(gpu, more);
        (0..3).for_each(|_| drop(block(trainer.step(gpu)).unwrap()));
        let layout = trainer.layout().clone();
        let here = SiteModules::of_layout(&layout, &block(trainer.session().read_values(gpu, 0)).unwrap()).unwrap();
        let words = scale_words(&layout).unwrap();
        let means = mean_scales(&layout, &block(trainer.session().read_some_values(gpu, 0, words)).unwrap());
        let reports: Vec<_> = here.iter().map(SiteModules::report).collect();
        for (i, mean) in means.iter().enumerate() {
            let all = reports.iter().map(|site| site.each[i].mean_scale).sum::<f64>() / reports.len() as f64;
            assert!(*mean > 0.0 && (mean - all).abs() <= 1e-12 * all, "module {i}: {mean} and {all}");
        }
        let bytes = block(trainer.checkpoint(gpu)).unwrap();
        let saved = Checkpoint::read("checkpoint", &bytes).unwrap().modules().unwrap();
        assert_eq!(saved, here);
        assert_eq!(saved.len(), layout.sites.len());
        let report_of = |files: &[(&'static str, Vec<u8>)]| {
            let files: Vec<(String, Vec<u8>)> = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
            let adapter = PeftAdapter::read_alone(Folder::of("multi", &files).unwrap()).unwrap();
            report("multi", &site_factors(&[adapter]).unwrap(), false)
        };
        let mut own = report_of(&block(trainer.export(gpu)).unwrap());
        own.add_modules(&saved).unwrap();
        assert!(own.modules.iter().all(|m| m.mean_scale > 0.0 && m.share > 0.0), "{:?}", own.modules);
        block(trainer.step(gpu)).unwrap();
        let later = report_of(&block(trainer.export(gpu)).unwrap()).add_modules(&saved).unwrap_err().to_string();
        assert!(later.contains("add up to a norm of"), "{later}");
    }
}

#[test]
fn a_layout_stacks_its_modules_and_has_few_groups() {
    let layout = settings(json!({"method": "multilora", "rank": 3, "targets": "q,down"})).layout(&tiny().config).unwrap();
    let spec = |name: &str| &layout.params.specs[layout.params.find(name).unwrap()];
    let q = "layers.0.self_attn.q_proj";
    let (a, b, s) = (spec(&format!("{q}.lora_A.1")), spec(&format!("{q}.lora_B.1")), spec(&format!("{q}.lora_scaling.1")));
    assert_eq!((&a.shape[..], &b.shape[..], &s.shape[..]), (&[3, 32][..], &[64, 3][..], &[64][..]));
    assert_eq!(a.offset, spec(&format!("{q}.lora_A.0")).range().end);
    assert_eq!((s.lr_multiplier, s.weight_decay, b.weight_decay), (10.0, false, true));
    let values = initial_buffer(&layout.params, 0);
    let largest = |range: std::ops::Range<usize>| values[range].iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(largest(s.range()) == 0.0);
    let (of_a, of_b) = (largest(a.range()) * 32f32.sqrt(), largest(b.range()) * 3f32.sqrt());
    assert!((0.9..1.0).contains(&of_a) && (0.9..1.0).contains(&of_b), "Kaiming bounds: {of_a} {of_b}");
    assert_ne!(values[a.range()], values[spec(&format!("{q}.lora_A.0")).range()], "modules start alike");
    let count = 2 * 3 * (3 * (32 + 64) + 64 + 3 * (96 + 32) + 32);
    assert_eq!(layout.params.trainable(), count);
}

#[test]
fn what_cannot_learn_is_refused() {
    let refused = |more: Value, words: &[&str]| {
        let mut map = json!({"method": "multilora", "rank": 4}).as_object().unwrap().clone();
        map.extend(more.as_object().unwrap().clone());
        let layout = TrainConfig::from_map(&map).and_then(|config| config.adapter.layout(&tiny().config));
        let text = layout.unwrap_err().to_string();
        words.iter().for_each(|word| assert!(text.contains(word), "{text}"));
    };
    refused(json!({"init-b": "zero", "init-scale": "zero"}), &["init-scale", "every gradient is zero"]);
    refused(json!({"init-scale": "one"}), &["init-scale", "not start at the base"]);
    refused(json!({"modules": 9}), &["modules", "9 modules of rank 4", "at most 32"]);
    refused(json!({"modules": 0}), &["modules", "from 1 to 64"]);
    refused(json!({"scale": "row"}), &["scale", "out or scalar"]);
    refused(json!({"lora-plus": 4}), &["lora-plus", "method `multilora` has no such setting", "`lora`"]);
}

/// `golden/check_peft.py` loads the folder that is compared here into PEFT and checks its logits against the modules written out. After
/// a change of the writer: run this test with `WEBLORA_BLESS=1`, then that script.
#[test]
fn the_folder_is_the_one_that_peft_was_seen_to_load() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let case = &golden["gradient_cases"][0];
    let layout = of_run(&case["run"]).layout(&tiny().config).unwrap();
    let mut values = initial_buffer(&layout.params, 0);
    for spec in layout.params.specs.iter().filter(|s| s.name.contains("lora_scaling")) {
        let bound = case["s_bound"].as_f64().unwrap();
        spec.put_hf(&weblora::rng::fill_uniform(&format!("0/{}", spec.name), spec.len(), bound), &mut values);
    }
    let files = PeftAdapter::from_layout(&layout, &values, Some("tiny_llama".into()), None).to_files("test").unwrap();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/peft_multilora");
    for (name, bytes) in &files {
        if std::env::var_os("WEBLORA_BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        assert!(*bytes == std::fs::read(folder.join(name)).unwrap(), "{name} is not the committed one");
    }
}
