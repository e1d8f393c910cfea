//! Decisions at step boundaries.

use proptest::prelude::*;
use serde_json::json;
use weblora::jobs::early_stop::EarlyStop;
use weblora::jobs::event::{Pass, Request};
use weblora::jobs::simulator::{self, Costs};
use weblora::jobs::state::{Pause, State};
use weblora::jobs::workload::Workload;
use weblora::jobs::{Action, Boundary, Event, Job, JobId, MicroBatch, Options, Scheduler};

/// A MiB a job.
fn planned(jobs: &[&Job]) -> u64 {
    jobs.iter().map(|job| job.spec.max_rows << 20).sum::<u64>()
}

fn scheduler(memory: u64, specs: &[(&str, i64, u64, u64)]) -> Scheduler {
    let mut made = Scheduler::new(Options { memory: Some(memory << 20), ..Options::default() });
    for (name, priority, left, rows) in specs {
        made.add(super::spec(name, *priority, *left, *rows)).unwrap();
    }
    made
}

/// The step that a boundary asks for.
fn step(scheduler: &Scheduler, boundary: &Boundary, loss: f64) -> Event {
    let pass = |id: &JobId| {
        let job = scheduler.job(*id).unwrap();
        Pass { job: *id, rows: job.spec.next.rows, loss, stepped: true, left: job.spec.left - 1, next: job.spec.next }
    };
    Event::Stepped { seconds: 0.5, passes: boundary.batch.iter().map(pass).collect() }
}

fn actions(boundary: &Boundary) -> Vec<(&str, Action)> {
    boundary.decisions.iter().map(|d| (d.name.as_str(), d.action)).collect()
}

fn names(scheduler: &Scheduler, boundary: &Boundary) -> Vec<String> {
    boundary.batch.iter().map(|id| scheduler.job(*id).unwrap().spec.name.clone()).collect()
}

#[test]
fn a_more_urgent_job_takes_the_memory_at_the_next_boundary_and_gives_it_back() {
    let mut s = scheduler(10, &[("low", 0, 5, 6)]);
    let first = s.decide(&[], &planned);
    assert_eq!(actions(&first), [("low", Action::Admit)]);
    s.add(super::spec("high", 1, 1, 8)).unwrap();
    let second = s.decide(&[step(&s, &first, 1.0)], &planned);
    assert_eq!(actions(&second), [("low", Action::Pause), ("high", Action::Admit)]);
    assert!(second.decisions[0].reason.contains("job high of priority 1 comes first"), "{}", second.decisions[0].reason);
    assert_eq!(s.by_name("low").unwrap().status.state, State::Paused(Pause::Memory));
    let third = s.decide(&[step(&s, &second, 1.0)], &planned);
    assert_eq!(actions(&third), [("high", Action::Done), ("low", Action::Resume)]);
    assert_eq!(names(&s, &third), ["low"]);
    assert_eq!(s.by_name("LOW").unwrap().passes, 1, "what it had is kept");
}

#[test]
fn inside_a_priority_the_first_comes_first_and_a_small_one_may_overtake() {
    let mut s = scheduler(10, &[("a", 0, 9, 6), ("b", 0, 9, 6), ("c", 0, 9, 3)]);
    let boundary = s.decide(&[], &planned);
    assert_eq!(names(&s, &boundary), ["a", "c"]);
    let mut fifo = Scheduler::new(Options { policy: weblora::jobs::policy::Policy::by_name("fifo").unwrap(), ..s.options().clone() });
    for job in s.jobs() {
        fifo.add(job.spec.clone()).unwrap();
    }
    let boundary = fifo.decide(&[], &planned);
    assert_eq!(names(&fifo, &boundary), ["a"]);
}

#[test]
fn what_can_never_fit_fails_alone_with_the_figures() {
    let mut s = scheduler(20, &[("huge", 5, 9, 30), ("fine", 0, 9, 6)]);
    s.add(super::spec("wide", 9, 9, 5000)).unwrap();
    let boundary = s.decide(&[], &planned);
    assert_eq!(actions(&boundary), [("wide", Action::Fail), ("huge", Action::Fail), ("fine", Action::Admit)]);
    assert!(s.job(JobId(0)).unwrap().status.reason.contains("needs 30 MiB alone, and the budget is 20 MiB"));
    assert!(s.job(JobId(2)).unwrap().status.reason.contains("5000 rows, and a fused step 4096"));
}

