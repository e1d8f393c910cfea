//! Adapters in the files of other programs, as bytes: the caller decides where they go. [`exporters`] has the table.

pub mod adapter;
mod base;
mod card;
pub mod chain;
pub mod edit;
pub mod exporters;
pub mod folder;
mod foreign;
pub mod gguf_lora;
mod handed_out;
pub mod merged;
pub mod mixlora;
pub mod peft;
pub mod peft_config;
mod peft_embeddings;
mod peft_norms;
mod peft_read;
mod peft_write;
pub mod rank_sum;
pub mod recompress;
pub mod request;
pub mod retention;
pub mod same;
pub mod update;
pub mod weights;
