//! The program from outside: verbs that succeed, verbs that fail with one sentence.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

pub fn golden(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).display().to_string()
}

/// The path of an embedded asset.
pub fn asset(name: &str) -> String {
    format!("{}/assets/demo/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// `weblora train` on the embedded model and rows, saving after every step; `more` comes last.
pub fn train(out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weblora"));
    command.args(["train", "--model", &asset("demo.gguf"), "--data", &asset("train.jsonl"), "--no-tune"]).arg("--out").arg(out);
    command.args(["--batch", "4", "--seq", "32", "--save-every", "1"]).args(more);
    command
}

pub fn weblora(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weblora")).args(arguments).output().expect("the program starts")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Runs a verb that succeeds, and gives what it printed on stdout.
#[track_caller]
pub fn succeeds(arguments: &[&str]) -> String {
    let output = weblora(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a verb that fails with one sentence that has these words, and nothing on stdout.
#[track_caller]
pub fn fails(arguments: &[&str], words: &[&str]) {
    let output = weblora(arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said:?}");
    for word in words {
        assert!(said.contains(word), "{said:?} does not mention {word:?}");
    }
    let output = weblora(&[arguments, &["--json"]].concat());
    let events: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["event"], "error");
    assert!(events[0]["code"].is_string() && said.contains(events[0]["message"].as_str().expect("a message")));
}
