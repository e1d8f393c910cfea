//! GGUF and safetensors: what they hold, every lie they can tell, and damaged files at random.
#![cfg(not(target_arch = "wasm32"))]

mod build;
mod damage;
mod gguf;
mod gguf_lies;
mod hf_config;
mod safetensors_files;
mod smollm2;
