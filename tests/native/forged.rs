//! Checkpoints made by hand, checksum and all: whatever their state claims, it is refused or the run goes on. Nothing ends in a panic.

use crate::common::gpu;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use weblora::formats::{ByteSource, Bytes, ModelFile};
use weblora::gpu::{Gpu, Tuner};
use weblora::rng::{FNV_OFFSET, bits, fnv1a_bytes};
use weblora::settings::Map;
use weblora::text::Example;
use weblora::train::data::TaskRows;
use weblora::train::start::fill_in;
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};
use weblora::train::{Checkpoint, TrainConfig};
use weblora::{Error, Result};

const GGUF: &[u8] = include_bytes!("../golden/tiny_llama/model.gguf");

fn block<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

fn data() -> TrainData {
    let row = |i: usize| {
        let tokens: Vec<u32> = (0..5 + i % 7).map(|j| 1 + ((i * 7 + j * 3) % 40) as u32).collect();
        Example { targets: vec![true; tokens.len()], tokens, row: i + 1, rejected: None }
    };
    let task = |name: &str, rows: std::ops::Range<usize>| TaskRows {
        name: name.into(),
        held_out: vec![row(rows.start)],
        train: rows.map(row).collect(),
        labelled: vec![],
    };
    [task("a", 0..19), task("b", 19..30)].into_iter().collect()
}

fn trainer(gpu: &Gpu, settings: &Map) -> Result<Trainer> {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", GGUF));
    let file = block(ModelFile::open_gguf(vec![source]))?;
    let (config, data) = (TrainConfig::from_map(settings)?, data());
    let mut tuner = Tuner::for_device(gpu);
    let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), &tuner)?;
    block(Trainer::new(gpu, &file, config, data, plan, None, &mut tuner, false, |_, _| {}))
}

/// A run that has trained five steps.
fn run(gpu: &Gpu, more: Value) -> (Map, Trainer, Vec<u8>) {
    let mut settings = json!({ "batch": 2, "seq": 16, "steps": 10, "eval-every": 2, "patience": 9, "rank": 2, "lr": 1e-3 });
    let map = settings.as_object_mut().unwrap();
    map.extend(more.as_object().unwrap().clone());
    let mut trainer = trainer(gpu, map).unwrap();
    for _ in 0..5 {
        go_on(gpu, &mut trainer).unwrap();
    }
    let bytes = block(trainer.checkpoint(gpu)).unwrap();
    (map.clone(), trainer, bytes)
}

fn chain(gpu: &Gpu) -> (Map, Trainer, Vec<u8>) {
    run(gpu, json!({ "method": "cola", "links": [2, 3, 2], "knots": [3, 7], "inherited-ranks": [2], "knot-patience": 9 }))
}

/// All that a run does after a resume.
fn go_on(gpu: &Gpu, trainer: &mut Trainer) -> Result<()> {
    let step = block(trainer.step(gpu))?;
    let held_out = block(trainer.evaluate(gpu))?.expect("held-out rows");
    let mut progress = trainer.job().progress;
    progress.stepped(step.loss);
    progress.evaluated(trainer.config(), step.step, held_out.loss);
    trainer.job_mut().progress = progress;
    block(trainer.tie_if_due(gpu))?;
    block(trainer.checkpoint(gpu))?;
    block(trainer.export(gpu)).map(drop)
}

/// The state of a checkpoint, as JSON.
fn state(bytes: &[u8]) -> Value {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let meta: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["weblora"]).unwrap();
    serde_json::from_str(meta["state"].as_str().unwrap()).unwrap()
}

/// The same checkpoint with another state, and the checksum of the whole.
fn forge(bytes: &[u8], state: &Value) -> Vec<u8> {
    let tensors = SafeTensors::deserialize(bytes).unwrap();
    let mut named = tensors.tensors();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    let text = state.to_string();
    let mut sum = fnv1a_bytes(FNV_OFFSET, text.as_bytes());
    for (name, view) in &named {
        sum = fnv1a_bytes(sum, name.as_bytes());
        for size in view.shape() {
            sum = fnv1a_bytes(sum, &(*size as u64).to_le_bytes());
        }
        sum = fnv1a_bytes(sum, view.data());
    }
    let meta = json!({ "checksum": format!("{sum:016x}"), "state": text }).to_string();
    safetensors::serialize(named, Some([("weblora".to_owned(), meta)].into())).unwrap()
}

