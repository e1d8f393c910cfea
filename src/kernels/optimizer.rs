//! Gradient norm, clipping and AdamW of any number of jobs: three dispatches, driven by two tables.
//!
//! The **blocks table** cuts the trainable words of all jobs into blocks of one learning rate and weight decay; it changes when a job joins
//! or leaves. The **hyper table** has a row a job, uploaded before each update: rates, and whether the job steps now. A job that does
//! not keeps its gradients, so that jobs may accumulate over different numbers of micro-batches.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

/// Words of a block at most: the work of one workgroup.
pub const BLOCK: usize = 2048;
const LANES: u32 = 256;

/// blocks, hyper, grads, partial.
pub const SQUARE_SUM: KernelSpec = KernelSpec {
    name: "square_sum",
    source: include_str!("../../shaders/square_sum.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::Input, Access::ReadWrite],
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

/// The tensors the optimizer works on. `values` may hold frozen parameters too; `grads`, `m` and `v` hold trainable ones only.
#[derive(Debug, Clone, Copy)]
pub struct State {
    /// All adapter parameters.
    pub values: Tensor,
    /// Gradients of the trainable ones.
    pub grads: Tensor,
    /// First moments.
    pub m: Tensor,
    /// Second moments.
    pub v: Tensor,
    /// [`Block`]s; rows past the last one in use are zero.
    pub blocks: Tensor,
    /// `[jobs]` [`Hyper`].
    pub hyper: Tensor,
    /// `[jobs, 2]` f32 out: norm before clipping, clipping factor.
    pub norms: Tensor,
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

/// A row of the blocks table.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct Block {
    /// Whose words they are.
    pub job: u32,
    /// First word in `grads`, `m` and `v`.
    pub grad_begin: u32,
    /// First word in `values`.
    pub begin: u32,
    /// Number of words, at most [`BLOCK`]; 0 in a row that is not used.
    pub len: u32,
    /// Multiplies the job's learning rate.
    pub lr_multiplier: f32,
    /// Multiplies the job's weight decay.
    pub decay: f32,
    /// Zero.
    pub pad: [u32; 2],
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
    /// First row of the job in the blocks table.
    pub first_block: u32,
    /// One past its last row.
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

/// The rows of the blocks table for one job.
pub fn blocks(job: usize, groups: &[Group]) -> Vec<Block> {
    let cut = |group: &Group| {
        let group = *group;
        (0..group.len).step_by(BLOCK).map(move |at| Block {
            job: job as u32,
            grad_begin: (group.grad_begin + at) as u32,
            begin: (group.begin + at) as u32,
            len: BLOCK.min(group.len - at) as u32,
            lr_multiplier: group.lr_multiplier,
            decay: group.decay,
            pad: [0; 2],
        })
    };
    groups.iter().flat_map(cut).collect()
}

/// Records norm, clipping and update of all jobs that the hyper table lets step; their gradients are zero then.
pub fn step(rec: &mut Recorder, state: State) {
    let blocks = state.blocks.len / (size_of::<Block>() / 4) as u32;
    let jobs = state.norms.len / 2;
    let partial = rec.transient("square_sums", blocks as usize);
    let lanes = Variant::new().with("WG", LANES);
    let params = Params { blocks, pad: [0; 3] };
    let words = u64::from(state.grads.len);
    let what = Dispatch::new("square_sum", &params, &[state.blocks, state.hyper, state.grads, partial], 2 * words);
    rec.dispatch(&SQUARE_SUM, lanes.clone(), grid_1d(blocks), what);
    let what = Dispatch::new("global_norm", &params, &[state.blocks, state.hyper, partial, state.norms], u64::from(blocks));
    rec.dispatch(&GLOBAL_NORM, lanes.clone(), [jobs, 1, 1], what);
    let bind = [state.blocks, state.hyper, state.norms, state.values, state.grads, state.m, state.v];
    rec.dispatch(&ADAMW, lanes, grid_1d(blocks), Dispatch::new("adamw", &params, &bind, 16 * words));
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
    pad: [u32; 3],
}
