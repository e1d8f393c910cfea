//! Hostile files: every parser is given its seeds with deterministic damage, and must neither panic nor hang (5 s of processor time) nor allocate
//! past a limit. `cargo test` tries a few hundred inputs of each; `make fuzz CASES=200000 MINUTES=30` tries as many as it is told, and
//! `make fuzz FUZZ_CASE=gguf:1234` runs one again. An input that failed becomes an ordinary test where its parser is tested.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![allow(clippy::print_stdout, reason = "a worker speaks to its parent, a run to its user")]
#![cfg(not(target_arch = "wasm32"))]

mod driver;
mod input;
mod json;
mod mutate;
mod parsers;

use driver::{Limits, Parser, fuzz, replay, work};
use std::time::Duration;

/// The case that `FUZZ_CASE=parser:number` names.
fn wanted() -> Option<(String, u64)> {
    let text = std::env::var("FUZZ_CASE").ok().filter(|text| !text.is_empty())?;
    let (name, case) = text.split_once(':').expect("FUZZ_CASE=parser:number");
    Some((name.to_owned(), case.parse().expect("FUZZ_CASE=parser:number")))
}

#[track_caller]
fn survives(parser: &Parser) {
    survives_within(parser, Limits::of_environment());
}

#[track_caller]
fn survives_within(parser: &Parser, limits: Limits) {
    if wanted().is_some() {
        return;
    }
    let report = fuzz(parser, limits);
    println!("{}: {} inputs, {} failures", parser.name, report.tried, report.failures.len());
    let list: Vec<String> = report.failures.iter().map(|f| format!("FUZZ_CASE={}:{}  {}", parser.name, f.case, f.what)).collect();
    assert!(list.is_empty(), "{} of {} inputs:\n{}", list.len(), report.tried, list.join("\n"));
}

/// The other half of every test here: see [`driver::work`].
#[test]
fn worker() {
    let mut all = parsers::ALL.to_vec();
    all.extend([&parsers::large::LARGE, &parsers::broken::BROKEN]);
    work(&all);
}

#[test]
fn one_case_again() {
    if let Some((name, case)) = wanted() {
        replay(parsers::by_name(&name), case);
    }
}

macro_rules! each {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {
        $(#[test]
        $(#[$meta])*
        fn $name() {
            survives(parsers::by_name(stringify!($name)));
        })+

        #[test]
        fn every_parser_has_a_test() {
            let tested = [$(stringify!($name)),+];
            let untested: Vec<&str> = parsers::ALL.iter().map(|parser| parser.name).filter(|name| !tested.contains(name)).collect();
            assert!(untested.is_empty(), "without a test: {untested:?}");
        }
    };
}

each!(
    gguf,
    gguf_typed,
    gguf_split,
    gguf_tokenizer,
    safetensors,
    hf_config,
    tokenizer_json,
    chat_template,
    rows,
    run_file,
    patterns,
    adapter,
    merge,
    mixlora,
    torch_file,
    checkpoint,
    forged_checkpoint,
    jobs_file,
    workload,
    fleet,
    plan,
);

/// A file of n bytes takes about n steps, or n log n.
#[test]
fn large_files_end_in_time() {
    let seeds = (parsers::large::LARGE.seeds)().len() as u64;
    let limits = Limits { cases: seeds, ..Limits::of_environment() };
    survives_within(&parsers::large::LARGE, limits);
}

/// The driver finds each kind of failure, and goes on after it.
#[test]
fn failures_are_found() {
    if wanted().is_some() {
        return;
    }
    let limits = Limits { cases: parsers::broken::KINDS.len() as u64, time: Duration::from_secs(120), hang: Duration::from_millis(500) };
    let report = fuzz(&parsers::broken::BROKEN, limits);
    assert_eq!(report.tried, limits.cases);
    let found: Vec<u64> = report.failures.iter().map(|failure| failure.case).collect();
    assert_eq!(found, [1, 2, 3, 4, 5, 6], "{:?}", report.failures);
    for (failure, words) in report.failures.iter().zip(["a panic", "overflow", "took more than", "memory allocation", "died", "refused"]) {
        assert!(failure.what.contains(words), "{failure:?} does not say {words:?}");
    }
}
