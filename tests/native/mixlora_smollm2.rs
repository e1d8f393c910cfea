//! MixLoRA on the real model against PyTorch: ten steps of SmolLM2-135M-Instruct with eight experts a layer. Needs the file: `WEBLORA_SMOLLM2=path`.

use crate::common::gpu;
use serde_json::{Value, json};
use weblora::formats::ModelFile;
use weblora::gpu::Tuner;
use weblora::settings::Map;
use weblora::text::{DataOptions, Dataset, Tokenizer, read_rows};
use weblora::train::TrainConfig;
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};

const GOLDEN: &str = include_str!("../golden/mixlora_smollm2.json");
const ROWS: &[u8] = include_bytes!("../golden/smollm2_rows.jsonl");
/// Rows of a micro-batch: the longest of the golden steps.
const SEQ: usize = 120;
/// A router whose probabilities are nearer to another choice may route a row elsewhere by rounding alone.
const TIE: f64 = 1e-5;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Where two curves differ by more than `tolerance`, in words.
fn difference(key: &str, got: &[f64], want: &[f64], tolerance: f64) -> Option<String> {
    let at = got.iter().zip(want).position(|(got, want)| (got - want).abs().is_nan() || (got - want).abs() > tolerance * want.abs())?;
    Some(format!("{key} at step {}\n got {got:?}\nwant {want:?}", at + 1))
}

#[test]
fn ten_steps_of_smollm2_with_experts_equal_pytorch() {
    let Some(path) = std::env::var_os("WEBLORA_SMOLLM2") else {
        eprintln!("SKIPPED: WEBLORA_SMOLLM2 does not name SmolLM2-135M-Instruct.Q4_1.gguf (scripts/fetch-smollm2.sh gets it)");
        return;
    };
    let Some(gpu) = gpu() else { return };
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let want = &golden["curve"];
    let file = pollster::block_on(ModelFile::open_path(path.as_ref())).unwrap();
    let tokenizer = Tokenizer::of_model(&file).unwrap();
    let mut map: Map = golden["settings"].as_object().unwrap().clone();
    let fixed =
        json!({"batch": 1, "seq": SEQ, "batch-rows": golden["rows_per_step"], "shuffle": false, "schedule": "constant", "warmup": 0});
    map.extend(fixed.as_object().unwrap().clone());
    let config = TrainConfig::from_map(&map).unwrap();
    let train = Dataset::build("rows", &read_rows("rows", ROWS).unwrap(), &tokenizer, DataOptions::new(SEQ)).unwrap().examples;
    let data = TrainData { train, ..TrainData::default() };
    let mut tuner = Tuner::for_device(gpu);
    let steps: Vec<Value> = pollster::block_on(async {
        let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), &tuner).unwrap();
        let mut trainer = Trainer::new(gpu, &file, config, data, plan, None, &mut tuner, false, |_, _| {}).await.unwrap();
        let mut steps = Vec::new();
        for _ in 0..10 {
            steps.push(serde_json::to_value(trainer.step(gpu).await.unwrap()).unwrap());
        }
        steps
    });
    let of = |key: &str| -> Vec<f64> { steps.iter().map(|step| step[key].as_f64().unwrap()).collect() };
    assert_eq!(of("tokens"), numbers(&golden["tokens"]), "rows of the steps");
    let gaps = numbers(&want["gap"]);
    let ties = gaps.iter().filter(|gap| **gap < TIE).count();
    eprintln!("nearest choice of a router in each step {gaps:?}: {ties} steps with a near tie, which rounding may decide");
    for (key, tolerance) in [("ce", 1e-3), ("loss", 1e-3), ("balance_loss", 1e-3), ("grad_norm", 1e-2)] {
        let (got, want) = (of(key), numbers(&want[key]));
        let most = got.iter().zip(&want).map(|(got, want)| (got / want - 1.0).abs()).fold(0.0, f64::max);
        eprintln!("{key}: at most {most:.1e} of the value from PyTorch's");
        let found = difference(key, &got, &want, tolerance);
        assert!(found.is_none(), "{}; nearest choices {gaps:?}", found.unwrap_or_default());
    }
    // Plain LoRA on the same rows is another curve.
    let plain: Value = serde_json::from_str(include_str!("../golden/smollm2_curve.json")).unwrap();
    assert!(difference("ce", &of("ce"), &numbers(&plain["loss"]), 1e-3).is_some(), "plain LoRA would pass");
}
