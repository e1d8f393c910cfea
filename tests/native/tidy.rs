//! The rules of ARCHITECTURE.md that a compiler does not check. Each has a test on the repository, and a test that it catches an
//! offender: a rule that cannot fail proves nothing.

mod circles;
mod lexer;
mod rules;

use lexer::Rust;
use std::{fs, path::Path};

/// Every text file of the repository, as (path from its root, text); what .gitignore names at the root is left out.
fn repository() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignore = fs::read_to_string(root.join(".gitignore")).expect(".gitignore is there");
    let ignored: Vec<&str> = ignore.lines().filter_map(|l| l.strip_prefix('/')).chain([".git"]).collect();
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository can be listed") {
            let path = entry.expect("a folder of the repository can be listed").path();
            let name = path.strip_prefix(root).expect("it is below the root").to_string_lossy().replace('\\', "/");
            if ignored.contains(&name.as_str()) || name.ends_with("__pycache__") {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                files.push((name, text)); // what is not UTF-8 is data, not text
            }
        }
    }
    files.sort();
    files
}

fn rust_sources() -> Vec<Rust> {
    let files = repository().into_iter().filter(|(path, _)| path.ends_with(".rs"));
    files.map(|(path, text)| Rust::new(&path, &text)).collect()
}

fn product_sources() -> Vec<Rust> {
    rust_sources().into_iter().filter(|f| f.path.starts_with("src/")).collect()
}

fn none(offences: Vec<String>) {
    assert!(offences.is_empty(), "{} offence(s):\n{}", offences.len(), offences.join("\n"));
}

/// Asserts that `rule` reports each of `bad`, given as (path, text), exactly once, and none of `good`.
fn catches(rule: impl Fn(&Rust) -> Vec<String>, bad: &[(&str, &str)], good: &[(&str, &str)]) {
    for (path, text) in bad {
        let found = rule(&Rust::new(path, text));
        assert_eq!(found.len(), 1, "in {path}: {text}\nreported: {found:?}");
    }
    for (path, text) in good {
        let found = rule(&Rust::new(path, text));
        assert!(found.is_empty(), "in {path}: {text}\nwrongly reported: {found:?}");
    }
}

#[test]
fn the_walk_finds_the_sources() {
    let sources = product_sources();
    for path in ["src/lib.rs", "src/error.rs", "src/bin/weblora.rs"] {
        assert!(sources.iter().any(|f| f.path == path && !f.all.is_empty()), "{path} was not read");
    }
}

#[test]
fn dependencies_point_one_way() {
    none(product_sources().iter().flat_map(rules::layers).collect());
}

#[test]
fn dependencies_point_one_way_catches() {
    let bad = [
        ("src/adapters/lora.rs", "use crate::model::Llama;"),
        ("src/quant/q4_0.rs", "use crate::{error::Error, gpu::View};"),
        ("src/kernels/mod.rs", "fn f() { crate::train::step(); }"),
        ("src/text/mod.rs", "use super::kernels::Params;"),
        ("src/text/chat.rs", "use super::super::gpu;"),
        ("src/gpu/plan.rs", "use crate::quant;"),
        ("src/error.rs", "use crate::config::ModelConfig;"),
        ("src/novelty/mod.rs", ""),
        ("src/model/llama.rs", "use crate::Trainer;"),
    ];
    let good = [
        ("src/model/llama.rs", "use crate::{Error, Result, adapters::Site, formats};\nuse super::block;"),
        ("src/quant/q4_0.rs", "use super::bytes;\n#[cfg(test)]\nmod tests { use crate::model; }"),
        ("src/train/step.rs", "//! crate::wasm\nuse crate::export::peft; const S: &str = \"crate::wasm::x\";"),
        ("src/wasm.rs", "use crate::train::Trainer;"),
        ("src/lib.rs", "pub use error::Error;"),
    ];
    catches(rules::layers, &bad, &good);
}

#[test]
fn the_layer_table_has_no_cycle() {
    for (row, (name, uses)) in rules::LAYERS.iter().enumerate() {
        for used in *uses {
            assert!(rules::LAYERS[..row].iter().any(|(n, _)| n == used), "`{name}` uses `{used}`, which is not above it in the table");
        }
    }
}

#[test]
fn platforms_stay_where_they_belong() {
    none(product_sources().iter().flat_map(rules::confined).collect());
}

#[test]
fn platforms_stay_where_they_belong_catches() {
    let bad = [
        ("src/model/llama.rs", "fn f(d: &wgpu::Device) {}"),
        ("src/kernels/mod.rs", "use wgpu;"),
        ("src/train/mod.rs", "use web_sys::Window;"),
        ("src/gpu/device.rs", "use wasm_bindgen::prelude::*;"),
        ("src/export/peft.rs", "use std::{fmt, fs};"),
        ("src/formats/gguf.rs", "fn f() { std::fs::read(p); }"),
        ("src/train/trainer.rs", "use std::time::{Duration, Instant};"),
        ("src/gpu/device.rs", "fn f() { pollster::block_on(x); }"),
        ("src/text/mod.rs", "use std::thread;"),
    ];
    let good = [
        ("src/gpu/device.rs", "use wgpu::Device;"),
        ("src/gpu/clock.rs", "use web_sys::Performance; use std::time::Instant;"),
        ("src/wasm.rs", "use wasm_bindgen::prelude::*;"),
        ("src/bin/weblora.rs", "use std::fs;"),
        ("src/formats/source.rs", "use std::fs::File;"),
        ("src/model/llama.rs", "// wgpu::Device\n#[cfg(test)]\nmod tests { use std::fs; }"),
    ];
    catches(rules::confined, &bad, &good);
}

