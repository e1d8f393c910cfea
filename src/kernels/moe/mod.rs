//! Routing of rows to experts, for MixLoRA: every (job, expert) pair is a segment of the low-rank kernels, on rows of its own.
//!
//! A row x chooses experts e_j from `p = softmax(x Wgᵀ)` with weights w_j. Each chosen (row, choice) is a **slot**; slots lie sorted by segment, so that
//! [`super::lowrank`] runs all experts of all jobs in one dispatch, as it does with jobs. Per block:
//!
//! | what | where |
//! |---|---|
//! | logits `x Wgᵀ`, their gradients | `lowrank` with A = Wg |
//! | p, e, w | route |
//! | slots by segment, without atomics or a look from the host | count, scan, scatter |
//! | inner activations of the experts beside W1 and W3 | gather, `lowrank` |
//! | `a_s = silu(g_s) u_s` of `g_s = W1 x + expert`, `u_s = W3 x + expert`, which are not kept | swiglu |
//! | `y = W2 Σ_j w_j a_j + Σ_j w_j expert(a_j)` | combine, a product of all rows, `lowrank`, combine |
//!
//! W2 is linear, so it runs once over the weighted sum: the frozen feed-forward layer costs what it costs without experts.
//! The balance loss is `coef · E Σ_e f_e P_e`, mean over blocks, with f_e the share of the job's rows that chose e (no gradient) and P_e their mean p.

mod balance;
mod experts_backward;
mod routing;
mod rows;
mod swiglu;
pub mod twin;

use bytemuck::{Pod, Zeroable};

pub use self::balance::{BALANCE, ROUTER_NORM, Stats};
pub use self::experts_backward::{EXPERTS_BACKWARD, EXPERTS_BACKWARD_DROPPED, ExpertGradients};
pub use self::routing::{COUNT, ROUTE, ROUTE_BACKWARD, SCAN, SCATTER};
pub use self::rows::{COMBINE, Combine, GATHER, JITTER, OVERFLOW, OVERFLOW_BACKWARD, SPREAD, WEIGH};
pub use self::swiglu::{GateUp, GateUpOutputs, SWIGLU, SWIGLU_BACKWARD};
use crate::gpu::{Dispatch, Tensor};

/// Most segments of a recording: what a workgroup can add up in its memory.
pub const MOST_SEGMENTS: usize = 1024;
/// Rows that a workgroup counts.
const BLOCK: usize = 64;
/// Words of which a slice of a tensor begins at a multiple, to be bound alone.
const SLICE_ALIGN: usize = 64;

/// Ways to choose, as the kernels number them.
pub mod strategy {
    /// The k most probable.
    pub const TOP_K: u32 = 0;
    /// The most probable until their sum exceeds p.
    pub const TOP_P: u32 = 1;
    /// The most probable, within a capacity.
    pub const SWITCH: u32 = 2;
}

/// A job's router in one block, a row of the routers table `[blocks, jobs]`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct RouterRow {
    /// Segment of the job's first expert.
    pub first_segment: u32,
    /// Experts; 0 where the job has no router.
    pub experts: u32,
    /// One of [`strategy`].
    pub strategy: u32,
    /// Most experts of a row.
    pub choices: u32,
    /// Where top-p ends.
    pub top_p: f32,
    /// Divides the chosen probabilities; 1 for none.
    pub temperature: f32,
    /// 1 where a row's weights sum to one.
    pub renormalize: u32,
    /// Rows of a document that an expert takes while training, for switch.
    pub capacity: u32,
    /// Inputs are multiplied by a factor in `1 - jitter .. 1 + jitter` while training.
    pub jitter: f32,
    /// Coefficient of the balance loss.
    pub aux_coef: f32,
    /// Coefficient of the mean square of the log-sum-exp.
    pub z_coef: f32,
    /// Blocks in which the job has a router.
    pub layers: u32,
    /// 1 where f is the mean over blocks.
    pub concatenated: u32,
    /// Dropout of the experts, as in [`super::lowrank::Segment`].
    pub dropout_threshold: u32,
    /// Its `1 / (1 - p)`.
    pub keep: f32,
    /// Number of the block in the model, which keys the jitter.
    pub block: u32,
}

/// What the routing of one block leaves for what follows, and for its backward pass. All of it lives in persistent buffers: what recompute
/// does again takes the same routing.
#[derive(Debug, Clone, Copy)]
pub struct Routed {
    /// `[rows, experts + 4]`: probabilities, then the log-sum-exp of the logits.
    pub probs: Tensor,
    /// `[rows, choices, 2]` u32: expert and slot.
    pub places: Tensor,
    /// `[rows, choices]`
    pub weight: Tensor,
    /// The tables of [`Moe::slot_segment`], [`Moe::slot_row`] and the weights of slots, of [`MoeShape::slot_words`].
    pub slots: Tensor,
    /// `[segments]` [`super::lowrank::Segment`].
    pub segments: Tensor,
    /// `[blocks, segments]` u32: choices, those beyond a capacity included.
    pub chosen: Tensor,
    /// `[blocks, segments + jobs]`: coefficients of the balance losses' gradients.
    pub aux: Tensor,
}

