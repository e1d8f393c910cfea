//! A frozen quantised matrix with adapters beside it: the only place where base and adapter products meet.

use crate::gpu::{Recorder, Tensor};
use crate::kernels::lowrank::{self, LowrankSite};
use crate::kernels::matmul;
use crate::kernels::matrix::Matrix;

/// One linear layer of a recording.
pub struct Linear<'a> {
    /// Frozen weight `[n, k]`.
    pub weight: &'a Matrix,
    /// The adapters at this site, if any job has one.
    pub adapter: Option<LowrankSite>,
    /// Name within the block: `self_attn.q_proj`.
    pub name: &'static str,
}

/// What the backward pass of one linear layer needs again.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// `[t, stride]`, the adapter's inner activation.
    h: Option<Tensor>,
}

impl Linear<'_> {
    /// Records `y = x Wᵀ + adapters(x)`; `x` is `[t, k]`, `y` `[t, n]`.
    pub fn forward(&self, rec: &mut Recorder, rows: usize, x: Tensor, y: Tensor) -> Kept {
        matmul::forward(rec, &format!("{}.matmul", self.name), x, rows, self.weight, y, false);
        let h = self.adapter.as_ref().map(|site| {
            let h = rec.transient(&format!("{}.h", self.name), rows * site.stride());
            lowrank::forward(rec, self.name, site, x, h, y);
            h
        });
        Kept { h }
    }

    /// Records the adapter gradients from `x` and `dy` and, with `dx`, `dx (+)= dy W + adapters`.
    pub fn backward(&self, rec: &mut Recorder, rows: usize, x: Tensor, kept: Kept, dy: Tensor, dx: Option<Tensor>, accumulate: bool) {
        if let Some(dx) = dx {
            matmul::backward(rec, &format!("{}.matmul_backward", self.name), dy, rows, self.weight, dx, accumulate);
        }
        if let (Some(site), Some(h)) = (&self.adapter, kept.h) {
            let dh = rec.transient(&format!("{}.dh", self.name), rows * site.stride());
            lowrank::backward(rec, self.name, site, x, dy, h, dh, dx);
        }
    }
}
