//! A frozen quantised matrix with adapters beside it: the only place where base and adapter products meet.

use std::ops::Range;

use super::weights::Siblings;
use crate::gpu::device::PlanLimits;
use crate::gpu::{Recorder, Tensor};
use crate::kernels::lowrank::{Carry, LowrankSiblings, LowrankSite};
use crate::kernels::matmul;
use crate::kernels::matrix::{self, MOST_MEMBERS, Matrix};

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

impl<'a> Linear<'a> {
    /// Records `y = x Wᵀ + adapters(x)`; `x` is `[t, k]`, `y` `[t, n]`.
    pub fn forward(&self, rec: &mut Recorder, rows: usize, x: Tensor, y: Tensor) -> Kept {
        matmul::forward(rec, &self.adapter.label("matmul"), x, rows, self.weight, y, false);
        self.adapter.forward(rec, rows, x, y)
    }

    /// The layer for some rows of the batch: all tensors hold only these.
    pub fn of_rows(&self, rows: Range<usize>) -> Linear<'a> {
        Linear { weight: self.weight, adapter: self.adapter.of_rows(rows) }
    }

    /// A place for sums of gradients between ranges of rows.
    pub fn new_carry(&self, rec: &mut Recorder) -> Option<Carry> {
        self.adapter.site.as_ref().map(|site| LowrankSiblings::alone(site).new_carry(rec, self.adapter.name))
    }

    /// The same with sums of gradients in that place.
    pub fn carrying(mut self, carry: Option<Carry>) -> Self {
        self.adapter.carry = carry;
        self
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
    /// Where sums of gradients wait, where the rows are some of the batch.
    pub carry: Option<Carry>,
}

impl Adapter {
    fn of_rows(&self, rows: Range<usize>) -> Self {
        Self { site: self.site.map(|site| site.of_rows(rows)), ..*self }
    }

    fn layers(&self, site: &LowrankSite) -> LowrankSiblings {
        let alone = LowrankSiblings::alone(site);
        match self.carry {
            Some(carry) => alone.carrying(carry),
            None => alone,
        }
    }

    fn label(&self, what: &str) -> String {
        format!("{}.{what}", self.name)
    }

    /// Records `y += adapters(x)`.
    fn forward(&self, rec: &mut Recorder, rows: usize, x: Tensor, y: Tensor) -> Kept {
        let h = self.site.as_ref().map(|site| {
            let h = rec.transient(&self.label("h"), rows * site.stride());
            self.layers(site).forward(rec, self.name, x, h, y);
            h
        });
        Kept { h }
    }

