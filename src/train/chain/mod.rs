//! Training a chain of LoRA: which link trains until when, what a knot does, and what is measured there.

mod inherit;
mod knot;
mod moments;
mod probe;
mod state;

pub use inherit::Rounding;
pub(in crate::train) use inherit::{largest_change, unrounded_losses};
pub use knot::{KnotDiagnostics, KnotReport};
pub use moments::at_knot;
pub use state::{ChainRun, ChainState, check_steps, link_ends};
