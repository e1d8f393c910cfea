//! How many rows go through the feed-forward layer at once. It works on each row alone, so that long batches can pass through it part by part,
//! and its activations, the widest of a block, are never there for all rows.

use std::ops::Range;

use super::Recompute;
use crate::config::ModelConfig;
use crate::gpu::device::PlanLimits;

/// Most bytes of one activation of a part: gate and up together fit a binding of every device.
const PART_BYTES: u64 = 64 << 20;
/// Parts have whole tiles of rows, and begin where a slice may be bound.
const PART_ALIGN: usize = 64;

/// Rows at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowParts {
    /// Batches of up to so many rows are not cut.
    most: usize,
    /// Rows of a part of larger ones; a multiple of 64.
    part: usize,
}

impl RowParts {
    /// Batches are never cut.
    pub const WHOLE: RowParts = RowParts { most: usize::MAX, part: usize::MAX };

    /// Cuts batches of which a binding of `limits` does not hold an activation, and with nested checkpoints, where memory is all that counts,
    /// already those of which it takes more than 64 MiB (or a quarter of a binding).
    pub fn of(config: &ModelConfig, recompute: Recompute, limits: PlanLimits) -> Self {
        let (binding, row) = (limits.max_binding.min(limits.max_buffer), 4 * config.intermediate_size.max(1) as u64);
        let rows = |bytes: u64| usize::try_from(bytes / row).unwrap_or(usize::MAX);
        let part = (rows(PART_BYTES.min(binding / 4)) / PART_ALIGN * PART_ALIGN).max(PART_ALIGN);
        let most = if recompute == Recompute::Nested { part } else { rows(binding) };
        Self { most, part }
    }

    /// Most rows at once of a batch of `rows`.
    pub fn at_once(self, rows: usize) -> usize {
        if rows <= self.most { rows } else { self.part.min(rows) }
    }

    /// The parts of a batch of `rows`, in order.
    pub(super) fn ranges(self, rows: usize) -> Vec<Range<usize>> {
        let part = self.at_once(rows).max(1);
        (0..rows).step_by(part).map(|first| first..(first + part).min(rows)).collect()
    }
}
