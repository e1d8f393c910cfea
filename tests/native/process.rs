//! What surrounds a run: readers that go away, closed terminals, other processes in its folder, a loss that becomes NaN, input without end.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::gpu;
use crate::common::program::{asset, fails, golden, succeeds, text, train};

/// The state in the checkpoint of a folder.
fn state(out: &Path) -> Value {
    let bytes = fs::read(out.join("checkpoint.safetensors")).expect("a checkpoint");
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("safetensors");
    let meta: Value = serde_json::from_str(&header.metadata().as_ref().expect("metadata")["weblora"]).expect("JSON");
    serde_json::from_str(meta["state"].as_str().expect("text")).expect("JSON")
}

/// What a folder holds, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

const WHOLE: [&str; 6] =
    ["README.md", "adapter_config.json", "adapter_model.safetensors", "checkpoint.safetensors", "run.toml", "weblora.json"];

#[test]
fn a_stream_that_nobody_reads_ends_no_run() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = |name: &str| folder.path().join(name);
    let steps = ["--steps", "3"];
    // Closed pipes: words on stderr, events on stdout, both.
    for (name, json, closed_out, closed_err) in [("err", false, false, true), ("out", true, true, false), ("both", true, true, true)] {
        let mut command = train(&out(name), &steps);
        let stream = |closed| if closed { Stdio::piped() } else { Stdio::null() };
        command.args(if json { &["--json"][..] } else { &[] }).stdout(stream(closed_out)).stderr(stream(closed_err));
        let mut child = command.spawn().expect("the program starts");
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{name}");
        assert_eq!(names(&out(name)), WHOLE, "{name}");
    }
    // A log on a full disk.
    if cfg!(target_os = "linux") {
        let full = || OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let output = train(&out("full"), &steps).arg("--json").stdout(full()).output().expect("it ends");
        let said = text(&output.stderr);
        let lines = said.lines().filter(|line| !line.contains("computes on the CPU")).count(); // what is said of a software adapter
        assert_eq!((output.status.code(), lines), (Some(0), 1), "{said}");
        assert!(said.contains("events are lost"), "{said}");
        let status = train(&out("words"), &steps).stderr(full()).status().expect("it ends");
        assert_eq!((status.code(), names(&out("words"))), (Some(0), names(&out("full"))));
    }
}