    /// Records their gradients and what they add to `dx`.
    fn backward(&self, rec: &mut Recorder, rows: usize, x: Tensor, kept: Kept, dy: Tensor, dx: Option<Tensor>) {
        if let (Some(site), Some(h)) = (&self.site, kept.h) {
            let dh = rec.transient(&self.label("dh"), rows * site.stride());
            self.layers(site).backward(rec, self.name, x, dy, h, dh, dx);
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
    /// Where sums of gradients wait, a place for each group of adapters, where the rows are some of the batch.
    pub carries: Vec<Carry>,
}

/// Outputs of q, k and v, or of gate and up, or the gradients of those.
#[derive(Debug, Clone, Copy)]
pub struct Outputs {
    /// All of them, one after the other, where one binding holds that; else the first.
    whole: Tensor,
    /// Whether `whole` is all of them.
    together: bool,
    /// `[t, n]` each; of two layers the third is empty.
    pub each: [Tensor; MOST_MEMBERS],
}

impl Outputs {
    /// All of them, and where the second begins, where one binding holds that.
    pub fn joint(&self) -> Option<(Tensor, usize)> {
        self.together.then(|| (self.whole, (self.each[1].offset - self.whole.offset) as usize))
    }
}

/// Adapters that share dispatches.
struct Group {
    layers: LowrankSiblings,
    name: &'static str,
    outputs: Tensor,
}

impl<'a> LinearSiblings<'a> {
    /// The layers for some rows of the batch: all tensors hold only these.
    pub fn of_rows(&self, rows: Range<usize>) -> LinearSiblings<'a> {
        let adapters = self.adapters.iter().map(|adapter| adapter.of_rows(rows.clone())).collect();
        LinearSiblings { weights: self.weights, adapters, name: self.name, carries: Vec::new() }
    }

    /// Places for sums of gradients between ranges of rows, whose outputs are laid out as `y`.
    pub fn new_carries(&self, rec: &mut Recorder, rows: usize, y: Outputs) -> Vec<Carry> {
        self.groups(rows, y).into_iter().map(|group| group.layers.new_carry(rec, group.name)).collect()
    }

    /// The same with sums of gradients in those places.
    pub fn carrying(self, carries: Vec<Carry>) -> Self {
        Self { carries, ..self }
    }

    /// Outputs of each.
    fn widths(&self) -> Vec<usize> {
        match self.weights {
            Siblings::Joint(weight) => weight.members.clone(),
            Siblings::Apart(weights) => weights.iter().map(|weight| weight.rows).collect(),
        }
    }

    /// A tensor for their outputs, or several where it would be too large.
    pub fn outputs(&self, rec: &mut Recorder, label: &str, rows: usize) -> Outputs {
        let widths = self.widths();
        let places = matrix::outputs(&widths, rows);
        let words = places.last().map_or(0, |last| last.end);
        // Weights are only joint where one binding holds what they give.
        let together = matches!(self.weights, Siblings::Joint(_)) || 4 * words as u64 <= PlanLimits::FLOOR.max_binding;
        let (whole, each): (Tensor, Vec<Tensor>) = if together {
            let whole = rec.transient(label, words);
            (whole, places.into_iter().map(|place| whole.slice(place)).collect())
        } else {
            let own = |(adapter, width): (&Adapter, usize)| rec.transient(&format!("{label}.{}", adapter.name), rows * width);
            let each: Vec<Tensor> = self.adapters.iter().zip(widths).map(own).collect();
            (each[0], each)
        };
        Outputs { whole, together, each: std::array::from_fn(|i| each.get(i).copied().unwrap_or(whole.slice(0..0))) }
    }

    /// Their adapters: all in one group where the outputs are one tensor, else each in its own.
    fn groups(&self, rows: usize, y: Outputs) -> Vec<Group> {
        let places = matrix::outputs(&self.widths(), rows);
        let all = self.adapters.iter().zip(places).zip(y.each);
        let present: Vec<_> = all.filter_map(|((adapter, place), own)| Some((adapter.site?, place.start, adapter.name, own))).collect();
        if y.together && present.len() > 1 {
            let layers: Vec<_> = present.iter().map(|(site, begin, ..)| (*site, *begin)).collect();
            return self.carried(vec![Group { layers: LowrankSiblings::new(&layers), name: self.name, outputs: y.whole }]);
        }
        let alone = |(site, _, name, outputs)| Group { layers: LowrankSiblings::alone(&site), name, outputs };
        self.carried(present.into_iter().map(alone).collect())
    }

    fn carried(&self, mut groups: Vec<Group>) -> Vec<Group> {
        for (group, carry) in groups.iter_mut().zip(&self.carries) {
            group.layers = group.layers.clone().carrying(*carry);
        }
        groups
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
        for (kept, Group { layers, name, outputs }) in kept.iter_mut().zip(self.groups(rows, y)) {
            let h = rec.transient(&format!("{name}.h"), layers.inner_words());
            layers.forward(rec, name, x, h, outputs);
            kept.h = Some(h);
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
        for (kept, Group { layers, name, outputs }) in kept.iter().zip(self.groups(rows, dy)) {
            if let Some(h) = kept.h {
                let dh = rec.transient(&format!("{name}.dh"), layers.inner_words());
                layers.backward(rec, name, x, outputs, h, dh, dx);
            }
        }
    }
}
