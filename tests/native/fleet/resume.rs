//! Fleets that go on from what was saved: bit for bit, whatever the moment, and with a job's loss staying that job's.

use std::collections::BTreeMap;

use serde_json::json;
use weblora::jobs::Options;
use weblora::jobs::early_stop::EarlyStop;
use weblora::jobs::event::Request;
use weblora::train::Checkpoint;
use weblora::train::checkpoint::write;
use weblora::train::fleet::{FleetState, Found, Keeping};
use weblora::{Error, Result};

use super::*;

/// What a folder would hold.
#[derive(Default, Clone)]
struct Memory {
    files: BTreeMap<String, Vec<u8>>,
    manifest: String,
}

impl Keeping for Memory {
    fn job(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        assert!(self.files.insert(file.to_owned(), bytes.to_vec()).is_none(), "{file} is written once");
        Ok(())
    }
    fn manifest(&mut self, state: &FleetState) -> Result<()> {
        state.check("the manifest")?;
        self.manifest = serde_json::to_string(state).unwrap();
        self.files.retain(|name, _| state.members.iter().any(|member| member.file.as_ref() == Some(name)));
        Ok(())
    }
}

impl Memory {
    fn of(gpu: &Gpu, fleet: &mut Fleet) -> Memory {
        let mut memory = Memory::default();
        block(fleet.save_all(gpu, &mut memory)).unwrap();
        memory
    }

    fn state(&self) -> FleetState {
        serde_json::from_str(&self.manifest).unwrap()
    }

    /// The fleet as it was. `rows` has those of the jobs, by name.
    fn open(&self, gpu: &Gpu, rows: impl Fn(&str) -> Result<TrainData>) -> Fleet {
        let (file, state) = (model(), self.state());
        let found = |member: &weblora::train::fleet::MemberState| {
            let name = member.config["name"].as_str().unwrap();
            let file = member.file.clone()?;
            Some(rows(name).map(|data| Found { data, bytes: self.files.get(&file).cloned().unwrap_or_default(), file }))
        };
        let found = state.members.iter().map(found).collect();
        let hash = block(file.content_hash()).unwrap();
        let mut tuner = Tuner::for_device(gpu);
        let plan = FleetPlan::resume(&file, &hash, None, state, found, gpu.plan_limits(), &mut tuner).unwrap();
        block(plan.open(gpu, &file, &mut tuner, false, |_, _| {})).unwrap()
    }
}

/// The rows of the jobs of `specs`, which have their places as seeds.
fn rows_of(name: &str) -> Result<TrainData> {
    Ok(data(specs().iter().position(|(own, _)| *own == name).unwrap() as u32))
}

fn scheduled(kept: &Kept) -> Vec<String> {
    let told = kept.events.iter().filter(|event| matches!(event, Event::Schedule { .. } | Event::JobFailed { .. } | Event::Eval { .. }));
    told.map(Event::to_json).collect()
}

#[test]
fn a_saved_fleet_goes_on_bit_for_bit_from_any_step() {
    let Some(gpu) = gpu() else { return };
    let (mut fleet, mut expected) = (open(gpu, entries(), Options::default()), Kept::default());
    // After one boundary `wide` is within a step of two micro-batches; the chain ties its knot after the third.
    let mut saved = vec![(Memory::of(gpu, &mut fleet), 0)];
    while !fleet.is_over() {
        block(fleet.advance(gpu, &mut expected)).unwrap();
        saved.push((Memory::of(gpu, &mut fleet), expected.events.len()));
    }
    assert!(saved.len() > 6);
    let mid_step = saved[1].0.files.values().any(|bytes| String::from_utf8_lossy(bytes).contains("grad.layers"));
    assert!(mid_step, "a step that is under way is saved with its gradients");
    for (memory, told) in [0, 1, 2, 3, 5].map(|at| &saved[at]) {
        let (mut fleet, mut kept) = (memory.open(gpu, rows_of), Kept::default());
        kept.events = expected.events[..*told].to_vec();
        run(gpu, &mut fleet, &mut kept);
        for (name, _) in specs() {
            assert_eq!(kept.losses(name), expected.losses(name), "{name} from event {told}");
            assert!(kept.adapter(name) == expected.adapter(name), "{name}: the adapter");
        }
        assert_eq!(scheduled(&kept), scheduled(&expected));
    }
    let (last, _) = saved.last().unwrap();
    assert!(last.state().is_over() && last.files.is_empty(), "jobs that have ended keep no state");
}

