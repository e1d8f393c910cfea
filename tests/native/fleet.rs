//! Several jobs over one base: fused equals alone, joining and leaving writes tables only, a failure stays where it is.

mod pages;
mod pairs;
mod resume;
mod room;
mod sweep;
mod transaction;

use serde_json::{Value, json};
use weblora::Result;
use weblora::export::folder::File;
use weblora::formats::{ByteSource, Bytes, ModelFile};
use weblora::gpu::device::PlanLimits;
use weblora::gpu::{Gpu, Tuner};
use weblora::jobs::Options;
use weblora::jobs::early_stop::EarlyStop;
use weblora::jobs::event::Request;
use weblora::settings::Map;
use weblora::text::Example;
use weblora::train::fleet::{Entry, Fleet, FleetPlan, Keeper, Saved};
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};
use weblora::train::{Event, TrainConfig};

use crate::common::{gpu, own_gpu};

const GGUF: &[u8] = include_bytes!("../golden/tiny_llama/model.gguf");

fn block<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

fn model() -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", GGUF));
    block(ModelFile::open_gguf(vec![source])).unwrap()
}

/// Rows of 4 to 8 tokens, other ones for every seed.
pub fn rows(seed: u32) -> Vec<Example> {
    let row = |i: u32| {
        let len = 4 + (i + seed) % 5;
        let tokens: Vec<u32> = (0..len).map(|t| (seed * 31 + i * 7 + t * 13) % 97).collect();
        Example { targets: (0..len).map(|t| t > 1).collect(), tokens, row: i as usize + 1, rejected: None }
    };
    (0..9).map(row).collect()
}

pub fn settings(name: &str, more: Value) -> Map {
    let mut map = json!({ "name": name, "batch": 1, "seq": 16, "steps": 6, "lr": 5e-3, "warmup": 0, "recompute": false, "out": name });
    map.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    map.as_object().unwrap().clone()
}

pub fn entry(name: &str, seed: u32, more: Value) -> Entry {
    let config = TrainConfig::from_map(&settings(name, more)).unwrap();
    Entry { config, data: data(seed), start: None, priority: 0, group: None, saved: None }
}

fn data(seed: u32) -> TrainData {
    TrainData { train: rows(seed), held_out: rows(seed)[..3].to_vec(), ..TrainData::default() }
}

fn specs() -> Vec<(&'static str, Value)> {
    vec![
        ("chain", json!({ "method": "cola", "links": [2, 3], "eval-every": 2 })),
        ("modules", json!({ "method": "multilora", "modules": 2, "rank": 2, "schedule": "constant" })),
        ("dropped", json!({ "rank": 4, "dropout": 0.2, "seed": 5 })),
        ("wide", json!({ "rank": 32, "targets": ["q", "v"], "grad-accum": 2, "steps": 4, "lora-plus": 4, "train-embeddings": true })),
    ]
}

fn entries() -> Vec<Entry> {
    entries_of(&specs())
}

/// What jobs leave behind.
#[derive(Default)]
pub struct Kept {
    events: Vec<Event>,
    adapters: Vec<(String, Vec<u8>)>,
    /// Jobs whose adapter was kept as the best so far, as often as it was.
    bests: Vec<String>,
    /// A job whose adapter cannot be kept.
    refuse: Option<&'static str>,
}

impl Kept {
    pub fn losses(&self, name: &str) -> Vec<f64> {
        let of = |event: &Event| match event {
            Event::Step(step) if step.job == name => Some(step.loss),
            _ => None,
        };
        self.events.iter().filter_map(of).collect()
    }
    /// (held-out loss, the same in groups) of every evaluation.
    pub fn evaluations(&self, name: &str) -> Vec<(f64, Option<f64>)> {
        let of = |event: &Event| match event {
            Event::Eval { job, loss, grouped_loss, .. } if job == name => Some((*loss, *grouped_loss)),
            _ => None,
        };
        self.events.iter().filter_map(of).collect()
    }
    pub fn adapter(&self, name: &str) -> &[u8] {
        &self.adapters.iter().find(|(job, _)| job == name).unwrap_or_else(|| panic!("an adapter of {name}")).1
    }
    pub fn failed(&self) -> Vec<(&str, &str)> {
        let mut found = Vec::new();
        for event in &self.events {
            if let Event::JobFailed { job, reason } = event {
                found.push((job.as_str(), reason.as_str()));
            }
        }
        found
    }
}

