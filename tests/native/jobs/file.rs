//! The jobs file.

use serde_json::{Value, json};
use weblora::jobs::{JobsFile, TrainKeys};
use weblora::train::keys::EXCLUSIVE;

const TRAIN: &[&str] = &[
    "name",
    "model",
    "quantize",
    "data",
    "eval-data",
    "eval-split",
    "out",
    "rank",
    "lr",
    "steps",
    "epochs",
    "batch",
    "seed",
    "group",
    "group-ratio",
];

fn read(value: Value) -> weblora::Result<JobsFile> {
    JobsFile::read(&super::map(value), TrainKeys { all: TRAIN, exclusive: EXCLUSIVE }, "/srv/here")
}

#[test]
fn jobs_get_the_defaults_their_own_keys_a_name_and_a_folder() {
    let file = read(json!({
        "model": "m.gguf", "memory": "1.5 GiB", "policy": "shortest", "step-tokens": 2048, "data": "d.jsonl", "epochs": 2, "out": "runs",
        "job": [{"name": "a", "rank": 4, "priority": 3}, {"name": "b", "steps": 9, "out": "elsewhere", "early-stop-group": "x", "group": 8}],
        "sweep": {"name": "s", "priority": -1, "keys": {"lr": [1e-3, 1e-2]}},
    }))
    .unwrap();
    assert_eq!((file.options.memory, file.options.policy.name, file.options.step_tokens), (Some(1_610_612_736), "shortest", 2048));
    let settings = |i: usize| Value::Object(file.jobs[i].settings.clone());
    assert_eq!(settings(0), json!({"model": "m.gguf", "data": "d.jsonl", "epochs": 2, "rank": 4, "name": "a", "out": "runs/a"}));
    assert_eq!(settings(1), json!({"model": "m.gguf", "data": "d.jsonl", "steps": 9, "group": 8, "name": "b", "out": "elsewhere"}));
    assert_eq!(
        settings(2),
        json!({"model": "m.gguf", "data": "d.jsonl", "epochs": 2, "lr": 1e-3, "name": "s-1-lr0.001", "out": "runs/s-1-lr0.001"})
    );
    let heads: Vec<(i64, Option<&str>)> = file.jobs.iter().map(|j| (j.priority, j.group.as_deref())).collect();
    assert_eq!(heads, [(3, None), (0, Some("x")), (-1, Some("s")), (-1, Some("s"))]);
    assert_eq!(file.jobs[3].settings["lr"], json!(1e-2));
}

/// What a job says in one of two ways takes the place of a default that says it in the other; said in both ways by one job, it stays a mistake.
#[test]
fn defaults_give_way_to_what_says_the_same_in_another_way() {
    let file = read(json!({
        "group-ratio": 0.5, "eval-split": 0.1, "steps": 9,
        "job": [{"name": "a", "group": 8, "eval-data": "e.jsonl"}, {"name": "b", "steps": 3, "epochs": 2}],
    }))
    .unwrap();
    let settings = |i: usize| Value::Object(file.jobs[i].settings.clone());
    assert_eq!(settings(0), json!({"steps": 9, "group": 8, "eval-data": "e.jsonl", "name": "a", "out": "jobs/a"}));
    assert_eq!((&settings(1)["steps"], &settings(1)["epochs"]), (&json!(3), &json!(2)));
}

#[test]
fn what_cannot_work_is_refused_with_the_place() {
    let job = |name: &str| json!({"name": name});
    for (file, part) in [
        (json!({}), "the file has no job"),
        (json!({"job": []}), "the file has no job"),
        (json!({"job": {"name": "a"}}), "write [[job]], with two brackets"),
        (json!({"job": [{}]}), "`job 1: name`: is missing"),
        (json!({"job": [job("a"), job("a")]}), "two jobs are called a;"),
        (json!({"job": [job("a"), job("A")]}), "one folder on some systems"),
        (json!({"job": [{"name": "a", "out": "x/../y"}, {"name": "b", "out": "./Y/"}]}), "have the same folder"),
        (json!({"out": "runs", "job": [{"name": "a", "out": "runs/"}]}), "job a and the run itself have the same folder"),
        (json!({"out": "r", "job": [job("a"), {"name": "b", "out": "r/a"}]}), "have the same folder"),
        (json!({"job": [{"name": "a", "out": "z"}, {"name": "b", "out": "/srv/here/z"}]}), "job b and a have the same folder"),
        (
            json!({"job": [{"name": "a", "out": "../here/z"}, {"name": "b", "out": "z/best"}]}),
            "the folder of job b, /srv/here/z/best, lies in that of a",
        ),
        (json!({"out": "r", "job": [{"name": "a", "out": "r/results.csv"}]}), "job a and a file of the run itself have the same folder"),
        (json!({"job": [job("../a")]}), "cannot be in a folder's name"),
        (json!({"job": [{"name": "a", "rnak": 4}]}), "`job 1: rnak`: there is no such setting; did you mean `rank`?"),
        (json!({"polcy": "fair", "job": [job("a")]}), "did you mean `policy`?"),
        (json!({"name": "a", "job": [job("a")]}), "write it below [[job]]"),
        (json!({"policy": "best", "job": [job("a")]}), "give fair, shortest, fifo, priority or min-pad"),
        (json!({"memory": "lots", "job": [job("a")]}), "\"2 GiB\""),
        (json!({"memory": 0, "job": [job("a")]}), "`memory`"),
        (json!({"model": "m", "job": [{"name": "a", "model": "other"}]}), "all jobs of a run share one base"),
        (json!({"job": [{"name": "a", "quantize": "nf4"}]}), "all jobs of a run share one base"),
        (json!({"job": [{"name": "a", "priority": 1e9}]}), "`job 1: priority`"),
        (json!({"job": [job("a")], "sweep": {"keys": {"rnak": [1]}}}), "`sweep: rnak`"),
        (json!({"job": [job("sweep-1-rank1")], "sweep": {"keys": {"rank": [1, 2]}}}), "two jobs are called sweep-1-rank1"),
        (json!({"job": [job("a")], "sweep": {"keys": {"memory": ["1 MiB", "2 GiB"]}}}), "`sweep.keys.memory`: it cannot differ"),
        (json!({"job": [job("a")], "early-stop": true}), "write [early-stop]"),
        (json!({"job": [job("a")], "early-stop": {}}), "names no rule"),
        (json!({"job": [job("Requests")]}), "of the run itself"),
        (json!({"job": [job("status.json")]}), "of the run itself"),
        (json!({"job": [job("a\u{202E}b")]}), "has the character"),
        (json!({"job": [job("a")], "early-stop": {"rules": "mean"}}), "there is no rule \"mean\""),
        (json!({"job": [job("a")], "early-stop": {"rules": "plateau", "eta": 3}}), "add asha or halving to `rules`"),
        (json!({"job": [job("a")], "early-stop": {"rules": "asha"}}), "`early-stop.first-rung`: is missing"),
        (json!({"job": [job("a")], "early-stop": {"rules": "asha", "first-rung": 10, "eta": 1}}), "`early-stop.eta`"),
        (json!({"job": [job("a")], "early-stop": {"rules": "median", "grcae": 1}}), "did you mean `grace`?"),
    ] {
        let error = read(file.clone()).unwrap_err().to_string();
        assert!(error.contains(part), "{file}: {error}");
    }
}