#[test]
fn early_stopping_goes_on_where_it_was_and_added_jobs_are_saved() {
    let Some(gpu) = gpu() else { return };
    let early_stop = EarlyStop { rules: vec!["asha".into()], eta: 2, first_rung: 1, ..EarlyStop::default() };
    let options = || Options { early_stop: early_stop.clone(), step_jobs: 2, ..Options::default() };
    let trial = |name: &str, lr: f64| Entry { group: Some("rates".into()), ..entry(name, 1, json!({ "rank": 4, "lr": lr })) };
    let entries = || vec![trial("a", 1e-4), trial("b", 1e-2), trial("c", 1e-3)];
    let trace = |stop_at: Option<usize>| {
        let (mut fleet, mut kept) = (open(gpu, entries(), options()), Kept::default());
        fleet.request("c", Request::Pause).unwrap();
        let mut steps = 0;
        while !fleet.is_over() {
            if steps == 2 {
                fleet.add(trial("late", 5e-3)).unwrap();
                fleet.request("c", Request::Resume).unwrap();
            }
            if stop_at == Some(steps) {
                fleet = Memory::of(gpu, &mut fleet).open(gpu, |_| Ok(data(1)));
            }
            assert!(block(fleet.advance(gpu, &mut kept)).unwrap());
            steps += 1;
        }
        (scheduled(&kept), steps)
    };
    let (expected, steps) = trace(None);
    assert!(expected.iter().any(|line| line.contains("asha")), "{expected:?}");
    for at in [1, 2, 3, 4, steps - 1] {
        assert_eq!(trace(Some(at)).0, expected, "saved before boundary {at}");
    }
}

#[test]
fn a_job_whose_state_or_rows_are_gone_fails_alone() {
    let Some(gpu) = gpu() else { return };
    let (mut fleet, mut expected) = (open(gpu, entries(), Options::default()), Kept::default());
    block(fleet.advance(gpu, &mut expected)).unwrap();
    let whole = Memory::of(gpu, &mut fleet);
    run(gpu, &mut fleet, &mut expected);
    let file = |name: &str| whole.files.keys().find(|file| file.starts_with(name)).unwrap().clone();
    let mut torn = whole.clone();
    torn.files.get_mut(&file("chain")).unwrap().truncate(999);
    torn.files.remove(&file("modules"));
    let other = |name: &str| if name == "wide" { Ok(data(7)) } else { rows_of(name) };
    let (mut fleet, mut kept) = (torn.open(gpu, other), Kept::default());
    run(gpu, &mut fleet, &mut kept);
    let failed: BTreeMap<_, _> = kept.failed().into_iter().collect();
    assert_eq!(failed.keys().copied().collect::<Vec<_>>(), ["chain", "modules", "wide"]);
    assert!(failed["chain"].contains("not a whole safetensors file") && failed["modules"].contains("safetensors"), "{failed:?}");
    assert!(failed["wide"].contains("training rows"), "{failed:?}");
    assert!(kept.adapter("dropped") == expected.adapter("dropped"), "the one that is whole goes on bit for bit");
    let gone = |name: &str| if name == "wide" { Err(Error::config("data", "rows.jsonl is gone", "bring it back")) } else { rows_of(name) };
    let (mut fleet, mut kept) = (whole.open(gpu, gone), Kept::default());
    run(gpu, &mut fleet, &mut kept);
    assert!(matches!(kept.failed()[..], [("wide", why)] if why.contains("rows.jsonl")), "{:?}", kept.failed());
    assert!(kept.adapter("chain") == expected.adapter("chain"));
}

