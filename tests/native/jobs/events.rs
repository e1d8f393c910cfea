//! Any events in any order: nothing panics, and what a driver may rely on holds.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;
use weblora::jobs::early_stop::EarlyStop;
use weblora::jobs::event::{Pass, Request};
use weblora::jobs::policy::POLICIES;
use weblora::jobs::state::State;
use weblora::jobs::{Action, Boundary, Event, Job, JobId, JobSpec, MicroBatch, Options, Scheduler};

/// What happens between two boundaries, beside the step that was asked for.
#[derive(Debug, Clone)]
enum Chance {
    Add {
        priority: i64,
        left: u64,
        rows: u64,
        group: bool,
    },
    Event(Event),
    /// The step is not taken.
    NoStep,
    Save,
}

fn chance() -> impl Strategy<Value = Chance> {
    let id = || (0u32..12).prop_map(JobId);
    let loss = || prop_oneof![6 => 0.1f64..4.0, 1 => Just(f64::NAN)];
    let request = prop_oneof![Just(Request::Pause), Just(Request::Resume), Just(Request::Stop), (-3i64..4).prop_map(Request::Priority)];
    let next = |rows| MicroBatch { rows, documents: 1, longest: rows };
    prop_oneof![
        6 => (-2i64..3, 0u64..9, 1u64..40, any::<bool>()).prop_map(|(priority, left, rows, group)| Chance::Add { priority, left, rows, group }),
        6 => (id(), loss()).prop_map(|(job, loss)| Chance::Event(Event::Evaluated { job, loss })),
        1 => id().prop_map(|job| Chance::Event(Event::Failed { job, reason: "x".into() })),
        1 => Just(Chance::Event(Event::OutOfMemory)),
        4 => (id(), request).prop_map(|(job, what)| Chance::Event(Event::Request { job, what })),
        2 => (id(), 1u64..9, 1u64..60).prop_map(move |(job, left, rows)| Chance::Event(Event::Resized { job, left, max_rows: rows, next: next(rows) })),
        1 => (id(), loss()).prop_map(move |(job, loss)| {
            Chance::Event(Event::Stepped { seconds: loss, passes: vec![Pass { job, rows: 5, loss, stepped: true, left: 3, next: next(5) }] })
        }),
        1 => Just(Chance::NoStep),
        1 => Just(Chance::Save),
    ]
}

fn planned(jobs: &[&Job]) -> u64 {
    10 + jobs.iter().map(|job| job.spec.max_rows).sum::<u64>()
}

fn on_device(scheduler: &Scheduler) -> BTreeSet<JobId> {
    scheduler.jobs().iter().filter(|job| job.status.state == State::Running).map(|job| job.id).collect()
}

/// The driver's side: what is on the device after the decisions, done in order, at no time beyond the budget.
fn follow(scheduler: &Scheduler, before: &BTreeSet<JobId>, boundary: &Boundary) -> Result<(), TestCaseError> {
    let mut held = before.clone();
    for decision in &boundary.decisions {
        let id = decision.job;
        prop_assert!(!decision.reason.is_empty() && decision.name == scheduler.job(id).unwrap().spec.name);
        match decision.action {
            Action::Admit | Action::Resume => prop_assert!(held.insert(id), "{} is there already", decision.name),
            Action::Pause => prop_assert!(held.remove(&id), "{} is not there", decision.name),
            Action::Done => prop_assert!(held.remove(&id)),
            Action::Stop | Action::Fail => drop(held.remove(&id)),
            Action::Evaluate | Action::Note | Action::Refuse | Action::Shrink { .. } => {}
        }
    }
    prop_assert_eq!(&held, &on_device(scheduler));
    let jobs: Vec<&Job> = held.iter().map(|id| scheduler.job(*id).unwrap()).collect();
    prop_assert!(jobs.is_empty() || planned(&jobs) <= scheduler.options().memory.unwrap());
    let rows: u64 = boundary.batch.iter().map(|id| scheduler.job(*id).unwrap().spec.next.rows).sum();
    prop_assert!(rows <= scheduler.options().step_tokens);
    prop_assert!(boundary.batch.iter().all(|id| held.contains(id)) && boundary.batch.is_sorted());
    // Somebody trains whenever somebody can.
    prop_assert!(!boundary.batch.is_empty() || jobs.iter().all(|job| job.awaited));
    Ok(())
}

proptest! {
    #[test]
    fn any_events_leave_a_state_that_a_driver_can_follow(
        chances in prop::collection::vec(prop::collection::vec(chance(), 0..4), 1..40),
        policy in 0..POLICIES.len(),
        rules in prop::sample::subsequence(vec!["median", "halving", "plateau", "divergence", "asha"], 0..4),
    ) {
        let mut table = json!({"rules": rules});
        if rules.contains(&"halving") || rules.contains(&"asha") {
            table["first-rung"] = json!(2);
            table["eta"] = json!(2);
        }
        let early_stop = if rules.is_empty() { EarlyStop::default() } else { EarlyStop::read(&super::map(table)).unwrap() };
        let mut scheduler = Scheduler::new(Options { memory: Some(90), step_tokens: 50, policy: &POLICIES[policy], early_stop, ..Options::default() });
        let mut boundary = Boundary::default();
        for happened in chances {
            let pass = |id: &JobId| {
                let job = scheduler.job(*id).unwrap();
                Pass { job: *id, rows: job.spec.next.rows, loss: 1.0, stepped: true, left: job.spec.left - 1, next: job.spec.next }
            };
            let mut events = Vec::new();
            if !boundary.batch.is_empty() && !happened.iter().any(|c| matches!(c, Chance::NoStep)) {
                events.push(Event::Stepped { seconds: 0.1, passes: boundary.batch.iter().map(pass).collect() });
            }
            for chance in happened {
                match chance {
                    Chance::Add { priority, left, rows, group } => {
                        let spec = JobSpec {
                            group: group.then(|| "g".to_owned()),
                            evaluates: group,
                            min_rows: rows / 3 + 1,
                            ..super::spec(&format!("job-{}", scheduler.jobs().len()), priority, left, rows)
                        };
                        prop_assert_eq!(scheduler.add(spec).is_ok(), left > 0);
                    }
                    Chance::Event(event) => events.push(event),
                    Chance::NoStep => {}
                    Chance::Save => scheduler = serde_json::from_str(&serde_json::to_string(&scheduler).unwrap()).unwrap(),
                }
            }
            let over: Vec<JobId> = scheduler.jobs().iter().filter(|job| job.status.state.is_over()).map(|job| job.id).collect();
            let before = on_device(&scheduler);
            boundary = scheduler.decide(&events, &planned);
            follow(&scheduler, &before, &boundary)?;
            prop_assert!(over.iter().all(|id| scheduler.job(*id).unwrap().status.state.is_over()));
        }
    }
}

#[test]
fn a_job_that_is_paused_and_stopped_at_one_boundary_leaves_in_that_order() {
    let mut scheduler = Scheduler::new(Options { memory: Some(90), step_tokens: 50, ..Options::default() });
    let job = scheduler.add(super::spec("job", 0, 3, 1)).unwrap();
    scheduler.decide(&[], &planned);
    let before = on_device(&scheduler);
    assert_eq!(before.len(), 1);
    let events = [Request::Pause, Request::Stop].map(|what| Event::Request { job, what });
    let boundary = scheduler.decide(&events, &planned);
    let actions: Vec<Action> = boundary.decisions.iter().map(|decision| decision.action).collect();
    assert_eq!(actions, [Action::Pause, Action::Stop]);
    follow(&scheduler, &before, &boundary).unwrap();
}
