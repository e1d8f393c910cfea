//! Runs of many jobs that go on: the manifest with its scheduler, and the jobs' checkpoints.

use pollster::block_on;
use serde_json::{Value, json};
use weblora::formats::{ByteSource, Bytes, ModelFile};
use weblora::gpu::Tuner;
use weblora::gpu::device::PlanLimits;
use weblora::jobs::event::Pass;
use weblora::jobs::{Event, Job, JobSpec, MicroBatch, Options, Scheduler};
use weblora::train::TrainConfig;
use weblora::train::batch::Cursor;
use weblora::train::checkpoint::{Buffers, State, VERSION, write};
use weblora::train::data::{TaskRows, TrainData};
use weblora::train::fleet::{FleetPlan, FleetState, Found};
use weblora::train::progress::Progress;
use weblora::{Error, Result};

use super::golden;
use super::runs::{examples, model, setting_words};
use crate::driver::Parser;
use crate::input::{Input, json as json_part, safetensors};

pub static FLEET: Parser = Parser { name: "fleet", seeds, dictionary: words, run: read };

/// Boundaries that are decided after what was read.
const BOUNDARIES: usize = 12;

fn words() -> Vec<&'static str> {
    let own =
        ["waiting", "running", "paused", "user", "memory", "rung", "done", "stopped", "failed", "stepped", "evaluated", "asha", "halving"];
    let more =
        ["fair", "shortest", "fifo", "min-pad", "first_rung", "first-rung", "eta", "left", "served", "a-1.safetensors", "1e308", "NaN"];
    setting_words().into_iter().chain(own).chain(more).collect()
}

fn file() -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", golden("tiny_llama/model.gguf")));
    block_on(ModelFile::open_gguf(vec![source])).unwrap()
}

fn data() -> TrainData {
    std::iter::once(TaskRows { name: "rows".into(), train: examples(), held_out: vec![], labelled: vec![] }).collect()
}

fn config(name: &str, more: Value) -> TrainConfig {
    let mut settings = json!({ "name": name, "out": name, "rank": 2, "targets": "q,v", "steps": 4, "batch": 1, "seq": 32 });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    TrainConfig::from_map(settings.as_object().unwrap()).unwrap()
}

/// A job's checkpoint after a step.
fn checkpoint(config: &TrainConfig, hash: &str) -> Vec<u8> {
    let layout = config.adapter.layout(&model()).unwrap();
    let words = layout.params.gradient_offsets().1;
    let buffers = Buffers { values: vec![0.5; layout.params.words], m: vec![0.0; words], v: vec![0.0; words], grads: None };
    let state = State {
        version: VERSION,
        weblora: "0.1.0".into(),
        base_hash: hash.into(),
        data_hash: data().hash(),
        config: config.to_map(),
        step: 1,
        tokens: 20,
        cursor: Cursor { epoch: 0, next: 3, waiting: vec![] },
        progress: Progress::default(),
        lr_changes: Vec::new(),
        partial: None,
        kernels: None,
        chain: None,
        embedding_tokens: Vec::new(),
    };
    write(&state, &layout.params, &buffers).unwrap()
}

fn spec(name: &str, left: u64) -> JobSpec {
    let next = MicroBatch { rows: 16, documents: 2, longest: 12 };
    JobSpec {
        name: name.into(),
        priority: 1,
        group: Some("g".into()),
        left,
        max_rows: 32,
        min_rows: 12,
        next,
        evaluates: true,
        judged_on: String::new(),
    }
}

