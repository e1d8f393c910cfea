//! GGUF and safetensors: what they hold, every lie they can tell, and damaged files at random.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test fails by panicking, and says what it skips

mod build;
mod damage;
mod gguf;
mod gguf_lies;
mod hf_config;
mod safetensors_files;
mod smollm2;
