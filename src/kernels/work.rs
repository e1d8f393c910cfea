//! How much work a dispatch may be.

use crate::gpu::device::Facts;

/// Operations of a dispatch, about: a tenth of a second where a GPU does 0.1 TFLOP/s, or a card of its own 1.5 TFLOP/s. One that keeps a GPU busy
/// for seconds is ended by its watchdog, or by a browser; one that is too small leaves most of a card idle.
pub(crate) fn most_flops(facts: Option<&Facts>) -> u64 {
    if facts.is_some_and(|f| f.is_discrete) { 150_000_000_000 } else { 10_000_000_000 }
}
