//! MixLoRA against PyTorch: whole steps of the tiny model through the trainer, with packed documents, left-over rows and micro-batches.

use crate::common::gpu;
use serde_json::{Value, json};
use weblora::adapters::{AdapterLayout, initial_buffer};
use weblora::formats::{ByteSource, Bytes, ModelFile};
use weblora::gpu::{Gpu, Tuner};
use weblora::rng::fill_uniform;
use weblora::settings::Map;
use weblora::text::Example;
use weblora::train::start::Start;
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};
use weblora::train::{Checkpoint, TrainConfig};

const GGUF: &[u8] = include_bytes!("../golden/tiny_llama/model.gguf");
const BATCHES: &str = include_str!("../golden/tiny_llama/golden.json");
const GOLDEN: &str = include_str!("../golden/mixlora.json");

/// Rows of a micro-batch: the first batch fills them, the second leaves six over.
const ROWS: usize = 49;
/// Ten steps of AdamW amplify the rounding of f32.
const CURVE: f64 = 1e-3;
/// A router whose probabilities are nearer to another choice may route a row elsewhere by rounding alone.
const TIE: f64 = 1e-5;

fn block<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

fn golden() -> Value {
    serde_json::from_str(GOLDEN).unwrap()
}

fn tiny() -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", GGUF));
    block(ModelFile::open_gguf(vec![source])).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// The documents of the golden batches, in order: the packer deals them out in the same batches.
fn documents() -> Vec<Example> {
    let golden: Value = serde_json::from_str(BATCHES).unwrap();
    let mut found = Vec::new();
    for batch in golden["batches"].as_array().unwrap() {
        let ints = |key: &str| -> Vec<i64> { batch[key].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect() };
        let (tokens, labels) = (ints("tokens"), ints("labels"));
        let mut first = 0;
        for length in ints("lengths") {
            let rows = first..first + length as usize;
            found.push(Example {
                tokens: tokens[rows.clone()].iter().map(|t| *t as u32).collect(),
                targets: labels[rows.clone()].iter().map(|l| *l >= 0).collect(),
                row: found.len() + 1,
                rejected: None,
            });
            first = rows.end;
        }
    }
    found
}

/// A run of a golden case; `more` says what is other.
fn trainer(gpu: &Gpu, case: &Value, more: Value, values: impl Fn(&AdapterLayout) -> Option<Vec<f32>>) -> Trainer {
    let file = tiny();
    let mut map: Map = case["settings"].as_object().unwrap().clone();
    for fixed in [json!({"batch": 1, "seq": ROWS, "shuffle": false, "schedule": "constant", "warmup": 0}), more] {
        map.extend(fixed.as_object().unwrap().clone());
    }
    let config = TrainConfig::from_map(&map).unwrap();
    let data = TrainData { train: documents(), ..TrainData::default() };
    let mut tuner = Tuner::for_device(gpu);
    let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), &tuner).unwrap();
    assert_eq!(plan.rows, ROWS);
    let start: Option<Start> = values(&plan.layout).map(Start::from);
    block(Trainer::new(gpu, &file, config, data, plan, start, &mut tuner, false, |_, _| {})).unwrap()
}

/// One number of a step's event.
fn number(event: &Value, key: &str) -> f64 {
    event[key].as_f64().unwrap_or_else(|| panic!("the event of a step has no `{key}`: {event}"))
}

fn step(gpu: &Gpu, trainer: &mut Trainer) -> Value {
    serde_json::to_value(block(trainer.step(gpu)).unwrap()).unwrap()
}

/// The values of a gradient case: A and routers and B all drawn, so that every parameter has a gradient.
fn drawn(golden: &Value, seed: u64, layout: &AdapterLayout) -> Vec<f32> {
    let mut values = initial_buffer(&layout.params, seed);
    for spec in &layout.params.specs {
        let bound = match spec.name.rsplit('.').next().unwrap() {
            "lora_B" => golden["b_bound"].as_f64().unwrap(),
            "moe_gate" => golden["gate_bound"].as_f64().unwrap(),
            _ => continue,
        };
        spec.put_hf(&fill_uniform(&format!("{seed}/{}", spec.name), spec.len(), bound), &mut values);
    }
    values
}

fn curve(gpu: &Gpu, case: &Value, more: Value) -> Vec<Value> {
    let mut trainer = trainer(gpu, case, more, |_| None);
    (0..10).map(|_| step(gpu, &mut trainer)).collect()
}

/// The first step at which a number of the curve is not the golden one, in words.
fn difference(steps: &[Value], want: &Value, gaps: &[f64], key: &str, tolerance: f64) -> Option<String> {
    let want = numbers(want);
    assert_eq!(want.len(), steps.len());
    let at = steps.iter().zip(&want).position(|(step, want)| {
        let off = (number(step, key) - want).abs();
        off.is_nan() || off > tolerance * want.abs()
    })?;
    let got: Vec<f64> = steps.iter().map(|step| number(step, key)).collect();
    let nearest = gaps[..=at].iter().copied().fold(f64::INFINITY, f64::min);
    let tie = if nearest < TIE { "a near tie of a router until then, so it may be rounding" } else { "no near tie" };
    Some(format!("{key} at step {}: {tie} (smallest gap {nearest:.1e})\n got {got:?}\nwant {want:?}", at + 1))
}

