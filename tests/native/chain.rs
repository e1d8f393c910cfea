//! Chains of LoRA on the tiny LLaMA: against PyTorch + PEFT, across knots, across a resume, and what knots measure.

use crate::common::gpu;
use serde_json::{Value, json};
use weblora::adapters::AdapterConfig;
use weblora::analysis::{Factors, decompose, spectrum};
use weblora::export::folder::{File, Folder};
use weblora::formats::{ByteSource, Bytes, ModelFile};
use weblora::gpu::{Gpu, Tuner};
use weblora::kernels::lowrank::Segment;
use weblora::model::Recompute;
use weblora::model::inputs::HostBatch;
use weblora::settings::{Map, Settings};
use weblora::text::Example;
use weblora::train::TrainConfig;
use weblora::train::batch::Packer;
use weblora::train::chain::{KnotReport, Rounding};
use weblora::train::host_batch::host_batch;
use weblora::train::session::{Planned, Shape};
use weblora::train::start::{Start, from_adapter};
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};

const GGUF: &[u8] = include_bytes!("../golden/tiny_llama/model.gguf");
const BATCHES: &str = include_str!("../golden/tiny_llama/golden.json");
const GOLDEN: &str = include_str!("../golden/cola.json");
/// Rows of the golden batches.
const ROWS: usize = 49;
/// How near a curve must be to PyTorch's: f32 sums in another order, amplified by fifteen optimizer steps.
const CURVE: f64 = 1e-3;

fn block<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

fn model() -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", GGUF));
    block(ModelFile::open_gguf(vec![source])).unwrap()
}

/// The documents of the golden batches: in this order the packer makes the golden batches of them.
fn examples() -> Vec<Example> {
    let golden: Value = serde_json::from_str(BATCHES).unwrap();
    let mut examples = Vec::new();
    for batch in golden["batches"].as_array().unwrap() {
        let ints = |key: &str| -> Vec<i64> { batch[key].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect() };
        let (tokens, labels, mut at) = (ints("tokens"), ints("labels"), 0);
        for length in ints("lengths") {
            let place = at..at + length as usize;
            at = place.end;
            let tokens = tokens[place.clone()].iter().map(|t| *t as u32).collect();
            examples.push(Example {
                tokens,
                targets: labels[place].iter().map(|l| *l >= 0).collect(),
                row: examples.len() + 1,
                rejected: None,
            });
        }
    }
    examples
}

fn config(more: Value) -> TrainConfig {
    let mut map: Map =
        json!({ "method": "cola", "batch": 1, "seq": ROWS, "shuffle": false, "warmup": 0, "schedule": "constant", "lr": 1e-2, "clip": 0 })
            .as_object()
            .unwrap()
            .clone();
    map.extend(more.as_object().unwrap().clone());
    TrainConfig::from_map(&map).unwrap()
}

fn trainer(gpu: &Gpu, more: Value) -> Trainer {
    trainer_from(gpu, config(more), None)
}

fn trainer_from(gpu: &Gpu, config: TrainConfig, start: Option<Start>) -> Trainer {
    let file = model();
    let data = TrainData { train: examples(), held_out: examples()[..3].to_vec(), ..TrainData::default() };
    let mut tuner = Tuner::for_device(gpu);
    let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), &tuner).unwrap();
    block(Trainer::new(gpu, &file, config, data, plan, start, &mut tuner, false, |_, _| {})).unwrap()
}

/// Trains `steps` steps, tying knots when they are due.
fn train(gpu: &Gpu, trainer: &mut Trainer, steps: usize) -> (Vec<f64>, Vec<f64>, Vec<KnotReport>) {
    let (mut losses, mut lrs, mut knots) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..steps {
        let report = block(trainer.step(gpu)).unwrap();
        losses.push(report.loss);
        lrs.push(report.lr);
        let every = trainer.config().eval_every;
        if every > 0 && report.step.is_multiple_of(every) {
            block(trainer.evaluate(gpu)).unwrap();
        }
        knots.extend(block(trainer.tie_if_due(gpu)).unwrap());
    }
    (losses, lrs, knots)
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn golden_settings(case: &Value) -> Value {
    let s = &case["settings"];
    json!({
        "links": s["links"], "link-alphas": s["alphas"], "link-lrs": s["lrs"], "link-steps": vec![5; 3], "schedule": s["schedule"],
        "link-schedule": s["link_schedule"], "link-warmup": 2, "warmup": s["warmup"], "clip": s["clip"].as_f64().unwrap_or(0.0),
        "knot-optimizer": s["knot_optimizer"], "chain-mode": if s["rac"] == true { "rac" } else { "cola" },
    })
}

fn worst(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "number of steps");
    got.iter().zip(want).map(|(g, w)| (g / w - 1.0).abs()).fold(0.0, f64::max)
}

