//! LongLoRA on the tiny LLaMA and on SmolLM2 against PyTorch: curves, gradients, files.

use serde_json::{Value, json};
use weblora::adapters::{AdapterConfig, AdapterLayout, initial_buffer, norms};
use weblora::export::exporters;
use weblora::export::folder::Folder;
use weblora::export::peft::{Note, PeftAdapter};
use weblora::export::request::{Exported, Request, Sink};
use weblora::formats::{ByteSource, Bytes, ModelFile, SideFiles};
use weblora::gpu::{Gpu, Tuner};
use weblora::kernels::lowrank::Segment;
use weblora::model::Recompute;
use weblora::model::inputs::HostBatch;
use weblora::model::rope::frequencies;
use weblora::model::stretch::of_settings;
use weblora::settings::{Map, Settings};
use weblora::text::Example;
use weblora::train::TrainConfig;
use weblora::train::host_batch::host_batch;
use weblora::train::session::{Hyper, Planned, Session, Shape};
use weblora::train::start::{from_adapter, lay_out};
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};
use weblora::train::{batch::Batch, score};

use crate::common::gpu;

const GGUF: &[u8] = include_bytes!("../golden/tiny_llama/model.gguf");
const SAFETENSORS: &[u8] = include_bytes!("../golden/tiny_llama/model.safetensors");
const CONFIG: &str = include_str!("../golden/tiny_llama/config.json");
const GOLDEN: &str = include_str!("../golden/longlora.json");
const BATCHES: &str = include_str!("../golden/tiny_llama/golden.json");
const PEFT_CONFIG: &[u8] = include_bytes!("../golden/peft_longlora/adapter_config.json");
const PEFT_WEIGHTS: &[u8] = include_bytes!("../golden/peft_longlora/adapter_model.safetensors");
const ROWS: usize = 49;
/// f32 sums in another order, amplified by ten optimizer steps.
const CURVE: f64 = 2e-4;

fn block<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

fn tiny() -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", GGUF));
    block(ModelFile::open_gguf(vec![source])).unwrap()
}

