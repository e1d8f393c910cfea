//! `[sweep]`.

use proptest::prelude::*;
use serde_json::{Value, json};
use weblora::Result;
use weblora::jobs::jobs_file::shared_keys;
use weblora::jobs::limits::MAX_JOBS;
use weblora::jobs::sweep::{Sweep, Trial};
use weblora::rng::{bits, fnv1a};

fn expand(value: Value) -> Result<Vec<Trial>> {
    Sweep::read(&super::map(value), &shared_keys())?.expand()
}

fn refusal(value: Value) -> String {
    expand(value).unwrap_err().to_string()
}

#[test]
fn a_grid_has_every_combination_once() {
    let trials =
        expand(json!({"name": "g", "keys": {"lr": [1e-4, 1e-3], "rank": {"min": 4, "max": 16, "count": 3, "scale": "log"}, "batch": 2}}))
            .unwrap();
    let names: Vec<&str> = trials.iter().map(|t| t.name.as_str()).collect();
    let expected =
        ["g-1-lr0.0001-rank4", "g-2-lr0.0001-rank8", "g-3-lr0.0001-rank16", "g-4-lr0.001-rank4", "g-5-lr0.001-rank8", "g-6-lr0.001-rank16"];
    assert_eq!(names, expected);
    assert_eq!(Value::Object(trials[4].assigned.clone()), json!({"lr": 1e-3, "rank": 8, "batch": 2}));
    let targets = expand(json!({"keys": {"targets": [["q", "v"], ["q/k"]]}})).unwrap();
    assert_eq!([targets[0].name.as_str(), targets[1].name.as_str()], ["sweep-1-targetsq+v", "sweep-2-targetsq_k"]);
}

#[test]
fn draws_are_those_of_the_documented_generator() {
    let trials =
        expand(json!({"search": "random", "trials": 5, "seed": 7, "keys": {"lr": {"min": 1e-5, "max": 1e-2}, "rank": [4, 8, 16]}}))
            .unwrap();
    for (i, trial) in (1..).zip(&trials) {
        let u = ((bits(fnv1a("7/sweep/lr"), i) >> 11) as f64 + 0.5) * 0.5f64.powi(53);
        let lr = 1e-5 * 1000f64.powf(u);
        let found = trial.assigned["lr"].as_f64().unwrap();
        assert!((found / lr - 1.0).abs() < 6e-3, "{found} for {lr}");
        let index = (u128::from(bits(fnv1a("7/sweep/rank"), i)) * 3) >> 64;
        assert_eq!(trial.assigned["rank"], json!([4, 8, 16][index as usize]));
    }
    assert_ne!(
        trials,
        expand(json!({"search": "random", "trials": 5, "seed": 8, "keys": {"lr": {"min": 1e-5, "max": 1e-2}, "rank": [4, 8, 16]}}))
            .unwrap()
    );
}

#[test]
fn a_logarithmic_range_gives_every_decade_its_share() {
    let trials = expand(json!({"search": "random", "trials": 900, "keys": {"lr": {"min": 1e-5, "max": 1e-2}}})).unwrap();
    let mut decades = [0; 3];
    for trial in &trials {
        let lr = trial.assigned["lr"].as_f64().unwrap();
        decades[((lr.log10() + 5.0) as usize).min(2)] += 1;
    }
    // 300 ± 4 standard deviations.
    assert!(decades.iter().all(|n| (244..=356).contains(n)), "{decades:?}");
}

#[test]
fn a_small_space_is_drawn_to_its_end_and_not_beyond() {
    let space = json!({"rank": {"min": 1, "max": 5}, "seed": [0, 1]});
    let mut all: Vec<String> =
        expand(json!({"search": "random", "trials": 10, "keys": space})).unwrap().iter().map(|t| format!("{:?}", t.assigned)).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 10);
    assert!(refusal(json!({"search": "random", "trials": 11, "keys": space})).contains("only 10 different trials"));
}

