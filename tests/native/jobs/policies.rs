//! Policies on workloads: who starves and who does not.

use proptest::prelude::*;
use weblora::jobs::Options;
use weblora::jobs::policy::{POLICIES, Policy};
use weblora::jobs::simulator::{self, Costs, Outcome, simulate};
use weblora::jobs::state::State;
use weblora::jobs::workload::{SimulatedJob, WORKLOADS, Workload, read};

fn options(policy: &str) -> Options {
    Options { policy: Policy::by_name(policy).unwrap(), ..Options::default() }
}

fn run(options: &Options, jobs: &[SimulatedJob]) -> Outcome {
    simulate(options, super::COSTS, jobs).unwrap()
}

#[test]
fn every_policy_ends_every_workload() {
    let costs = Costs { step: 0.05, row: 1e-4, swap: 0.5, eval_rows: 100.0, base_bytes: 100 << 20, row_bytes: 1 << 16, padded: false };
    for workload in WORKLOADS {
        let jobs = workload.jobs(1);
        for policy in POLICIES {
            let options = Options { policy, memory: Some(700 << 20), ..Options::default() };
            let outcome = simulate(&options, costs, &jobs).unwrap();
            assert!(outcome.peak_bytes <= 700 << 20, "{} {}", workload.name, policy.name);
            assert!(outcome.padding == 0.0 && outcome.utilisation > 0.0 && outcome.utilisation < 1.0);
            for (job, source) in outcome.jobs.iter().zip(&jobs) {
                let breaks = source.curve.is_some_and(|curve| curve.breaks.is_some());
                assert!(job.state == State::Done || breaks, "{} {}: {} {}", workload.name, policy.name, job.name, job.reason);
                assert!(job.passes == source.passes || breaks);
            }
            assert_eq!(outcome, simulate(&options, costs, &jobs).unwrap(), "not the same twice");
        }
    }
}

#[test]
fn urgent_jobs_starve_a_patient_one_unless_it_ages() {
    let patient = |policy: &str| {
        let jobs: Vec<SimulatedJob> = std::iter::once(super::simulated("patient", 0.0, 0, 20, 64))
            .chain((0..50).map(|i| super::simulated(&format!("urgent-{i}"), 10.0 * f64::from(i), 2, 12, 64)))
            .collect();
        // There is room for one of them.
        let outcome = run(&Options { memory: Some(1 << 20), ..options(policy) }, &jobs);
        outcome.jobs[0].ended.unwrap()
    };
    let (published, ours) = (patient("priority"), patient("fair"));
    assert!(published > 590.0, "the patient job ended at {published} although others were always before it");
    // 2 priorities of 100 boundaries each, and 20 steps of its own; the jobs before it are those that came in that time.
    assert!(ours < 300.0, "the patient job ended at {ours}");
}

#[test]
fn an_unusual_length_starves_under_min_pad_and_not_under_fair() {
    let jobs = |documents: u64| {
        let mut jobs: Vec<SimulatedJob> = (0..8).map(|i| super::simulated(&format!("short-{i}"), 0.0, 0, 100, 60)).collect();
        jobs.insert(0, super::simulated("long", 0.0, 0, 10, 600));
        jobs.iter_mut().for_each(|job| job.batches[0].documents = documents);
        jobs
    };
    let gap = |policy: &str| run(&Options { step_jobs: 4, step_tokens: 1024, ..options(policy) }, &jobs(1)).jobs[0].longest_gap;
    assert!(gap("min-pad") >= 190, "{}", gap("min-pad"));
    assert!(gap("fair") <= 8 + 9, "{}", gap("fair"));
}

#[test]
fn min_pad_pads_less_and_packing_not_at_all() {
    let jobs = Workload::by_name("burst").unwrap().jobs(0);
    let costs = Costs { padded: true, row: 1e-4, ..super::COSTS };
    let padding = |policy: &str| simulate(&Options { step_jobs: 4, ..options(policy) }, costs, &jobs).unwrap().padding;
    assert!(padding("min-pad") < 0.8 * padding("fifo"), "{} and {}", padding("min-pad"), padding("fifo"));
}

#[test]
fn shortest_first_has_the_least_turnaround() {
    let jobs: Vec<SimulatedJob> = (0..8).map(|i| super::simulated(&format!("job-{i}"), 0.0, 0, 40 - 4 * i, 600)).collect();
    // One at a time: the classic case.
    let turnaround = |policy: &str| run(&Options { step_tokens: 600, gap: 1000, ..options(policy) }, &jobs).turnaround;
    assert!(turnaround("shortest") < 0.8 * turnaround("fifo"));
    assert!(turnaround("shortest") < turnaround("fair"));
}

#[test]
fn jobs_of_one_priority_are_given_equal_rows() {
    // A step holds the first two, or the third: rows that are left over go to the second, which nobody else could use.
    let jobs: Vec<SimulatedJob> =
        [(1, 100), (2, 200), (3, 300)].map(|(i, rows)| super::simulated(&format!("job-{i}"), 0.0, 0, 400, rows)).into();
    let apart = |policy: &str| {
        let (mut apart, mut boundaries) = (0, 0);
        simulator::run(&Options { step_tokens: 300, ..options(policy) }, super::COSTS, &jobs, &mut |scheduler, _, _| {
            boundaries += 1;
            if boundaries <= 400 {
                let served: Vec<u64> = scheduler.jobs().iter().map(|job| job.served).collect();
                apart = apart.max(served[0].abs_diff(served[2]));
            }
        })
        .unwrap();
        apart
    };
    assert!(apart("fair") <= 300, "{}", apart("fair"));
    assert!(apart("fifo") > 10_000, "{}", apart("fifo"));
}

