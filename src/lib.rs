//! Fine-tune low-rank adapters on small quantised LLaMA models with wgpu, natively and in the browser.

pub mod adapters;
pub mod analysis;
pub mod bench;
pub mod config;
pub mod demo;
pub mod error;
pub mod export;
pub mod formats;
pub mod generate;
pub mod gpu;
pub mod jobs;
pub mod kernels;
pub mod model;
pub mod quant;
pub mod rng;
pub mod settings;
pub mod text;
pub mod train;
#[cfg(target_arch = "wasm32")]
pub mod wasm;

pub use error::{Error, Result};
