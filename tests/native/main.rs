//! All native tests as one program: each separate test binary would link wgpu, naga and the tokenizers once more.
//! `cargo test --test native golden::` runs one file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![cfg(not(target_arch = "wasm32"))]

mod adapters;
mod analysis;
mod attention;
mod chain;
mod chain_files;
mod checkpoint;
mod cli;
mod common;
mod demo;
mod doctor;
mod embeddings;
mod export;
mod fleet;
mod forged;
mod formats;
mod golden;
mod hostile;
mod jinja;
mod jobs;
mod jobs_program;
mod kernel_choices;
mod kernels;
mod kill;
mod large_models;
mod long_program;
mod longlora;
mod lowrank;
mod matmul;
mod merge;
mod mixlora;
mod mixlora_files;
mod mixture;
mod moe;
mod multilora;
mod own_embeddings;
mod own_norms;
mod packing;
mod pickle;
mod plan;
mod preference;
mod process;
mod quant;
mod retention;
mod rope;
mod rows;
mod runs;
mod shaders;
mod shifted_attention;
mod smollm2;
mod text;
mod text_smollm2;
mod tidy;
mod tokenizer_json;
