//! GGUF and safetensors: what they hold, every lie they can tell, and damaged files at random.

mod build;
mod gguf;
mod gguf_lies;
mod smollm2;
