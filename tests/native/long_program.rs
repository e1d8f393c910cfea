//! Long texts with the program: sliding windows, stretched angles, retrieval, plans, and what cannot work.

use serde_json::Value;

use crate::common::gpu;
use crate::common::program::{asset, fails, succeeds};

#[test]
fn the_program_measures_long_texts_and_says_what_cannot_work() {
    let Some(_) = gpu() else { return };
    let (folder, demo) = (tempfile::tempdir().unwrap(), asset("demo.gguf"));
    let place = folder.path().join("text");
    std::fs::write(&place, "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.".repeat(9)).unwrap();
    let file = place.to_str().unwrap();
    let events = |arguments: &[&str]| -> Vec<Value> {
        succeeds(&[arguments, &["--json", "--no-tune"]].concat()).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    // Windows of several lengths score the same tokens.
    let found = events(&["eval", "--model", &demo, "--text", file, "--window", "16,64", "--group", "8"]);
    assert!(found.len() == 2 && found[0]["window"] == 16 && found[1]["window"] == 64, "{found:?}");
    assert!(found[0]["tokens"] == found[1]["tokens"] && found[0]["loss"] != found[1]["loss"], "{found:?}");
    assert!(found.iter().all(|event| event["grouped_loss"].as_f64().unwrap() != event["loss"].as_f64().unwrap()), "{found:?}");
    // Beyond the trained context only with stretched angles, which change what the model says within it, too.
    fails(&["eval", "--model", &demo, "--text", file, "--window", "200"], &["`seq`", "--context 200"]);
    let stretched = events(&["eval", "--model", &demo, "--text", file, "--window", "64,200", "--context", "256"]);
    assert!(stretched[0]["loss"] != found[1]["loss"] && stretched[1]["window"] == 200, "{stretched:?}");
    let pictures = folder.path().join("pictures");
    let arguments =
        ["eval", "--model", &demo, "--retrieval", "keys", "--window", "400", "--context", "512", "--depths", "2", "--trials", "1"];
    let found = events(&[&arguments[..], &["--svg", pictures.to_str().unwrap()]].concat());
    assert!(found.len() == 2 && found.iter().all(|event| event["event"] == "retrieval" && event["right"] == 0), "{found:?}");
    assert!(std::fs::read_to_string(pictures.join("keys-0.svg")).unwrap().contains("400"));
    fails(&["eval", "--model", &demo, "--retrieval", "needle"], &["passkey, keys, variables or note"]);
    fails(&["eval", "--model", &demo, "--text", file, "--window", "64", "--stride", "64"], &["`stride`", "63"]);
    fails(&["plan", "--model", &demo, "--group", "33"], &["`group`", "32 or 34"]);
    fails(&["plan", "--model", &demo, "--seq", "64", "--group", "66"], &["`group`", "64 tokens"]);
    fails(&["plan", "--model", &demo, "--seq", "256"], &["context of 128", "--context 256"]);
    fails(&["plan", "--model", &demo, "--context", "100", "--rope-scaling", "yarn"], &["`rope-scaling`", "128"]);
    let plan: Value =
        serde_json::from_str(&succeeds(&["plan", "--model", &demo, "--context", "512", "--group-ratio", "0.25", "--json"])).unwrap();
    assert!(plan["longest_dispatch_flops"].as_u64().unwrap() > 0 && plan["longest_dispatch"].is_string(), "{plan}");
    // Skipped positions cost what short rows cost, but for the table of angles.
    let bytes = |more: &[&str]| {
        let plan = succeeds(&[&["plan", "--model", &demo, "--json", "--context", "512"], more].concat());
        serde_json::from_str::<Value>(&plan).unwrap()["activations"].as_u64().unwrap()
    };
    assert!(2 * bytes(&["--seq", "128", "--positions", "pose"]) < bytes(&[]));
}
