//! Training a chain of LoRA: which link trains until when, what a knot does, and what is measured there.

mod knot;
mod moments;
mod probe;
mod state;

pub use knot::{KnotDiagnostics, KnotReport};
pub use moments::at_knot;
pub use state::{ChainRun, ChainState, check_steps, link_ends};
