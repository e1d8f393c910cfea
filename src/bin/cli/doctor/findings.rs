//! Everything that `weblora doctor` finds.

use weblora::bench::CheckedProduct;
use weblora::gpu::survey::AdapterReport;

use super::advice::Warning;
use super::machine::Machine;

/// Everything that was found.
pub struct Findings {
    /// What the machine shows.
    pub machine: Machine,
    /// What answers.
    pub adapters: Vec<AdapterReport>,
    /// Place of the adapter that a run takes, and why that one.
    pub taken: Option<(usize, String)>,
    /// The device, where it opened.
    pub opened: Option<Opened>,
    /// What keeps a run from the GPU.
    pub warnings: Vec<Warning>,
}

/// A device that opened.
pub struct Opened {
    /// Where its kernel choices are kept.
    pub file: Option<String>,
    /// How many there are.
    pub choices: usize,
    /// The product, where it came out right.
    pub product: Option<CheckedProduct>,
}