#[test]
fn chains_equal_merging_into_the_weights_in_pytorch() {
    let Some(gpu) = gpu() else { return };
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let cases = golden["chains"].as_object().unwrap();
    assert_eq!(cases.len(), 5);
    for (name, case) in cases {
        let (losses, lrs, knots) = train(gpu, &mut trainer(gpu, golden_settings(case)), 15);
        let want = numbers(&case["loss"]);
        assert!(worst(&losses, &want) <= CURVE, "{name}\n got {losses:?}\nwant {want:?}");
        let lr_error = lrs.iter().zip(numbers(&case["lr"])).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(lr_error < 1e-15, "{name}: rates {lrs:?}");
        assert_eq!(knots.iter().map(|k| (k.step, k.link)).collect::<Vec<_>>(), [(5, 1), (10, 2)], "{name}");
        // The comparison can fail: no other way with a knot gives this curve.
        for (mistake, curve) in golden["mistakes"].as_object().unwrap() {
            assert!(worst(&losses, &numbers(curve)) > 5.0 * CURVE, "{name} cannot be told from {mistake}");
        }
    }
}

#[test]
fn a_knot_changes_no_bit_where_scales_agree() {
    let Some(gpu) = gpu() else { return };
    for more in [
        json!({ "links": [8, 8, 8], "knots": [3, 6], "steps": 8 }),
        json!({ "links": [8, 3, 1, 5], "knots": [2, 4, 6], "steps": 8, "dropout": 0.3, "recompute": false, "targets": "q,down" }),
        json!({ "links": [2, 6], "steps": 6, "chain-mode": "rac", "rslora": true }),
    ] {
        let (_, _, knots) = train(gpu, &mut trainer(gpu, more.clone()), 8);
        assert!(!knots.is_empty());
        for knot in knots {
            assert_eq!(knot.logit_jump, 0.0, "{more}: {knot:?}");
        }
    }
    // Another scale is folded into the frozen factors: rounding, once.
    let (_, _, knots) = train(gpu, &mut trainer(gpu, json!({ "links": [4, 2, 3], "link-alphas": [8, 7, 1.1], "steps": 9 })), 9);
    assert!(knots.iter().all(|k| k.logit_jump < 1e-5), "{knots:?}");
    assert!(knots.iter().any(|k| k.logit_jump > 0.0), "a quotient of 4/7 is not exact: {knots:?}");
}

/// A link is rounded once, when it is frozen; its knot says how much that changed, and the run goes on nearly as it would have.
#[test]
fn links_kept_as_f16_take_half_the_memory_and_report_their_jump() {
    let Some(gpu) = gpu() else { return };
    let settings = json!({ "links": [8, 8, 8], "knots": [3, 6], "steps": 8, "dropout": 0.1 });
    let mut exact = trainer(gpu, settings.clone());
    let mut half = trainer(gpu, {
        let mut settings = settings;
        settings["link-storage"] = json!("f16");
        settings
    });
    let bytes = |trainer: &mut Trainer| trainer.session().footprint().persistent["adapter"];
    // A slot of 8 ranks and 16 frozen ones.
    assert_eq!(bytes(&mut half) * (8 + 16), bytes(&mut exact) * (8 + 16 / 2));
    let (curve, _, knots) = train(gpu, &mut exact, 8);
    let (near, _, rounded) = train(gpu, &mut half, 8);
    assert!(knots.iter().all(|k| k.logit_jump == 0.0), "{knots:?}");
    assert!(rounded.iter().all(|k| k.logit_jump > 0.0 && k.logit_jump < 1e-3), "{rounded:?}");
    assert_eq!(curve[..3], near[..3], "nothing is rounded before the first knot");
    assert!(worst(&near, &curve) < 1e-2, "{near:?} instead of {curve:?}");
    assert_ne!(near[3..], curve[3..], "nothing was rounded at all");
}

