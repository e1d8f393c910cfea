//! Rules of early stopping, on curves.

use serde_json::{Value, json};
use weblora::jobs::curve::{Curve, Evaluation};
use weblora::jobs::early_stop::{EarlyStop, Member, RULES, Verdict};
use weblora::jobs::simulator::{Outcome, simulate};
use weblora::jobs::state::State;
use weblora::jobs::workload::Workload;
use weblora::jobs::{Options, simulator::Costs};

fn rules(value: Value) -> EarlyStop {
    EarlyStop::read(&super::map(value)).unwrap()
}

/// A curve with a held-out loss every ten steps.
fn curve(losses: &[f64]) -> Curve {
    let mut curve = Curve::default();
    for (i, loss) in (1..).zip(losses) {
        curve.evaluated(Evaluation { step: 10 * i, tokens: 1000 * i, loss: *loss });
    }
    curve
}

fn judge(settings: &EarlyStop, curves: &[&[f64]], own: usize) -> Verdict {
    let curves: Vec<Curve> = curves.iter().map(|losses| curve(losses)).collect();
    let group: Vec<Member<'_>> = curves.iter().map(|curve| Member { curve, over: false }).collect();
    settings.judge(&group, own, false)
}

fn stops(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Stop(_))
}

#[test]
fn the_median_rule_is_that_of_vizier() {
    let settings = rules(json!({"rules": "median"}));
    // Running means at step 20: 2, 3 and 4; the median is 3.
    let others: [&[f64]; 3] = [&[2.0, 2.0], &[3.0, 3.0], &[4.0, 4.0]];
    let of = |own: &[f64]| judge(&settings, &[own, others[0], others[1], others[2]], 0);
    assert_eq!(of(&[5.0, 3.0]), Verdict::Continue, "not strictly worse");
    let worse = of(&[5.0, 3.01]);
    assert!(matches!(&worse, Verdict::Stop(why) if why.contains("3.0100") && why.contains("3.0000")), "{worse:?}");
    // The best so far counts, not the last.
    assert_eq!(of(&[2.9, 9.0]), Verdict::Continue);
    // Two others are too few, and those that have not come as far do not count.
    assert_eq!(judge(&settings, &[&[5.0, 5.0], others[0], others[1]], 0), Verdict::Continue);
    assert_eq!(judge(&settings, &[&[5.0, 5.0], others[0], others[1], &[4.0]], 0), Verdict::Continue);
    let patient = rules(json!({"rules": "median", "grace": 21}));
    assert_eq!(judge(&patient, &[&[5.0, 5.0], others[0], others[1], others[2]], 0), Verdict::Continue);
    // Later losses of the others are not used.
    assert!(stops(&judge(&settings, &[&[5.0, 3.01], &[2.0, 2.0, 9.0], &[3.0, 3.0, 9.0], &[4.0, 4.0, 9.0]], 0)));
}

#[test]
fn halving_keeps_one_in_eta_and_waits_for_the_others() {
    let settings = rules(json!({"rules": "halving", "first-rung": 10, "eta": 2}));
    let curves: [&[f64]; 4] = [&[1.0], &[2.0], &[2.0], &[3.0]];
    let verdicts: Vec<bool> = (0..4).map(|own| stops(&judge(&settings, &curves, own))).collect();
    assert_eq!(verdicts, [false, false, true, true], "of equal ones the first goes on");
    let waiting = judge(&settings, &[&[1.0], &[2.0], &[], &[3.0]], 0);
    assert!(matches!(&waiting, Verdict::Hold(why) if why.contains("for 1 others")), "{waiting:?}");
    // At the second rung only the two that were kept count; the one that is not there yet was not.
    let curves: [&[f64]; 4] = [&[1.0, 5.0], &[2.0, 4.0], &[2.0], &[3.0]];
    assert!(stops(&judge(&settings, &curves, 0)) && !stops(&judge(&settings, &curves, 1)));
}

