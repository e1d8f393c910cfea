//! Gradient norm, clipping and AdamW of any number of jobs: three dispatches, driven by two tables.
//!
//! The **blocks table** cuts the trainable words of all jobs into blocks of one learning rate and weight decay; it changes when a job joins
//! or leaves. The **hyper table** has a row a job, uploaded before each update: rates, and whether the job steps now. A job that does
//! not keeps its gradients, so that jobs may accumulate over different numbers of micro-batches.
//!
//! Parameters that no single binding holds lie in several pages, with two dispatches for each. A block that begins in one page and ends in the
//! next has a row in both. The norm's sums run over the block as if it were whole, so a step has the same bits in any number of pages.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

/// Words of a block at most: the work of one workgroup.
pub const BLOCK: usize = 2048;
const LANES: u32 = 256;

/// Place of the sum of a row whose block goes on in the next page.
pub const CONTINUES: u32 = u32::MAX;

/// blocks, hyper, grads, partial, carried.
pub const SQUARE_SUM: KernelSpec = KernelSpec {
    name: "square_sum",
    source: include_str!("../../shaders/square_sum.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::Input, Access::ReadWrite, Access::ReadWrite],
};
/// blocks, hyper, partial, norms.
pub const GLOBAL_NORM: KernelSpec = KernelSpec {
    name: "global_norm",
    source: include_str!("../../shaders/global_norm.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::Input, Access::ReadWrite],
};
/// blocks, hyper, norms, x, grads, m, v.
pub const ADAMW: KernelSpec = KernelSpec {
    name: "adamw",
    source: include_str!("../../shaders/adamw.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::Input, Access::ReadWrite, Access::ReadWrite, Access::ReadWrite, Access::ReadWrite],
};

/// What one binding holds of the parameters. `values` may hold frozen ones too; `grads`, `m` and `v` hold trainable ones only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Parameters.
    pub values: Tensor,
    /// Gradients of the trainable ones.
    pub grads: Tensor,
    /// First moments.
    pub m: Tensor,
    /// Second moments.
    pub v: Tensor,
    /// Its rows of the blocks table.
    pub rows: Range<usize>,
}

/// The tensors the optimizer works on.
#[derive(Debug, Clone)]
pub struct State {
    /// All adapter parameters.
    pub pages: Vec<Page>,
    /// [`Block`]s, page after page; rows that are not used are zero.
    pub blocks: Tensor,
    /// `[jobs]` [`Hyper`].
    pub hyper: Tensor,
    /// `[jobs, 2]` f32 out: norm before clipping, clipping factor.
    pub norms: Tensor,
    /// Blocks of all jobs, each counted once: places for their sums of squares.
    pub sums: usize,
    /// Places for sums of blocks that go on in the next page, two for each group of words that lies in several.
    pub carries: usize,
}

/// Consecutive trainable parameters that share their settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// First word in `values`.
    pub begin: usize,
    /// First word in `grads`, `m` and `v`.
    pub grad_begin: usize,
    /// Number of words.
    pub len: usize,
    /// Multiplies the job's learning rate (LoRA+).
    pub lr_multiplier: f32,
    /// Multiplies the job's weight decay: 0 or 1.
    pub decay: f32,
}

/// A row of the blocks table: a block, or what one page holds of it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct Block {
    /// Whose words they are.
    pub job: u32,
    /// First word in the page's `grads`, `m` and `v`.
    pub grad_begin: u32,
    /// First word in the page's `values`.
    pub begin: u32,
    /// Number of words, at most [`BLOCK`]; 0 in a row that is not used.
    pub len: u32,
    /// Multiplies the job's learning rate.
    pub lr_multiplier: f32,
    /// Multiplies the job's weight decay.
    pub decay: f32,
    /// Where the block's sum of squares goes, or [`CONTINUES`].
    pub sum: u32,
    /// Words of the block that lie in pages before.
    pub skip: u32,
    /// Where the lanes' sums of the pages before are, if there are any.
    pub carry_in: u32,
    /// Where the lanes' sums wait for the next page, if the block goes on there.
    pub carry_out: u32,
}