#[test]
fn after_out_of_memory_fewer_jobs_then_smaller_micro_batches_then_failure() {
    let mut s = scheduler(1000, &[]);
    for name in ["a", "b"] {
        s.add(weblora::jobs::JobSpec { min_rows: 4, ..super::spec(name, 0, 9, 8) }).unwrap();
    }
    let first = s.decide(&[], &planned);
    assert_eq!(first.batch.len(), 2);
    let second = s.decide(&[Event::OutOfMemory], &planned);
    assert_eq!(actions(&second), [("b", Action::Pause)]);
    // 8 MiB were too much again, so neither fits as it is: both are cut.
    let third = s.decide(&[Event::OutOfMemory], &planned);
    assert!(actions(&third).contains(&("a", Action::Shrink { max_rows: 4 })), "{third:?}");
    assert_eq!((s.job(JobId(0)).unwrap().spec.max_rows, s.job(JobId(0)).unwrap().spec.left), (4, 18));
    let next = MicroBatch { rows: 4, documents: 1, longest: 4 };
    s.decide(&[Event::Resized { job: JobId(0), left: 17, max_rows: 4, next }], &planned);
    assert_eq!(s.job(JobId(0)).unwrap().spec.left, 17);
    // It cannot be cut below its longest row.
    let last = s.decide(&[Event::OutOfMemory], &planned);
    assert_eq!(actions(&last), [("a", Action::Fail), ("b", Action::Fail)]);
    assert!(s.is_over());
    assert!(s.job(JobId(0)).unwrap().status.reason.contains("cannot be smaller"));
}

#[test]
fn a_job_that_fails_leaves_the_others_as_they_were() {
    let mut s = scheduler(100, &[("a", 0, 9, 6), ("b", 0, 9, 6), ("c", 0, 9, 6)]);
    let first = s.decide(&[], &planned);
    let Event::Stepped { seconds, mut passes } = step(&s, &first, 1.0) else { unreachable!() };
    passes[1].loss = f64::NAN;
    let events = [Event::Stepped { seconds, passes }, Event::Failed { job: JobId(2), reason: "its rows are gone".into() }];
    let second = s.decide(&events, &planned);
    assert_eq!(actions(&second), [("b", Action::Fail), ("c", Action::Fail)]);
    assert!(second.decisions[0].reason.contains("its loss became NaN at step 1"));
    assert_eq!(second.decisions[1].reason, "its rows are gone");
    assert_eq!(names(&s, &second), ["a"]);
    let third = s.decide(&[Event::Evaluated { job: JobId(0), loss: f64::INFINITY }], &planned);
    assert_eq!(actions(&third), [("a", Action::Fail)]);
    assert!(s.is_over());
}

#[test]
fn requests_are_met_or_refused_with_the_reason() {
    let mut s = scheduler(10, &[("a", 0, 9, 6), ("b", 0, 9, 6)]);
    s.decide(&[], &planned);
    let ask = |s: &mut Scheduler, job: u32, what: Request| {
        let boundary = s.decide(&[Event::Request { job: JobId(job), what }], &planned);
        boundary.decisions.iter().map(|d| (d.name.clone(), d.action)).collect::<Vec<_>>()
    };
    let of = |list: &[(&str, Action)]| list.iter().map(|(n, a)| ((*n).to_owned(), *a)).collect::<Vec<_>>();
    assert_eq!(ask(&mut s, 0, Request::Resume), of(&[("a", Action::Refuse)]));
    assert_eq!(ask(&mut s, 0, Request::Pause), of(&[("a", Action::Pause), ("b", Action::Admit)]));
    assert_eq!(ask(&mut s, 0, Request::Pause), of(&[("a", Action::Refuse)]));
    assert_eq!(ask(&mut s, 0, Request::Resume), of(&[("b", Action::Pause), ("a", Action::Note), ("a", Action::Resume)]));
    assert_eq!(ask(&mut s, 1, Request::Priority(5)), of(&[("a", Action::Pause), ("b", Action::Note), ("b", Action::Resume)]));
    assert_eq!(ask(&mut s, 1, Request::Stop), of(&[("b", Action::Stop), ("a", Action::Resume)]));
    assert_eq!(ask(&mut s, 1, Request::Resume), of(&[("b", Action::Refuse)]));
    assert_eq!(ask(&mut s, 77, Request::Stop), of(&[]));
    assert!(!s.is_over());
}

