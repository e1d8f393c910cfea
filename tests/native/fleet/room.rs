//! How many jobs are on the device at once: budgets, places that are kept, jobs that fit in no plan.

use serde_json::json;
use weblora::formats::ModelFile;
use weblora::gpu::device::PlanLimits;
use weblora::gpu::{Gpu, Tuner};
use weblora::jobs::Options;
use weblora::jobs::event::Request;
use weblora::train::Event;
use weblora::train::fleet::{Entry, Fleet, FleetPlan, Founders};

use super::{Kept, block, entries, entry, model, open, run};
use crate::common::{gpu, own_gpu};

#[test]
fn a_budget_lets_in_what_fits_and_says_what_never_will() {
    let Some(gpu) = gpu() else { return };
    let file = model();
    let hash = block(file.content_hash()).unwrap();
    let plan = |memory: Option<u64>| {
        let options = Options { memory, spare_jobs: Some(0), ..Options::default() };
        FleetPlan::new(&file, &hash, None, entries(), options, gpu.plan_limits(), &mut Tuner::for_device(gpu)).unwrap()
    };
    let all = plan(None).planned.footprint().total();
    // Not all at once: some wait until others are done, and all of them get there.
    let options = Options { memory: Some(all - 100_000), spare_jobs: Some(0), ..Options::default() };
    let (mut fleet, mut kept) = (open(gpu, entries(), options), Kept::default());
    assert!(fleet.session().allocated_bytes() <= all - 100_000, "within the budget");
    block(fleet.advance(gpu, &mut kept)).unwrap();
    assert!(fleet.members().iter().any(|member| !member.is_on_device()), "somebody waits");
    run(gpu, &mut fleet, &mut kept);
    assert_eq!(kept.adapters.len(), 4, "{:?}", kept.failed());
    // Nothing fits: no run begins.
    let options = Options { memory: Some(1000), ..Options::default() };
    let error = FleetPlan::new(&file, &hash, None, entries(), options, gpu.plan_limits(), &mut Tuner::for_device(gpu)).err().unwrap();
    assert!(error.to_string().contains("1000 bytes (memory); raise memory"), "{error}");
}

#[test]
fn jobs_that_are_added_find_the_room_that_was_kept_or_wait_with_a_reason() {
    let Some(gpu) = &own_gpu() else { return };
    let small = |name: &str, seed| entry(name, seed, json!({ "rank": 4 }));
    let begin = |spare_jobs| open(gpu, vec![small("a", 1), small("b", 2)], Options { spare_jobs, ..Options::default() });
    let state = |fleet: &Fleet, name: &str| fleet.scheduler().by_name(name).map(|job| job.status.clone()).unwrap();
    // One place is kept unless it is said otherwise: the first finds it, the second waits for it.
    let (mut fleet, mut kept) = (begin(None), Kept::default());
    block(fleet.advance(gpu, &mut kept)).unwrap();
    let there = |fleet: &mut Fleet| (gpu.pipelines(), fleet.session().allocated_bytes());
    let before = there(&mut fleet);
    fleet.add(small("c", 3)).unwrap();
    fleet.add(small("d", 4)).unwrap();
    block(fleet.advance(gpu, &mut kept)).unwrap();
    let (c, d) = (state(&fleet, "c"), state(&fleet, "d"));
    assert_eq!((c.state.name(), d.state.name()), ("running", "waiting"));
    assert!(d.reason.contains("no room"), "{}", d.reason);
    let told = kept.events.iter().filter(|e| matches!(e, Event::Schedule { job, action, .. } if job == "d" && action == "note")).count();
    assert_eq!(told, 1, "said once");
    block(fleet.advance(gpu, &mut kept)).unwrap();
    // What it can never have is refused, with what that is.
    for (more, word) in
        [(json!({ "rank": 16 }), "rank 16"), (json!({ "dropout": 0.1 }), "dropout"), (json!({ "seq": 64, "batch": 8 }), "rows")]
    {
        let error = fleet.add(entry("never", 9, more)).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("run of its own") && !error.contains("GPU"), "{error}");
    }
    run(gpu, &mut fleet, &mut kept);
    assert_eq!((kept.adapters.len(), there(&mut fleet)), (4, before), "nothing is compiled or allocated");
    let (mut fleet, mut kept) = (begin(Some(0)), Kept::default());
    fleet.add(small("c", 3)).unwrap();
    block(fleet.advance(gpu, &mut kept)).unwrap();
    assert_eq!(state(&fleet, "c").state.name(), "waiting");
    run(gpu, &mut fleet, &mut kept);
    assert_eq!(kept.adapters.len(), 3);
}

