//! What a fleet's recordings are made for, and what jobs need of the pool.

use serde::{Deserialize, Serialize};

use crate::adapters::{Capacity, ModuleCapacity};
use crate::config::ModelConfig;
use crate::jobs::Options;
use crate::train::kernels::KernelChoices;

/// Smaller fused batches that are recorded beside the largest, each half of the one before.
const SMALLER: usize = 2;
/// Rows below which no smaller recording is worth its kernels.
const LEAST_ROWS: usize = 64;

/// What a fleet's recordings are made for. It is saved: a run that goes on has recordings of the same sizes, and so the same bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sizes {
    /// How many jobs the run began with: the pool is made for them, and has room for more.
    pub founders: usize,
    /// Rows of the largest fused batch.
    pub rows: usize,
    /// Longest document that the rotary table reaches.
    pub positions: usize,
    /// Recompute blocks in the backward pass.
    pub recompute: bool,
    /// Kernels that sum in an order of their own.
    pub kernels: KernelChoices,
}

impl Sizes {
    /// Of a run that begins with jobs of these micro-batches, whose longest document has `longest` tokens.
    pub fn new(rows: &[usize], longest: usize, options: &Options, model: &ModelConfig) -> Self {
        let most = rows.iter().copied().max().unwrap_or(1);
        let (founders, all) = (rows.len(), rows.iter().sum::<usize>());
        let rows = all.min(options.step_tokens as usize).max(most).next_multiple_of(8);
        // Jobs that are added later may have any row that fits into a fused batch.
        let positions = rows.min(model.max_position_embeddings).max(longest);
        Self { founders, rows, positions, recompute: false, kernels: KernelChoices::default() }
    }

    /// Smaller fused batches that are recorded, too.
    pub fn smaller(&self) -> Vec<usize> {
        (1..=SMALLER).map(|i| (self.rows >> i).next_multiple_of(8)).filter(|rows| *rows >= LEAST_ROWS).collect()
    }
}

/// Bytes of the pool for this capacity: parameters, gradients, two moments.
pub(super) fn pool_bytes(capacity: &Capacity) -> u64 {
    4 * capacity.values as u64 + 12 * capacity.grads as u64
}

/// What jobs need together, against what there is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Needed {
    jobs: usize,
    values: usize,
    grads: usize,
    blocks: usize,
    modules: ModuleCapacity,
}

impl Needed {
    pub fn and(self, need: &Capacity) -> Self {
        Self {
            jobs: self.jobs + need.jobs,
            values: self.values + need.values,
            grads: self.grads + need.grads,
            blocks: self.blocks + need.blocks,
            modules: self.modules.and(need.modules),
        }
    }

    pub fn fits(self, room: &Capacity) -> bool {
        self.jobs <= room.jobs
            && self.values <= room.values
            && self.grads <= room.grads
            && self.blocks <= room.blocks
            && room.modules.holds(self.modules)
    }

    /// Bytes in the pool.
    pub fn bytes(self) -> u64 {
        4 * self.values as u64 + 12 * self.grads as u64
    }
}
