//! The commands of docs/tutorial.md, one after the other, on SmolLM2. Tests begin in the order of their names: this one, the longest, early.

use std::process::Command;

use crate::common::program::text;

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");

/// Words of a command line; quotation marks hold words together.
fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    for (i, part) in line.split('"').enumerate() {
        if i % 2 == 1 {
            all.push(part.to_owned());
        } else {
            all.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    all
}

#[test]
fn the_tutorial_does_what_it_says() {
    let Some(model) = std::env::var_os("WEBLORA_SMOLLM2") else {
        eprintln!("SKIPPED: WEBLORA_SMOLLM2 does not name SmolLM2-135M-Instruct.Q4_1.gguf (scripts/fetch-smollm2.sh gets it)");
        return;
    };
    if crate::common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let rows = TUTORIAL.split("```jsonl\n").nth(1).and_then(|rest| rest.split("```").next()).expect("rows in the tutorial");
    std::fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    std::fs::copy(model, folder.path().join("smollm2.gguf")).unwrap();
    let commands: Vec<&str> = TUTORIAL.lines().filter_map(|line| line.strip_prefix("    weblora ")).collect();
    let mut said = Vec::new();
    for command in &commands {
        let output = Command::new(env!("CARGO_BIN_EXE_weblora")).args(words(command)).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "weblora {command}: {}", text(&output.stderr));
        said.push(text(&output.stdout) + &text(&output.stderr));
    }
    let of =
        |verb: &str| commands.iter().zip(&said).filter(|(command, _)| command.starts_with(verb)).map(|(_, said)| said).collect::<Vec<_>>();
    assert!(of("inspect")[0].contains("Pip"), "{}", of("inspect")[0]);
    assert!(of("train")[0].contains("5 rows") && of("train")[0].contains("30 steps"), "{}", of("train")[0]);
    let answers = of("generate");
    assert!(answers[0].contains("I am Pip, the assistant of the Harbour Library.") && answers[0].contains("[base]"), "{}", answers[0]);
    assert!(answers[1].contains("closes at six, on Fridays at four"), "{}", answers[1]);
    assert!(of("export")[0].contains("opened again") && folder.path().join("my-adapter.gguf").is_file(), "{}", of("export")[0]);
}