impl Keeper for Kept {
    fn tell(&mut self, event: Event) -> Result<()> {
        self.events.push(event);
        Ok(())
    }
    fn best(&mut self, job: &str, _: &[File]) -> Result<()> {
        self.bests.push(job.to_owned());
        Ok(())
    }
    fn finish(&mut self, job: &str, files: &[File]) -> Result<()> {
        if self.refuse == Some(job) {
            return Err(weblora::Error::config("out", "the folder cannot be written", "choose another"));
        }
        let weights = files.iter().find(|(name, _)| *name == "adapter_model.safetensors").unwrap();
        self.adapters.push((job.to_owned(), weights.1.clone()));
        Ok(())
    }
    fn leave(&mut self, _: &TrainConfig, file: &str, diverged: bool) -> Result<String> {
        Ok(format!("{file} is left {}", if diverged { "from before it diverged" } else { "as it was" }))
    }
}

pub fn open(gpu: &Gpu, entries: Vec<Entry>, options: Options) -> Fleet {
    let file = model();
    let hash = block(file.content_hash()).unwrap();
    let mut tuner = Tuner::for_device(gpu);
    let plan = FleetPlan::new(&file, &hash, None, entries, options, gpu.plan_limits(), &mut tuner).unwrap();
    let planned = plan.planned.footprint().total();
    let mut fleet = block(plan.open(gpu, &file, &mut tuner, false, |_, _| {})).unwrap();
    assert_eq!(planned, fleet.session().allocated_bytes(), "planned and allocated bytes");
    fleet
}

pub fn run(gpu: &Gpu, fleet: &mut Fleet, kept: &mut Kept) {
    while !fleet.is_over() {
        assert!(block(fleet.advance(gpu, kept)).unwrap(), "the fleet goes on");
    }
}