/// A row of the hyper table: one job's update.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct Hyper {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// `1 - beta1^step`.
    pub c1: f32,
    /// Root of `1 - beta2^step`.
    pub root_c2: f32,
    /// Largest gradient norm, 0 for no clipping.
    pub clip: f32,
    /// 1 where the accumulated gradients are applied now, 0 where they stay.
    pub steps_now: u32,
    /// First of the sums of the job's blocks.
    pub first_block: u32,
    /// One past the last of them.
    pub end_block: u32,
    /// Zero.
    pub pad: u32,
}

impl Hyper {
    /// An update at 1-based optimizer step `step`; what depends on it is computed in f64. The job's range of blocks is filled in by
    /// whoever knows the table.
    pub fn new(lr: f64, betas: (f64, f64), eps: f64, weight_decay: f64, clip: f64, step: u64) -> Self {
        let exponent = step.min(i32::MAX as u64) as i32;
        Self {
            lr: lr as f32,
            beta1: betas.0 as f32,
            beta2: betas.1 as f32,
            eps: eps as f32,
            weight_decay: weight_decay as f32,
            c1: (1.0 - betas.0.powi(exponent)) as f32,
            root_c2: (1.0 - betas.1.powi(exponent)).sqrt() as f32,
            clip: clip as f32,
            steps_now: 1,
            ..Self::default()
        }
    }
}

/// The blocks of one job, each in one page; their sums are numbered from `first_sum` on.
pub fn blocks(job: usize, first_sum: usize, groups: &[Group]) -> Vec<Block> {
    let cut = |group: &Group| {
        let group = *group;
        (0..group.len).step_by(BLOCK).map(move |at| Block {
            job: job as u32,
            grad_begin: (group.grad_begin + at) as u32,
            begin: (group.begin + at) as u32,
            len: BLOCK.min(group.len - at) as u32,
            lr_multiplier: group.lr_multiplier,
            decay: group.decay,
            ..Block::default()
        })
    };
    let numbered = |(i, block): (usize, Block)| Block { sum: (first_sum + i) as u32, ..block };
    groups.iter().flat_map(cut).enumerate().map(numbered).collect()
}

/// Records norm, clipping and update of all jobs that the hyper table lets step; their gradients are zero then.
pub fn step(rec: &mut Recorder, state: &State) {
    let jobs = state.norms.len / 2;
    let partial = rec.transient("square_sums", state.sums);
    let carried = rec.transient("square_sums.carried", state.carries * LANES as usize);
    let lanes = Variant::new().with("WG", LANES);
    let params = |page: &Page| Params { blocks: page.rows.len() as u32, first: page.rows.start as u32, pad: [0; 2] };
    let grid = |page: &Page| grid_1d(page.rows.len() as u32);
    for page in &state.pages {
        let bind = [state.blocks, state.hyper, page.grads, partial, carried];
        let what = Dispatch::new("square_sum", &params(page), &bind, 2 * u64::from(page.grads.len));
        rec.dispatch(&SQUARE_SUM, lanes.clone(), grid(page), what);
    }
    let all = Params { blocks: state.sums as u32, ..Params::zeroed() };
    let what = Dispatch::new("global_norm", &all, &[state.blocks, state.hyper, partial, state.norms], state.sums as u64);
    rec.dispatch(&GLOBAL_NORM, lanes.clone(), [jobs, 1, 1], what);
    for page in &state.pages {
        let bind = [state.blocks, state.hyper, state.norms, page.values, page.grads, page.m, page.v];
        let what = Dispatch::new("adamw", &params(page), &bind, 16 * u64::from(page.grads.len));
        rec.dispatch(&ADAMW, lanes.clone(), grid(page), what);
    }
}

/// The twin of AdamW on one group, in f64: updates `x`, `m`, `v` with already clipped gradients.
pub fn adamw_twin(x: &mut [f64], m: &mut [f64], v: &mut [f64], grads: &[f64], lr: f64, betas: (f64, f64), eps: f64, decay: f64, step: i32) {
    for i in 0..x.len() {
        x[i] *= 1.0 - lr * decay;
        m[i] = betas.0 * m[i] + (1.0 - betas.0) * grads[i];
        v[i] = betas.1 * v[i] + (1.0 - betas.1) * grads[i] * grads[i];
        let (c1, c2) = (1.0 - betas.0.powi(step), 1.0 - betas.1.powi(step));
        x[i] -= lr / c1 * m[i] / ((v[i] / c2).sqrt() + eps);
    }
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    blocks: u32,
    first: u32,
    pad: [u32; 2],
}
