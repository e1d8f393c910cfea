//! GGUF and safetensors: what they hold, every lie they can tell, and damaged files at random.

pub(crate) mod build;
mod damage;
mod gguf;
mod gguf_lies;
mod hf_config;
mod safetensors_files;
mod smollm2;
