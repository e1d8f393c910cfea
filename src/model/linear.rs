//! A frozen quantised matrix with adapters beside it: the only place where base and adapter products meet.

use super::weights::Siblings;
use crate::gpu::{Recorder, Tensor};
use crate::kernels::lowrank::{self, LowrankSite};
use crate::kernels::matmul;
use crate::kernels::matrix::{MOST_MEMBERS, Matrix};

/// One linear layer of a recording.
pub struct Linear<'a> {
    /// Frozen weight `[n, k]`.
    pub weight: &'a Matrix,
    /// The adapters beside it.
    pub adapter: Adapter,
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
        matmul::forward(rec, &self.adapter.label("matmul"), x, rows, self.weight, y, false);
        self.adapter.forward(rec, rows, x, y)
    }

    /// Records the adapter gradients from `x` and `dy` and, with `dx`, `dx = dy W + adapters`.
    pub fn backward(&self, rec: &mut Recorder, rows: usize, x: Tensor, kept: Kept, dy: Tensor, dx: Option<Tensor>) {
        if let Some(dx) = dx {
            matmul::backward(rec, &self.adapter.label("matmul_backward"), dy, rows, self.weight, dx, false);
        }
        self.adapter.backward(rec, rows, x, kept, dy, dx);
    }
}

/// The adapters beside one linear layer.
#[derive(Clone, Copy)]
pub struct Adapter {
    /// Where, if any job has one.
    pub site: Option<LowrankSite>,
    /// Name of the layer within the block: `self_attn.q_proj`.
    pub name: &'static str,
}

impl Adapter {
    fn label(&self, what: &str) -> String {
        format!("{}.{what}", self.name)
    }

    /// Records `y += adapters(x)`.
    fn forward(&self, rec: &mut Recorder, rows: usize, x: Tensor, y: Tensor) -> Kept {
        let h = self.site.as_ref().map(|site| {
            let h = rec.transient(&self.label("h"), rows * site.stride());
            lowrank::forward(rec, self.name, site, x, h, y);
            h
        });
        Kept { h }
    }

    /// Records their gradients and what they add to `dx`.
    fn backward(&self, rec: &mut Recorder, rows: usize, x: Tensor, kept: Kept, dy: Tensor, dx: Option<Tensor>) {
        if let (Some(site), Some(h)) = (&self.site, kept.h) {
            let dh = rec.transient(&self.label("dh"), rows * site.stride());
            lowrank::backward(rec, self.name, site, x, dy, h, dh, dx);
        }
    }
}

/// Linear layers of one input: q, k and v, or gate and up.
pub struct LinearSiblings<'a> {
    /// Their frozen weights.
    pub weights: &'a Siblings,
    /// Their adapters, in the same order.
    pub adapters: Vec<Adapter>,
    /// Name of them together: `self_attn.qkv_proj`.
    pub name: &'static str,
}

/// Their outputs, or the gradients of those; the tensors of layers that are not there are empty slices.
#[derive(Debug, Clone, Copy)]
pub struct Outputs {
    /// All of them, one after the other, where one product computes all; else the first.
    whole: Tensor,
    /// `[t, n]` each.
    pub each: [Tensor; MOST_MEMBERS],
}

impl LinearSiblings<'_> {
    /// A tensor for their outputs.
    pub fn outputs(&self, rec: &mut Recorder, label: &str, rows: usize) -> Outputs {
        let (whole, each): (Tensor, Vec<Tensor>) = match self.weights {
            Siblings::Joint(weight) => {
                let whole = rec.transient(label, weight.output_words(rows));
                (whole, weight.outputs(rows).into_iter().map(|place| whole.slice(place)).collect())
            }
            Siblings::Apart(weights) => {
                let own = |(weight, adapter): (&Matrix, &Adapter)| rec.transient(&format!("{label}.{}", adapter.name), rows * weight.rows);
                let each: Vec<Tensor> = weights.iter().zip(&self.adapters).map(own).collect();
                (each[0], each)
            }
        };
        Outputs { whole, each: std::array::from_fn(|i| each.get(i).copied().unwrap_or(whole.slice(0..0))) }
    }

    /// Records all their outputs `y = x Wᵀ + adapters(x)`.
    pub fn forward(&self, rec: &mut Recorder, rows: usize, x: Tensor, y: Outputs) -> [Kept; MOST_MEMBERS] {
        match self.weights {
            Siblings::Joint(weight) => matmul::forward(rec, &format!("{}.matmul", self.name), x, rows, weight, y.whole, false),
            Siblings::Apart(weights) => {
                for ((weight, adapter), y) in weights.iter().zip(&self.adapters).zip(y.each) {
                    matmul::forward(rec, &adapter.label("matmul"), x, rows, weight, y, false);
                }
            }
        }
        let mut kept = [Kept { h: None }; MOST_MEMBERS];
        for ((kept, adapter), y) in kept.iter_mut().zip(&self.adapters).zip(y.each) {
            *kept = adapter.forward(rec, rows, x, y);
        }
        kept
    }

    /// Records the adapter gradients from `x` and `dy` and, with `dx`, `dx = Σ dy W + adapters`.
    pub fn backward(&self, rec: &mut Recorder, rows: usize, x: Tensor, kept: [Kept; MOST_MEMBERS], dy: Outputs, dx: Option<Tensor>) {
        match (self.weights, dx) {
            (_, None) => {}
            (Siblings::Joint(weight), Some(dx)) => {
                matmul::backward(rec, &format!("{}.matmul_backward", self.name), dy.whole, rows, weight, dx, false);
            }
            (Siblings::Apart(weights), Some(dx)) => {
                for (i, ((weight, adapter), dy)) in weights.iter().zip(&self.adapters).zip(dy.each).enumerate() {
                    matmul::backward(rec, &adapter.label("matmul_backward"), dy, rows, weight, dx, i > 0);
                }
            }
        }
        for ((kept, adapter), dy) in kept.iter().zip(&self.adapters).zip(dy.each) {
            adapter.backward(rec, rows, x, *kept, dy, dx);
        }
    }
}
