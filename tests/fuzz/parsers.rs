//! The table of parsers.

mod adapters;
pub mod broken;
mod fleets;
mod jobs;
pub mod large;
mod models;
mod plans;
mod routed;
mod runs;
mod texts;

use super::driver::Parser;

/// Every parser that reads bytes or text of a user.
pub static ALL: &[&Parser] = &[
    &models::GGUF,
    &models::GGUF_TYPED,
    &models::GGUF_SPLIT,
    &models::GGUF_TOKENIZER,
    &models::SAFETENSORS,
    &models::HF_CONFIG,
    &texts::TOKENIZER_JSON,
    &texts::CHAT_TEMPLATE,
    &texts::ROWS,
    &runs::RUN_FILE,
    &runs::PATTERNS,
    &runs::CHECKPOINT,
    &runs::FORGED_CHECKPOINT,
    &adapters::ADAPTER,
    &adapters::MERGE,
    &routed::MIXLORA,
    &routed::TORCH_FILE,
    &plans::PLAN,
    &jobs::JOBS_FILE,
    &jobs::WORKLOAD,
    &fleets::FLEET,
];

/// The parser of that name.
pub fn by_name(name: &str) -> &'static Parser {
    let names = || ALL.iter().map(|parser| parser.name).collect::<Vec<_>>().join(", ");
    ALL.iter()
        .copied()
        .chain([&large::LARGE])
        .find(|parser| parser.name == name)
        .unwrap_or_else(|| panic!("there is no parser {name:?}, only {}", names()))
}

/// The directory of the committed goldens.
fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}