fn golden() -> Value {
    serde_json::from_str(GOLDEN).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// The golden batches as examples, a document each, with targets as PyTorch has labels.
fn examples(value: &Value) -> Vec<Example> {
    let ints = |key: &str| -> Vec<i64> { value[key].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect() };
    let (tokens, labels, mut at) = (ints("tokens"), ints("labels"), 0);
    let example = |(row, length): (usize, i64)| {
        let place = at..at + length as usize;
        at = place.end;
        let targets = labels[place.clone()].iter().map(|l| *l >= 0).collect();
        Example { tokens: tokens[place].iter().map(|t| *t as u32).collect(), targets, row: row + 1, rejected: None }
    };
    ints("lengths").into_iter().enumerate().map(example).collect()
}

fn batches() -> Vec<Vec<Example>> {
    let all: Value = serde_json::from_str(BATCHES).unwrap();
    all["batches"].as_array().unwrap().iter().map(examples).collect()
}

fn host(examples: &[Example], rows: usize, group: Option<u32>) -> HostBatch {
    let batch = Batch::pack((0..examples.len() as u32).collect(), examples, rows);
    host_batch(&batch, 1.0 / batch.n_targets as f32).grouped(group)
}

fn of_run(run: &Value) -> AdapterConfig {
    let map = json!({
        "rank": run["rank"], "alpha": run["alpha"], "targets": run["targets"], "train-norms": run["train_norms"],
        "train-embeddings": run["train_embeddings"].as_bool().unwrap_or(false),
    });
    let map: Map = map.as_object().unwrap().clone();
    let tokens = batches().into_iter().flatten().flat_map(|example| example.tokens);
    AdapterConfig::read(&mut Settings::new(&map)).unwrap().with_tokens(tokens)
}

fn group_of(run: &Value) -> Option<u32> {
    run["group"].as_u64().map(|g| g as u32)
}

/// A session with one job that begins with the base's norms.
fn open(gpu: &Gpu, file: &ModelFile, layout: &AdapterLayout, mut values: Vec<f32>, rows: usize, recompute: Recompute) -> Session {
    let shape = Shape { rows, positions: rows.max(64), recompute, quantize: None, training: true };
    let planned = Planned::new(file, &[layout], shape, gpu.plan_limits(), &Tuner::for_device(gpu)).unwrap();
    let session = block(planned.realize(gpu, file, |_, _| {})).unwrap();
    assert_eq!(session.footprint().total(), session.allocated_bytes(), "planned and allocated bytes");
    norms::fill(layout, &block(session.base_norms(gpu)).unwrap(), &mut values);
    session.write_values(gpu, 0, &values).unwrap();
    session
}

fn mean(losses: &[f32]) -> f64 {
    losses.iter().map(|l| f64::from(*l)).sum::<f64>() / losses.len() as f64
}

fn hyper(run: &Value, step: u64) -> Hyper {
    let number = |key: &str| run[key].as_f64().unwrap_or(0.0);
    let betas = numbers(&run["betas"]);
    Hyper {
        lr: number("lr"),
        betas: (betas[0], betas[1]),
        eps: number("eps"),
        weight_decay: number("weight_decay"),
        clip: number("clip"),
        step,
    }
}

/// Losses and gradient norms of ten steps over `batches`.
fn curve(
    gpu: &Gpu,
    file: &ModelFile,
    run: &Value,
    group: Option<u32>,
    batches: &[Vec<Example>],
    rows: usize,
    recompute: Recompute,
) -> [Vec<f64>; 2] {
    let layout = of_run(run).layout(&file.config).unwrap();
    let mut session = open(gpu, file, &layout, initial_buffer(&layout.params, 0), rows, recompute);
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 1..=10u64 {
        let host = host(&batches[(step - 1) as usize % batches.len()], rows, group);
        losses.push(mean(&block(session.accumulate(gpu, &host, &[Segment::new(0..rows)])).unwrap()));
        norms.push(f64::from(block(session.update(gpu, &[(0, hyper(run, step))])).unwrap()[0]));
    }
    [losses, norms]
}

fn differ(got: &[f64], want: &[f64], by: f64) -> bool {
    got.len() != want.len() || got.iter().zip(want).any(|(g, w)| (g - w).abs() > by * w.abs())
}

#[test]
fn ten_step_curves_equal_pytorch() {
    let Some(gpu) = gpu() else { return };
    let (golden, batches, file) = (golden(), batches(), tiny());
    for (name, case) in golden["curves"].as_object().unwrap() {
        let run = &case["run"];
        let [losses, norms] = curve(gpu, &file, run, group_of(run), &batches, ROWS, Recompute::Off);
        let (want, norm) = (numbers(&case["loss"]), numbers(&case["grad_norm"]));
        assert!(!differ(&losses, &want, CURVE), "{name} loss\n got {losses:?}\nwant {want:?}");
        assert!(!differ(&norms, &norm, 10.0 * CURVE), "{name} norm\n got {norms:?}\nwant {norm:?}");
        let layout = of_run(run).layout(&file.config).unwrap();
        assert_eq!(layout.params.trainable() as u64, case["trainable_parameters"].as_u64().unwrap(), "{name}");
        if name == "group_norms" {
            let recomputed = curve(gpu, &file, run, group_of(run), &batches, ROWS, Recompute::Blocks);
            assert!(recomputed == [losses.clone(), norms.clone()], "recompute changes bits");
            let [full, _] = curve(gpu, &file, run, None, &batches, ROWS, Recompute::Off);
            assert!(differ(&full, &want, CURVE), "full attention would pass");
            assert!(differ(&losses, &numbers(&golden["curves"]["group"]["loss"]), CURVE), "frozen norms would pass");
        }
        if name == "group_norms_embeddings" {
            let recomputed = curve(gpu, &file, run, group_of(run), &batches, ROWS, Recompute::Blocks);
            assert!(recomputed == [losses.clone(), norms.clone()], "recompute changes bits");
            let mut frozen = run.clone();
            frozen["train_embeddings"] = json!(false);
            let [frozen, _] = curve(gpu, &file, &frozen, group_of(run), &batches, ROWS, Recompute::Off);
            assert!(differ(&frozen, &want, CURVE), "frozen embeddings would pass");
        }
    }
}

#[test]
fn every_gradient_equals_pytorch() {
    let Some(gpu) = gpu() else { return };
    let (golden, batches, file) = (golden(), batches(), tiny());
    for case in golden["gradient_cases"].as_array().unwrap() {
        let run = &case["run"];
        let layout = of_run(run).layout(&file.config).unwrap();
        let mut values = initial_buffer(&layout.params, 0);
        let bound = case["b_bound"].as_f64().unwrap();
        for spec in layout.params.specs.iter().filter(|s| s.name.ends_with("lora_B")) {
            spec.put_hf(&weblora::rng::fill_uniform(&format!("0/{}", spec.name), spec.len(), bound), &mut values);
        }
        let mut session = open(gpu, &file, &layout, values, ROWS, Recompute::Blocks);
        let loss = mean(&block(session.accumulate(gpu, &host(&batches[0], ROWS, group_of(run)), &[Segment::new(0..ROWS)])).unwrap());
        assert!((loss - case["loss"].as_f64().unwrap()).abs() < 2e-5 * loss, "loss {loss}");
        let grads = block(session.read_grads(gpu, 0)).unwrap();
        let (offsets, _) = layout.params.gradient_offsets();
        assert_eq!(layout.params.specs.len(), case["gradients"].as_object().unwrap().len());
        for (spec, offset) in layout.params.specs.iter().zip(offsets) {
            let digest = numbers(&case["gradients"][&spec.name]);
            let got: Vec<f64> = spec.to_hf_at(&grads, offset).into_iter().map(f64::from).collect();
            let (square, want) = (got.iter().map(|g| g * g).sum::<f64>(), digest[3]);
            let size = (want / got.len() as f64).sqrt();
            for (g, want) in got.iter().zip(&digest[..3]) {
                assert!((g - want).abs() < 2e-4 * (size + want.abs()), "{}: {g}, PyTorch says {want}", spec.name);
            }
            assert!((square - want).abs() < 5e-4 * want, "{}: Σ g² {square}, PyTorch says {want}", spec.name);
        }
    }
}

fn peft() -> Folder<'static> {
    Folder { name: "peft_longlora", config: PEFT_CONFIG, weights: PEFT_WEIGHTS, note: None, chain: None }
}

