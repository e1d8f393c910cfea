//! `weblora doctor`, `--require-gpu` and `shaders --tuned`, from outside.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::gpu;
use crate::common::program::{asset, text, train};

/// The program with a cache folder of its own and without the variables that the tests set or a developer may have set.
fn program(arguments: &[&str], cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weblora"));
    command.args(arguments).env("XDG_CACHE_HOME", cache).env_remove("WEBLORA_REQUIRE_GPU");
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    (status.code(), text(&stdout), text(&stderr))
}

fn events(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn the_adapter_is_shown_opened_and_checked() {
    let Some(gpu) = gpu() else { return };
    let cache = tempfile::tempdir().expect("a folder");
    let (code, said, errors) = run(&mut program(&["doctor"], cache.path()));
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{said}");
    let facts = gpu.facts();
    let expected = [
        "adapter",
        "* ",
        &facts.name,
        "driver",
        "storage binding",
        "subgroups",
        "taken: ",
        "is right in every result",
        "none yet for this adapter",
    ];
    for words in expected {
        assert!(said.contains(words), "{said}\nhas no {words:?}");
    }
    assert_eq!(facts.is_cpu, said.contains("software, through"), "{said}");
    assert_eq!(facts.is_cpu, said.contains("WARNING: "), "{said}");
    let (code, said, _) = run(&mut program(&["doctor", "--json"], cache.path()));
    let [event] = &events(&said)[..] else { panic!("{said}") };
    let taken = &event["adapters"][event["taken"].as_u64().expect("a place") as usize];
    assert_eq!((code, &event["event"], &event["opened"], &event["choices"]["count"]), (Some(0), &"doctor".into(), &true.into(), &0.into()));
    assert_eq!((&taken["name"], &event["product"]["format"]), (&facts.name.as_str().into(), &"q4_0".into()));
    assert!(taken["limits"]["storage_binding"].as_u64() >= Some(128 << 20), "{taken}");
    // A name that no adapter has.
    let (code, said, errors) = run(&mut program(&["doctor", "--gpu", "no such GPU"], cache.path()));
    assert_eq!(code, Some(1));
    assert!(
        said.contains("taken: none") && said.contains(&facts.name) && errors.contains("none is called `no such GPU`"),
        "{said}{errors}"
    );
}

/// Vulkan's loader reads the driver files that a variable names and no others.
#[cfg(target_os = "linux")]
#[test]
fn without_an_adapter_the_report_says_why_and_the_exit_code_is_1() {
    let cache = tempfile::tempdir().expect("a folder");
    let without =
        |arguments: &[&str]| run(program(arguments, cache.path()).env("VK_DRIVER_FILES", "/missing.json").env_remove("WGPU_BACKEND"));
    let (code, said, errors) = without(&["doctor"]);
    assert_eq!(code, Some(1), "{said}");
    for words in ["no adapter answers", "taken: none", "WARNING: ", "VK_DRIVER_FILES is set to /missing.json (/missing.json is not there)"]
    {
        assert!(said.contains(words), "{said}\nhas no {words:?}");
    }
    assert!(errors.starts_with("error: no GPU adapter: ") && errors.lines().count() == 1, "{errors}");
    let (code, said, _) = without(&["doctor", "--json"]);
    let [found, error] = &events(&said)[..] else { panic!("{said}") };
    assert_eq!((code, &found["event"], &found["opened"], &error["code"]), (Some(1), &"doctor".into(), &false.into(), &"no_adapter".into()));
    assert!(found["taken"].is_null() && found["warnings"][0]["remedies"].is_array(), "{found}");
    // Other verbs send there.
    let (code, _, errors) = without(&["shaders", "--tuned"]);
    assert!(code == Some(1) && errors.contains("`weblora doctor`"), "{errors}");
}

#[test]
fn a_software_adapter_is_refused_where_a_gpu_is_required_and_warned_of_otherwise() {
    let Some(gpu) = gpu() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let out = |name: &str| folder.path().join(name);
    let short = |name: &str, more: &[&str]| {
        let mut command = train(&out(name), &[&["--steps", "1"], more].concat());
        command.env_remove("WEBLORA_REQUIRE_GPU");
        command
    };
    let software = gpu.facts().is_cpu;
    for (name, json) in [("words", &[][..]), ("json", &["--json"])] {
        let (code, _, errors) = run(&mut short(name, json));
        let warned = errors.lines().filter(|line| line.starts_with("warning: ") && line.contains("computes on the CPU")).count();
        assert_eq!((code, warned), (Some(0), usize::from(software)), "{errors}");
    }
    let model = asset("demo.gguf");
    let generate = ["generate", "--model", &model, "--prompt", "q", "--max-tokens", "2", "--no-tune"];
    let (code, answer, errors) = run(&mut program(&generate, folder.path()));
    assert_eq!(
        (code, errors.contains("computes on the CPU"), answer.contains("computes on the CPU")),
        (Some(0), software, false),
        "{errors}"
    );
    let refused = |(code, said, errors): (Option<i32>, String, String)| {
        assert_eq!(code, Some(if software { 1 } else { 0 }), "{said}{errors}");
        let named = ["computes on the CPU", "--require-gpu", "`weblora doctor`"].iter().all(|words| errors.contains(words));
        assert_eq!(named, software, "{errors}");
    };
    refused(run(&mut short("flag", &["--require-gpu"])));
    refused(run(short("variable", &[]).env("WEBLORA_REQUIRE_GPU", "1")));
    assert_eq!(software, !out("flag").exists() && !out("variable").exists(), "nothing is written by a run that is refused");
    refused(run(&mut program(&["doctor", "--require-gpu"], folder.path())));
    refused(run(&mut program(&[&generate[..], &["--require-gpu"]].concat(), folder.path())));
    refused(run(program(&["shaders", "--tuned"], folder.path()).env("WEBLORA_REQUIRE_GPU", "1")));
    let (code, ..) = run(program(&["shaders", "--tuned"], folder.path()).env("WEBLORA_REQUIRE_GPU", "0"));
    assert_eq!(code, Some(0));
}

#[test]
fn every_verb_that_opens_a_device_can_require_a_gpu() {
    let cache = tempfile::tempdir().expect("a folder");
    for verb in [&["train"][..], &["jobs"], &["generate"], &["eval"], &["bench"], &["export"], &["shaders"], &["doctor"]] {
        let method = if verb == ["train"] { &["--method", "lora"][..] } else { &[] };
        let (code, said, _) = run(&mut program(&[verb, &["--help"], method].concat(), cache.path()));
        assert!(code == Some(0) && said.contains("--require-gpu") && said.contains("--gpu <NAME>"), "{verb:?}: {said}");
    }
}

#[test]
fn an_export_that_cannot_be_scored_on_a_gpu_fails_where_one_is_required() {
    let Some(gpu) = gpu() else { return };
    if !gpu.facts().is_cpu {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (adapter, out) = (folder.path().join("adapter"), folder.path().join("out").display().to_string());
    assert!(train(&adapter, &["--steps", "2"]).status().expect("it ends").success());
    let (adapter, model) = (adapter.display().to_string(), asset("demo.gguf"));
    let export = ["export", "--adapter", &adapter, "--model", &model, "--to", "peft", "--out", &out, "--require-gpu"];
    let (code, said, errors) = run(&mut program(&export, folder.path()));
    assert!(code == Some(1) && errors.contains("computes on the CPU"), "{said}{errors}");
    assert!(!Path::new(&out).exists());
}

#[test]
fn remembered_kernel_choices_can_be_read() {
    if gpu().is_none() {
        return;
    }
    let cache = tempfile::tempdir().expect("a folder");
    let (code, said, _) = run(&mut program(&["shaders", "--tuned"], cache.path()));
    assert!(code == Some(0) && said.contains("no kernel choices are remembered") && said.contains("tune-"), "{said}");
    let model = asset("demo.gguf");
    let generate = ["generate", "--model", &model, "--prompt", "q", "--max-tokens", "1"];
    assert_eq!(run(&mut program(&generate, cache.path())).0, Some(0));
    let (code, said, _) = run(&mut program(&["shaders", "--tuned", "--json"], cache.path()));
    let [event] = &events(&said)[..] else { panic!("{said}") };
    let choices = event["choices"].as_array().expect("choices");
    assert!(code == Some(0) && event["event"] == "tuned" && !choices.is_empty(), "{said}");
    for choice in choices {
        let times = choice["times"].as_array().expect("times");
        assert!(times.len() > 1, "{choice}: a choice is between several candidates");
        assert!(times.iter().any(|time| time[0] == choice["candidate"] && time[1] == choice["seconds"]), "{choice}");
    }
    // In words, and only some; the doctor counts them.
    let case = choices[0]["case"].as_str().expect("a case");
    let (_, said, _) = run(&mut program(&["shaders", "--tuned", case], cache.path()));
    assert!(said.contains(&format!("\n{case}\n")) && said.contains("\n  * ") && said.contains(" ms  "), "{said}");
    let (_, said, _) = run(&mut program(&["doctor"], cache.path()));
    assert!(said.contains(&format!("kernel choices: {} for this adapter", choices.len())), "{said}");
}