/// A job's name and what its settings have beside those of all.
pub type Spec = (&'static str, Value);

fn entries_of(specs: &[Spec]) -> Vec<Entry> {
    specs.iter().enumerate().map(|(i, (name, more))| entry(name, i as u32, more.clone())).collect()
}

/// Runs these jobs together.
pub fn run_all(gpu: &Gpu, specs: &[Spec]) -> Kept {
    let (mut fleet, mut kept) = (open(gpu, entries_of(specs), Options::default()), Kept::default());
    run(gpu, &mut fleet, &mut kept);
    kept
}

/// Runs one of these jobs, in the recordings of all.
pub fn run_one(gpu: &Gpu, specs: &[Spec], name: &str) -> Kept {
    let (mut fleet, mut kept) = (open(gpu, entries_of(specs), Options::default()), Kept::default());
    specs.iter().filter(|(other, _)| *other != name).for_each(|(other, _)| fleet.request(other, Request::Stop).unwrap());
    run(gpu, &mut fleet, &mut kept);
    kept
}

#[test]
fn fused_jobs_are_bit_for_bit_what_they_are_alone() {
    let Some(gpu) = gpu() else { return };
    let (mut fleet, mut together) = (open(gpu, entries(), Options::default()), Kept::default());
    run(gpu, &mut fleet, &mut together);
    for (i, (name, more)) in specs().into_iter().enumerate() {
        let own = run_one(gpu, &specs(), name);
        assert_eq!(together.losses(name), own.losses(name), "{name}: losses");
        assert!(together.adapter(name) == own.adapter(name), "{name}: the adapter's bytes");
        assert!(own.losses(name).last() < own.losses(name).first(), "{name} learns");
        // A run of its own has recordings of its own sizes.
        let single = single(gpu, name, i as u32, more);
        assert_eq!(single.len(), together.losses(name).len(), "{name}: steps");
        for (a, b) in single.iter().zip(together.losses(name)) {
            assert!((a - b).abs() <= 1e-5 * a.abs(), "{name}: {a} alone, {b} fused");
        }
    }
    assert_ne!(together.adapter("chain"), together.adapter("dropped"), "the comparison can fail");
    assert!(together.failed().is_empty());
    let knots = together.events.iter().filter(|e| matches!(e, Event::Knot(_))).count();
    assert_eq!(knots, 1, "the chain's knot");
}

/// Jobs with routers beside each other and beside one without.
#[test]
fn experts_of_fused_jobs_are_bit_for_bit_what_they_are_alone() {
    let Some(gpu) = gpu() else { return };
    let specs = || {
        [
            ("plain", json!({ "rank": 4, "dropout": 0.1 })),
            ("experts", json!({ "method": "mixlora", "experts": 3, "rank": 2, "expert-dropout": 0.2, "lr": 2e-2 })),
            ("switch", json!({ "method": "mixlora-switch", "expert-capacity": 2, "experts": 2, "rank": 3, "jitter": 0.1, "lr": 2e-2 })),
            ("dynamic", json!({ "method": "mixlora-dynamic", "targets": ["q", "up"], "renormalize": true, "grad-accum": 2, "steps": 4 })),
        ]
    };
    let entries = || specs().into_iter().enumerate().map(|(i, (name, more))| entry(name, i as u32, more)).collect::<Vec<_>>();
    let (mut fleet, mut together) = (open(gpu, entries(), Options::default()), Kept::default());
    run(gpu, &mut fleet, &mut together);
    assert!(together.failed().is_empty(), "{:?}", together.failed());
    for (i, (name, more)) in specs().into_iter().enumerate() {
        let (mut fleet, mut own) = (open(gpu, entries(), Options::default()), Kept::default());
        specs().iter().filter(|(other, _)| *other != name).for_each(|(other, _)| fleet.request(other, Request::Stop).unwrap());
        run(gpu, &mut fleet, &mut own);
        assert_eq!(together.losses(name), own.losses(name), "{name}: losses");
        assert!(together.adapter(name) == own.adapter(name), "{name}: the adapter's bytes");
        let single = single(gpu, name, i as u32, more);
        for (a, b) in single.iter().zip(together.losses(name)) {
            assert!((a - b).abs() <= 1e-5 * a.abs(), "{name}: {a} alone, {b} fused");
        }
    }
    assert_ne!(together.losses("experts"), together.losses("switch"), "the comparison can fail");
}

/// A held-out loss at a rung counts as any other: the adapter that has it is kept, and the table's best job is one of its own kind.
#[test]
fn the_best_adapter_is_kept_at_rungs_too() {
    let Some(gpu) = gpu() else { return };
    let early_stop = EarlyStop { rules: vec!["halving".into()], eta: 2, first_rung: 1, ..EarlyStop::default() };
    let options = Options { early_stop, ..Options::default() };
    let entries = vec![entry("bursts", 1, json!({ "lr": 0.5 })), entry("other-rows", 2, json!({}))];
    let (mut fleet, mut kept) = (open(gpu, entries, options), Kept::default());
    run(gpu, &mut fleet, &mut kept);
    let found: Vec<(u64, f64, bool)> = kept
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Eval { job, step, loss, best, .. } if job == "bursts" => Some((*step, *loss, *best)),
            _ => None,
        })
        .collect();
    assert_eq!(found.iter().map(|(step, ..)| *step).collect::<Vec<_>>(), [1, 2, 4, 6], "{found:?}");
    let lowest = found.iter().map(|(_, loss, _)| *loss).fold(f64::INFINITY, f64::min);
    assert!(found[3].1 > lowest && !found[3].2, "the rate is too low for this test: {found:?}");
    assert_eq!(kept.bests.iter().filter(|job| *job == "bursts").count(), found.iter().filter(|(.., best)| *best).count());
    let job = |name: &str| fleet.scheduler().by_name(name).unwrap();
    for name in ["bursts", "other-rows"] {
        assert_eq!(fleet.scheduler().best(&job(name).spec.judged_on).unwrap().job, job(name).id, "{name} is the best on its rows");
    }
}

/// Losses of a plain run.
fn single(gpu: &Gpu, name: &str, seed: u32, more: Value) -> Vec<f64> {
    let (file, config) = (model(), TrainConfig::from_map(&settings(name, more)).unwrap());
    let mut tuner = Tuner::for_device(gpu);
    let data = data(seed);
    let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), &tuner).unwrap();
    let mut trainer = block(Trainer::new(gpu, &file, config, data, plan, None, &mut tuner, false, |_, _| {})).unwrap();
    let mut losses = Vec::new();
    while trainer.step_number() < trainer.total_steps() {
        losses.push(block(trainer.step(gpu)).unwrap().loss);
        let every = trainer.config().eval_every;
        if every > 0 && trainer.step_number().is_multiple_of(every) {
            block(trainer.evaluate(gpu)).unwrap();
        }
        block(trainer.tie_if_due(gpu)).unwrap();
    }
    losses
}