/// Experts of all jobs share a table: a job finds room there or waits, also where those who left have cut it into pieces.
#[test]
fn experts_find_room_or_wait() {
    let Some(gpu) = &own_gpu() else { return };
    let routed = |name: &str, experts: usize, seed| {
        entry(name, seed, json!({ "method": "mixlora", "rank": 2, "experts": experts, "targets": ["q", "gate", "up", "down"] }))
    };
    let begin = |spare_jobs| open(gpu, vec![routed("a", 4, 1)], Options { spare_jobs, ..Options::default() });
    let state = |fleet: &Fleet, name: &str| fleet.scheduler().by_name(name).map(|job| job.status.state.name()).unwrap();
    // One place is kept, with experts: the second finds it, the third waits.
    let (mut fleet, mut kept) = (begin(None), Kept::default());
    block(fleet.advance(gpu, &mut kept)).unwrap();
    fleet.add(routed("b", 4, 2)).unwrap();
    fleet.add(routed("c", 4, 3)).unwrap();
    block(fleet.advance(gpu, &mut kept)).unwrap();
    assert_eq!([state(&fleet, "b"), state(&fleet, "c")], ["running", "waiting"]);
    // One that is paused leaves its place to another and waits for one when it goes on.
    fleet.request("b", Request::Pause).unwrap();
    block(fleet.advance(gpu, &mut kept)).unwrap();
    fleet.request("b", Request::Resume).unwrap();
    run(gpu, &mut fleet, &mut kept);
    assert_eq!(kept.adapters.len(), 3, "{:?}", kept.failed());
    // What there can never be is refused by what it is.
    let (mut fleet, _) = (begin(Some(0)), ());
    let plain = |more| entry("never", 9, more);
    for (job, word) in [
        (routed("never", 12, 9), "12 experts"),
        (plain(json!({ "method": "mixlora", "rank": 2, "experts": 4, "top-k": 4, "targets": ["gate"] })), "4 experts a token"),
        (plain(json!({ "method": "mixlora", "rank": 2, "experts": 4, "expert-dropout": 0.1, "targets": ["gate"] })), "drop inputs"),
        (plain(json!({ "method": "mixlora", "rank": 2, "experts": 4, "expert-rank": 32, "targets": ["gate"] })), "32 ranks an expert"),
    ] {
        let error = fleet.add(job).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("run of its own"), "{error}");
    }
    let mut fleet = open(gpu, vec![entry("a", 1, json!({ "rank": 2 }))], Options::default());
    let error = fleet.add(routed("never", 4, 9)).unwrap_err().to_string();
    assert!(error.contains("experts") && error.contains("none"), "{error}");
}

#[test]
fn activations_are_kept_where_they_fit_the_budget() {
    let Some(gpu) = gpu() else { return };
    let file = model();
    let hash = block(file.content_hash()).unwrap();
    let plan = |recompute: &str, memory: Option<u64>| {
        let entries = vec![entry("a", 1, json!({ "recompute": recompute })), entry("b", 2, json!({ "recompute": recompute }))];
        let options = Options { memory, ..Options::default() };
        let plan = FleetPlan::new(&file, &hash, None, entries, options, gpu.plan_limits(), &mut Tuner::for_device(gpu)).unwrap();
        plan.planned.footprint().total()
    };
    let (kept, again) = (plan("off", None), plan("on", None));
    assert!(again < kept, "{again} bytes computed again, {kept} kept");
    assert_eq!((plan("auto", None), plan("auto", Some(kept)), plan("auto", Some(kept - 1))), (kept, kept, again));
}

/// The plan of `entries` without those that are refused, and these.
type Fitting = (Option<FleetPlan>, Vec<(String, weblora::Error)>);