#[test]
fn asha_judges_by_those_that_are_there() {
    let settings = rules(json!({"rules": "asha", "first-rung": 10, "eta": 2}));
    assert_eq!(judge(&settings, &[&[9.0], &[], &[]], 0), Verdict::Continue, "the first");
    assert!(stops(&judge(&settings, &[&[9.0], &[8.0], &[]], 0)));
    assert_eq!(judge(&settings, &[&[9.0], &[8.0], &[10.0], &[11.0]], 0), Verdict::Continue, "two of four");
    assert_eq!(judge(&settings, &[&[9.0, 9.0, 9.0], &[8.0], &[7.0], &[6.0]], 0), Verdict::Continue, "nobody else is at 20");
    let tokens = rules(json!({"rules": "asha", "first-rung": 1000, "eta": 2, "unit": "tokens"}));
    assert!(stops(&judge(&tokens, &[&[9.0], &[8.0], &[]], 0)));
}

#[test]
fn a_plateau_and_divergence_end_a_job_that_is_alone() {
    let settings = rules(json!({"rules": ["plateau"], "patience": 2, "min-delta": 0.1}));
    assert_eq!(judge(&settings, &[&[3.0, 2.0, 1.95, 1.85]], 0), Verdict::Continue);
    assert!(stops(&judge(&settings, &[&[3.0, 2.0, 1.95, 1.91]], 0)));
    let settings = rules(json!({"rules": "divergence", "factor": 1.5, "window": 4}));
    let judge = |losses: &[f64]| {
        let mut curve = Curve::default();
        losses.iter().for_each(|loss| curve.stepped(*loss, 4));
        settings.judge(&[Member { curve: &curve, over: false }], 0, true)
    };
    assert_eq!(judge(&[2.0, 2.0, 2.0, 2.0, 9.0, 9.0, 9.0]), Verdict::Continue, "too early");
    assert_eq!(judge(&[2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]), Verdict::Continue, "exactly at the factor");
    assert!(stops(&judge(&[2.0, 2.0, 2.0, 2.0, 0.1, 3.0, 3.0, 3.0, 3.1])));
    // A loss near zero that doubles is no divergence.
    assert_eq!(judge(&[2.0, 2.0, 2.0, 2.0, 0.01, 0.01, 0.01, 0.5, 0.5, 0.5, 0.5]), Verdict::Continue);
}

/// A sweep of 64 with learning curves: what each rule saves, and what it finds.
#[test]
fn a_sweep_with_early_stopping_finds_the_best_in_less_time() {
    let costs = Costs { step: 0.01, row: 1e-5, ..super::COSTS };
    let run = |rules: Value, seed: u64| -> Outcome {
        let early_stop = if rules.is_null() { EarlyStop::default() } else { EarlyStop::read(&super::map(rules)).unwrap() };
        simulate(&Options { early_stop, ..Options::default() }, costs, &Workload::by_name("sweep").unwrap().jobs(seed)).unwrap()
    };
    let best = |outcome: &Outcome| {
        outcome.jobs.iter().filter_map(|job| Some((job.best?, job.name.clone()))).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
    };
    let ended_well = |job: &weblora::jobs::simulator::JobOutcome| job.state == State::Done || job.state == State::Stopped;
    for (rules, share) in [
        (json!({"rules": "median", "grace": 40}), 0.8),
        (json!({"rules": "halving", "first-rung": 30, "eta": 3}), 0.5),
        (json!({"rules": "asha", "first-rung": 30, "eta": 3}), 0.5),
    ] {
        let mut found = 0;
        for seed in 0..5 {
            let (all, early) = (run(Value::Null, seed), run(rules.clone(), seed));
            assert!(early.makespan < share * all.makespan, "{rules} took {} of {}", early.makespan, all.makespan);
            // Those that break fail, in either run, and nobody else does.
            assert!(early.jobs.iter().all(|job| ended_well(job) || job.reason.contains("became NaN")));
            assert!(early.jobs.iter().any(|job| job.state == State::Done));
            found += usize::from(best(&early).1 == best(&all).1 || best(&early).0 <= best(&all).0 + 0.01);
        }
        assert!(found >= 4, "{rules}: the best in {found} of 5 sweeps");
    }
}

#[test]
fn every_rule_has_a_name_and_a_line() {
    let mut names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert!(RULES.iter().all(|rule| !rule.help.is_empty()));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), RULES.len());
}