#[test]
fn jobs_join_pause_and_leave_by_tables_only() {
    let Some(gpu) = &own_gpu() else { return };
    let (mut reference, mut expected) = (open(gpu, entries(), Options::default()), Kept::default());
    run(gpu, &mut reference, &mut expected);
    let (mut fleet, mut kept) = (open(gpu, entries(), Options::default()), Kept::default());
    fleet.request("modules", Request::Pause).unwrap();
    block(fleet.advance(gpu, &mut kept)).unwrap();
    let (pipelines, bytes) = (gpu.pipelines(), fleet.session().allocated_bytes());
    assert!(kept.losses("modules").is_empty() && kept.losses("dropped").len() == 1);
    fleet.request("dropped", Request::Pause).unwrap();
    fleet.request("modules", Request::Resume).unwrap();
    block(fleet.advance(gpu, &mut kept)).unwrap();
    fleet.request("dropped", Request::Resume).unwrap();
    fleet.request("wide", Request::Stop).unwrap();
    run(gpu, &mut fleet, &mut kept);
    assert_eq!((gpu.pipelines(), fleet.session().allocated_bytes()), (pipelines, bytes), "nothing is compiled or allocated");
    for name in ["chain", "modules", "dropped"] {
        assert_eq!(kept.losses(name), expected.losses(name), "{name}: moved to host memory and back bit for bit");
        assert!(kept.adapter(name) == expected.adapter(name), "{name}: the adapter");
    }
    assert!(kept.losses("wide").len() < expected.losses("wide").len());
    assert!(fleet.request("nobody", Request::Stop).unwrap_err().to_string().contains("nobody"));
}

#[test]
fn a_job_fails_alone() {
    let Some(gpu) = gpu() else { return };
    let good = || entry("good", 1, json!({ "rank": 4 }));
    let (mut fleet, mut expected) = (open(gpu, vec![good(), entry("bad", 2, json!({ "rank": 4 }))], Options::default()), Kept::default());
    run(gpu, &mut fleet, &mut expected);
    let broken = entry("bad", 2, json!({ "rank": 4, "lr": 1e30, "clip": 0 }));
    let (mut fleet, mut kept) = (open(gpu, vec![good(), broken], Options::default()), Kept::default());
    kept.refuse = Some("nobody");
    run(gpu, &mut fleet, &mut kept);
    let failed = kept.failed();
    assert!(matches!(failed[..], [("bad", why)] if why.contains("lower lr")), "{failed:?}");
    assert_eq!(kept.losses("good"), expected.losses("good"));
    assert!(kept.adapter("good") == expected.adapter("good"), "the other job's bits are unchanged");
    // A folder that cannot be written.
    let mut kept = Kept { refuse: Some("bad"), ..Kept::default() };
    let mut fleet = open(gpu, vec![good(), entry("bad", 2, json!({ "rank": 4 }))], Options::default());
    run(gpu, &mut fleet, &mut kept);
    assert!(matches!(kept.failed()[..], [("bad", why)] if why.contains("cannot be written")), "{:?}", kept.failed());
    assert!(kept.adapter("good") == expected.adapter("good"));
}

#[test]
fn saved_jobs_go_on_in_another_fleet_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    let (mut reference, mut expected) = (open(gpu, entries(), Options::default()), Kept::default());
    run(gpu, &mut reference, &mut expected);
    let (mut fleet, mut before) = (open(gpu, entries(), Options::default()), Kept::default());
    // `wide` is in the middle of a step then, `modules` in host memory.
    fleet.request("modules", Request::Pause).unwrap();
    (0..3).for_each(|_| assert!(block(fleet.advance(gpu, &mut before)).unwrap()));
    let saved: Vec<Saved> = specs().iter().map(|(name, _)| block(fleet.save(gpu, name)).unwrap()).collect();
    assert!(!saved[0].curve.evaluations().is_empty() && saved[3].curve.evaluations().is_empty());
    let again = || entries().into_iter().zip(saved.clone()).map(|(entry, saved)| Entry { saved: Some(saved), ..entry });
    let (mut fleet, mut after) = (open(gpu, again().collect(), Options::default()), Kept::default());
    run(gpu, &mut fleet, &mut after);
    for (name, _) in specs() {
        let losses: Vec<f64> = before.losses(name).into_iter().chain(after.losses(name)).collect();
        assert_eq!(losses, expected.losses(name), "{name}: losses");
        assert!(after.adapter(name) == expected.adapter(name), "{name}: the adapter's bytes");
        let files = block(fleet.export(gpu, name)).unwrap();
        assert!(files.iter().any(|(_, bytes)| bytes == expected.adapter(name)), "{name}: still at hand");
    }
    // Another job's checkpoint is refused by the name of the job.
    let mut mixed: Vec<Entry> = again().collect();
    mixed[1].saved = Some(saved[2].clone());
    let file = model();
    let hash = block(file.content_hash()).unwrap();
    let plan = FleetPlan::new(&file, &hash, None, mixed, Options::default(), gpu.plan_limits(), &mut Tuner::for_device(gpu));
    assert!(plan.is_err(), "a checkpoint of other rows");
}

