//! Adapters in the files of other programs, as bytes: the caller decides where they go. [`exporters`] has the table.

pub mod adapter;
mod base;
mod card;
pub mod chain;
pub mod edit;
pub mod exporters;
mod foreign;
pub mod gguf_lora;
mod handed_out;
pub mod merged;
pub mod mixlora;
pub mod peft;
pub mod peft_config;
mod peft_embeddings;
mod peft_norms;
pub mod rank_sum;
pub mod recompress;
pub mod retention;
pub mod update;
pub mod weights;