/// Freezing a link in a run and going on from the saved link in another one round it alike: both tell the same figure.
#[test]
fn inherited_links_kept_as_f16_report_their_jump() {
    let Some(gpu) = gpu() else { return };
    let mut whole = trainer(gpu, json!({ "links": [8, 8], "knots": [3], "steps": 4, "link-storage": "f16" }));
    let (_, _, knots) = train(gpu, &mut whole, 4);
    assert_eq!(whole.rounding(), Rounding::Exact, "nothing was inherited");
    let saved = |more: Value, steps: usize| {
        let mut first = trainer(gpu, more);
        train(gpu, &mut first, steps);
        block(first.export(gpu)).unwrap()
    };
    let rounding = |files: &[File], more: Value| {
        let find = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| &bytes[..]);
        let folder = Folder {
            name: "first",
            config: find("adapter_config.json").unwrap(),
            weights: find("adapter_model.safetensors").unwrap(),
            note: find("weblora.json"),
            chain: find("chain.json"),
        };
        let (file, mut map) = (model(), config(more).to_map());
        map.retain(|key, _| !["inherited-ranks", "targets", "rslora"].contains(&&**key));
        let (config, start) = from_adapter(map, folder, &file.config, &block(file.identity()).unwrap()).unwrap();
        trainer_from(gpu, config, Some(start)).rounding()
    };
    let link = saved(json!({ "links": [8], "steps": 3 }), 3);
    assert!(knots[0].logit_jump > 0.0);
    let f16 = json!({ "links": [8], "steps": 1, "link-storage": "f16" });
    assert_eq!(rounding(&link, f16), Rounding::Jump(knots[0].logit_jump));
    assert_eq!(rounding(&link, json!({ "links": [8], "steps": 1 })), Rounding::Exact);
    // A link of rank 1 beside 192 ranks needs less memory than those ranks in f32: told, not measured.
    let long = saved(json!({ "links": vec![16; 12], "steps": 12, "knot-probes": 0 }), 12);
    let unknown = rounding(&long, json!({ "links": [1], "steps": 1, "link-storage": "f16", "knot-probes": 0, "recompute": true }));
    assert_eq!(unknown, Rounding::Unknown);
    assert!(unknown.warning().unwrap().contains("--link-storage f32"));
}

#[test]
fn a_resume_in_the_middle_of_a_chain_is_the_same_run_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    for more in [
        json!({ "links": [6, 2, 3], "knots": [3, 7], "steps": 10, "dropout": 0.2, "grad-accum": 2, "schedule": "cosine", "warmup": 1 }),
        json!({ "links": [4, 4], "knots": [4], "steps": 8, "knot-optimizer": "magnitude", "link-schedule": "jagged", "link-warmup": 3, "init-a": "grad-svd" }),
        json!({ "links": [3, 2, 4], "knots": [2, 4], "steps": 8, "dropout": 0.2, "link-storage": "f16" }),
        json!({ "links": [4, 2], "knots": [4], "steps": 8, "knot-optimizer": "random", "knot-prune": 0.5, "init-a": "gaussian", "eval-every": 1, "knot-patience": 3 }),
    ] {
        let steps = more["steps"].as_u64().unwrap() as usize;
        let mut whole = trainer(gpu, more.clone());
        let (curve, ..) = train(gpu, &mut whole, steps);
        let end = block(whole.checkpoint(gpu)).unwrap();
        // Right at a knot, and in the middle of a later link.
        for at in [4, 5] {
            let mut first = trainer(gpu, more.clone());
            let (start, ..) = train(gpu, &mut first, at);
            let saved = block(first.checkpoint(gpu)).unwrap();
            let mut second = trainer(gpu, more.clone());
            second.resume(gpu, "checkpoint", &saved).unwrap();
            let (rest, ..) = train(gpu, &mut second, steps - at);
            assert_eq!([start, rest].concat(), curve, "{more} resumed after step {at}");
            assert!(block(second.checkpoint(gpu)).unwrap() == end, "{more}: final states after a resume at {at}");
        }
    }
}

