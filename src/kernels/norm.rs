//! RMSNorm, row by row: `y = x · rstd · w`, `rstd = 1/sqrt(mean(x²) + eps)`; w is the base's, or that of the row's job ([`OwnWeights`]).

use bytemuck::{Pod, Zeroable};

use super::lowrank::NO_GRADIENT;
use super::real::Real;
use super::reduce::row_lanes;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

/// Lanes per row of a GPU.
const LANES: u32 = 64;

/// Columns and row lanes of a workgroup of [`OWN_GRADIENT`].
const COLUMNS: u32 = 32;
const ROW_LANES: u32 = 8;

/// Uniform parameters of all kernels.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    eps: f32,
    /// First row of the norm in the table of own weights.
    first: u32,
    jobs: u32,
    pad: [u32; 3],
}

/// Forward: x, w, y, rstd.
pub const FORWARD: KernelSpec = KernelSpec {
    name: "rmsnorm",
    source: include_str!("../../shaders/rmsnorm.wgsl"),
    bindings: &[Access::Input, Access::Read, Access::ReadWrite, Access::ReadWrite],
};

/// Residual and forward: x (the sum is in its place), w, y, rstd, b.
pub const ADD_FORWARD: KernelSpec = KernelSpec {
    name: "rmsnorm_add",
    source: FORWARD.source,
    bindings: &[Access::ReadWrite, Access::Read, Access::ReadWrite, Access::ReadWrite, Access::Input],
};

/// Backward: x, w, rstd, dy, dx.
pub const BACKWARD: KernelSpec = KernelSpec {
    name: "rmsnorm_backward",
    source: include_str!("../../shaders/rmsnorm_backward.wgsl"),
    bindings: &[Access::Input, Access::Read, Access::Input, Access::Input, Access::ReadWrite],
};

/// Forward where jobs have weights of their own: x, w, y, rstd, row_job, own, values.
pub const OWN_FORWARD: KernelSpec = KernelSpec {
    name: "rmsnorm_own",
    source: FORWARD.source,
    bindings: &[Access::Input, Access::Read, Access::ReadWrite, Access::ReadWrite, Access::Read, Access::Read, Access::Read],
};

/// Residual and forward where jobs have weights of their own: x (the sum is in its place), w, y, rstd, row_job, own, values, b.
pub const OWN_ADD_FORWARD: KernelSpec = KernelSpec {
    name: "rmsnorm_own_add",
    source: FORWARD.source,
    bindings: &[
        Access::ReadWrite,
        Access::Read,
        Access::ReadWrite,
        Access::ReadWrite,
        Access::Read,
        Access::Read,
        Access::Read,
        Access::Input,
    ],
};

/// Backward where jobs have weights of their own: x, w, rstd, dy, dx, row_job, own, values.
pub const OWN_BACKWARD: KernelSpec = KernelSpec {
    name: "rmsnorm_own_backward",
    source: BACKWARD.source,
    bindings: &[Access::Input, Access::Read, Access::Input, Access::Input, Access::ReadWrite, Access::Read, Access::Read, Access::Read],
};

/// Gradient of jobs' own weights: x, rstd, dy, jobs, own, grads.
pub const OWN_GRADIENT: KernelSpec = KernelSpec {
    name: "rmsnorm_own_gradient",
    source: include_str!("../../shaders/rmsnorm_own_gradient.wgsl"),
    bindings: &[Access::Input, Access::Input, Access::Input, Access::Read, Access::Read, Access::ReadWrite],
};

/// A row of the table of own weights: where a job has the weights of a norm and their gradient.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct OwnRow {
    /// First word among the values; [`NO_GRADIENT`] where the job has the base's.
    pub values: u32,
    /// First word among the gradients; [`NO_GRADIENT`] where they do not train.
    pub grads: u32,
}

impl OwnRow {
    /// The base's weights.
    pub const BASE: OwnRow = OwnRow { values: NO_GRADIENT, grads: NO_GRADIENT };
}

/// Weights of a norm that jobs train for themselves.
#[derive(Debug, Clone, Copy)]
pub struct OwnWeights {
    /// `[t]` u32: job of each row.
    pub row_job: Tensor,
    /// `[jobs]` [`super::lowrank::Segment`].
    pub jobs: Tensor,
    /// `[norms, jobs]` [`OwnRow`].
    pub table: Tensor,
    /// Parameters of all jobs.
    pub values: Tensor,
    /// Their gradients.
    pub grads: Tensor,
    /// The norm's number in the table.
    pub norm: usize,
    /// Jobs of the table.
    pub count: usize,
}

/// The weights `[d]` of a norm: the base's, and those that jobs have instead.
#[derive(Debug, Clone, Copy)]
pub struct Weight {
    /// The base's.
    pub base: Tensor,
    /// Those of jobs.
    pub own: Option<OwnWeights>,
}

impl From<Tensor> for Weight {
    fn from(base: Tensor) -> Self {
        Self { base, own: None }
    }
}

impl Weight {
    fn params(&self, rows: u32, eps: f32) -> Params {
        let (first, jobs) = self.own.map_or((0, 0), |own| ((own.norm * own.count) as u32, own.count as u32));
        Params { rows, cols: self.base.len, eps, first, jobs, pad: [0; 3] }
    }

