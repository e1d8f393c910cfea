//! Adapters in the files of other programs, as bytes: the caller decides where they go.

pub mod chain;
pub mod peft;
pub mod peft_config;
pub mod update;
