//! Training a chain of LoRA: which link trains until when, what a knot does, and what is measured there.

mod inherit;
mod knot;
mod length;
mod moments;
mod probe;
mod report;
mod state;

pub use inherit::Rounding;
pub(in crate::train) use inherit::{largest_change, unrounded_losses};
pub use length::{check_steps, link_ends};
pub use moments::at_knot;
pub use report::{KnotDiagnostics, KnotReport};
pub use state::{ChainRun, ChainState};
