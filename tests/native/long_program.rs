//! Long texts with the program: sliding windows, stretched angles, retrieval, plans, and what cannot work.

use std::path::Path;

use serde_json::{Value, json};
use weblora::adapters::{Projection, Site};
use weblora::export::peft::{Note, PeftAdapter, PeftSite};
use weblora::model::stretch::{in_words, of_settings};
use weblora::rng::fill_uniform;

use crate::common::gpu;
use crate::common::program::{asset, fails, succeeds, text, train, weblora};

/// Writes an adapter of all q projections of the embedded model, of a run with these settings; `norms` of its own where asked for.
fn save(folder: &Path, name: &str, settings: &Value, norms: bool) -> String {
    let file = pollster::block_on(weblora::demo::model()).unwrap();
    let (model, hash) = (&file.config, pollster::block_on(file.content_hash()).unwrap());
    let site = |site: Site| {
        let (out, inputs) = site.projection.shape(model);
        let fill = |which: &str, n: usize| fill_uniform(&format!("{name}/{site}.{which}"), n, 0.5);
        PeftSite { site, rank: 2, alpha: 2.0, a: fill("a", 2 * inputs), b: fill("b", 2 * out) }
    };
    let sites = Site::all(model).filter(|site| site.projection == Projection::Q).map(site).collect();
    let count = if norms { 2 * model.num_hidden_layers + 1 } else { 0 };
    let config = settings.as_object().unwrap().clone();
    let angles = in_words(model, &of_settings(model, &config).unwrap());
    let note = Note { base_hash: hash, steps: 5, angles, config, ..Note::default() };
    let adapter = PeftAdapter {
        sites,
        norms: vec![vec![1.5; model.hidden_size]; count],
        embeddings: None,
        rslora: false,
        blocks: model.num_hidden_layers,
        dropout: 0.0,
        base_name: None,
        note: Some(note),
    };
    let path = folder.join(name);
    std::fs::create_dir(&path).unwrap();
    for (file, bytes) in adapter.to_files(name).unwrap() {
        std::fs::write(path.join(file), bytes).unwrap();
    }
    path.display().to_string()
}

#[test]
fn what_does_not_add_up_is_not_merged() {
    let (folder, plain) = (tempfile::tempdir().unwrap(), json!({}));
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [a, b] = ["a", "b"].map(|name| save(folder.path(), name, &plain, false));
    let norms = save(folder.path(), "norms", &plain, true);
    let long = |name: &str, scaling: &str| save(folder.path(), name, &json!({"context": 256, "rope-scaling": scaling}), false);
    let (linear, again, yarn) = (long("linear", "linear"), long("again", "linear"), long("yarn", "yarn"));
    let out = path("refused");
    for pair in [[&a, &norms], [&norms, &a]] {
        fails(&["merge", pair[0], pair[1], "--out", &out], &["norms of its own", "neither added", "--train-norms", "merged-safetensors"]);
        fails(&["merge", pair[0], pair[1], "--weights", "1,2", "--out", &out], &["norms of its own"]);
    }
    for pair in [[&a, &linear], [&linear, &a]] {
        fails(&["merge", pair[0], pair[1], "--out", &out], &["context of 256 tokens (linear)", "own context", "one --context"]);
        fails(&["merge", pair[0], pair[1], "--weights", "1,2", "--out", &out], &["context of 256 tokens (linear)"]);
    }
    fails(&["merge", &linear, &yarn, "--out", &out], &["(linear)", "(yarn)", "one --rope-scaling"]);
    // What has no angles of its own, or the same, adds up as before, and a sum has the angles of its parts.
    succeeds(&["merge", &a, &b, "--out", &path("plain")]);
    for (name, more) in [("chain", "1,1"), ("sum", "1,2")] {
        succeeds(&["merge", &linear, &again, "--weights", more, "--out", &path(name)]);
        let note: Value = serde_json::from_slice(&std::fs::read(folder.path().join(name).join("weblora.json")).unwrap()).unwrap();
        assert_eq!((&note["config"]["context"], &note["config"]["rope-scaling"]), (&256.into(), &"linear".into()), "{name}");
    }
}

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
    // One table of angles serves all windows of a call.
    let dynamic = ["eval", "--model", &demo, "--text", file, "--context", "256", "--rope-scaling", "dynamic", "--window"];
    fails(&[&dynamic[..], &["64,200"]].concat(), &["`window`", "`dynamic` depend on the longest row", "one length at a time"]);
    let alone = events(&[&dynamic[..], &["64"]].concat());
    assert!(alone[0]["loss"] == events(&[&dynamic[..], &["64,128"]].concat())[0]["loss"], "{alone:?}");
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