#[test]
fn two_jobs_over_one_base_are_those_of_pytorch() {
    let Some(gpu) = gpu() else { return };
    let golden: Value = serde_json::from_str(include_str!("../golden/two_jobs.json")).unwrap();
    let jobs = golden["jobs"].as_array().unwrap();
    let entry = |job: &Value| {
        let run = &job["run"];
        // Kaiming's seed, one document a micro-batch, in the file's order.
        let map = json!({
            "name": job["name"], "out": job["name"], "rank": run["rank"], "alpha": run["alpha"], "targets": run["targets"], "seed": run["seed"],
            "lr": run["lr"], "clip": run["clip"].as_f64().unwrap_or(0.0), "weight-decay": run["weight_decay"], "schedule": run["schedule"],
            "warmup": run["warmup"], "steps": 10, "grad-accum": job["grad_accum"], "batch-rows": 1, "seq": 32, "shuffle": false,
        });
        let row = |(i, row): (usize, &Value)| Example {
            tokens: row["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect(),
            targets: row["targets"].as_array().unwrap().iter().map(|t| t.as_bool().unwrap()).collect(),
            row: i + 1,
            rejected: None,
        };
        let train = job["rows"].as_array().unwrap().iter().enumerate().map(row).collect();
        let config = TrainConfig::from_map(map.as_object().unwrap()).unwrap();
        Entry { config, data: TrainData { train, ..TrainData::default() }, start: None, priority: 0, group: None, saved: None }
    };
    let (mut fleet, mut kept) = (open(gpu, jobs.iter().map(entry).collect(), Options::default()), Kept::default());
    run(gpu, &mut fleet, &mut kept);
    let curve = |job: &Value, key: &str| job[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    let close = |got: &[f64], want: &[f64]| got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() <= 1e-3 * b.abs());
    for job in jobs {
        let name = job["name"].as_str().unwrap();
        let (losses, want) = (kept.losses(name), curve(job, "loss"));
        assert!(close(&losses, &want), "{name}: {losses:?}, PyTorch says {want:?}");
        let step = |event: &Event| match event {
            Event::Step(step) if step.job == name => Some(step.grad_norm),
            _ => None,
        };
        let norms: Vec<f64> = kept.events.iter().filter_map(step).collect();
        assert!(close(&norms, &curve(job, "grad_norm")), "{name}: {norms:?}, PyTorch says {:?}", curve(job, "grad_norm"));
    }
    let [a, b] = jobs.as_slice() else { panic!("two jobs") };
    assert!(!close(&curve(a, "loss"), &curve(b, "loss")), "the comparison can fail");
}

#[test]
fn jobs_whose_angles_would_depend_on_their_neighbours_are_refused() {
    let (file, reads) = (model(), model().config.context_length());
    let hash = block(file.content_hash()).unwrap();
    let plan = |scaling: &str, lengths: [usize; 2]| {
        let job = |(name, seq)| entry(name, 1, json!({"seq": seq, "context": 4 * reads, "rope-scaling": scaling}));
        let entries = ["a", "b"].into_iter().zip(lengths).map(job).collect();
        FleetPlan::new(&file, &hash, None, entries, Options::default(), PlanLimits::FLOOR, &mut Tuner::none()).map(drop)
    };
    let refused = plan("dynamic", [2 * reads, reads / 2]).unwrap_err().to_string();
    assert!(refused.contains("job b: rope-scaling") && refused.contains("`dynamic` depend on the longest row"), "{refused}");
    for (scaling, lengths) in [("dynamic", [2 * reads; 2]), ("dynamic", [reads, reads / 2]), ("linear", [2 * reads, reads / 2])] {
        plan(scaling, lengths).unwrap();
    }
}