/// The routers of one block.
#[derive(Debug, Clone, Copy)]
pub struct Moe {
    /// Sizes.
    pub shape: MoeShape,
    /// Which of the blocks with a router.
    pub layer: usize,
    /// Job of each row, `[rows]`.
    pub row_job: Tensor,
    /// [`super::lowrank::Segment`]s of the jobs.
    pub jobs: Tensor,
    /// [`RouterRow`]s, `[blocks, jobs]`.
    pub routers: Tensor,
    /// The documents of the batch.
    pub documents: Tensor,
    /// This block's routing.
    pub routed: Routed,
}

/// Sizes of the routing of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoeShape {
    /// Rows of the batch.
    pub rows: usize,
    /// Rows of the jobs table.
    pub jobs: usize,
    /// Experts of all jobs.
    pub segments: usize,
    /// Most experts of a row.
    pub choices: usize,
    /// Most experts of a job.
    pub experts: usize,
    /// Blocks with a router.
    pub layers: usize,
    /// Words of one block's probabilities.
    pub layer_probs: usize,
    /// Capacities and jitter hold.
    pub training: bool,
}

impl MoeShape {
    /// Experts rounded up to whole vectors: the stride of the logits.
    pub fn stride(&self) -> usize {
        self.experts.next_multiple_of(4)
    }

    /// Words of a row of probabilities.
    pub fn prob_stride(&self) -> usize {
        self.stride() + 4
    }

    /// Where segments may begin. Ranges that begin with a tile of the low-rank kernels are walked once; few rows are not worth the gaps.
    pub fn align(&self) -> usize {
        let slots = self.rows * self.choices;
        [32, 16, 8, 4].into_iter().find(|align| 2 * self.used(slots) * (align - 1) <= slots).unwrap_or(1)
    }

    fn used(&self, slots: usize) -> usize {
        self.segments.min(slots)
    }

    /// Slots in the worst case.
    pub fn slots(&self) -> usize {
        let (slots, align) = (self.rows * self.choices, self.align());
        (slots + self.used(slots) * (align - 1)).next_multiple_of(align)
    }

    /// Where the rows of slots begin among their tables: where a binding may begin.
    fn slot_row_at(&self) -> usize {
        self.slots().next_multiple_of(SLICE_ALIGN)
    }

    /// Where the weights of slots begin.
    fn slot_weight_at(&self) -> usize {
        2 * self.slot_row_at()
    }

    /// Words of the tables of slots.
    pub fn slot_words(&self) -> usize {
        3 * self.slot_row_at()
    }
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    jobs: u32,
    segments: u32,
    choices: u32,
    experts: u32,
    slots: u32,
    align: u32,
    layer: u32,
    layers: u32,
    training: u32,
    width: u32,
    layer_probs: u32,
}

impl MoeShape {
    fn params(&self, layer: usize, width: usize) -> Params {
        Params {
            rows: self.rows as u32,
            jobs: self.jobs as u32,
            segments: self.segments as u32,
            choices: self.choices as u32,
            experts: self.stride() as u32,
            slots: self.slots() as u32,
            align: self.align() as u32,
            layer: layer as u32,
            layers: self.layers as u32,
            training: u32::from(self.training),
            width: width as u32,
            layer_probs: self.layer_probs as u32,
        }
    }
}

impl Moe {
    /// `[slots]` u32: the row_job of the experts' low-rank products.
    pub fn slot_segment(&self) -> Tensor {
        self.routed.slots.slice(0..self.shape.slots())
    }

    /// `[slots]` u32: row · choices + choice.
    pub fn slot_row(&self) -> Tensor {
        let begin = self.shape.slot_row_at();
        self.routed.slots.slice(begin..begin + self.shape.slots())
    }

    /// `[slots]` f32: the weights of slots.
    fn slot_weight(&self) -> Tensor {
        let begin = self.shape.slot_weight_at();
        self.routed.slots.slice(begin..begin + self.shape.slots())
    }

    /// A dispatch of this block on data of `width` columns.
    fn dispatch(&self, label: String, width: usize, bind: &[Tensor], flops: usize) -> Dispatch {
        Dispatch::new(label, &self.shape.params(self.layer, width), bind, flops as u64)
    }
}