/// A manifest of three jobs, of which one has ended, with these rules of early stopping.
fn manifest(hash: &str, rules: &[&str]) -> Value {
    let mut options = Options::default();
    options.early_stop.rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
    (options.early_stop.first_rung, options.early_stop.eta) = (2, 2);
    let asked = options.clone();
    (options.memory, options.step_tokens) = (Some(1 << 30), 96);
    let mut scheduler = Scheduler::new(options);
    for name in ["a", "b", "c"] {
        scheduler.add(spec(name, 9)).unwrap();
    }
    let mut told = Vec::new();
    for i in 0..2 {
        let boundary = scheduler.decide(&told, &|_: &[&Job]| 1000);
        told = vec![stepped(&boundary.batch, &scheduler, i)];
    }
    let stop = json!({ "request": { "job": 2, "what": "stop" } });
    scheduler.decide(&[serde_json::from_value(stop.clone()).unwrap()], &|_: &[&Job]| 1000);
    let member = |name: &str, file: Value| {
        let settings = config(name, json!({})).to_map();
        json!({ "config": settings, "total": 4, "done": 1, "last": "2.5", "progress": Progress::default(), "file": file })
    };
    json!({
        "version": 1, "weblora": "0.1.0", "base_hash": hash, "asked": asked,
        "sizes": { "founders": 3, "rows": 96, "positions": 96, "recompute": false, "kernels": { "device": "a GPU", "choices": { "case": "x" } } },
        "scheduler": scheduler, "told": told.iter().map(|event| serde_json::to_value(event).unwrap()).chain([stop]).collect::<Vec<_>>(),
        "generation": 3,
        "members": [member("a", json!("a-1.safetensors")), member("b", json!("b-2.safetensors")), member("c", Value::Null)],
    })
}

fn seeds() -> Vec<Input> {
    let hash = block_on(file().content_hash()).unwrap();
    let bytes = checkpoint(&config("a", json!({})), &hash);
    let of = |rules: &[&str]| vec![json_part(manifest(&hash, rules).to_string()), safetensors(bytes.clone())];
    vec![of(&[]), of(&["asha", "plateau", "divergence"]), of(&["halving", "median"])]
}

/// What a fused step of these jobs tells.
fn stepped(batch: &[weblora::jobs::JobId], scheduler: &Scheduler, i: usize) -> Event {
    let pass = |id: &weblora::jobs::JobId| {
        let job = scheduler.job(*id).unwrap();
        Pass { job: *id, rows: 16, loss: 2.0 - i as f64, stepped: true, left: job.spec.left.saturating_sub(1), next: job.spec.next }
    };
    Event::Stepped { seconds: 0.5, passes: batch.iter().map(pass).collect() }
}

fn read(input: &Input) -> Result<()> {
    let wrong = |e: serde_json::Error| Error::format("manifest.json", e.to_string(), "use a whole one");
    let text = String::from_utf8_lossy(&input[0].bytes);
    let state: FleetState = serde_json::from_str(&text).map_err(wrong)?;
    state.check("manifest.json")?;
    state.is_over();
    state.check_options(&Options::default()).ok();
    let whole: Value = serde_json::from_str(&text).map_err(wrong)?;
    decide(
        serde_json::from_value(whole["scheduler"].clone()).map_err(wrong)?,
        serde_json::from_value(whole["told"].clone()).map_err(wrong)?,
    );
    let found = state.members.iter().map(|member| {
        let file = member.file.clone()?;
        Some(Ok(Found { data: data(), file, bytes: input[1].bytes.clone() }))
    });
    let (model, found) = (file(), found.collect());
    let hash = block_on(model.content_hash())?;
    let plan = FleetPlan::resume(&model, &hash, None, state, found, PlanLimits::FLOOR, &mut Tuner::none())?;
    assert!(plan.planned.footprint().total() > 0);
    plan.room();
    plan.jobs().for_each(|(member, _)| drop(member.start_events(String::new())));
    Ok(())
}

/// Boundaries from what was saved on: nothing in it may stop the scheduler.
fn decide(mut scheduler: Scheduler, mut told: Vec<Event>) {
    let planned = |set: &[&Job]| 1000 * set.len() as u64;
    for i in 0..BOUNDARIES {
        let boundary = scheduler.decide(&told, &planned);
        told = vec![stepped(&boundary.batch, &scheduler, i)];
        let evaluated = boundary.decisions.iter().filter(|decision| matches!(decision.action, weblora::jobs::Action::Evaluate));
        told.extend(evaluated.map(|decision| Event::Evaluated { job: decision.job, loss: 1.0 }));
        let left: Vec<Option<f64>> = scheduler.jobs().iter().map(|job| scheduler.seconds_left(job.id)).collect();
        std::hint::black_box((left, scheduler.best(""), scheduler.seconds_left_all()));
    }
}