#[test]
fn a_recorded_workload_is_read_or_refused_by_line() {
    let jobs = Workload::by_name("stream").unwrap().jobs(3);
    let text: String = jobs.iter().map(|job| serde_json::to_string(job).unwrap() + "\n").collect();
    let back = read("w.jsonl", &text).unwrap();
    assert_eq!(back.len(), jobs.len());
    assert_eq!(back[5].batches, jobs[5].batches);
    for (line, part) in [
        ("{}", "w.jsonl, line 2"),
        (r#"{"name":"a","passes":0,"batches":[{"rows":1,"documents":1,"longest":1}]}"#, "no pass"),
        (r#"{"name":"a","passes":1,"batches":[]}"#, "no micro-batch"),
        (r#"{"name":"a","passes":1,"batches":[{"rows":0,"documents":1,"longest":1}]}"#, "an empty one"),
    ] {
        let error = read("w.jsonl", &format!("\n{line}\n")).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

fn workload() -> impl Strategy<Value = Vec<SimulatedJob>> {
    let job = (0u32..60, -2i64..3, 1u64..12, prop::collection::vec(1u64..700, 1..4), 1u64..4);
    prop::collection::vec(job, 1..14).prop_map(|jobs| {
        let job = |(i, (arrives, priority, passes, rows, size)): (usize, (u32, i64, u64, Vec<u64>, u64))| {
            let mut job = super::simulated(&format!("job-{i}"), f64::from(arrives), priority, passes, 1);
            job.batches = rows.into_iter().map(|rows| weblora::jobs::MicroBatch { rows, documents: 1, longest: rows }).collect();
            job.bytes = size << 20;
            job
        };
        jobs.into_iter().enumerate().map(job).collect()
    })
}

proptest! {
    /// On the device nobody is left out of more than `gap` steps and one for each other job.
    #[test]
    fn nobody_on_the_device_starves(jobs in workload(), gap in 0u64..6, tokens in 700u64..1500, policy in prop::sample::select(vec!["fair", "shortest"])) {
        let outcome = run(&Options { gap, step_tokens: tokens, ..options(policy) }, &jobs);
        for job in &outcome.jobs {
            prop_assert_eq!(job.state, State::Done);
            prop_assert!(job.longest_gap <= gap + jobs.len() as u64, "{} was left out {} times", job.name, job.longest_gap);
        }
    }

    /// A job waits for those that may come before it, and nobody else: the others it finds, and those that come while it ages.
    #[test]
    fn nobody_waits_for_ever(jobs in workload(), ageing in 1u64..20, room in 3u64..8) {
        let options = Options { ageing, gap: 2, step_tokens: 700, memory: Some(room << 20), ..options("fair") };
        let outcome = run(&options, &jobs);
        let ahead = |a: &SimulatedJob, b: &SimulatedJob| a.arrives <= b.arrives + (ageing as f64) * (a.priority - b.priority).max(0) as f64 + 1.0;
        for job in &outcome.jobs {
            let own = jobs.iter().find(|source| source.name == job.name).unwrap();
            let work: u64 = jobs.iter().filter(|other| ahead(other, own)).map(|other| other.passes).sum();
            // Each step of one of them comes within gap + n boundaries of a second each, and anew after it was paused for another.
            let n = jobs.len() as u64;
            let bound = ((work + n * n) * (2 + n)) as f64;
            prop_assert!(job.started.unwrap() - job.arrived <= bound, "{} waited {}", job.name, job.started.unwrap() - job.arrived);
            prop_assert_eq!(job.state, State::Done);
        }
    }

    /// No policy plans more than the budget or fills a step beyond its rows, and all train every micro-batch once.
    #[test]
    fn budgets_hold(jobs in workload(), room in 3u64..8, which in 0..POLICIES.len()) {
        let options = Options { memory: Some(room << 20), step_tokens: 700, policy: &POLICIES[which], ..Options::default() };
        let mut fullest = 0;
        let outcome = simulator::run(&options, super::COSTS, &jobs, &mut |scheduler, boundary, _| {
            fullest = fullest.max(boundary.batch.iter().map(|id| scheduler.job(*id).unwrap().spec.next.rows).sum::<u64>());
        })
        .unwrap();
        prop_assert!(fullest <= 700);
        prop_assert!(outcome.peak_bytes <= room << 20);
        for job in &outcome.jobs {
            let source = jobs.iter().find(|source| source.name == job.name).unwrap();
            prop_assert_eq!(job.passes, source.passes);
        }
    }
}

#[test]
fn a_curve_has_a_loss_at_every_step() {
    let job = r#"{"name":"a","passes":1,"batches":[{"rows":8,"documents":1,"longest":8}],"curve":{"start":2,"floor":1,"scale":3,"power":0.5,"noise":0.1}}"#;
    let jobs = read("jobs.jsonl", job).unwrap();
    assert!([0, 1, u64::MAX].into_iter().all(|step| jobs[0].curve.unwrap().at(step, "key").is_finite()));
}