#[test]
fn nothing_unfinished_and_no_printing() {
    none(rust_sources().iter().flat_map(rules::macros).collect());
}

#[test]
fn nothing_unfinished_and_no_printing_catches() {
    let bad = [
        ("src/a.rs", "fn f() { todo!() }"),
        ("src/a.rs", "#[cfg(test)] mod tests { fn f() { unimplemented!(\"x\") } }"),
        ("tests/a.rs", "fn f() { dbg!(x); }"),
        ("src/a.rs", "fn f() { println!(\"x\"); }"),
        ("src/a.rs", "fn f() { eprintln!(\"x\"); }"),
    ];
    let good = [("src/bin/weblora.rs", "fn main() { println!(\"x\"); }"), ("tests/a.rs", "fn f() { eprintln!(\"skipped\"); }")];
    catches(rules::macros, &bad, &good);
}

#[test]
fn methods_and_formats_are_told_apart_in_their_tables() {
    none(product_sources().iter().flat_map(rules::no_match_on_rows).collect());
}

#[test]
fn methods_and_formats_are_told_apart_in_their_tables_catches() {
    let bad = [
        ("src/train/step.rs", "match method { Method::MixLora => 1, _ => 2 }"),
        ("src/model/linear.rs", "match name { \"q4_0\" => 1, _ => 2 }"),
        ("src/export/peft.rs", "if job.method == \"cola\" {}"),
        ("src/kernels/matmul.rs", "if format == &quant::Q4_1 {}"),
        ("src/bin/weblora.rs", "match f { Format::Nf4 => x() }"),
    ];
    let good = [
        ("src/quant/mod.rs", "match name { \"q4_0\" => 1, _ => 2 }"),
        ("src/adapters/mod.rs", "match m { Method::MixLora => 1 }"),
        ("src/model/linear.rs", "let default = \"q4_0\"; let lora = 1; if lora == 2 {}"),
        ("src/export/peft.rs", "if peft_type == \"LORA\" {}"),
        ("src/text/mod.rs", "match x { \"q_proj\" => 1, Chat => 2 }"),
    ];
    catches(rules::no_match_on_rows, &bad, &good);
}

#[test]
fn files_are_small_owned_and_portable() {
    none(repository().iter().flat_map(|(path, text)| rules::text(path, text)).collect());
}

#[test]
fn files_are_small_owned_and_portable_catches() {
    let long = "x\n".repeat(rules::MAX_LINES + 1);
    let todo = concat!("// TO", "DO: later");
    let fixme = concat!("# FIX", "ME");
    let machine = concat!("open('/ho", "me/me/model.gguf')");
    for (path, text) in [("src/a.rs", long.as_str()), ("shaders/a.wgsl", todo), ("scripts/a.py", fixme), ("README.md", machine)] {
        assert_eq!(rules::text(path, text).len(), 1, "{path}");
    }
    let owned = concat!("// TO", "DO(ada): when wgpu 31 is out");
    for (path, text) in [("src/a.rs", &long[2..]), ("src/a.rs", owned), ("tests/golden/a.json", long.as_str())] {
        assert!(rules::text(path, text).is_empty(), "{path}");
    }
}

#[test]
fn every_shader_is_used() {
    let files = repository();
    let shaders: Vec<String> = files.iter().map(|f| f.0.clone()).filter(|p| p.starts_with("shaders/") && p.ends_with(".wgsl")).collect();
    let sources: Vec<_> = files.into_iter().filter(|(path, _)| path.starts_with("src/")).collect();
    none(rules::shaders(&shaders, &sources));
}

#[test]
fn every_shader_is_used_catches() {
    let sources = [("src/kernels/rope.rs".to_owned(), "include_str!(\"../../shaders/rope.wgsl\")".to_owned())];
    assert_eq!(rules::shaders(&["shaders/rope.wgsl".to_owned(), "shaders/roped.wgsl".to_owned()], &sources).len(), 1);
}

#[test]
fn native_tests_step_aside_for_wasm() {
    none(repository().iter().flat_map(|(path, text)| rules::native_only(path, text)).collect());
}

#[test]
fn native_tests_step_aside_for_wasm_catches() {
    assert_eq!(rules::native_only("tests/a.rs", "//! A test.\n").len(), 1);
    assert!(rules::native_only("tests/a.rs", "//! A test.\n#![cfg(not(target_arch = \"wasm32\"))]\n").is_empty());
    assert!(rules::native_only("tests/common/mod.rs", "").is_empty());
}

#[test]
fn the_papers_are_there() {
    let files = repository();
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(files.iter().any(|(path, text)| path == name && !text.trim().is_empty()), "{name} is missing or empty");
    }
}
