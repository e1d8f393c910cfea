//! Jobs that train on pairs, beside jobs that train on tokens.

use serde_json::json;
use weblora::jobs::Options;
use weblora::jobs::event::Request;
use weblora::text::Example;
use weblora::train::TrainConfig;
use weblora::train::fleet::Entry;
use weblora::train::trainer::TrainData;

use super::{Kept, entry, open, rows, run, settings};
use crate::common::gpu;

/// Rows of a seed as the chosen answers of pairs.
fn pairs(seed: u32) -> Vec<Example> {
    let other = rows(seed + 50);
    rows(seed).into_iter().zip(other).map(|(chosen, rejected)| Example { rejected: Some(Box::new(rejected)), ..chosen }).collect()
}

fn entries() -> Vec<Entry> {
    let pair = |name: &str, seed: u32, more: serde_json::Value| {
        let mut map = settings(name, json!({ "loss": "dpo", "batch": 4, "batch-rows": 2, "eval-every": 3 }));
        map.extend(more.as_object().expect("an object").clone());
        let data = TrainData { train: pairs(seed), held_out: pairs(seed)[..3].to_vec(), ..TrainData::default() };
        Entry { config: TrainConfig::from_map(&map).expect("settings"), data, start: None, priority: 0, group: None, saved: None }
    };
    vec![
        entry("before", 1, json!({ "rank": 4, "dropout": 0.2 })),
        pair("dpo", 2, json!({ "rank": 4, "train-norms": true, "grad-accum": 2 })),
        pair("chain", 3, json!({ "method": "cola", "links": [2, 3], "dpo-beta": 0.5, "dropout": 0.1 })),
        entry("after", 4, json!({ "method": "multilora", "modules": 2, "rank": 2, "group": 4 })),
    ]
}

#[test]
fn pairs_beside_tokens_are_bit_for_bit_what_they_are_alone() {
    let Some(gpu) = gpu() else { return };
    let (mut fleet, mut together) = (open(gpu, entries(), Options::default()), Kept::default());
    run(gpu, &mut fleet, &mut together);
    assert!(together.failed().is_empty(), "{:?}", together.failed());
    for name in ["before", "dpo", "chain", "after"] {
        let (mut fleet, mut own) = (open(gpu, entries(), Options::default()), Kept::default());
        ["before", "dpo", "chain", "after"]
            .iter()
            .filter(|other| **other != name)
            .for_each(|other| fleet.request(other, Request::Stop).unwrap());
        run(gpu, &mut fleet, &mut own);
        assert_eq!(together.losses(name), own.losses(name), "{name}: losses");
        assert!(together.adapter(name) == own.adapter(name), "{name}: the adapter's bytes");
        assert_eq!(together.evaluations(name), own.evaluations(name), "{name}: evaluations");
    }
    // The policy begins as the reference.
    for name in ["dpo", "chain"] {
        let losses = together.losses(name);
        assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-5 && losses.last() < losses.first(), "{name}: {losses:?}");
    }
}

#[test]
fn a_fleet_of_tokens_has_no_room_for_pairs() {
    let Some(gpu) = gpu() else { return };
    let dpo = entries().remove(1);
    let tokens = |name: &str, seed| entry(name, seed, json!({ "rank": 8, "batch": 5, "train-norms": true }));
    let mut fleet = open(gpu, vec![tokens("a", 1), tokens("b", 2)], Options::default());
    let error = fleet.add(dpo).unwrap_err().to_string();
    assert!(error.contains("pairs") && error.contains("run of its own"), "{error}");
}