fn plan_of(file: &ModelFile, entries: Vec<Entry>, options: Options, limits: PlanLimits, gpu: &Gpu) -> Fitting {
    let hash = block(file.content_hash()).unwrap();
    let mut founders = Founders::new(file, &hash, entries);
    assert!(founders.refused.is_empty());
    let plan = FleetPlan::of(file, None, &mut founders, options, limits, &mut Tuner::for_device(gpu)).unwrap();
    (plan, founders.refused)
}

#[test]
fn a_job_without_room_is_refused_alone() {
    let Some(gpu) = gpu() else { return };
    let file = model();
    let small = |name: &str| entry(name, 1, json!({ "rank": 2, "targets": ["q"] }));
    let names = |plan: &FleetPlan| plan.jobs().map(|(_, job)| job.spec.name.clone()).collect::<Vec<_>>();
    // By what the device can bind.
    let limits = PlanLimits { max_binding: 16384, ..gpu.plan_limits() };
    let large = || entry("large", 2, json!({ "rank": 24, "targets": ["gate", "up", "q"] }));
    let short = || Options { step_tokens: 32, ..Options::default() };
    let (plan, refused) = plan_of(&file, vec![small("a"), large(), small("b")], short(), limits, gpu);
    assert_eq!(names(&plan.unwrap()), ["a", "b"]);
    assert!(matches!(&refused[..], [(name, reason)] if name == "large" && reason.to_string().contains("16384 bytes")), "{refused:?}");
    // All of them: nothing is left to run.
    let (plan, refused) = plan_of(&file, vec![large()], short(), limits, gpu);
    assert!(plan.is_none() && refused.len() == 1);
    // By the memory that is allowed.
    let within =
        |memory, entries| plan_of(&file, entries, Options { memory, spare_jobs: Some(0), ..Options::default() }, gpu.plan_limits(), gpu);
    let bytes = |plan: &Option<FleetPlan>| plan.as_ref().unwrap().planned.footprint().total();
    let need = bytes(&within(None, vec![small("a"), small("b")]).0);
    let wide = || entry("wide", 2, json!({ "rank": 2, "targets": ["q"], "batch": 64 }));
    let (plan, refused) = within(Some(need), vec![wide(), small("a"), small("b")]);
    assert_eq!(bytes(&plan), need, "as if it had never been there");
    assert_eq!(names(&plan.unwrap()), ["a", "b"]);
    let reason = format!("{need} bytes (memory)");
    assert!(matches!(&refused[..], [(name, why)] if name == "wide" && why.to_string().contains(&reason)), "{refused:?}");
    // Two that each have room alone, and none together: many rows, and many parameters.
    let deep = || entry("deep", 2, json!({ "rank": 32 }));
    let most = [wide(), deep()].map(|job| bytes(&within(None, vec![job]).0)).into_iter().max().unwrap();
    let (plan, refused) = within(Some(most), vec![wide(), deep()]);
    assert!(bytes(&plan) <= most);
    assert!(matches!(&refused[..], [(name, why)] if name == "deep" && why.to_string().contains("run of its own")), "{refused:?}");
}

/// A budget that has no room for a step of all jobs' rows has room for one of fewer.
#[test]
fn steps_get_shorter_where_memory_is_short() {
    let Some(gpu) = gpu() else { return };
    let file = model();
    let all = || (0..8).map(|i| entry(&format!("job-{i}"), i, json!({ "rank": 2, "targets": ["q"] }))).collect::<Vec<_>>();
    let bytes = |options| plan_of(&file, all(), options, gpu.plan_limits(), gpu).0.unwrap().planned.footprint().total();
    let shorter = bytes(Options { step_tokens: 32, ..Options::default() });
    let options = || Options { memory: Some(shorter), ..Options::default() };
    assert!(bytes(options()) <= shorter);
    let rows = |fleet: &mut Fleet| fleet.session().rows();
    assert_eq!(rows(&mut open(gpu, all(), Options::default())), 128);
    let (mut fleet, mut kept) = (open(gpu, all(), options()), Kept::default());
    assert!(rows(&mut fleet) < 128);
    run(gpu, &mut fleet, &mut kept);
    assert_eq!((kept.adapters.len(), kept.failed().len()), (8, 0), "they take turns");
}