#[test]
fn peft_folders_are_read_used_and_written_with_the_same_tensors() {
    let Some(gpu) = gpu() else { return };
    let (golden, batches, file) = (golden(), batches(), tiny());
    let adapter = PeftAdapter::read(peft(), &file.config).unwrap();
    assert_eq!(adapter.norms.len(), 5);
    let (layout, values) = lay_out("peft", &adapter, &file.config).unwrap();
    let shape = Shape { rows: ROWS, positions: 64, recompute: Recompute::Off, quantize: None, training: false };
    let mut frozen = layout.clone();
    frozen.freeze();
    let planned = Planned::new(&file, &[&frozen], shape, gpu.plan_limits(), &Tuner::for_device(gpu)).unwrap();
    let mut session = block(planned.realize(gpu, &file, |_, _| {})).unwrap();
    session.write_values(gpu, 0, &values).unwrap();
    for (kind, group) in [("full", None), ("group", Some(8))] {
        for (examples, want) in batches.iter().zip(numbers(&golden["saved"][kind])) {
            let found = block(score::mean_in_groups(&mut session, gpu, examples, Some(0), group)).unwrap().unwrap();
            assert!((found.loss - want).abs() < 1e-5 * want, "{kind}: {}, PEFT says {want}", found.loss);
        }
    }
    assert!(differ(&numbers(&golden["saved"]["full"]), &numbers(&golden["saved"]["group"]), 1e-4), "groups change the loss");
    // Without its norms the adapter answers otherwise.
    let base = block(score::mean(&mut session, gpu, &batches[0], None)).unwrap().unwrap();
    let mut plain = values.clone();
    norms::fill(&layout, &block(session.base_norms(gpu)).unwrap(), &mut plain);
    session.write_values(gpu, 0, &plain).unwrap();
    let without = block(score::mean(&mut session, gpu, &batches[0], Some(0))).unwrap().unwrap();
    let want = numbers(&golden["saved"]["full"])[0];
    assert!((without.loss - want).abs() > 1e-3 * want && (base.loss - want).abs() > 1e-3 * want);
    // What we write is what PEFT wrote: the same tensors, and the same modules to save.
    let files = PeftAdapter::from_layout(&layout, &values, None, None).to_files("again").unwrap();
    let file_of = |name: &str| &files.iter().find(|(file, _)| *file == name).unwrap().1;
    let tensors = |bytes: &[u8]| {
        let all = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let mut all: Vec<(String, Vec<usize>, Vec<u8>)> =
            all.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec())).collect();
        all.sort();
        all
    };
    assert!(tensors(file_of("adapter_model.safetensors")) == tensors(PEFT_WEIGHTS), "other tensors than PEFT's");
    let saved = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap()["modules_to_save"].clone();
    assert_eq!(saved(file_of("adapter_config.json")), saved(PEFT_CONFIG));
    assert_eq!(saved(PEFT_CONFIG), json!(norms::MODULES));
}

