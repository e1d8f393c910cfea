//! The embedded demo end to end on the GPU: it must learn, resume bit for bit, and its adapter must mean the same when read back.

use crate::common::gpu;
use weblora::adapters::AdapterConfig;
use weblora::demo;
use weblora::export::folder::Folder;
use weblora::export::peft::PeftAdapter;
use weblora::generate::Generator;
use weblora::gpu::{Gpu, Tuner};
use weblora::model::decoder::Decoder;
use weblora::settings::{Map, Settings};
use weblora::text::{DataOptions, Dataset, Example, Tokenizer, read_rows};
use weblora::train::TrainConfig;
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};

fn block<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

fn rows(tokenizer: &Tokenizer, bytes: &[u8]) -> Vec<Example> {
    let rows = read_rows("rows.jsonl", bytes).unwrap();
    Dataset::build("rows.jsonl", &rows, tokenizer, DataOptions::new(64)).unwrap().examples
}

fn settings(more: serde_json::Value) -> Map {
    let mut map = demo::settings();
    map.extend(more.as_object().unwrap().clone());
    map
}

fn trainer(gpu: &Gpu, more: serde_json::Value, values: Option<Vec<f32>>) -> (Trainer, Tokenizer) {
    let file = block(demo::model()).unwrap();
    let tokenizer = Tokenizer::of_model(&file).unwrap();
    let data = TrainData { train: rows(&tokenizer, demo::TRAIN), held_out: rows(&tokenizer, demo::HELD_OUT), ..TrainData::default() };
    let config = TrainConfig::from_map(&settings(more)).unwrap();
    let mut tuner = Tuner::for_device(gpu);
    let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), &tuner).unwrap();
    let trainer = block(Trainer::new(gpu, &file, config, data, plan, values.map(Into::into), &mut tuner, false, |_, _| {})).unwrap();
    (trainer, tokenizer)
}

fn losses(gpu: &Gpu, trainer: &mut Trainer, steps: usize) -> Vec<f64> {
    (0..steps).map(|_| block(trainer.step(gpu)).unwrap().loss).collect()
}

#[test]
fn it_learns_and_the_adapter_survives_the_file() {
    let Some(gpu) = gpu() else { return };
    let (mut trainer, tokenizer) = trainer(gpu, serde_json::json!({ "steps": 40 }), None);
    let before = block(trainer.evaluate(gpu)).unwrap().unwrap();
    let curve = losses(gpu, &mut trainer, 40);
    let after = block(trainer.evaluate(gpu)).unwrap().unwrap();
    assert!(after.loss < 0.5 * before.loss, "held-out loss {} to {}; curve {curve:?}", before.loss, after.loss);

    let files = block(trainer.export(gpu)).unwrap();
    let get = |name: &str| files.iter().find(|(n, _)| *n == name).map(|(_, bytes)| bytes.as_slice()).unwrap();
    let file = block(demo::model()).unwrap();
    let folder =
        Folder { name: "demo", config: get("adapter_config.json"), weights: get("adapter_model.safetensors"), note: None, chain: None };
    let adapter = PeftAdapter::read(folder, &file.config).unwrap();
    let layout = AdapterConfig::read(&mut Settings::new(&adapter.settings())).unwrap().layout(&file.config).unwrap();
    let values = adapter.to_buffer("demo", &layout).unwrap();
    let held_out = rows(&tokenizer, demo::HELD_OUT);
    let prompt = &held_out[0].tokens[..8];
    let mut generator =
        block(Generator::open(gpu, &file, &[(layout, values)], None, 64, &mut Tuner::for_device(gpu), false, |_, _| {})).unwrap();
    let with = block(generator.logits(gpu, prompt, Some(0))).unwrap();
    let without = block(generator.logits(gpu, prompt, None)).unwrap();
    // The same prompt through the training session's own buffers.
    let (store, model, tables) = trainer.session().parts();
    let mut decoder = block(Decoder::new(gpu, store, model, Some(tables), 64, &mut Tuner::for_device(gpu), false)).unwrap();
    let live = block(decoder.push(gpu, store, prompt, Some(0))).unwrap();
    crate::common::assert_close("logits of the saved adapter", &with, &live, 1e-5, 1e-5);
    assert!(crate::common::close(&without, &live, 1e-2, 1e-2).is_err(), "the adapter has no effect");
    // One token at a time and eight at a time are the same model.
    decoder.reset();
    let mut slow = Vec::new();
    for token in prompt {
        slow = block(decoder.push(gpu, store, &[*token], Some(0))).unwrap();
    }
    crate::common::assert_close("token by token", &slow, &live, 1e-3, 1e-3);
}

#[test]
fn a_resumed_run_is_the_same_run_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    let more = serde_json::json!({ "steps": 8, "dropout": 0.1, "grad-accum": 2, "batch": 4, "schedule": "cosine" });
    let (mut whole, _) = trainer(gpu, more.clone(), None);
    let curve = losses(gpu, &mut whole, 8);
    let (mut first, _) = trainer(gpu, more.clone(), None);
    let start = losses(gpu, &mut first, 3);
    let saved = block(first.checkpoint(gpu)).unwrap();
    drop(first);
    let (mut second, _) = trainer(gpu, more, None);
    second.resume(gpu, "checkpoint", &saved).unwrap();
    assert_eq!(second.step_number(), 3);
    let rest = losses(gpu, &mut second, 5);
    assert_eq!([start, rest].concat(), curve);
    assert_eq!(block(second.checkpoint(gpu)).unwrap(), block(whole.checkpoint(gpu)).unwrap(), "final states");
}

#[test]
fn a_nan_in_the_adapter_stops_the_step_and_changes_nothing() {
    let Some(gpu) = gpu() else { return };
    let (mut trainer, _) = trainer(gpu, serde_json::json!({ "steps": 2 }), None);
    let mut values = block(trainer.session().read_values(gpu, 0)).unwrap();
    values[5] = f32::NAN;
    trainer.session().write_values(gpu, 0, &values).unwrap();
    let error = block(trainer.step(gpu)).unwrap_err();
    assert_eq!(error.code(), "not_finite", "{error}");
    assert!(error.to_string().contains("step 1 of job demo"), "{error}");
}
