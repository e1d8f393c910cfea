//! The command line program, from outside: what it prints where, and its exit codes.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::gpu;
use crate::common::program::{asset, fails, golden, succeeds, text, weblora};

#[test]
fn wrong_arguments_are_wrong_usage() {
    for arguments in [&["nothing"][..], &["inspect"], &["inspect", "x", "--rows", "3"], &["inspect", "x", "--seq", "1", "--data", "y"]] {
        let output = weblora(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && text(&output.stderr).contains("--help"), "{arguments:?}");
    }
    assert!(succeeds(&["--help"]).contains("inspect"));
    assert!(succeeds(&["inspect", "--help"]).contains("Examples:"));
    assert!(succeeds(&["--version"]).starts_with("weblora "));
}

#[test]
fn a_precision_that_is_unknown_or_that_the_adapter_lacks_is_refused() {
    let output = weblora(&["bench", "--precision", "half"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("exact or mixed"), "{}", text(&output.stderr));
    let Some(gpu) = gpu().filter(|gpu| gpu.facts().is_cpu) else { return };
    let model = asset("demo.gguf");
    fails(
        &["generate", "--model", &model, "--prompt", "a", "--max-tokens", "4", "--precision", "mixed"],
        &["mixed precision on", &gpu.facts().name, "--precision"],
    );
}

/// Nobody has to know the context of a small model to ask it something.
#[test]
fn an_answer_takes_what_the_context_leaves() {
    if gpu().is_none() {
        return;
    }
    let prompt = "Tom has a red hat. ".repeat(4);
    let ask = ["generate", "--model", &asset("demo.gguf"), "--raw", "--no-tune", "--prompt", &prompt];
    succeeds(&ask);
    let refused = weblora(&[&ask[..], &["--max-tokens", "128"]].concat());
    assert!(!refused.status.success() && text(&refused.stderr).contains("exceed the context of 128"), "{}", text(&refused.stderr));
}

#[test]
fn a_model_is_shown() {
    let words = succeeds(&["inspect", &golden("tiny_llama/model.gguf")]);
    for expected in ["llama", "2 blocks, width 32, feed-forward 96, 4 heads of 16 on 2 key/value heads", "q4_1", "general.architecture"] {
        assert!(words.contains(expected), "{words}");
    }
    assert!(!words.contains("model.layers.1.mlp.up_proj.weight"));
    let words = succeeds(&["inspect", &golden("tiny_llama/model.safetensors"), "--tensors"]).replace('\n', " ");
    assert!(words.contains("model.layers.1.mlp.up_proj.weight"), "{words}");
}

#[test]
fn json_is_one_event_a_line_and_nothing_else() {
    let out = succeeds(&["--json", "inspect", &golden("odd_llama"), "--tensors"]);
    let event: Value = serde_json::from_str(&out).expect("one line of JSON");
    assert_eq!((&event["event"], &event["hidden_size"], &event["num_attention_heads"]), (&"model".into(), &36.into(), &9.into()));
    assert_eq!(event["tensors"].as_array().map(Vec::len), Some(11));
    assert_eq!(event["hash"].as_str().map(str::len), Some(32));
}

#[test]
fn an_adapter_is_checked_against_the_model() {
    let words = succeeds(&["inspect", &golden("tiny_llama/model.safetensors"), "--adapter", &golden("tiny_llama/adapter")]);
    assert!(words.contains("LoRA, rank 4, alpha 8, 14 layers"), "{words}");
    let out = succeeds(&["inspect", &golden("tiny_llama/model.safetensors"), "--adapter", &golden("tiny_llama/adapter"), "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON")["sites"][0]["site"], "layers.0.self_attn.q_proj");
    fails(&["inspect", &golden("odd_llama"), "--adapter", &golden("tiny_llama/adapter")], &["tiny_llama/adapter", "1 blocks"]);
    // Its weblora.json names another base.
    let arguments = ["inspect", &golden("tiny_llama/model.safetensors"), "--adapter", &golden("peft_patterns")];
    let output = weblora(&arguments);
    let said = text(&output.stderr);
    assert!(output.status.success() && text(&output.stdout).contains("it fits this model"), "{said}");
    for word in ["peft_patterns", "was trained on the base", "hash ab", "tiny_llama (f32, hash", "--strict-base"] {
        assert!(said.contains(word), "{said} without {word}");
    }
    fails(&[&arguments[..], &["--strict-base"]].concat(), &["peft_patterns", "was trained on the base", "hash ab"]);
    fails(&["inspect", &golden("tiny_llama/model.safetensors"), "--adapter", &golden("odd_llama")], &["no adapter_config.json"]);
    fails(&["inspect", &golden("tiny_llama/model.safetensors"), "--adapter", &golden("missing")], &["is no folder"]);
}

#[test]
fn a_pickle_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    std::fs::copy(golden("tiny_llama/adapter/adapter_config.json"), path("adapter_config.json")).expect("copied");
    std::fs::write(path("adapter_model.bin"), b"x").expect("written");
    fails(&["inspect", &golden("tiny_llama/model.safetensors"), "--adapter", &folder.path().display().to_string()], &["pickle"]);
}