/// The gradient of the mean loss at every q_proj `[64, 32]`, with the updates `delta` added to the base: an adapter of full rank whose A is
/// the identity has it as the gradient of its B.
fn dense_gradients(gpu: &Gpu, delta: &[Vec<f32>], batch: &HostBatch) -> Vec<Vec<f32>> {
    let file = model();
    let map = json!({ "rank": 32, "alpha": 32, "targets": "q" });
    let layout = AdapterConfig::read(&mut Settings::new(map.as_object().unwrap())).unwrap().layout(&file.config).unwrap();
    let shape = Shape { rows: ROWS, positions: 64, recompute: Recompute::Blocks, quantize: None, training: true };
    let planned = Planned::new(&file, &[&layout], shape, gpu.plan_limits(), &Tuner::for_device(gpu)).unwrap();
    let mut session = block(planned.realize(gpu, &file, |_, _| {})).unwrap();
    let specs = &layout.params.specs;
    let (offsets, _) = layout.params.gradient_offsets();
    let mut values = vec![0.0; layout.params.words];
    for (site, delta) in layout.sites.iter().zip(delta) {
        let (a, b) = (&specs[site.slices[0].a], &specs[site.slices[0].b]);
        let inputs = a.shape[1];
        let unit: Vec<f32> = (0..a.len()).map(|i| if i / inputs == i % inputs { 1.0 } else { 0.0 }).collect();
        a.put_hf(&unit, &mut values);
        b.put_hf(delta, &mut values);
    }
    session.write_values(gpu, 0, &values).unwrap();
    block(session.accumulate(gpu, batch, &[Segment::new(0..ROWS)])).unwrap();
    let grads = block(session.read_grads(gpu, 0)).unwrap();
    layout.sites.iter().map(|site| specs[site.slices[0].b].to_hf_at(&grads, offsets[site.slices[0].b])).collect()
}

/// `scale · B A`, `[out, in]`.
fn product(a: &[f32], b: &[f32], rank: usize, scale: f32) -> Vec<f32> {
    let inputs = a.len() / rank;
    b.chunks_exact(rank)
        .flat_map(|row| (0..inputs).map(move |i| scale * (0..rank).map(|r| row[r] * a[r * inputs + i]).sum::<f32>()))
        .collect()
}

#[test]
fn what_a_knot_measures_is_what_the_dense_gradient_says() {
    let Some(gpu) = gpu() else { return };
    // Only q: 64 x 32, where a full-rank adapter fits.
    let mut trainer =
        trainer(gpu, json!({ "links": [4, 3, 4], "knots": [6, 9], "steps": 12, "targets": "q", "knot-probes": 40, "gap-radius": 0.25 }));
    let (_, _, knots) = train(gpu, &mut trainer, 9);
    let found = knots[1].diagnostics.as_ref().unwrap();
    let values = block(trainer.session().read_values(gpu, 0)).unwrap();
    let layout = trainer.layout().clone();
    let hf = |index: usize| layout.params.specs[index].to_hf(&values);
    let batch = Packer::new(&examples(), ROWS, 0, false).unwrap().next_batch(&examples());
    let host = host_batch(&batch, 1.0 / batch.n_targets as f32);
    // Frozen links, oldest first, as dense updates.
    let each: Vec<Vec<Vec<f32>>> = layout
        .sites
        .iter()
        .map(|site| site.slices[1..].iter().rev().map(|s| product(&hf(s.a), &hf(s.b), s.rank, s.scale)).collect())
        .collect();
    let sums: Vec<Vec<f32>> = each.iter().map(|links| (0..links[0].len()).map(|i| links.iter().map(|l| l[i]).sum()).collect()).collect();
    let gradients = dense_gradients(gpu, &sums, &host);
    let unit: Vec<f32> = (0..32 * 32).map(|i| if i / 32 == i % 32 { 1.0 } else { 0.0 }).collect();
    let sigma = |dense: &[f32]| spectrum(&Factors::new("G", &unit, dense, 32, 1.0).unwrap()).singular_values;
    let inner = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let close = |what: &str, got: f64, want: f64, tolerance: f64| {
        assert!((got - want).abs() <= tolerance * want.abs(), "{what}: {got}, the dense gradient says {want}");
    };
    let sites = gradients.len() as f64;
    close("norm", found.gradient_norm.unwrap(), gradients.iter().map(|g| sigma(g)[0]).sum::<f64>() / sites, 1e-4);
    for link in 0..2 {
        let want: f64 = gradients.iter().zip(&each).map(|(g, links)| inner(g, &links[link])).sum();
        close("along", found.along[link], want, 1e-3);
        assert!(want.abs() > 1e-4, "nothing to compare");
    }
    let radius = |delta: &[f32]| sigma(delta).iter().sum::<f64>().max(0.25);
    let gap: f64 = gradients.iter().zip(&sums).map(|(g, d)| radius(d) * sigma(g)[0] + inner(g, d)).sum();
    close("gap", found.gap.unwrap(), gap, 1e-3);
    assert!(gap > 0.0);
    // The share of the top four; the energy below the line is an estimate from four directions of 32.
    let energy: f64 = gradients.iter().map(|g| inner(g, g)).sum();
    let top: f64 = gradients.iter().flat_map(|g| sigma(g)[..4].to_vec()).map(|s| s * s).sum();
    close("captured", found.captured.unwrap(), top / energy, 0.5);
    assert_eq!((found.effective_rank.len(), found.overlap.len()), (2, 1));
    assert!(found.effective_rank[1] > found.effective_rank[0], "a second link adds directions: {found:?}");
    assert!((0.0..=1.0).contains(&found.overlap[0]));
}