#[test]
fn what_would_be_passed_over_is_refused_or_told() {
    let Some(_) = gpu() else { return };
    let (folder, demo) = (tempfile::tempdir().unwrap(), asset("demo.gguf"));
    let file = folder.path().join("text").display().to_string();
    std::fs::write(&file, "The grass is green. The sky is blue.").unwrap();
    let of_text = ["eval", "--model", &demo, "--text", &file, "--no-tune"];
    let of_words = ["eval", "--model", &demo, "--retrieval", "note", "--no-tune"];
    for (flag, value) in [("svg", "pictures"), ("depths", "2"), ("trials", "1")] {
        fails(&[&of_text[..], &[&format!("--{flag}"), value]].concat(), &[&format!("`{flag}`"), "--retrieval alone"]);
    }
    for more in [&["--group", "16"][..], &["--group-ratio", "0.5"], &["--stride", "8", "--window", "32"]] {
        fails(&[&of_words[..], more].concat(), &[&format!("`{}`", &more[0][2..]), "not for --retrieval"]);
    }
    // A window that is longer than the text.
    let output = weblora(&[&of_text[..], &["--window", "1000"]].concat());
    assert!(output.status.success() && text(&output.stderr).contains("window of 1000 tokens is longer than"), "{}", text(&output.stderr));
    // Where no length is given, texts are as long as the model reads.
    let found = succeeds(&[&of_words[..], &["--depths", "1", "--trials", "1"]].concat());
    assert!(found.contains("120 tokens"), "{found}");
    // Adapters of one context and two scalings.
    let of = |scaling: &str| save(folder.path(), scaling, &json!({"context": 256, "rope-scaling": scaling}), false);
    let yarn = of("yarn");
    fails(&[&of_text[..], &["--adapter", &yarn, "--adapter", &of("linear")]].concat(), &["`rope-scaling`", "different ones"]);
    // The same length is the same stretch; and the model without the adapter has it, too, which is told.
    let shown = |more: &[&str]| {
        let output = weblora(&[&of_text[..], &["--adapter", &yarn], more].concat());
        let told = text(&output.stderr);
        assert!(told.contains("`yarn` with factor 2 for 256 tokens, also where it answers without an adapter"), "{told}");
        text(&output.stdout)
    };
    assert_eq!(shown(&[]), shown(&["--context", "256"]));
    let linear = weblora(&[&of_text[..], &["--adapter", &yarn, "--context", "256", "--rope-scaling", "linear"]].concat());
    assert_ne!(shown(&[]), text(&linear.stdout));
}

#[test]
fn exports_and_cards_say_what_other_programs_do_not_see() {
    let Some(_) = gpu() else { return };
    let (folder, demo) = (tempfile::tempdir().unwrap(), asset("demo.gguf"));
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [yarn, llama3] = ["yarn", "llama3"].map(|name| save(folder.path(), name, &json!({"context": 256, "rope-scaling": name}), false));
    let exported = |adapter: &str, more: &[&str]| {
        let output = weblora(&[&["export", "--adapter", adapter], more].concat());
        (output.status.success(), text(&output.stderr))
    };
    let words = "`yarn` with factor 2 for 256 tokens";
    let plain = exported(&yarn, &["--to", "peft", "--out", &path("peft")]);
    let known = exported(&yarn, &["--to", "peft", "--model", &demo, "--no-check", "--out", &path("known")]);
    let gguf = exported(&yarn, &["--to", "gguf", "--model", &demo, "--no-check", "--out", &path("gguf")]);
    for (done, said) in [plain, known, gguf] {
        assert!(done && said.contains(words), "{said}");
    }
    // What a GGUF cannot say is told first, and named where the check fails.
    let (done, said) = exported(&llama3, &["--to", "merged-gguf", "--format", "f16", "--model", &demo, "--out", &path("merged")]);
    let (told, failed) = said.split_once("error: ").unwrap();
    assert!(
        !done && told.contains("`llama3` with factor 2 for 256 tokens") && failed.contains("cannot say how the rotary angles"),
        "{said}"
    );
    assert!(failed.contains("merged-safetensors") && !failed.contains("--format f16"), "{said}");
    // A run tells what other programs leave out, and its card counts what trains.
    let out = folder.path().join("run");
    let more = ["--steps", "1", "--train-norms", "--context", "256", "--rope-scaling", "llama3", "--group", "32", "--rank", "2"];
    let output = train(&out, &more).output().unwrap();
    let said = text(&output.stderr) + &text(&output.stdout);
    assert!(output.status.success() && said.contains("the norms train, too") && said.contains("groups of 32 rows"), "{said}");
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains("stretched by llama3 with factor 2 for 256 tokens") && card.contains(" in norms) |"), "{card}");
    let held: Value = serde_json::from_str(&succeeds(&["inspect", out.to_str().unwrap(), "--json"])).unwrap();
    let plan = ["plan", "--model", &demo, "--seq", "64", "--rank", "2", "--train-norms", "--json"];
    let planned: Value = serde_json::from_str(succeeds(&plan).lines().last().unwrap()).unwrap();
    assert_eq!(held["parameters"], planned["trainable_parameters"]);
    assert!(card.contains(&format!("| Parameters | {} (", held["parameters"])), "{card}");
}
