//! Training: the settings, the batches and the state that a run is made of.

pub mod batch;
pub mod chain;
pub mod checkpoint;
pub mod config;
pub mod context;
pub mod data;
pub mod evaluate;
pub mod events;
pub mod fleet;
pub mod fuse;
pub mod job;
pub mod kernels;
pub mod keys;
pub mod mixture;
mod modules;
pub mod passes;
pub mod plan;
mod pose;
pub mod progress;
pub mod proof;
pub mod read;
pub mod recompute;
mod resume;
pub mod routing;
pub mod run;
pub mod schedule;

pub use checkpoint::{Checkpoint, State};
pub use config::TrainConfig;
pub use events::{Event, StepReport};
pub use progress::Progress;
pub use run::Run;
pub mod score;
pub mod session;
pub mod start;
pub mod trainer;
pub use schedule::Schedule;