#[test]
fn no_golden_case_is_near_a_tie() {
    for (name, case) in golden()["cases"].as_object().unwrap() {
        let gaps = numbers(&case["curve"]["gap"]);
        assert!(gaps.iter().all(|gap| *gap > TIE), "{name}: {gaps:?}");
        assert!(case["gradient"]["gap"].as_f64().unwrap() > TIE, "{name}");
    }
    let dropped = &golden()["cases"]["switch"];
    assert!(numbers(&dropped["curve"]["dropped"]).iter().any(|n| *n > 0.0) && dropped["gradient"]["dropped"] != 0, "no row is dropped");
}

#[test]
fn the_packer_deals_out_the_golden_batches() {
    let map = json!({"batch": 1, "seq": ROWS, "shuffle": false, "steps": 3});
    let config = TrainConfig::from_map(map.as_object().unwrap()).unwrap();
    let data = TrainData { train: documents(), ..TrainData::default() };
    let mut packer = data.packer(&config, ROWS).unwrap();
    let golden: Value = serde_json::from_str(BATCHES).unwrap();
    for want in golden["batches"].as_array().unwrap().iter().cycle().take(6) {
        let batch = packer.next_batch(&data.train);
        let tokens: Vec<f64> = batch.tokens[..batch.n_tokens].iter().map(|t| f64::from(*t)).collect();
        assert_eq!(tokens, numbers(&want["tokens"]));
    }
}

#[test]
fn ten_step_curves_equal_pytorch() {
    let Some(gpu) = gpu() else { return };
    let golden = golden();
    for (name, case) in golden["cases"].as_object().unwrap() {
        let want = &case["curve"];
        let gaps = numbers(&want["gap"]);
        let steps = curve(gpu, case, json!({"recompute": name != "lora_plus"}));
        for (key, tolerance) in [("loss", CURVE), ("ce", CURVE), ("balance_loss", CURVE), ("grad_norm", 5.0 * CURVE)] {
            let found = difference(&steps, &want[key], &gaps, key, tolerance);
            assert!(found.is_none(), "{name}: {}", found.unwrap_or_default());
        }
        if name == "top_2_of_4" {
            for (mistake, losses) in golden["negatives"].as_object().unwrap() {
                assert!(difference(&steps, losses, &gaps, "loss", CURVE).is_some(), "the comparison would accept {mistake}");
            }
            let other = &golden["cases"]["top_p"]["curve"];
            assert!(difference(&steps, &other["ce"], &gaps, "ce", CURVE).is_some(), "another method would pass");
        }
    }
}

#[test]
fn every_gradient_equals_pytorch() {
    let Some(gpu) = gpu() else { return };
    let golden = golden();
    for (name, case) in golden["cases"].as_object().unwrap() {
        for recompute in [false, true] {
            let want = &case["gradient"];
            let seed = case["settings"]["seed"].as_u64().unwrap();
            // With β1 = 0 the first moment is the gradient.
            let more = json!({"beta1": 0, "clip": 0, "steps": 1, "recompute": recompute});
            let mut trainer = trainer(gpu, case, more, |layout| Some(drawn(&golden, seed, layout)));
            let found = step(gpu, &mut trainer);
            for key in ["loss", "ce", "balance_loss"] {
                let (got, want) = (number(&found, key), want[key].as_f64().unwrap());
                assert!((got - want).abs() < 2e-5 * want.abs(), "{name}, recompute {recompute}: {key} {got}, PyTorch says {want}");
            }
            let params = trainer.layout().params.clone();
            let bytes = block(trainer.checkpoint(gpu)).unwrap();
            let moments = Checkpoint::read("checkpoint", &bytes).unwrap().buffers(&params).unwrap().m;
            let (offsets, _) = params.gradient_offsets();
            assert_eq!(params.specs.len(), want["gradients"].as_object().unwrap().len(), "{name}: parameters");
            let (mut misplaced, mut before) = (0, None);
            for (spec, offset) in params.specs.iter().zip(offsets) {
                let digest = numbers(&want["gradients"][&spec.name]);
                let (values, square) = digest.split_at(digest.len() - 1);
                let got: Vec<f64> = spec.to_hf_at(&moments, offset).into_iter().map(f64::from).collect();
                if let Some(problem) = gradient_problem(&got, values, square[0]) {
                    panic!("{name}, recompute {recompute}: {}: {problem} (smallest gap {})", spec.name, want["gap"]);
                }
                // The comparison can fail: another parameter's gradient is another.
                if let Some(other) = before.replace(got) {
                    misplaced += usize::from(gradient_problem(&other, values, square[0]).is_some());
                }
            }
            assert!(misplaced * 10 > params.specs.len() * 9, "{name}: only {misplaced} misplaced gradients of all are seen");
        }
    }
}

/// What is wrong with a gradient whose first values and sum of squares are known.
fn gradient_problem(got: &[f64], values: &[f64], square: f64) -> Option<String> {
    let size = (square / got.len() as f64).sqrt();
    let off = got.iter().zip(values).find(|(g, want)| (**g - **want).abs() > 1e-3 * (size + want.abs()));
    if let Some((g, want)) = off {
        return Some(format!("{g}, PyTorch says {want}, where a typical value is {size:.2e}"));
    }
    let sum: f64 = got.iter().map(|g| g * g).sum();
    ((sum - square).abs() > 2e-3 * square).then(|| format!("Σ g² {sum}, PyTorch says {square}"))
}