#[test]
fn names_are_one_each_and_there_is_something_to_train() {
    let mut s = scheduler(10, &[("a", 0, 9, 6)]);
    for (spec, part) in [
        (super::spec("A", 0, 9, 6), "already"),
        (super::spec("", 0, 9, 6), "without a name"),
        (super::spec("b", 0, 0, 6), "nothing to train"),
        (super::spec("b", 0, 9, 0), "nothing to train"),
    ] {
        assert!(s.add(spec).unwrap_err().to_string().contains(part));
    }
    assert_eq!(s.jobs().len(), 1);
}

#[test]
fn a_job_is_evaluated_at_its_rung_before_it_goes_on() {
    let early_stop = EarlyStop::read(&super::map(json!({"rules": "halving", "first-rung": 2, "eta": 2}))).unwrap();
    let mut s = Scheduler::new(Options { early_stop, ..Options::default() });
    for name in ["a", "b"] {
        s.add(weblora::jobs::JobSpec { group: Some("g".into()), evaluates: true, ..super::spec(name, 0, 8, 6) }).unwrap();
    }
    let mut boundary = s.decide(&[], &planned);
    boundary = s.decide(&[step(&s, &boundary, 1.0)], &planned);
    boundary = s.decide(&[step(&s, &boundary, 1.0)], &planned);
    assert_eq!(actions(&boundary), [("a", Action::Evaluate), ("b", Action::Evaluate)]);
    assert!(boundary.batch.is_empty());
    boundary = s.decide(&[Event::Evaluated { job: JobId(0), loss: 2.0 }], &planned);
    assert_eq!(actions(&boundary), [("a", Action::Pause)]);
    assert!(boundary.decisions[0].reason.contains("waits at the rung of 2 steps"), "{}", boundary.decisions[0].reason);
    boundary = s.decide(&[Event::Evaluated { job: JobId(1), loss: 3.0 }], &planned);
    assert_eq!(actions(&boundary), [("b", Action::Stop), ("a", Action::Note), ("a", Action::Resume)]);
    assert_eq!(names(&s, &boundary), ["a"]);
    assert_eq!(s.best("").unwrap().job, JobId(0));
    assert_eq!(s.best("other rows"), None);
}

/// Asking a job to pause and to go on leads past no rung: neither when it is asked as the job gets there, nor while it waits there.
#[test]
fn a_pause_by_request_skips_no_rung() {
    let early_stop = EarlyStop::read(&super::map(json!({"rules": "halving", "first-rung": 2, "eta": 2}))).unwrap();
    let mut s = Scheduler::new(Options { early_stop, ..Options::default() });
    for name in ["a", "b", "c"] {
        s.add(weblora::jobs::JobSpec { group: Some("g".into()), evaluates: true, ..super::spec(name, 0, 8, 6) }).unwrap();
    }
    let ask = |job: u32, what: Request| Event::Request { job: JobId(job), what };
    let evaluated = |job: u32, loss: f64| Event::Evaluated { job: JobId(job), loss };
    let mut boundary = s.decide(&[], &planned);
    boundary = s.decide(&[step(&s, &boundary, 1.0)], &planned);
    boundary = s.decide(&[step(&s, &boundary, 1.0), ask(0, Request::Pause)], &planned);
    assert_eq!(actions(&boundary), [("a", Action::Pause), ("b", Action::Evaluate), ("c", Action::Evaluate)]);
    boundary = s.decide(&[evaluated(1, 2.0), evaluated(2, 3.0)], &planned);
    assert_eq!(actions(&boundary), [("b", Action::Pause), ("c", Action::Pause)], "they wait for a");
    boundary = s.decide(&[ask(1, Request::Pause)], &planned);
    assert_eq!(actions(&boundary), [("b", Action::Note)]);
    boundary = s.decide(&[ask(1, Request::Resume)], &planned);
    assert_eq!(s.by_name("b").unwrap().status.state, State::Paused(Pause::Rung), "{:?}", actions(&boundary));
    boundary = s.decide(&[ask(0, Request::Resume)], &planned);
    assert!(actions(&boundary).ends_with(&[("a", Action::Evaluate)]) && boundary.batch.is_empty(), "{:?}", actions(&boundary));
    boundary = s.decide(&[evaluated(0, 4.0)], &planned);
    let ended = ["a", "b", "c"].map(|name| s.by_name(name).unwrap().status.state.is_over());
    assert_eq!((ended, names(&s, &boundary)), ([true, false, false], vec!["b".to_owned(), "c".to_owned()]), "half of three, rounded up");
}

