//! Segmented low-rank products beside a frozen linear layer: every adapter method is a choice of segments and of what trains.
//!
//! Rows of a packed batch belong to jobs; at each site (one linear layer `[n, k]`) each job brings its own `A` `[rank, k]` and `Bt`
//! `[rank, n]` (B transposed), or none. One dispatch serves all jobs:
//!
//! | what | kernel |
//! |---|---|
//! | `h = drop(x) Aᵀ`, `y += scale · h Bt` | down, up |
//! | `dh = scale · dy Btᵀ`, `dx += mask ⊙ (dh A)` | down, up |
//! | `dBt += scale · hᵀ dy`, `dA += dhᵀ drop(x)` | grad |
//!
//! `drop` and `mask` concern the ranks that train; frozen ones, the earlier links of a chain, see every input.
//! Layers of one input (q, k, v; gate, up) share dispatches ([`LowrankSiblings`]): one a product for all of them.
//!
//! `h` and `dh` are `[rows, stride]`, `stride` being `r_max` rounded up to whole vectors of four, zero past a job's rank. A row of `h`, `y`
//! and `dx` has the same bits in every variant and whatever else is in the batch; gradients sum the job's rows in an order counted from its first row.

mod candidates;
mod siblings;

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

pub use self::siblings::{Carry, LowrankSiblings};
use crate::gpu::{Access, KernelSpec, Recorder, Tensor};

/// Rows of a batch with an adapter of their own, a job's or with MixLoRA an expert's: a row of the jobs table. Uploaded every step.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct Segment {
    /// First row in the packed batch.
    pub row_begin: u32,
    /// One past the last row.
    pub row_end: u32,
    /// [`dropout_step_seed`] of the job and the step.
    pub dropout_seed: u32,
    /// Probability times 2³²; 0 for no dropout.
    pub dropout_threshold: u32,
    /// `1 / (1 - p)`.
    pub keep: f32,
    /// What the job's balance losses count in this micro-batch, beside their coefficients: one over the micro-batches of a step.
    pub aux_weight: f32,
    /// Zero.
    pub reserved: [u32; 2],
}

impl Segment {
    /// Rows `rows` without dropout.
    pub fn new(rows: Range<usize>) -> Self {
        Self {
            row_begin: rows.start as u32,
            row_end: rows.end as u32,
            dropout_seed: 0,
            dropout_threshold: 0,
            keep: 1.0,
            aux_weight: 1.0,
            reserved: [0; 2],
        }
    }

    /// Drops inputs of the low-rank path with probability `p` in `0.0..1.0`; the mask is keyed by (`seed`, `step`, layer and projection, row of the job, column).
    pub fn with_dropout(self, p: f32, seed: u32, step: u32) -> Self {
        let threshold = (f64::from(p.clamp(0.0, 1.0)) * 4_294_967_296.0).min(4_294_967_295.0) as u32;
        let keep = (1.0 / (1.0 - f64::from(p))) as f32;
        Self { dropout_seed: dropout_step_seed(seed, step), dropout_threshold: threshold, keep, ..self }
    }
}

impl Segment {
    /// The micro-batch is one of `accumulated` of a step.
    pub fn accumulated(self, accumulated: usize) -> Self {
        Self { aux_weight: 1.0 / accumulated.max(1) as f32, ..self }
    }
}

/// Place of the gradient of a factor that does not train.
pub const NO_GRADIENT: u32 = u32::MAX;

/// One job's adapter at one site, a row of the sites table `[sites, jobs]`. Offsets count words from the start of the bound tensor; where
/// both widths of the layer are multiples of four, so are the offsets.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct SiteRow {
    /// Sum of the ranks of all slices; 0 where the job has no adapter.
    pub rank: u16,
    /// How many of these, the last ones, are stored as f16: see [`half_stride`]. None of them trains.
    pub half: u16,
    /// `A` `[rank, k]`.
    pub a_offset: u32,
    /// `Bt` `[rank, n]`.
    pub b_offset: u32,
    /// `dA` `[train_end - train_begin, k]`, or [`NO_GRADIENT`].
    pub grad_a_offset: u32,
    /// `dBt` `[train_end - train_begin, n]`, or [`NO_GRADIENT`].
    pub grad_b_offset: u32,
    /// First trainable rank. Only the inputs of trainable ranks are ever dropped: frozen links of a chain are part of the base.
    pub train_begin: u32,
    /// One past the last trainable rank, at most `rank`.
    pub train_end: u32,
    /// What multiplies the product, `alpha / rank` or `alpha / sqrt(rank)`. Slices with another scale have it folded into their `Bt`.
    pub scale: f32,
}

/// Words of a row of `width` numbers that is stored as f16: two a word, padded to whole pairs of words, so that four neighbours lie in one
/// vector.
pub const fn half_stride(width: usize) -> usize {
    2 * width.div_ceil(4)
}

