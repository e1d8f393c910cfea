//! RMSNorm, row by row: `y = x · rstd · w`, `rstd = 1/sqrt(mean(x²) + eps)`.

use bytemuck::{Pod, Zeroable};

use super::real::Real;
use super::reduce::row_lanes;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

/// Lanes per row of a GPU.
const LANES: u32 = 64;

/// Uniform parameters of both kernels.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    eps: f32,
    pad: u32,
}

/// Forward: x, w, y, rstd.
pub const FORWARD: KernelSpec = KernelSpec {
    name: "rmsnorm",
    source: include_str!("../../shaders/rmsnorm.wgsl"),
    bindings: &[Access::Input, Access::Read, Access::ReadWrite, Access::ReadWrite],
};

/// Backward: x, w, rstd, dy, dx.
pub const BACKWARD: KernelSpec = KernelSpec {
    name: "rmsnorm_backward",
    source: include_str!("../../shaders/rmsnorm_backward.wgsl"),
    bindings: &[Access::Input, Access::Read, Access::Input, Access::Input, Access::ReadWrite],
};

/// Rows of whole vectors are read four elements at a time.
fn lanes(rec: &Recorder, cols: u32) -> Variant {
    Variant::new().with("WG", row_lanes(rec, LANES)).flag_if("VEC4", cols.is_multiple_of(4))
}

/// Records `y[t,d] = rmsnorm(x[t,d]) · w[d]` and keeps `rstd[t]`.
pub fn forward(rec: &mut Recorder, label: &str, x: Tensor, w: Tensor, y: Tensor, rstd: Tensor, eps: f32) {
    let (rows, cols) = (rstd.len, w.len);
    let what = Dispatch::new(label, &Params { rows, cols, eps, pad: 0 }, &[x, w, y, rstd], 4 * u64::from(rows) * u64::from(cols));
    rec.dispatch(&FORWARD, lanes(rec, cols), grid_1d(rows), what);
}

/// Records the gradient to x; `accumulate` adds to `dx` instead of overwriting it.
pub fn backward(rec: &mut Recorder, label: &str, x: Tensor, w: Tensor, rstd: Tensor, dy: Tensor, dx: Tensor, accumulate: bool) {
    let (rows, cols) = (rstd.len, w.len);
    let params = Params { rows, cols, eps: 0.0, pad: 0 };
    let what = Dispatch::new(label, &params, &[x, w, rstd, dy, dx], 10 * u64::from(rows) * u64::from(cols));
    rec.dispatch(&BACKWARD, lanes(rec, cols).flag_if("ACCUMULATE", accumulate), grid_1d(rows), what);
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