/// Every place in a JSON value, as a pointer.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| places(value, &format!("{at}/{}", key.replace('/', "~1")), all)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| places(value, &format!("{at}/{i}"), all)),
        _ => {}
    }
}

/// What a hand may put in place of a value.
fn others(value: &Value) -> Vec<Value> {
    let mut all =
        vec![json!(null), json!(true), json!(-1), json!(0), json!(1), json!(3), json!(0.5), json!(1e300), json!("x"), json!([]), json!({})];
    all.extend([u64::from(u32::MAX), i64::MAX as u64, u64::MAX - 1, u64::MAX].map(Value::from));
    match value {
        Value::Number(n) => all.extend(n.as_u64().into_iter().flat_map(|n| [n.wrapping_sub(1), n + 1, 2 * n]).map(Value::from)),
        Value::Array(list) => {
            let with = |change: fn(&mut Vec<Value>)| {
                let mut list = list.clone();
                change(&mut list);
                Value::Array(list)
            };
            all.push(with(|list| drop(list.pop())));
            all.push(with(|list| list.reverse()));
            all.push(with(|list| list.extend(list.last().cloned())));
            all.push(with(|list| *list = list.iter().cycle().take(100 * list.len()).cloned().collect()));
        }
        Value::Object(map) => {
            for key in map.keys() {
                let mut less = map.clone();
                less.shift_remove(key);
                all.push(Value::Object(less));
            }
            let mut more = map.clone();
            more.insert("model.layers.0.self_attn.q_proj".into(), json!(7));
            all.push(Value::Object(more));
        }
        _ => {}
    }
    all.retain(|other| other != value);
    all
}

/// What the program does with a checkpoint: its settings first, then the run, which goes on if nothing is refused.
fn resume(gpu: &Gpu, settings: &Map, trainer: &mut Trainer, bytes: &[u8]) -> Result<()> {
    let mut map = Map::from_iter(settings.iter().take(2).map(|(key, value)| (key.clone(), value.clone())));
    fill_in(&mut map, &Checkpoint::read("forged", bytes)?.state.config);
    TrainConfig::from_map(&map)?;
    trainer.resume(gpu, "forged", bytes)?;
    go_on(gpu, trainer)
}

/// Puts `other` at `place`, or into what is there where it is a new key.
fn put(state: &Value, place: &str, other: Value) -> Value {
    let mut changed = state.clone();
    match changed.pointer_mut(place) {
        Some(value) => *value = other,
        None => {
            let (parent, key) = place.rsplit_once('/').unwrap();
            if let Some(parent) = changed.pointer_mut(parent).and_then(Value::as_object_mut) {
                parent.insert(key.to_owned(), other);
            }
        }
    }
    changed
}

#[track_caller]
fn refused(result: Result<()>, words: &str) {
    let error = result.expect_err(words).to_string();
    assert!(error.contains(words), "{error:?} does not mention {words:?}");
}