#[derive(Default)]
struct Memory(Vec<(String, Vec<u8>)>);

impl Sink for Memory {
    fn begin(&mut self, name: &str, _: u64) -> weblora::Result<()> {
        self.0.push((name.to_owned(), Vec::new()));
        Ok(())
    }
    fn write(&mut self, bytes: &[u8]) -> weblora::Result<()> {
        self.0.last_mut().unwrap().1.extend_from_slice(bytes);
        Ok(())
    }
    fn end(&mut self) -> weblora::Result<()> {
        Ok(())
    }
}

fn export(to: &str, adapter: &PeftAdapter, model: &ModelFile, format: Option<&str>) -> (Vec<(String, Vec<u8>)>, Exported) {
    let request = Request {
        name: "test",
        adapter: adapter.into(),
        model: Some(model),
        format: format.map(|name| weblora::quant::by_name(name).unwrap()),
    };
    let mut memory = Memory::default();
    let done = block((exporters::by_name(to).unwrap().run)(&request, &mut memory)).unwrap();
    (memory.0, done)
}

fn loss_of(gpu: &Gpu, file: &ModelFile, examples: &[Example]) -> f64 {
    let shape = Shape { rows: ROWS, positions: 64, recompute: Recompute::Off, quantize: None, training: false };
    let planned = Planned::new(file, &[], shape, gpu.plan_limits(), &Tuner::for_device(gpu)).unwrap();
    let mut session = block(planned.realize(gpu, file, |_, _| {})).unwrap();
    block(score::mean(&mut session, gpu, examples, None)).unwrap().unwrap().loss
}

#[test]
fn merged_models_have_the_norms_and_other_formats_say_that_they_have_not() {
    let Some(gpu) = gpu() else { return };
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.safetensors", SAFETENSORS));
    let base =
        block(ModelFile::open_safetensors(vec![source], None, SideFiles { config_json: Some(CONFIG.into()), ..SideFiles::default() }))
            .unwrap();
    let adapter = PeftAdapter::read(peft(), &base.config).unwrap();
    let want = numbers(&golden()["saved"]["full"])[0];
    let (files, done) = export("merged-safetensors", &adapter, &base, Some("f32"));
    assert!(done.warnings.is_empty());
    let of = |name: &str| files.iter().find(|(file, _)| file == name).unwrap().1.clone();
    let config = String::from_utf8(of("config.json")).unwrap();
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("merged", of("model.safetensors")));
    let merged =
        block(ModelFile::open_safetensors(vec![source], None, SideFiles { config_json: Some(config), ..SideFiles::default() })).unwrap();
    let found = loss_of(gpu, &merged, &batches()[0]);
    assert!((found - want).abs() < 1e-4 * want, "merged {found}, PEFT says {want}");
    let plain = PeftAdapter { norms: Vec::new(), ..adapter.clone() };
    let (files, _) = export("merged-safetensors", &plain, &base, Some("f32"));
    let weights = &files.iter().find(|(file, _)| file == "model.safetensors").unwrap().1;
    assert_ne!(*weights, of("model.safetensors"), "norms are left out");
    let gguf = tiny();
    let (files, done) = export("merged-gguf", &adapter, &gguf, Some("f16"));
    assert!(done.warnings.is_empty());
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("merged.gguf", files[0].1.clone()));
    let merged = block(ModelFile::open_gguf(vec![source])).unwrap();
    for (name, norm) in norms::names(2).zip(&adapter.norms) {
        assert_eq!(&block(merged.read_f32(&format!("model.{name}.weight"))).unwrap(), norm, "{name}");
    }
    let (_, done) = export("gguf", &adapter, &gguf, None);
    assert!(done.warnings.iter().any(|w| w.contains("norms are left out")), "{:?}", done.warnings);
    let (_, done) = export("peft", &adapter, &gguf, None);
    assert!(done.warnings.iter().any(|w| w.contains("modules_to_save")), "{:?}", done.warnings);
    assert!(export("gguf", &plain, &gguf, None).1.warnings.is_empty());
}