/// Losses on other held-out rows rank nobody.
#[test]
fn only_jobs_with_the_same_held_out_rows_are_compared() {
    let early_stop = EarlyStop::read(&super::map(json!({"rules": "halving", "first-rung": 2, "eta": 2}))).unwrap();
    let mut s = Scheduler::new(Options { early_stop, ..Options::default() });
    for (name, rows) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let judged_on = rows.to_owned();
        s.add(weblora::jobs::JobSpec { group: Some("g".into()), evaluates: true, judged_on, ..super::spec(name, 0, 8, 6) }).unwrap();
    }
    let mut boundary = s.decide(&[], &planned);
    boundary = s.decide(&[step(&s, &boundary, 1.0)], &planned);
    s.decide(&[step(&s, &boundary, 1.0)], &planned);
    let losses = [(0, 2.0), (1, 3.0), (2, 9.0)].map(|(job, loss)| Event::Evaluated { job: JobId(job), loss });
    boundary = s.decide(&losses, &planned);
    assert_eq!(names(&s, &boundary), ["a", "c"], "c is compared with nobody: {:?}", actions(&boundary));
}

#[test]
fn time_left_comes_from_measured_steps() {
    let mut s = scheduler(100, &[("a", 0, 10, 6), ("b", 0, 20, 6)]);
    let mut boundary = s.decide(&[], &planned);
    assert_eq!(s.seconds_left(JobId(0)), None);
    for _ in 0..4 {
        boundary = s.decide(&[step(&s, &boundary, 1.0)], &planned);
    }
    let close = |found: Option<f64>, expected: f64| assert!((found.unwrap() - expected).abs() < 1e-9, "{found:?} for {expected}");
    close(s.seconds_left(JobId(0)), 6.0 * 0.5);
    close(s.seconds_left(JobId(1)), 16.0 * 0.5);
    close(s.seconds_left_all(), (22.0f64 / 2.0).ceil() * 0.5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A run that is saved and read at any step boundaries decides as one that was not.
    #[test]
    fn a_saved_run_decides_as_before(seed in 0u64..1000, which in 0..weblora::jobs::workload::WORKLOADS.len(), every in 1usize..20, rule in 0..weblora::jobs::early_stop::RULES.len()) {
        let name = weblora::jobs::early_stop::RULES[rule].name;
        let mut table = json!({"rules": [name]});
        if ["asha", "halving"].contains(&name) {
            table["first-rung"] = json!(7);
        }
        let early_stop = EarlyStop::read(&super::map(table)).unwrap();
        let options = Options { early_stop, memory: Some(400 << 20), step_tokens: 4096, ..Options::default() };
        let costs = Costs { step: 0.05, row: 1e-4, swap: 0.3, eval_rows: 50.0, base_bytes: 10 << 20, row_bytes: 1 << 14, padded: false };
        let mut jobs = weblora::jobs::workload::WORKLOADS[which].jobs(seed);
        jobs.truncate(9);
        jobs.iter_mut().for_each(|job| job.passes = job.passes.min(20));
        let mut log = Vec::new();
        let plain = simulator::run(&options, costs, &jobs, &mut |_, boundary, _| log.push(boundary.clone())).unwrap();
        let mut again = Vec::new();
        let mut count = 0;
        let saved = simulator::run(&options, costs, &jobs, &mut |scheduler, boundary, _| {
            again.push(boundary.clone());
            count += 1;
            if count % every == 0 {
                let text = serde_json::to_string(scheduler).unwrap();
                *scheduler = serde_json::from_str(&text).unwrap();
            }
        }).unwrap();
        prop_assert_eq!(log, again);
        prop_assert_eq!(plain, saved);
    }
}

#[test]
fn another_state_decides_otherwise() {
    let jobs = Workload::by_name("burst").unwrap().jobs(1);
    let options = Options { memory: Some(60 << 20), ..Options::default() };
    let record = |disturb: bool| {
        let mut log = Vec::new();
        let costs = Costs { step: 0.05, ..super::COSTS };
        simulator::run(&options, costs, &jobs, &mut |scheduler, boundary, _| {
            log.push(boundary.clone());
            if disturb && log.len() == 40 {
                let mut state = serde_json::to_value(&*scheduler).unwrap();
                state["jobs"][0]["spec"]["priority"] = json!(-900);
                *scheduler = serde_json::from_value(state).unwrap();
            }
        })
        .unwrap();
        log
    };
    assert_ne!(record(false), record(true));
}