#[test]
fn what_cannot_be_of_the_run_is_refused_by_name() {
    let Some(gpu) = gpu() else { return };
    let (settings, mut trainer, bytes) = chain(gpu);
    let honest = state(&bytes);
    resume(gpu, &settings, &mut trainer, &forge(&bytes, &honest)).expect("a file that only our checksum was made for");
    let waiting = honest["cursor"]["waiting"].as_array().unwrap();
    assert!(waiting.len() > 2, "{waiting:?}");
    let twice: Vec<&Value> = waiting.iter().chain(waiting.last()).collect();
    let swapped: Vec<&Value> = waiting.iter().rev().collect();
    for (place, other, words) in [
        ("/step", json!(u64::MAX), "steps"),
        ("/step", json!(11), "the run has 10 steps, 11 of them are done"),
        ("/step", json!(0), "0 micro-batches cannot have had"),
        ("/tokens", json!(u64::MAX), "tokens"),
        ("/cursor/epoch", json!(u64::MAX), "epoch 18446744073709551615"),
        ("/cursor/next", json!(31), "row 31"),
        ("/cursor/waiting", json!(twice), "rows waiting"),
        ("/cursor/waiting", json!(swapped), "rows waiting"),
        ("/progress/stale", json!(6), "losses"),
        ("/progress/trend/steps", json!(6), "losses"),
        ("/chain", json!(null), "not of a chain"),
        ("/chain/stage", json!(3), "link 3 trains"),
        ("/chain/stage", json!(2), "2 frozen links, 3 were expected"),
        ("/chain/begun", json!(6), "link 1 trains from step 6"),
        ("/chain/ends", json!([3, 7]), "links end after"),
        ("/chain/ends", json!([3, 2, 10]), "links end after"),
        ("/chain/ends/1", json!(4), "but step 5 is done"),
        ("/chain/stale", json!(6), "6 evaluations in 5 steps"),
        ("/chain/links", json!([]), "0 frozen links, 2 were expected"),
        ("/chain/links/0/rank", json!(3), "ranks from 1 to 2"),
        ("/chain/links/0/ranks", json!({"model.layers.1.mlp.up_proj": 9}), "ranks from 1 to 2"),
        ("/chain/links/0/steps", json!(u64::MAX), "more steps than any run"),
        ("/chain/links/1/rank", json!(9), "one of rank 2"),
        ("/chain/links/1/steps", json!(4), "had 4 steps"),
        ("/lr_changes", json!([{"step": 2, "from": 1e-3, "to": 2e-3}]), "learning rate"),
    ] {
        let forged = put(&honest, place, other);
        refused(resume(gpu, &settings, &mut trainer, &forge(&bytes, &forged)), words);
    }
    resume(gpu, &settings, &mut trainer, &bytes).expect("the run is as it was");
}

/// Every place of the state, with every other value.
#[test]
fn a_forged_state_is_refused_or_runs() {
    let Some(gpu) = gpu() else { return };
    let mixture = json!({ "method": "multilora", "modules": 2, "data-weights": [2, 1], "dropout": 0.1, "grad-accum": 2 });
    for (settings, mut trainer, bytes) in [chain(gpu), run(gpu, mixture)] {
        let honest = state(&bytes);
        let mut all = Vec::new();
        places(&honest, "", &mut all);
        let (mut ran, mut was_refused) = (0, 0);
        for place in &all {
            for other in others(honest.pointer(place).unwrap()) {
                match resume(gpu, &settings, &mut trainer, &forge(&bytes, &put(&honest, place, other))) {
                    Ok(()) => ran += 1,
                    Err(error) => {
                        was_refused += 1;
                        assert!(!matches!(error, Error::Gpu { .. } | Error::DeviceLost { .. }), "{place}: {error}");
                    }
                }
            }
        }
        eprintln!("{} places: {ran} ran, {was_refused} were refused", all.len());
        assert!(ran > 20 && was_refused > 500, "{ran} ran, {was_refused} were refused: the test looks at little");
    }
}

/// Two or three lies at once, and settings that fit the lie: another run is made of them, as the program would.
#[test]
fn several_lies_at_once_are_refused_or_run() {
    let Some(gpu) = gpu() else { return };
    let (settings, mut trainer_of_run, bytes) = chain(gpu);
    let honest = state(&bytes);
    let mut all = Vec::new();
    places(&honest, "", &mut all);
    let mut draw = {
        let mut i = 0;
        move |n: usize| {
            i += 1;
            (bits(11, i) % n as u64) as usize
        }
    };
    let mut others_made = 0;
    for round in 0..300 {
        let mut forged = honest.clone();
        for _ in 0..2 + round % 2 {
            let place = &all[1 + draw(all.len() - 1)];
            let choice = honest.pointer(place).map(others).unwrap_or_default();
            forged = put(&forged, place, choice[draw(choice.len())].clone());
        }
        let file = forge(&bytes, &forged);
        resume(gpu, &settings, &mut trainer_of_run, &file).ok();
        // A run whose own settings are the forged ones.
        let Some(config) = forged["config"].as_object().filter(|config| **config != honest["config"].as_object().unwrap().clone()) else {
            continue;
        };
        if others_made < 20
            && let Ok(mut other) = trainer(gpu, config)
        {
            others_made += 1;
            if other.resume(gpu, "forged", &file).is_ok() {
                go_on(gpu, &mut other).ok();
            }
        }
    }
    assert!(others_made > 5, "{others_made} runs of other settings");
}
