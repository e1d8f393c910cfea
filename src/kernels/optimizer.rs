//! Gradient norm, clipping and AdamW over a job's flat parameters.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

/// Elements a workgroup of `square_sum` adds up.
const BLOCK: u32 = 4096;
const LANES: u32 = 256;

/// Words of `hyper` per job.
pub const HYPER_WORDS: usize = 8;

/// grads, partial.
pub const SQUARE_SUM: KernelSpec = KernelSpec {
    name: "square_sum",
    source: include_str!("../../shaders/square_sum.wgsl"),
    bindings: &[Access::ReadWrite, Access::ReadWrite],
};
/// partial, norms.
pub const GLOBAL_NORM: KernelSpec = KernelSpec {
    name: "global_norm",
    source: include_str!("../../shaders/global_norm.wgsl"),
    bindings: &[Access::ReadWrite, Access::ReadWrite],
};
/// hyper, norms, x, grads, m, v.
pub const ADAMW: KernelSpec = KernelSpec {
    name: "adamw",
    source: include_str!("../../shaders/adamw.wgsl"),
    bindings: &[Access::Read, Access::ReadWrite, Access::ReadWrite, Access::ReadWrite, Access::ReadWrite, Access::ReadWrite],
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
    /// `[jobs, 8]` f32, see [`hyper`].
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

/// The uploaded hyperparameters of one job at 1-based optimizer step `step`.
pub fn hyper(lr: f64, betas: (f64, f64), eps: f64, weight_decay: f64, step: u64) -> [f32; HYPER_WORDS] {
    let c1 = 1.0 - betas.0.powi(step.min(i32::MAX as u64) as i32);
    let c2 = 1.0 - betas.1.powi(step.min(i32::MAX as u64) as i32);
    [lr as f32, betas.0 as f32, betas.1 as f32, eps as f32, weight_decay as f32, c1 as f32, c2.sqrt() as f32, 0.0]
}

/// Records norm, clipping and update of one job. Its gradients are words `range` of `state.grads`.
pub fn step(rec: &mut Recorder, label: &str, state: State, job: usize, range: std::ops::Range<usize>, clip: f32, groups: &[Group]) {
    let blocks = (range.len() as u32).div_ceil(BLOCK).max(1);
    let partial = rec.transient("square_sums", blocks as usize);
    let lanes = Variant::new().with("WG", LANES);
    let params = SquareSum { begin: range.start as u32, len: range.len() as u32, first: 0, pad: 0 };
    let what = Dispatch::new(format!("{label}.square_sum"), &params, &[state.grads, partial], 2 * range.len() as u64);
    rec.dispatch(&SQUARE_SUM, lanes.clone().with("BLOCK", BLOCK), grid_1d(blocks), what);
    let params = GlobalNorm { count: blocks, first: 0, job: job as u32, clip };
    let what = Dispatch::new(format!("{label}.global_norm"), &params, &[partial, state.norms], u64::from(blocks));
    rec.dispatch(&GLOBAL_NORM, lanes, [1, 1, 1], what);
    for group in groups {
        let params = AdamW {
            begin: group.begin as u32,
            len: group.len as u32,
            job: job as u32,
            lr_multiplier: group.lr_multiplier,
            grad_begin: group.grad_begin as u32,
            decay: group.decay,
            pad: [0; 2],
        };
        let bind = [state.hyper, state.norms, state.values, state.grads, state.m, state.v];
        let what = Dispatch::new(format!("{label}.adamw"), &params, &bind, 16 * group.len as u64);
        rec.dispatch(&ADAMW, Variant::new(), grid_1d((group.len as u32).div_ceil(64)), what);
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
struct SquareSum {
    begin: u32,
    len: u32,
    first: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct GlobalNorm {
    count: u32,
    first: u32,
    job: u32,
    clip: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct AdamW {
    begin: u32,
    len: u32,
    job: u32,
    lr_multiplier: f32,
    grad_begin: u32,
    decay: f32,
    pad: [u32; 2],
}