/// 32-bit finaliser "lowbias32", as in `shaders/lib/random.wgsl`.
fn mix32(value: u32) -> u32 {
    let x = (value ^ (value >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The seed that a [`Segment`] carries during optimizer step `step`; kernels mix [`LowrankSite::dropout_key`] into it.
pub fn dropout_step_seed(job_seed: u32, step: u32) -> u32 {
    mix32(mix32(job_seed) ^ step)
}

/// The factor, 0 or `keep`, of element (`row` of the packed batch, `column`) of a job's input, where the site's [`LowrankSite::dropout_key`] is `key`.
pub fn dropout_factor(job: &Segment, key: u32, row: u32, column: u32) -> f32 {
    let seed = mix32(job.dropout_seed ^ key);
    let row = (row - job.row_begin).wrapping_mul(0x9e37_79b9);
    let bits = mix32(mix32(seed ^ row) ^ column.wrapping_mul(0x85eb_ca6b));
    if bits >= job.dropout_threshold { job.keep } else { 0.0 }
}

/// The buffers that all sites share. A model whose adapters exceed one binding binds slices, with offsets counted from the slice.
#[derive(Debug, Clone, Copy)]
pub struct LowrankTables {
    /// Job of each row, `[rows]`; a number of jobs or more means no job.
    pub row_job: Tensor,
    /// [`Segment`]s, `[jobs]`.
    pub jobs: Tensor,
    /// [`SiteRow`]s, `[sites, jobs]`.
    pub sites: Tensor,
    /// Values of `A` and `Bt`.
    pub adapter: Tensor,
    /// Gradients of the trainable ranks; accumulated into.
    pub grads: Tensor,
}

/// Which rows of the packed batch the tensors of a site hold, where these are not all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRange {
    /// The first of them.
    pub first: usize,
    /// Rows of the batch.
    pub total: usize,
}

/// One linear layer with adapters beside it.
#[derive(Debug, Clone, Copy)]
pub struct LowrankSite {
    /// Rows of the tensors: of the packed batch, or of `range`.
    pub rows: usize,
    /// The tensors hold some rows of the batch; `row_job` is of the whole batch nevertheless. Gradients are sums over all ranges, in order
    /// ([`LowrankSiblings::carrying`]).
    pub range: Option<RowRange>,
    /// Inputs of the layer.
    pub k: usize,
    /// Outputs of the layer.
    pub n: usize,
    /// Largest rank of any job here, at least 1.
    pub r_max: usize,
    /// Most trainable ranks of any job here, at most `r_max`.
    pub t_max: usize,
    /// Row of the sites table.
    pub site: usize,
    /// Seeds the dropout mask. Must be the same whether a job runs alone or fused, so it depends only on layer and projection.
    pub dropout_key: u32,
    /// Jobs in the tables.
    pub jobs: usize,
    /// Whether any job may drop inputs; without it thresholds are not looked at.
    pub dropout: bool,
    /// Whether any job may have ranks stored as f16; without it [`SiteRow::half`] is not looked at.
    pub half: bool,
    /// Shared buffers.
    pub tables: LowrankTables,
}

const ROWS_BINDINGS: &[Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Input, Access::ReadWrite];
const GRAD_BINDINGS: &[Access] = &[Access::Read, Access::Read, Access::Input, Access::Input, Access::ReadWrite];

/// Into the rank, one lane a row.
pub const DOWN: KernelSpec =
    KernelSpec { name: "lowrank_down", source: include_str!("../../shaders/lowrank_down.wgsl"), bindings: ROWS_BINDINGS };
/// Into the rank, 32 lanes a row.
pub const DOWN_LANES: KernelSpec =
    KernelSpec { name: "lowrank_down_lanes", source: include_str!("../../shaders/lowrank_down_lanes.wgsl"), bindings: ROWS_BINDINGS };
/// Out of the rank.
pub const UP: KernelSpec =
    KernelSpec { name: "lowrank_up", source: include_str!("../../shaders/lowrank_up.wgsl"), bindings: ROWS_BINDINGS };
/// Gradients of the factors, rows in order.
pub const GRAD: KernelSpec =
    KernelSpec { name: "lowrank_grad", source: include_str!("../../shaders/lowrank_grad.wgsl"), bindings: GRAD_BINDINGS };
/// The same over a range of rows, with the sums that go on in the next.
pub const GRAD_RANGE: KernelSpec = KernelSpec {
    name: "lowrank_grad_range",
    source: GRAD.source,
    bindings: &[Access::Read, Access::Read, Access::Input, Access::Input, Access::ReadWrite, Access::ReadWrite],
};
/// Gradients of the factors over chunks of rows.
pub const GRAD_CHUNKS: KernelSpec =
    KernelSpec { name: "lowrank_grad_chunks", source: include_str!("../../shaders/lowrank_grad_chunks.wgsl"), bindings: GRAD_BINDINGS };
/// The same over a range of rows, with the sums that go on in the next.
pub const GRAD_CHUNKS_RANGE: KernelSpec = KernelSpec {
    name: "lowrank_grad_chunks_range",
    source: GRAD_CHUNKS.source,
    bindings: &[Access::Read, Access::Read, Access::Input, Access::Input, Access::ReadWrite, Access::Input],
};
/// Their sums.
pub const GRAD_SUM: KernelSpec = KernelSpec {
    name: "lowrank_grad_sum",
    source: include_str!("../../shaders/lowrank_grad_sum.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::Input, Access::ReadWrite],
};

/// The same over a range of rows, with the sums that go on in the next.
pub const GRAD_SUM_RANGE: KernelSpec = KernelSpec {
    name: "lowrank_grad_sum_range",
    source: GRAD_SUM.source,
    bindings: &[Access::Read, Access::Read, Access::Input, Access::ReadWrite, Access::ReadWrite],
};

/// All kernels of the family, for listings and for checking that they compile.
pub const SPECS: &[&KernelSpec] =
    &[&DOWN, &DOWN_LANES, &UP, &GRAD, &GRAD_RANGE, &GRAD_CHUNKS, &GRAD_CHUNKS_RANGE, &GRAD_SUM, &GRAD_SUM_RANGE];

impl LowrankSite {
    /// Words from a row of `h` to the next: `r_max` rounded up to whole vectors of four.
    pub fn stride(&self) -> usize {
        self.r_max.next_multiple_of(4)
    }

    /// The same layer on `rows` of its rows alone.
    pub fn of_rows(&self, rows: Range<usize>) -> Self {
        Self { rows: rows.len(), range: Some(RowRange { first: rows.start, total: self.rows }), ..*self }
    }
}

/// Records `h = drop(x) Aᵀ` `[rows, stride]` and `y += scale · h Bt` for every job; `x` is `[rows, k]`, `y` `[rows, n]`.
///
/// `h` is written wholly; keep it for [`backward`]. Rows without an adapter leave `y` alone.
///
/// # Panics
/// If a tensor is smaller than its shape: a bug in a recording.
pub fn forward(rec: &mut Recorder, label: &str, site: &LowrankSite, x: Tensor, h: Tensor, y: Tensor) {
    LowrankSiblings::alone(site).forward(rec, label, x, h, y);
}

/// Records the gradients of [`forward`]: `dh` `[rows, stride]` is scratch that is written wholly, `grads` and `dx` `[rows, k]` are added to.
///
/// `x` and `h` are those of the forward pass, `dy` is `[rows, n]`. Without `dx` nothing flows on.
///
/// # Panics
/// If a tensor is smaller than its shape: a bug in a recording.
pub fn backward(rec: &mut Recorder, label: &str, site: &LowrankSite, x: Tensor, dy: Tensor, h: Tensor, dh: Tensor, dx: Option<Tensor>) {
    LowrankSiblings::alone(site).backward(rec, label, x, dy, h, dh, dx);
}

/// The products of [`forward`] and [`backward`] one by one, for what does something between them.
impl LowrankSite {
    /// Records `h = drop(x) Aᵀ`.
    pub fn inner(&self, rec: &mut Recorder, label: &str, x: Tensor, h: Tensor) {
        LowrankSiblings::alone(self).inner(rec, label, x, h);
    }

    /// Records `y += scale · h Bt`.
    pub fn outer(&self, rec: &mut Recorder, label: &str, h: Tensor, y: Tensor) {
        LowrankSiblings::alone(self).outer(rec, label, h, y);
    }

    /// Records `dh = scale · dy Btᵀ`.
    pub fn inner_gradient(&self, rec: &mut Recorder, label: &str, dy: Tensor, dh: Tensor) {
        LowrankSiblings::alone(self).inner_gradient(rec, label, dy, dh);
    }

    /// Records `dx += mask ⊙ (dh A)`.
    pub fn input_gradient(&self, rec: &mut Recorder, label: &str, dh: Tensor, dx: Tensor) {
        LowrankSiblings::alone(self).input_gradient(rec, label, dh, dx);
    }

    /// Records `dBt += scale · hᵀ dy`.
    pub fn gradient_b(&self, rec: &mut Recorder, label: &str, h: Tensor, dy: Tensor) {
        LowrankSiblings::alone(self).gradient_b(rec, label, h, dy);
    }

    /// Records `dA += dhᵀ drop(x)`.
    pub fn gradient_a(&self, rec: &mut Recorder, label: &str, dh: Tensor, x: Tensor) {
        LowrankSiblings::alone(self).gradient_a(rec, label, dh, x);
    }
}