#[test]
fn a_link_can_start_in_the_gradients_top_directions() {
    let Some(gpu) = gpu() else { return };
    let mut trainer = trainer(gpu, json!({ "links": [4, 4], "steps": 4, "targets": "q", "init-a": "grad-svd", "knot-probes": 12 }));
    let values = block(trainer.session().read_values(gpu, 0)).unwrap();
    let layout = trainer.layout().clone();
    let batch = Packer::new(&examples(), ROWS, 0, false).unwrap().next_batch(&examples());
    let nothing = vec![vec![0.0; 64 * 32]; layout.sites.len()];
    let gradients = dense_gradients(gpu, &nothing, &host_batch(&batch, 1.0 / batch.n_targets as f32));
    let unit: Vec<f32> = (0..32 * 32).map(|i| if i / 32 == i % 32 { 1.0 } else { 0.0 }).collect();
    for (site, gradient) in layout.sites.iter().zip(&gradients) {
        let a = layout.params.specs[site.slices[0].a].to_hf(&values);
        let svd = decompose(&[Factors::new("G", &unit, gradient, 32, 1.0).unwrap()]);
        for (row, a) in a.chunks_exact(32).enumerate() {
            let length: f32 = a.iter().map(|x| x * x).sum::<f32>();
            assert!((length - 1.0 / 3.0).abs() < 1e-3, "row {row} of {} has square {length}", site.site);
            let inside: f64 = (0..4).map(|j| svd.v.col(j).iter().zip(a).map(|(v, a)| v * f64::from(*a)).sum::<f64>().powi(2)).sum();
            assert!(inside > 0.99 / 3.0, "row {row} of {} lies outside the top directions: {inside}", site.site);
        }
        assert!(layout.params.specs[site.slices[0].b].to_hf(&values).iter().all(|x| *x == 0.0), "B starts at zero");
    }
    // A start from there lowers the loss.
    let (losses, ..) = train(gpu, &mut trainer, 4);
    assert!(losses[3] < losses[0], "{losses:?}");
}

#[test]
fn links_end_on_a_plateau_below_a_gap_and_when_asked() {
    let Some(gpu) = gpu() else { return };
    // A rate at which the held-out loss cannot fall any more for long.
    let more = json!({ "links": [2, 2, 2], "steps": 30, "lr": 0.3, "eval-every": 1, "knot-patience": 2 });
    let (_, _, knots) = train(gpu, &mut trainer(gpu, more), 12);
    assert!(knots[0].step < 10 && knots[0].reason.contains("has not fallen"), "{knots:?}");
    let more = json!({ "links": [2, 2], "steps": 30, "eval-every": 2, "knot-gap": 0.9999, "lr": 2e-2 });
    let (losses, _, knots) = train(gpu, &mut trainer(gpu, more.clone()), 12);
    assert!(knots[0].step < 15 && knots[0].reason.contains("gap"), "{knots:?}");
    // Measuring leaves the run as it was.
    let quiet = json!({ "links": [2, 2], "knots": [knots[0].step], "steps": 30, "lr": 2e-2, "link-schedule": "global" });
    let same = json!({ "link-schedule": "global" }).as_object().unwrap().clone();
    let mut loud = more;
    loud.as_object_mut().unwrap().extend(same);
    let (loud, ..) = train(gpu, &mut trainer(gpu, loud), 12);
    let (quiet, ..) = train(gpu, &mut trainer(gpu, quiet), 12);
    assert_eq!(loud, quiet);
    assert_eq!(losses[..2], quiet[..2]);
    let mut asked = trainer(gpu, json!({ "links": [2, 2], "steps": 8 }));
    assert!(block(asked.merge_link(gpu)).unwrap_err().to_string().contains("not trained a step"));
    train(gpu, &mut asked, 1);
    assert_eq!(block(asked.merge_link(gpu)).unwrap().reason, "asked for");
    train(gpu, &mut asked, 1);
    assert!(block(asked.merge_link(gpu)).unwrap_err().to_string().contains("no link left"));
    assert!(block(asked.tie_if_due(gpu)).unwrap().is_none());
    assert_eq!(asked.job().links().iter().map(|link| link.steps).collect::<Vec<_>>(), [1, 1]);
}