    /// `bind` with what own weights need, and the kernel of the two that reads it.
    fn kernel<'k>(&self, bind: &[Tensor], plain: &'k KernelSpec, own: &'k KernelSpec) -> (&'k KernelSpec, Vec<Tensor>) {
        match self.own {
            Some(o) => (own, [bind, &[o.row_job, o.table, o.values]].concat()),
            None => (plain, bind.to_vec()),
        }
    }

    /// Rows of whole vectors are read four elements at a time.
    fn lanes(&self, rec: &Recorder) -> Variant {
        let variant = Variant::new().with("WG", row_lanes(rec, LANES)).flag_if("VEC4", self.base.len.is_multiple_of(4));
        variant.flag_if("OWN", self.own.is_some())
    }
}

/// Records `y[t,d] = rmsnorm(x[t,d]) · w[d]` and keeps `rstd[t]`.
pub fn forward(rec: &mut Recorder, label: &str, x: Tensor, w: impl Into<Weight>, y: Tensor, rstd: Tensor, eps: f32) {
    let w = w.into();
    let (rows, cols) = (rstd.len, w.base.len);
    let (spec, bind) = w.kernel(&[x, w.base, y, rstd], &FORWARD, &OWN_FORWARD);
    let what = Dispatch::new(label, &w.params(rows, eps), &bind, 4 * u64::from(rows) * u64::from(cols));
    rec.dispatch(spec, w.lanes(rec), grid_1d(rows), what);
}

/// Records the residual `x[t,d] += b[t,d]` and [`forward`] of the sum in one dispatch.
pub fn add_forward(rec: &mut Recorder, label: &str, b: Tensor, x: Tensor, w: impl Into<Weight>, y: Tensor, rstd: Tensor, eps: f32) {
    let w = w.into();
    let (rows, cols) = (rstd.len, w.base.len);
    let (spec, mut bind) = w.kernel(&[x, w.base, y, rstd], &ADD_FORWARD, &OWN_ADD_FORWARD);
    bind.push(b);
    let what = Dispatch::new(label, &w.params(rows, eps), &bind, 5 * u64::from(rows) * u64::from(cols));
    rec.dispatch(spec, w.lanes(rec).flag("ADD"), grid_1d(rows), what);
}

/// Records the gradient to x; `accumulate` adds to `dx` instead of overwriting it.
pub fn backward(rec: &mut Recorder, label: &str, x: Tensor, w: impl Into<Weight>, rstd: Tensor, dy: Tensor, dx: Tensor, accumulate: bool) {
    let w = w.into();
    let (rows, cols) = (rstd.len, w.base.len);
    let (spec, bind) = w.kernel(&[x, w.base, rstd, dy, dx], &BACKWARD, &OWN_BACKWARD);
    let what = Dispatch::new(label, &w.params(rows, 0.0), &bind, 10 * u64::from(rows) * u64::from(cols));
    rec.dispatch(spec, w.lanes(rec).flag_if("ACCUMULATE", accumulate), grid_1d(rows), what);
}

/// Records `dw[d] += sum over the job's rows of dy · x · rstd` for every job that trains the norm's weights; nothing where no job may.
/// `x`, `dy`: `[t, d]` of the whole batch.
pub fn own_gradient(rec: &mut Recorder, label: &str, x: Tensor, w: Weight, rstd: Tensor, dy: Tensor) {
    let Some(own) = w.own else { return };
    let (rows, cols) = (rstd.len, w.base.len);
    let bind = [x, rstd, dy, own.jobs, own.table, own.grads];
    let what = Dispatch::new(label, &w.params(rows, 0.0), &bind, 3 * u64::from(rows) * u64::from(cols));
    let variant = Variant::new().with("COLUMNS", COLUMNS).with("ROW_LANES", ROW_LANES);
    rec.dispatch(&OWN_GRADIENT, variant, [cols.div_ceil(COLUMNS), own.count as u32, 1], what);
}

/// The twin of [`forward`]: returns (y, rstd).
pub fn forward_twin<R: Real>(x: &[R], w: &[R], eps: f64) -> (Vec<R>, Vec<R>) {
    let cols = w.len();
    let mut y = Vec::with_capacity(x.len());
    let mut rstd = Vec::new();
    for row in x.chunks_exact(cols) {
        let mean = row.iter().map(|v| *v * *v).sum::<R>() / R::of(cols as f64);
        let scale = R::of(1.0) / (mean + R::of(eps)).sqrt();
        y.extend(row.iter().zip(w).map(|(v, w)| *v * scale * *w));
        rstd.push(scale);
    }
    (y, rstd)
}

/// The twin of [`backward`] without accumulation: returns dx.
pub fn backward_twin<R: Real>(x: &[R], w: &[R], rstd: &[R], dy: &[R]) -> Vec<R> {
    let cols = w.len();
    let mut dx = Vec::with_capacity(x.len());
    for ((row, grad), scale) in x.chunks_exact(cols).zip(dy.chunks_exact(cols)).zip(rstd) {
        let mean = (0..cols).map(|c| w[c] * grad[c] * row[c] * *scale).sum::<R>() / R::of(cols as f64);
        dx.extend((0..cols).map(|c| *scale * (w[c] * grad[c] - row[c] * *scale * mean)));
    }
    dx
}

/// The twin of [`own_gradient`] for one job that has all rows: returns dw.
pub fn weight_gradient_twin<R: Real>(x: &[R], rstd: &[R], dy: &[R]) -> Vec<R> {
    let cols = x.len() / rstd.len();
    let mut dw = vec![R::default(); cols];
    for ((row, grad), scale) in x.chunks_exact(cols).zip(dy.chunks_exact(cols)).zip(rstd) {
        for c in 0..cols {
            dw[c] += grad[c] * row[c] * *scale;
        }
    }
    dw
}