/// `script` runs the program on a terminal of its own, which is gone when `script` is killed.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_terminal_saves_and_ends_with_130() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (out, code) = (folder.path().join("out"), folder.path().join("code"));
    let run = train(&out, &["--steps", "100000"]);
    let words: Vec<String> = std::iter::once(run.get_program()).chain(run.get_args()).map(|w| format!("'{}'", w.display())).collect();
    // A shell that tells its job of the end, as a login shell does, and outlives the terminal to write down how the job ended.
    let line = format!("{} & p=$!; trap \"kill -HUP $p\" HUP; wait $p; wait $p; echo $? >'{}'", words.join(" "), code.display());
    // A run of tests that is itself protected from hangups (nohup) would hand that on, and a shell traps no signal that it began with ignoring.
    let mut terminal = Command::new("env")
        .args(["--default-signal=HUP", "script", "-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("script (util-linux)");
    wait_for(|| out.join("checkpoint.safetensors").exists());
    terminal.kill().expect("killed");
    terminal.wait().expect("it ends");
    wait_for(|| fs::read_to_string(&code).is_ok_and(|text| text.ends_with('\n')));
    assert_eq!(fs::read_to_string(&code).expect("written").trim(), "130");
    let step = state(&out)["step"].as_u64().expect("a step");
    assert!(step > 0 && !out.join(".weblora.lock").exists(), "step {step}");
}

#[cfg(target_os = "linux")]
fn wait_for(happened: impl Fn() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < Duration::from_secs(120), "waited for two minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_runs_cannot_write_into_one_folder() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let mut first = train(&out, &["--steps", "100000", "--json"]).stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut lines = BufReader::new(first.stdout.take().expect("its output")).lines();
    assert!(lines.by_ref().any(|line| line.expect("text").contains(r#""event":"checkpoint""#)));
    for how in ["--overwrite", "--resume"] {
        let output = train(&out, &["--steps", "9", "--method", "cola", how]).output().expect("it ends");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{how}: {said}");
        assert!(said.contains(&format!("another weblora (process {}) is writing {}", first.id(), out.display())), "{how}: {said}");
    }
    first.kill().expect("killed");
    first.wait().expect("it ends");
    // What it left behind locks nothing and is cleared away: the lock file, and half of a file that was being saved.
    fs::write(out.join(".checkpoint.safetensors.4194305.tmp"), "half").expect("written");
    let steps = (state(&out)["step"].as_u64().expect("a step") + 1).to_string();
    assert!(train(&out, &["--resume", "--steps", &steps]).status().expect("it ends").success());
    assert_eq!(names(&out), WHOLE);
}

#[test]
fn what_a_killed_export_left_is_cleared_and_two_cannot_write_to_one_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    let (adapter, out) = (golden("tiny_llama/adapter"), place("out").display().to_string());
    let export = ["export", "--adapter", &adapter, "--to", "peft", "--out", &out];
    fs::create_dir_all(place(".out.tmp/files")).expect("created");
    fs::write(place(".out.tmp/files/half.safetensors"), "half").expect("written");
    let lock = File::create(place(".out.tmp/.weblora.lock")).expect("created");
    lock.lock().expect("locked");
    fails(&export, &["another weblora", ".out.tmp"]);
    drop(lock);
    succeeds(&export);
    assert_eq!(names(folder.path()), ["out"]);
    assert!(!place("out/half.safetensors").exists());
}

/// A rate that ends in NaN: the run stops, says how to go on, takes no larger rate, and records a smaller one.
#[test]
fn a_run_that_diverged_takes_a_smaller_rate_and_no_larger_one() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let run = |more: &[&str]| {
        let output = train(&out, &[&["--steps", "6", "--warmup", "2"], more].concat()).output().expect("it ends");
        (output.status.code(), text(&output.stderr))
    };
    for again in [&["--lr", "1e30"][..], &["--resume"]] {
        let (code, said) = run(again);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("the checkpoint of step 0 in ") && said.contains("--resume --out") && said.contains("--lr 1e-3"), "{said}");
        assert_eq!(state(&out)["step"], 0, "{again:?}: the first update destroyed what step 1 saved: {said}");
    }
    let (code, said) = run(&["--resume", "--lr", "1e31"]);
    assert!(code == Some(1) && said.contains("give a smaller one"), "{said}");
    let (code, said) = run(&["--resume", "--lr", "1e-3"]);
    assert!(code == Some(0) && said.contains("the learning rate is 0.001 from here on"), "{said}");
    let saved = state(&out);
    assert_eq!((&saved["step"], &saved["lr_changes"]), (&json!(6), &json!([{ "step": 0, "from": 1e30, "to": 1e-3 }])));
    assert_eq!(names(&out), WHOLE);
}

/// Fewer steps than were done is no run.
#[test]
fn a_run_is_not_resumed_to_fewer_steps_than_are_done() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    assert!(train(&out, &["--steps", "6"]).status().expect("it ends").success());
    let output = train(&out, &["--resume", "--steps", "3"]).output().expect("it ends");
    assert!(text(&output.stderr).contains("the run has 3 steps, 6 of them are done"), "{}", text(&output.stderr));
}

#[cfg(unix)]
#[test]
fn input_without_end_is_refused() {
    let (folder, model) = (tempfile::tempdir().expect("a folder"), asset("demo.gguf"));
    let out = folder.path().join("out").display().to_string();
    fails(&["train", "--model", &model, "--data", "/dev/zero", "--out", &out], &["/dev/zero: it goes on after 268435456 bytes"]);
    fails(&["train", "--model", "/dev/zero", "--data", &asset("train.jsonl"), "--out", &out], &["/dev/zero"]);
}