#[test]
fn bad_files_are_one_sentence() {
    fails(&["inspect", "missing.gguf"], &["missing.gguf", "check the path"]);
    // Names of models and rows on Hugging Face.
    fails(&["inspect", "hf:owner/model"], &["hf:owner/model", "download the file"]);
    fails(&["inspect", &asset("demo.gguf"), "--data", "hf:owner/rows"], &["hf:owner/rows", "download the file"]);
    fails(&["inspect", &golden("README.md")], &["README.md", "GGUF"]);
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes, kind) in
        [("rows.jsonl.gz", &b"\x1f\x8b\x08\x00"[..], "gzip"), ("rows.parquet", b"PAR1\x15\x04", "Parquet"), ("m.zip", b"PK\x03\x04", "zip")]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let path = path.display().to_string();
        fails(&["inspect", &path], &[name, kind]);
        fails(&["inspect", &asset("demo.gguf"), "--data", &path], &[name, kind]);
    }
    fails(&["inspect", &golden("tiny_llama/model.gguf"), "--data", &golden("smollm2_rows.jsonl")], &["tokenizer"]);
}

#[test]
fn settings_that_cannot_work_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out").display().to_string();
    let model = golden("tiny_llama/model.gguf");
    fails(&["train", "--out", &out], &["`model`", "--model PATH"]);
    fails(&["train", "--out", &out, "--rank", "0", "--model", &model], &["`rank`"]);
    fails(&["train", "--out", &out, "--method", "dora", "--model", &model], &["`method`"]);
    fails(&["train", "--out", &out, "--resume"], &["`resume`", "checkpoint.safetensors"]);
    fails(&["train", "--out", &out, "--config", &golden("missing.toml")], &["missing.toml"]);
    let file = folder.path().join("run.toml");
    std::fs::write(&file, "rnak = 4\n").expect("written");
    fails(&["train", "--out", &out, "--config", &file.display().to_string()], &["`rnak`", "did you mean `rank`?"]);
    assert_eq!(weblora(&["train", "--steps", "1", "--epochs", "1"]).status.code(), Some(2));
    assert_eq!(weblora(&["train", "--lora-plus", "0"]).status.code(), Some(2));
    assert!(!Path::new(&out).exists());
    let help = succeeds(&["train", "--help", "--method", "lora"]);
    assert!(help.contains("--lora-plus") && help.contains("[lora, cola") && help.contains("Examples:"), "{help}");
    assert!(!succeeds(&["train", "--help"]).contains("--lora-plus"));
    std::fs::write(&file, "lora_alpha = 4\n").expect("written");
    fails(&["train", "--out", &out, "--config", &file.display().to_string()], &["`lora_alpha`", "did you mean `alpha`?"]);
    std::fs::write(&file, "lr = nan\n").expect("written");
    fails(&["train", "--out", &out, "--config", &file.display().to_string()], &["`lr`", "finite"]);
    assert_eq!(weblora(&["train", "--lr", "nan"]).status.code(), Some(2));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    use std::process::Stdio;
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_weblora"))
        .args(["inspect", &golden("tiny_llama/model.safetensors"), "--tensors"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn a_plan_needs_no_device_and_kernels_can_be_read() {
    let line = succeeds(&["--json", "plan", "--model", &asset("demo.gguf"), "--rank", "8", "--batch", "2", "--seq", "64"]);
    let plan: serde_json::Value = serde_json::from_str(&line).expect("one JSON line");
    let total = plan["planned_bytes"].as_u64().expect("bytes");
    let parts: u64 = plan["persistent"].as_object().expect("classes").values().filter_map(serde_json::Value::as_u64).sum();
    let rest = plan["activations"].as_u64().unwrap_or(0) + plan["params"].as_u64().unwrap_or(0);
    assert_eq!(total, parts + rest);
    // What no binding holds, and what 32 bits cannot address.
    for batch in ["8192", "65536", "262144"] {
        fails(&["plan", "--model", &asset("demo.gguf"), "--batch", batch, "--seq", "64"], &["bytes in one binding", "--batch"]);
    }
    // With rows, a plan knows how the run goes through them.
    let plan = ["plan", "--model", &asset("demo.gguf"), "--data", &asset("train.jsonl"), "--seq", "64"];
    assert!(succeeds(&[&plan[..], &["--batch-rows", "8"]].concat()).contains("8 rows and"));
    fails(&[&plan[..], &["--batch-rows", "8", "--epochs", "0"]].concat(), &["`epochs`"]);
    assert!(succeeds(&["shaders"]).contains("rmsnorm"));
    assert!(succeeds(&["shaders", "rmsnorm_backward"]).contains("@compute @workgroup_size(WG)"));
}

/// Starts a run of forty steps, many more than a signal takes, that saves every two, and does `at_step` when the event of a step or checkpoint comes.
#[cfg(unix)]
fn train(out: &str, resume: bool, mut at_event: impl FnMut(&serde_json::Value, u32)) -> Option<i32> {
    use std::io::{BufRead, BufReader};
    let (model, rows) = (asset("demo.gguf"), asset("train.jsonl"));
    let mut arguments = vec!["--json", "train", "--model", &model, "--data", &rows, "--out", out, "--no-tune"];
    arguments.extend(["--steps", "40", "--batch", "4", "--seq", "32", "--save-every", "2", "--dropout", "0.1", "--lr", "2e-3"]);
    if resume {
        arguments.push("--resume");
    }
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_weblora"))
        .args(arguments)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let id = child.id();
    for line in BufReader::new(child.stdout.take().expect("its output")).lines() {
        let event = serde_json::from_str(&line.expect("text")).expect("every line is an event");
        at_event(&event, id);
    }
    child.wait().expect("it ends").code()
}

#[cfg(unix)]
fn signal(name: &str, id: u32) {
    std::process::Command::new("kill").args([name, &id.to_string()]).status().expect("kill");
}

/// Stopped politely, then killed, then finished: the adapter has the bytes of a run that nobody disturbed.
#[cfg(unix)]
#[test]
fn a_run_survives_sigterm_and_sigkill_bit_for_bit() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    assert_eq!(train(&path("whole"), false, |_, _| {}), Some(0));
    let is = |event: &serde_json::Value, kind: &str, step: u64| event["event"] == kind && event["step"] == step;
    let code = train(&path("parts"), false, |event, id| {
        if is(event, "step", 1) {
            signal("-TERM", id);
        }
    });
    assert_eq!(code, Some(130), "interrupted after saving");
    let code = train(&path("parts"), true, |event, id| {
        if is(event, "checkpoint", 4) {
            signal("-KILL", id);
        }
    });
    assert_eq!(code, None, "killed");
    assert_eq!(train(&path("parts"), true, |_, _| {}), Some(0));
    let bytes = |name: &str| std::fs::read(folder.path().join(name).join("adapter_model.safetensors")).expect("an adapter");
    assert_eq!(bytes("whole"), bytes("parts"));
    // An output folder is not overwritten by accident.
    assert_eq!(train(&path("whole"), false, |_, _| {}), Some(1));
}

/// Two files with weights, held-out rows with choices, MultiLoRA: what is told by file, what is written, and what goes on from it.
#[test]
fn a_mixture_trains_multilora_and_tells_of_every_file() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let lists: String = (0..12).map(|i| format!("{{\"prompt\": \"Copy: cat dog {i} =\", \"completion\": \" cat dog {i}.\"}}\n")).collect();
    std::fs::write(path("copy.jsonl"), lists).expect("written");
    let kind = |word: &str, answer: &str| {
        format!(
            "{{\"prompt\": \"Is {word} an animal or a fruit?\", \"completion\": \"{answer}\", \"choices\": [\" an animal.\", \" a fruit.\"]}}\n"
        )
    };
    let kinds: String = ["cat", "dog", "fox", "cow"]
        .iter()
        .map(|w| kind(w, " an animal."))
        .chain(["plum", "pear"].iter().map(|w| kind(w, " a fruit.")))
        .collect();
    std::fs::write(path("kind.jsonl"), &kinds).expect("written");
    let (model, out, copy, kind) = (asset("demo.gguf"), path("out"), path("copy.jsonl"), path("kind.jsonl"));
    let base = ["--json", "train", "--model", &model, "--out", &out, "--no-tune"];
    let run =
        ["--data", &copy, "--data", &kind, "--data-weights", "1,2", "--eval-split", "0.4", "--batch", "2", "--seq", "32", "--steps", "3"];
    let method = ["--method", "multilora", "--rank", "2", "--modules", "2"];
    let printed = succeeds(&[&base[..], &run, &method].concat());
    let events: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    let of = |kind: &str| events.iter().filter(|e| e["event"] == kind).collect::<Vec<_>>();
    assert!(of("step").iter().all(|e| e["tasks"].as_object().is_some_and(|tasks| !tasks.is_empty())), "{printed}");
    let eval = of("eval")[0];
    assert!(eval["tasks"]["copy"]["loss"].is_f64() && eval["tasks"]["copy"]["accuracy"].is_null(), "{eval}");
    assert!(eval["tasks"]["kind"]["accuracy"].is_f64() && eval["accuracy"] == eval["tasks"]["kind"]["accuracy"], "{eval}");
    assert!(["copy", "kind"].contains(&eval["worst"].as_str().unwrap_or_default()), "{eval}");
    let run_file = std::fs::read_to_string(folder.path().join("out/run.toml")).expect("run.toml");
    assert!(run_file.contains("data-weights = [1.0, 2.0]") && run_file.contains("method = \"multilora\""), "{run_file}");
    // Four more steps from the checkpoint; other weights are another run.
    assert!(succeeds(&[&base[..], &["--resume", "--steps", "4"]].concat()).contains("\"resumed_at\":3"));
    fails(&[&base[1..], &["--resume", "--data-weights", "2,1"]].concat(), &["data-weights", "without --resume"]);
    // A run that has nothing left to do has no loss.
    let again = succeeds(&[&base[..], &["--resume"]].concat());
    assert!(again.contains("\"event\":\"done\"") && again.contains("\"loss\":null") && !again.contains("\"event\":\"step\""), "{again}");
    // The run's checkpoint knows the modules; a checkpoint that cannot be read is a warning.
    let shown = succeeds(&["analyze", &out, "--svg", &path("pictures")]);
    assert!(shown.contains("module 1: |s| ") && folder.path().join("pictures/out-modules.svg").is_file(), "{shown}");
    let event: Value = serde_json::from_str(succeeds(&["--json", "analyze", &out]).trim()).expect("an event");
    assert!(event["sites"][0]["modules"]["each"][1]["mean_scale"].is_f64() && event["modules"][0]["share"].is_f64(), "{event}");
    std::fs::write(path("out/checkpoint.safetensors"), "cut off").expect("written");
    let shown = succeeds(&["--json", "analyze", &out]);
    assert!(shown.contains("modules are left out") && !shown.contains("mean_scale"), "{shown}");
    // The export is plain LoRA of rank 4: LoRA goes on from it, MultiLoRA cannot take it apart.
    let more = |name: &str| {
        vec![
            "train".to_owned(),
            "--model".into(),
            model.clone(),
            "--out".into(),
            path(name),
            "--no-tune".into(),
            "--seq".into(),
            "32".into(),
            "--data".into(),
            copy.clone(),
            "--init-adapter".into(),
            out.clone(),
        ]
    };
    let with = |name: &str, rest: &[&str]| more(name).into_iter().chain(rest.iter().map(|s| (*s).to_owned())).collect::<Vec<_>>();
    let text = |words: &[String]| succeeds(&words.iter().map(String::as_str).collect::<Vec<_>>());
    text(&with("more", &["--steps", "1"]));
    let refused = with("again", &["--method", "multilora", "--modules", "2"]);
    fails(&refused.iter().map(String::as_str).collect::<Vec<_>>(), &["sum of its modules", "--method lora"]);
}

#[test]
fn policies_are_simulated_without_a_gpu() {
    let times = ["simulate", "--step-ms", "30", "--row-us", "200"];
    let with = |more: &[&'static str]| [&times[..], more].concat();
    let out = succeeds(&with(&["--workload", "outlier", "--policy", "fair,fifo", "--json", "--jobs"]));
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((events.len(), &events[0]["policy"], &events[13]["policy"]), (26, &"fair".into(), &"fifo".into()));
    assert!(events[1..13].iter().all(|event| event["event"] == "simulated_job" && event["state"] == "done"));
    assert!(succeeds(&with(&["--workload", "sweep", "--early-stop", "halving", "--policy", "fair", "--jobs"])).contains("of which"));
    fails(&with(&["--workload", "nothing"]), &["burst, stream, urgent, outlier or sweep"]);
    fails(&with(&["--policy", "best"]), &["`policy`"]);
    fails(&with(&["--early-stop", "luck"]), &["`early-stop.rules`"]);
    fails(&with(&["--memory", "lots"]), &["`memory`"]);
    fails(&["simulate", "--step-ms=-1", "--row-us", "1"], &["`step-ms`"]);
}
