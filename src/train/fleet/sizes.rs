//! What a fleet's recordings are made for, and what jobs need of the pool.

use serde::{Deserialize, Serialize};

use crate::adapters::pool::Words;
use crate::adapters::{AdapterPool, Capacity, ModuleCapacity};
use crate::config::ModelConfig;
use crate::jobs::Options;
use crate::model::{Recompute, rope};
use crate::train::kernels::KernelChoices;

/// Smaller fused batches that are recorded beside the largest, each half of the one before: a job that is left alone, or one evaluation, should not pay for
/// the rows of all.
const SMALLER: u32 = 5;
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
    /// What is computed again in the backward pass.
    pub recompute: Recompute,
    /// Kernels that sum in an order of their own.
    pub kernels: KernelChoices,
}

impl Sizes {
    /// Of a run that begins with jobs of these micro-batches, whose longest document has `longest` tokens.
    pub fn new(rows: &[usize], longest: usize, options: &Options, model: &ModelConfig) -> Self {
        let most = rows.iter().copied().max().unwrap_or(1);
        let founders = rows.len();
        // No step has more rows than the largest jobs that may be in one.
        let mut largest = rows.to_vec();
        largest.sort_unstable_by(|a, b| b.cmp(a));
        let all = largest.iter().take(options.step_jobs).sum::<usize>();
        let rows = all.min(options.step_tokens as usize).max(most).next_multiple_of(8);
        // Jobs that are added later may have any row that fits into a fused batch, where the table of angles does not depend on its length.
        let reached = rows.min(model.max_position_embeddings).max(longest);
        let positions = if rope::difference(model, longest, reached).is_some() { longest } else { reached };
        Self { founders, rows, positions, recompute: Recompute::Off, kernels: KernelChoices::default() }
    }

    /// Smaller fused batches that are recorded, too.
    pub fn smaller(&self) -> Vec<usize> {
        (1..=SMALLER).map(|halvings| (self.rows >> halvings).next_multiple_of(8)).filter(|rows| *rows >= LEAST_ROWS).collect()
    }
}

/// Bytes of so many words in the pool: parameters, gradients, two moments.
pub(super) fn bytes(values: usize, grads: usize) -> u64 {
    4 * values as u64 + 12 * grads as u64
}

/// Bytes of parameters, gradients and moments that a pool has.
pub(super) fn pool_bytes(pool: &AdapterPool) -> u64 {
    pool.pages().iter().map(|page| bytes(page.values, page.grads)).sum()
}

/// What jobs need together, against what there is.
#[derive(Debug, Clone, Default)]
pub(super) struct Needed {
    jobs: usize,
    values: usize,
    grads: usize,
    blocks: usize,
    modules: ModuleCapacity,
    experts: usize,
    /// Of each page of the pool.
    pages: Vec<Words>,
}

impl Needed {
    /// One job more, which needs `pages` of the pool's pages.
    pub fn and(mut self, need: &Capacity, pages: &[Words]) -> Self {
        self.pages.resize(self.pages.len().max(pages.len()), Words::default());
        self.pages.iter_mut().zip(pages).for_each(|(all, own)| *all += *own);
        Self {
            jobs: self.jobs + need.jobs,
            values: self.values + need.values,
            grads: self.grads + need.grads,
            blocks: self.blocks + need.blocks,
            modules: self.modules.and(need.modules),
            experts: self.experts + need.experts.segments,
            pages: self.pages,
        }
    }

    /// Whether all of them can be in the pool at once.
    pub fn fits(&self, pool: &AdapterPool) -> bool {
        let room = pool.capacity();
        self.jobs <= room.jobs
            && self.blocks <= room.blocks
            && room.modules.holds(self.modules)
            && self.experts <= room.experts.segments
            && pool.pages().iter().zip(&self.pages).all(|(size, need)| size.hold(*need))
    }

    /// Bytes in the pool.
    pub fn bytes(&self) -> u64 {
        bytes(self.values, self.grads)
    }
}