#[test]
fn manifests_made_by_hand_are_refused() {
    let Some(gpu) = gpu() else { return };
    let mut fleet = open(gpu, entries(), Options::default());
    let whole: serde_json::Value = serde_json::from_str(&Memory::of(gpu, &mut fleet).manifest).unwrap();
    let refused = |path: &str, value: serde_json::Value| {
        let mut other = whole.clone();
        *other.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        match serde_json::from_value::<FleetState>(other) {
            Ok(state) => state.check("manifest.json").expect_err(path).to_string(),
            Err(error) => error.to_string(),
        }
    };
    assert!(refused("/version", json!(2)).contains("version is 2"));
    assert!(refused("/sizes/founders", json!(9)).contains("begin with 9"));
    for (key, value) in [("/sizes/rows", 0u64), ("/sizes/rows", 1 << 60), ("/sizes/positions", 0), ("/sizes/positions", 1 << 40)] {
        assert!(refused(key, json!(value)).contains("steps of"), "{key} {value}");
    }
    assert!(refused("/members/0/file", json!("../x")).contains("elsewhere"));
    assert!(refused("/members/1/config/name", json!("chain")).contains("modules"));
    assert!(refused("/scheduler/jobs/1/id", json!(0)).contains("scheduler"));
    assert!(refused("/told", json!([{ "evaluated": { "job": 7, "loss": "1" } }])).contains("job 7 of 4"));
    assert!(refused("/scheduler/names", json!({})).contains("scheduler"));
    // Numbers on which the scheduler would divide by zero, count without end or go past the end of their type.
    for at in ["/scheduler/options/early_stop/eta", "/asked/early_stop/eta"] {
        assert!(refused(at, json!(0)).contains("scheduler") && refused(at, json!(1)).contains("scheduler"), "{at}");
    }
    for at in ["/scheduler/boundary", "/scheduler/jobs/0/tokens", "/scheduler/jobs/1/spec/next/rows", "/scheduler/jobs/2/curve/steps"] {
        assert!(refused(at, json!(u64::MAX)).contains("scheduler"), "{at}");
    }
    let next = json!({ "rows": 1, "documents": 1, "longest": 1 });
    let pass = json!({ "job": 0, "rows": u64::MAX, "loss": "1", "stepped": true, "left": 1, "next": next });
    assert!(refused("/told", json!([{ "stepped": { "seconds": "1", "passes": [pass] } }])).contains("cannot have happened"));
}

/// Kernels that sum in another order give other last digits.
#[test]
fn a_fleet_that_goes_on_elsewhere_says_so() {
    let Some(gpu) = gpu() else { return };
    let mut fleet = open(gpu, entries(), Options::default());
    block(fleet.advance(gpu, &mut Kept::default())).unwrap();
    assert_eq!(fleet.kernel_warning(), None, "it is new");
    let mut memory = Memory::of(gpu, &mut fleet);
    assert_eq!(memory.open(gpu, rows_of).kernel_warning(), None, "the same GPU");
    let layout = &fleet.members()[1].job().unwrap().layout.params;
    let name = memory.state().members[1].file.clone().unwrap();
    let bytes = memory.files.get_mut(&name).unwrap();
    let saved = Checkpoint::read(&name, bytes).unwrap();
    let mut state = saved.state.clone();
    state.kernels.as_mut().unwrap().device = "another GPU".into();
    *bytes = write(&state, layout, &saved.buffers(layout).unwrap()).unwrap();
    let (mut fleet, mut kept) = (memory.open(gpu, rows_of), Kept::default());
    let said = fleet.kernel_warning().unwrap().to_owned();
    assert!(said.contains("made on \"another GPU\", this is") && said.contains("last digits"), "{said}");
    run(gpu, &mut fleet, &mut kept);
    assert!(kept.failed().is_empty(), "it goes on");
}

#[test]
fn a_job_paused_within_a_step_keeps_its_gradients() {
    let Some(gpu) = gpu() else { return };
    let (mut fleet, mut expected) = (open(gpu, entries(), Options::default()), Kept::default());
    run(gpu, &mut fleet, &mut expected);
    let (mut fleet, mut kept) = (open(gpu, entries(), Options::default()), Kept::default());
    block(fleet.advance(gpu, &mut kept)).unwrap();
    fleet.request("wide", Request::Pause).unwrap();
    block(fleet.advance(gpu, &mut kept)).unwrap();
    assert!(!fleet.members()[3].is_on_device());
    fleet.request("wide", Request::Resume).unwrap();
    run(gpu, &mut fleet, &mut kept);
    assert_eq!(kept.losses("wide"), expected.losses("wide"));
    assert!(kept.adapter("wide") == expected.adapter("wide"));
}

#[test]
fn a_fleet_with_dynamic_angles_goes_on() {
    let Some(gpu) = gpu() else { return };
    let reads = model().config.context_length();
    let long = json!({"seq": 2 * reads, "context": 2 * reads, "rope-scaling": "dynamic"});
    let mut fleet = open(gpu, vec![entry("long", 1, long)], Options::default());
    let again = Memory::of(gpu, &mut fleet).open(gpu, |_| Ok(data(1)));
    assert!(!again.is_over());
}
