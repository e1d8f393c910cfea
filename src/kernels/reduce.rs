//! Kernels whose workgroups reduce a row (`shaders/lib/reduce.wgsl`): how many lanes share one.

use crate::gpu::Recorder;

/// Lanes per row on CPU adapters, whose lanes are the few of a vector register, where each barrier between more of them costs.
const NARROW: u32 = 8;

/// Lanes per row: `wide` on a GPU. The number fixes the order of a sum, so it follows from the adapter and is not measured: a run must not
/// change with the cache of choices.
pub(super) fn row_lanes(rec: &Recorder, wide: u32) -> u32 {
    if rec.facts().is_some_and(|f| f.is_cpu) { NARROW } else { wide }
}