/// The control: knots without links are warm restarts of one adapter.
#[test]
fn restarts_alone_keep_one_link() {
    let Some(gpu) = gpu() else { return };
    let mut control = trainer(gpu, json!({ "links": [3, 3], "steps": 6, "restart-only": true }));
    let words = control.layout().params.words;
    let (_, _, knots) = train(gpu, &mut control, 6);
    assert_eq!((knots.len(), knots[0].logit_jump, control.layout().params.words), (1, 0.0, words));
    assert_eq!(control.layout().sites[0].slices.len(), 1);
    assert_eq!(control.job().links().len(), 1);
    let (curve, ..) = train(gpu, &mut trainer(gpu, json!({ "links": [3, 3], "steps": 6 })), 6);
    let (restarted, ..) = train(gpu, &mut trainer(gpu, json!({ "links": [3, 3], "steps": 6, "restart-only": true })), 6);
    assert_eq!(curve[..3], restarted[..3]);
    assert_ne!(curve[4..], restarted[4..]);
}

/// The program: a chain, a chain that goes on from it, a plain adapter as a first link, and what a later run leaves of them.
#[test]
fn the_program_trains_a_chain_and_goes_on_from_it() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let asset = |name: &str| format!("{}/assets/demo/{name}", env!("CARGO_MANIFEST_DIR"));
    let run = |more: &[&str]| -> Vec<Value> {
        let (model, data) = (asset("demo.gguf"), asset("train.jsonl"));
        let common =
            ["train", "--json", "--no-tune", "--model", &model, "--data", &data, "--batch", "2", "--seq", "32", "--targets", "q,v"];
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_weblora")).args([&common, more].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let chain =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(folder.path().join(name).join("chain.json")).unwrap()).unwrap() };
    let ranks = |chain: &Value| chain["links"].as_array().unwrap().iter().map(|l| l["rank"].as_u64().unwrap()).collect::<Vec<_>>();
    let events = run(&["--method", "cola", "--links", "3,2", "--link-steps", "2,1", "--out", &path("a")]);
    let knot = events.iter().find(|e| e["event"] == "knot").unwrap();
    assert_eq!((&knot["step"], &knot["link"], &knot["rank"], &knot["logit_jump"]), (&json!(2), &json!(1), &json!(2), &json!(0.0)));
    assert!(["gap", "gradient_norm", "captured"].iter().all(|key| knot[key].as_f64().unwrap() > 0.0), "{knot}");
    assert_eq!(ranks(&chain("a")), [3, 2]);
    // From a chain, and resumed.
    run(&["--method", "cola", "--links", "4,1", "--knots", "1", "--steps", "2", "--init-adapter", &path("a"), "--out", &path("b")]);
    assert_eq!(ranks(&chain("b")), [3, 2, 4, 1]);
    assert_eq!(chain("b")["links"][0], chain("a")["links"][0]);
    let events = run(&["--method", "cola", "--resume", "--steps", "3", "--out", &path("b")]);
    assert_eq!(events[0]["resumed_at"], 2);
    assert_eq!(chain("b")["links"][3]["steps"], 2);
    // From a chain whose links are rounded: the first event says by how much.
    let rounded = ["--links", "1", "--steps", "1", "--link-storage", "f16", "--init-adapter", &path("a"), "--out", &path("e")];
    let events = run(&[&["--method", "cola"], &rounded[..]].concat());
    assert!(events[0]["logit_jump"].as_f64().is_some_and(|jump| jump > 0.0 && jump < 1e-3), "{}", events[0]);
    let events = run(&["--method", "cola", "--resume", "--steps", "2", "--out", &path("e")]);
    assert!(events[0].get("logit_jump").is_none(), "{}", events[0]);
    // From a plain adapter, which becomes the first link.
    run(&["--rank", "2", "--alpha", "3", "--steps", "1", "--out", &path("c")]);
    assert!(!folder.path().join("c/chain.json").exists());
    run(&["--method", "cola", "--links", "1", "--steps", "1", "--init-adapter", &path("c"), "--out", &path("d")]);
    assert_eq!(ranks(&chain("d")), [2, 1]);
    // A plain run over it leaves no manifest that is not its own.
    run(&["--rank", "2", "--steps", "1", "--overwrite", "--out", &path("d")]);
    assert!(!folder.path().join("d/chain.json").exists());
}