/// A model and an adapter whose run stretched the angles: merged files say so, with the same frequencies.
#[test]
fn merged_models_say_how_their_angles_are_stretched() {
    let gguf = tiny();
    let adapter = |scaling: &str| {
        let config = json!({ "context": 512, "rope-scaling": scaling }).as_object().unwrap().clone();
        let note = Note { weblora: "0".into(), base_hash: "0".into(), config, ..Note::default() };
        PeftAdapter { note: Some(note), ..PeftAdapter::read(peft(), &gguf.config).unwrap() }
    };
    for scaling in ["linear", "dynamic", "llama3", "yarn"] {
        let adapter = adapter(scaling);
        let want = of_settings(&gguf.config, &adapter.note.as_ref().unwrap().config).unwrap();
        assert_ne!(frequencies(&want, 512), frequencies(&gguf.config, 512), "{scaling}");
        let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.safetensors", SAFETENSORS));
        let side = SideFiles { config_json: Some(CONFIG.into()), ..SideFiles::default() };
        let base = block(ModelFile::open_safetensors(vec![source], None, side)).unwrap();
        let (files, _) = export("merged-safetensors", &adapter, &base, Some("f32"));
        let of = |name: &str| files.iter().find(|(file, _)| file == name).unwrap().1.clone();
        let source: Box<dyn ByteSource> = Box::new(Bytes::new("merged", of("model.safetensors")));
        let side = SideFiles { config_json: Some(String::from_utf8(of("config.json")).unwrap()), ..SideFiles::default() };
        let merged = block(ModelFile::open_safetensors(vec![source], None, side)).unwrap();
        assert_eq!(frequencies(&merged.config, 512), frequencies(&want, 512), "{scaling}");
        assert_eq!(merged.config.context_length(), 512, "{scaling}");
        let (files, done) = export("merged-gguf", &adapter, &gguf, Some("f16"));
        let source: Box<dyn ByteSource> = Box::new(Bytes::new("merged.gguf", files[0].1.clone()));
        let merged = block(ModelFile::open_gguf(vec![source])).unwrap();
        let has_words = ["linear", "yarn"].contains(&scaling);
        assert_eq!(done.warnings.iter().any(|w| w.contains("no words")), !has_words, "{:?}", done.warnings);
        if has_words {
            assert_eq!((frequencies(&merged.config, 512), merged.config.context_length()), (frequencies(&want, 512), 512), "{scaling}");
        }
    }
}

fn data() -> TrainData {
    TrainData { train: batches().remove(0), ..TrainData::default() }
}

fn trainer(gpu: &Gpu, more: Value, start: Option<weblora::train::start::Start>) -> Trainer {
    let mut map = json!({ "batch": 1, "seq": 32, "steps": 4, "lr": 1e-2, "warmup": 0, "rank": 2 }).as_object().unwrap().clone();
    map.extend(more.as_object().unwrap().clone());
    let (file, config, mut tuner) = (tiny(), TrainConfig::from_map(&map).unwrap(), Tuner::for_device(gpu));
    let plan = TrainPlan::new(&file, &config, Some(&data()), gpu.plan_limits(), &tuner).unwrap();
    block(Trainer::new(gpu, &file, config, data(), plan, start, &mut tuner, false, |_, _| {})).unwrap()
}