#[test]
fn a_list_is_taken_as_it_is() {
    let trials = expand(json!({"search": "list", "priority": 2, "list": [{"lr": 1e-3}, {"lr": 1e-3, "rank": 4}]})).unwrap();
    assert_eq!(trials[1].name, "sweep-2-rank4");
    assert!(refusal(json!({"search": "list", "list": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]})).contains("two trials have the same settings"));
}

#[test]
fn nothing_too_much_and_nonsense_are_refused_by_name() {
    let thousand: Vec<u64> = (0..1000).collect();
    for (sweep, part) in [
        (json!({}), "it makes no job"),
        (json!({"keys": {}}), "it makes no job"),
        (json!({"search": "list"}), "it makes no job"),
        (json!({"keys": {"lr": []}}), "`sweep.keys.lr`: there is no value"),
        (json!({"keys": {"a": thousand, "b": thousand}}), "it makes 1000000 jobs, more than 10000"),
        (json!({"search": "random", "trials": 1_000_000, "keys": {"lr": [1]}}), "`sweep.trials`"),
        (json!({"search": "random", "keys": {"lr": [1]}}), "`sweep.trials`: is missing"),
        (json!({"keys": {"rank": [8, 8]}}), "two trials have the same settings"),
        (json!({"trials": 3, "keys": {"rank": [8]}}), "give search = \"random\""),
        (json!({"kyes": {"rank": [8]}}), "did you mean `keys`?"),
        (json!({"keys": {"model": ["a", "b"]}}), "cannot differ between the trials"),
        (json!({"keys": {"out": ["a", "b"]}}), "cannot differ between the trials"),
        (json!({"search": "list", "list": [{"name": "a"}]}), "cannot differ between the trials"),
        (json!({"search": "bayes", "keys": {"rank": [8]}}), "give grid, random or list"),
        (json!({"keys": {"lr": {"min": 1.0, "max": 2.0}}}), "`sweep.keys.lr.count`: is missing"),
        (json!({"keys": {"lr": {"min": 2.0, "max": 1.0, "count": 2}}}), "not above min"),
        (json!({"keys": {"lr": {"min": 0.0, "max": 1.0, "count": 2, "scale": "log"}}}), "logarithmic"),
        (json!({"keys": {"rank": {"min": 1, "max": 4, "count": 9}}}), "not 9 different values"),
        (json!({"keys": {"rank": {"min": 1, "max": 4, "cuont": 2}}}), "did you mean `count`?"),
        (json!({"name": "a/b", "keys": {"rank": [1]}}), "cannot be in a folder's name"),
        (json!({"priority": 0.5, "keys": {"rank": [1]}}), "`sweep.priority`"),
    ] {
        let error = refusal(sweep.clone());
        assert!(error.contains(part), "{sweep}: {error}");
    }
}

proptest! {
    #[test]
    fn names_are_folders_and_differ(a in prop::collection::hash_set(any::<i32>(), 1..6), b in prop::collection::hash_set(".{0,12}", 1..4)) {
        let trials = expand(json!({"keys": {"a": a.into_iter().collect::<Vec<_>>(), "b": b.into_iter().collect::<Vec<_>>()}})).unwrap();
        let mut names: Vec<String> = trials.iter().map(|t| t.name.to_lowercase()).collect();
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), trials.len());
        for trial in &trials {
            prop_assert!(weblora::jobs::names::check(&trial.name).is_ok(), "{}", trial.name);
        }
        prop_assert!(trials.len() <= MAX_JOBS);
    }

    #[test]
    fn a_range_stays_within_its_ends(min in 1e-8f64..1.0, factor in 1.01f64..1e6, seed in any::<u32>()) {
        let max = min * factor;
        for key in ["lr", "dropout"] {
            let trials = expand(json!({"search": "random", "trials": 3, "seed": seed, "keys": {key: {"min": min, "max": max}}}));
            for trial in trials.unwrap_or_default() {
                let x = trial.assigned[key].as_f64().unwrap();
                prop_assert!((min..=max).contains(&x), "{x} outside {min}..{max}");
            }
        }
    }
}