fn read(files: &[(&'static str, Vec<u8>)]) -> PeftAdapter {
    let files: Vec<(String, Vec<u8>)> = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
    PeftAdapter::read(Folder::of("saved", &files).unwrap(), &tiny().config).unwrap()
}

#[test]
fn runs_begin_with_the_bases_norms_or_the_adapters_and_every_method_trains_them() {
    let Some(gpu) = gpu() else { return };
    let file = tiny();
    let base: Vec<Vec<f32>> = norms::names(2).map(|name| block(file.read_f32(&format!("model.{name}.weight"))).unwrap()).collect();
    let methods = [
        json!({ "train-norms": true, "group": 8 }),
        json!({ "train-norms": true, "method": "cola", "links": [2, 2], "knots": [2], "group-ratio": 0.25 }),
        json!({ "train-norms": true, "method": "multilora", "modules": 2 }),
    ];
    for more in methods {
        let mut run = trainer(gpu, more.clone(), None);
        assert_eq!(read(&block(run.export(gpu)).unwrap()).norms, base, "{more}: the start");
        for _ in 0..2 {
            block(run.step(gpu)).unwrap();
        }
        let before = read(&block(run.export(gpu)).unwrap());
        assert!(before.norms.iter().zip(&base).all(|(own, base)| own != base), "{more}: norms that do not move");
        if let Some(knot) = block(run.tie_if_due(gpu)).unwrap() {
            assert_eq!(knot.logit_jump, 0.0, "norms stay at a knot");
            assert_eq!(read(&block(run.export(gpu)).unwrap()).norms, before.norms);
        }
        let saved = block(run.checkpoint(gpu)).unwrap();
        let losses: Vec<f64> = (0..2).map(|_| block(run.step(gpu)).unwrap().loss).collect();
        let mut again = trainer(gpu, more.clone(), None);
        again.resume(gpu, "saved", &saved).unwrap();
        let resumed: Vec<f64> = (0..2).map(|_| block(again.step(gpu)).unwrap().loss).collect();
        assert_eq!(resumed, losses, "{more}: resumed bit for bit");
    }
    // A run that goes on from an adapter has its norms, and a plain adapter's run may begin to train them.
    let identity = block(file.identity()).unwrap();
    let map = |value: Value| value.as_object().unwrap().clone();
    let (config, start) = from_adapter(map(json!({ "seq": 32 })), peft(), &file.config, &identity).unwrap();
    assert!(config.adapter.train_norms && start.has_norms);
    let run = trainer(gpu, Value::Object(config.to_map()), Some(start));
    assert_eq!(read(&block(run.export(gpu)).unwrap()).norms, PeftAdapter::read(peft(), &file.config).unwrap().norms);
    let refused = from_adapter(map(json!({ "train-norms": false })), peft(), &file.config, &identity).unwrap_err().to_string();
    assert!(refused.contains("norms of its own"), "{refused}");
    // A run that goes on from an adapter of a longer context has its angles.
    let config_of = |more: Value| json!({ "context": 300, "rope-scaling": "yarn", "more": more }).as_object().unwrap().clone();
    let note = Note { weblora: "0".into(), base_hash: identity.hash.clone(), config: config_of(json!(1)), ..Note::default() };
    let bytes = serde_json::to_vec(&note).unwrap();
    let (config, _) = from_adapter(map(json!({ "seq": 32 })), Folder { note: Some(&bytes), ..peft() }, &file.config, &identity).unwrap();
    let long = config.context.stretch(&file.config).unwrap();
    assert!(config.context.context == Some(300) && long.context_length() == 300 && long.rope_scaling != file.config.rope_scaling);
    let mut plain = PeftAdapter::read(peft(), &file.config).unwrap();
    plain.norms.clear();
    let files: Vec<(String, Vec<u8>)> = plain.to_files("plain").unwrap().into_iter().map(|(n, b)| (n.to_owned(), b)).collect();
    let folder = Folder::of("plain", &files).unwrap();
    let (config, start) = from_adapter(map(json!({ "seq": 32, "train-norms": true })), folder, &file.config, &identity).unwrap();
    let run = trainer(gpu, Value::Object(config.to_map()), Some(start));
    assert_eq!(read(&block(run.export(gpu)).unwrap()).norms, base);
}

#[test]
fn jobs_with_norms_train_beside_others_as_they_do_alone() {
    let Some(gpu) = gpu() else { return };
    let jobs = [
        ("norms", json!({ "rank": 4, "train-norms": true, "group": 4 })),
        ("plain", json!({ "rank": 4 })),
        ("chain", json!({ "method": "cola", "links": [2, 3], "train-norms": true, "train-embeddings": true })),
        ("embeddings", json!({ "rank": 2, "train-embeddings": true })),
        ("modules", json!({ "method": "multilora", "modules": 2, "rank": 2, "train-embeddings": true })),
    ];
    let together = crate::fleet::run_all(gpu, &jobs);
    for (name, _) in &jobs {
        let alone = crate::fleet::run_one(gpu, &jobs, name);
        assert_eq!(together.losses(name), alone.losses(name), "{name}: losses");
        assert!(together.adapter(name) == alone.adapter(name), "{name}: the adapter's bytes");
    }
}

#[test]
fn folders_with_a_part_of_the_norms_are_refused() {
    let config = &tiny().config;
    let own = safetensors::SafeTensors::deserialize(PEFT_WEIGHTS).unwrap();
    let refused = |keep: &dyn Fn(&str) -> bool, words: &str| {
        let views = own.tensors().into_iter().filter(|(name, _)| keep(name));
        let weights = safetensors::serialize(views, None).unwrap();
        let error = PeftAdapter::read(Folder { weights: &weights, ..peft() }, config).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&|name| !name.contains("layers.1.input_layernorm"), "4 trained norms, all 5");
    refused(&|name| !name.ends_with("model.norm.weight"), "4 trained norms");
    refused(&|name| !name.contains("norm"), "none of the norms that modules_to_save lists");
}

/// `--context 128 --group 32 --train-norms` on the real model, from seed 0. Needs the file: `WEBLORA_SMOLLM2=path`.
#[test]
fn ten_steps_of_smollm2_equal_pytorch() {
    let Some(path) = std::env::var_os("WEBLORA_SMOLLM2") else {
        eprintln!("SKIPPED: WEBLORA_SMOLLM2 does not name SmolLM2-135M-Instruct.Q4_1.gguf (scripts/fetch-smollm2.sh gets it)");
        return;
    };
    let Some(gpu) = gpu() else { return };
    let golden = &golden()["smollm2"];
    if golden.is_null() {
        eprintln!("SKIPPED: longlora.json was made without SmolLM2 (tests/golden/make_longlora.py PATH)");
        return;
    }
    let file = block(ModelFile::open_path(path.as_ref())).unwrap();
    let config = TrainConfig::from_map(json!({ "context": 128, "group": 32, "train-norms": true }).as_object().unwrap()).unwrap();
    assert_eq!((config.seq, config.context.group(config.seq).unwrap()), (128, Some(32)));
    let piece = |piece: &Value| {
        let tokens: Vec<u32> = piece.as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
        vec![Example { targets: (0..tokens.len()).map(|i| i > 0).collect(), tokens, row: 1, rejected: None }]
    };
    let pieces: Vec<Vec<Example>> = golden["pieces"].as_array().unwrap().iter().map(piece).collect();
    let layout = of_run(&golden["run"]).layout(&file.config).unwrap();
    assert_eq!(layout.params.trainable() as u64, golden["trainable_parameters"].as_u64().unwrap());
    let [losses, norms] = curve(gpu, &file, &golden["run"], Some(32), &pieces, 128, Recompute::Blocks);
    let (want, norm) = (numbers(&golden["loss"]), numbers(&golden["grad_norm"]));
    assert!(!differ(&losses, &want, 1e-3), "loss\n got {losses:?}\nwant {want:?}");
    // Norms are sums over all parameters of what trained norms make large: none may be farther from f64 than twice PyTorch's own f32.
    let single = numbers(&golden["grad_norm_f32"]);
    for (step, ((got, exact), single)) in norms.iter().zip(&norm).zip(&single).enumerate() {
        let allowed = (1e-3 * exact).max(2.0 * (single - exact).abs());
        assert!((got - exact).abs() <= allowed, "norm of step {}: {got}, want {exact} within {allowed}", step + 1);
    }
    let full = golden["first_loss_full"].as_f64().unwrap();
    assert!((full - want[0]).abs() > 1e-3 * full, "full attention would pass");
}
