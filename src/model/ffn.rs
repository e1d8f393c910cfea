//! The feed-forward layer of a block: `down(silu(gate(n)) · up(n))`, with adapters beside all three, or with a router and experts.
//!
//! Where jobs have experts (MixLoRA), the frozen products run once over all rows, as without: rows of such jobs are spread over slots after gate and
//! up and put together again before down (see [`crate::kernels::moe`]). Other jobs' rows in the same batch do not notice.
//!
//! Long batches pass through part by part ([`RowParts`]), with the bits of the whole. Experts' rows lie all over the batch: it stays whole with them.

use std::ops::Range;

use super::RowParts;
use super::linear::{Kept, Linear, LinearSiblings, Outputs};
use crate::adapters::pool::ExpertBlock;
use crate::gpu::recorder::Scratch;
use crate::gpu::{Recorder, Tensor};
use crate::kernels::elementwise;
use crate::kernels::lowrank::Carry;
use crate::kernels::matrix::MOST_MEMBERS;
use crate::kernels::moe::{Combine, GateUp, GateUpOutputs};

/// The feed-forward layer within a recording.
pub struct FeedForward<'a> {
    /// gate and up.
    pub gate_up: LinearSiblings<'a>,
    /// down.
    pub down: Linear<'a>,
    /// Router and experts of the jobs that have them.
    pub experts: Option<ExpertBlock>,
    /// Rows of the batch.
    pub rows: usize,
    /// How many of them at once.
    pub parts: RowParts,
    /// Hidden and feed-forward width.
    pub widths: (usize, usize),
}

/// What the backward pass needs of the forward pass, of each part; nothing where the backward pass runs each part forward itself.
#[derive(Debug, Clone)]
pub struct Saved(Vec<SavedRows>);

/// What it needs of rows that go through at once.
#[derive(Debug, Clone, Copy)]
struct SavedRows {
    gate_up: Outputs,
    kept_gate_up: [Kept; MOST_MEMBERS],
    kept_down: Kept,
    slots: Option<Slots>,
}

/// The same of the experts: inner activations. Their outputs are put together again where they are read.
#[derive(Debug, Clone, Copy)]
struct Slots {
    gate_up: GateUp,
    /// `[slots, rank]`
    down: Option<Tensor>,
}

/// Whether the routing is made or is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// The first time.
    New,
    /// Recompute takes the forward pass's: a router must get the same gradient with and without.
    Again,
}

/// Where sums of the adapters' gradients wait between parts.
struct Carries {
    gate_up: Vec<Carry>,
    down: Option<Carry>,
}

impl<'a> FeedForward<'a> {
    /// Records `y` `[t, d]` from the normed hidden states `n` `[t, d]`, which become jittered where a router says so.
    pub fn forward(&self, rec: &mut Recorder, n: Tensor, y: Tensor, routing: Routing) -> Saved {
        let parts = self.ranges();
        if let [_] = parts[..] {
            return Saved(vec![self.forward_rows(rec, n, y, routing)]);
        }
        let mut scratch = Scratch::default();
        let mut saved = Vec::new();
        for rows in parts {
            let [n, y] = [n, y].map(|x| self.slice(x, &rows));
            rec.scoped(format!("rows.{}", rows.start), |rec| {
                let part = self.of_rows(rows);
                match routing {
                    Routing::New => saved.push(part.forward_rows(rec, n, y, routing)),
                    Routing::Again => {
                        rec.sharing(&mut scratch, |rec| part.forward_rows(rec, n, y, routing));
                    }
                }
            });
        }
        Saved(saved)
    }

    /// Records `dn` from `dy`; `n` is the normed input as a norm gives it.
    pub fn backward(&self, rec: &mut Recorder, saved: &Saved, n: Tensor, dy: Tensor, dn: Tensor) {
        let parts = self.ranges();
        if let ([_], [saved]) = (&parts[..], &saved.0[..]) {
            return self.backward_rows(rec, *saved, n, dy, dn);
        }
        let (mut carries, mut forward, mut backward) = (None, Scratch::default(), Scratch::default());
        for (i, rows) in parts.into_iter().enumerate() {
            let [n, dy, dn] = [n, dy, dn].map(|x| self.slice(x, &rows));
            rec.scoped(format!("rows.{}", rows.start), |rec| {
                let part = self.of_rows(rows);
                let again = |rec: &mut Recorder| {
                    // Nobody reads its output, so that the plan leaves out what only that needs.
                    let y = rec.transient("y_again", n.len as usize);
                    part.forward_rows(rec, n, y, Routing::Again)
                };
                let saved = saved.0.get(i).copied().unwrap_or_else(|| rec.sharing(&mut forward, again));
                let carries = carries.get_or_insert_with(|| Carries {
                    gate_up: part.gate_up.new_carries(rec, part.rows, saved.gate_up),
                    down: part.down.new_carry(rec),
                });
                rec.sharing(&mut backward, |rec| part.carrying(carries).backward_rows(rec, saved, n, dy, dn));
            });
        }
    }

    fn ranges(&self) -> Vec<Range<usize>> {
        let parts = if self.experts.is_some() { RowParts::WHOLE } else { self.parts };
        parts.ranges(self.rows)
    }

    /// These rows of a tensor `[t, d]`.
    fn slice(&self, x: Tensor, rows: &Range<usize>) -> Tensor {
        x.slice(rows.start * self.widths.0..rows.end * self.widths.0)
    }

    /// The layer for some rows of the batch.
    fn of_rows(&self, rows: Range<usize>) -> FeedForward<'a> {
        let count = rows.len();
        let gate_up = self.gate_up.of_rows(rows.clone());
        FeedForward { gate_up, down: self.down.of_rows(rows), experts: None, rows: count, parts: RowParts::WHOLE, widths: self.widths }
    }

    /// The same with sums of gradients in those places.
    fn carrying(self, carries: &Carries) -> Self {
        Self { gate_up: self.gate_up.carrying(carries.gate_up.clone()), down: self.down.carrying(carries.down), ..self }
    }

    /// Records `y` of rows that go through at once.
    fn forward_rows(&self, rec: &mut Recorder, n: Tensor, y: Tensor, routing: Routing) -> SavedRows {
        let (t, (d, f)) = (self.rows, self.widths);
        self.jitter(rec, "mlp.jitter", n);
        let gate_up = self.gate_up.outputs(rec, "gate_up", t);
        let kept_gate_up = self.gate_up.forward(rec, t, n, gate_up);
        let [gate, up, _] = gate_up.each;
        // The adapter's inner activation of `down` is needed again even where its output is not.
        let a = rec.transient("act", t * f);
        elementwise::swiglu(rec, "mlp.act", gate, up, a);
        let slots = self.experts.map(|block| spread_out(rec, &block, routing, n, [gate, up], a, f));
        let kept_down = self.down.forward(rec, t, a, y);
        if let (Some(block), Some((slots, act))) = (&self.experts, &slots) {
            if let (Some(site), Some(h)) = (&block.down, slots.down) {
                site.inner(rec, "mlp.experts.down_proj", *act, h);
                let product = rec.transient("experts.y", block.moe.shape.slots() * d);
                rec.clear(product);
                site.outer(rec, "mlp.experts.down_proj", h, product);
                block.moe.combine(rec, "mlp.experts.y", Combine::AddWeighted, d, product, y);
            }
            if block.capacity && block.moe.shape.training {
                block.moe.overflow(rec, "mlp.experts", d, n, y);
            }
        }
        SavedRows { gate_up, kept_gate_up, kept_down, slots: slots.map(|(slots, _)| slots) }
    }

    /// Records `dn` of rows that go through at once.
    fn backward_rows(&self, rec: &mut Recorder, s: SavedRows, n: Tensor, dy: Tensor, dn: Tensor) {
        let (t, (d, f)) = (self.rows, self.widths);
        self.jitter(rec, "mlp.jitter_again", n);
        let [gate, up, _] = s.gate_up.each;
        let (a, da) = (rec.transient("act_again", t * f), rec.transient("dact", t * f));
        elementwise::swiglu(rec, "mlp.act_again", gate, up, a);
        self.down.backward(rec, t, a, s.kept_down, dy, Some(da));
        let experts = self.experts.as_ref().zip(s.slots);
        let gradients = experts.map(|(block, slots)| {
            let dweight = rec.transient("experts.dweight", block.moe.shape.slots().next_multiple_of(4) + t);
            let gradients = down_backward(rec, block, slots, s.gate_up, dy, da, dweight, (d, f));
            (block, slots, dweight, gradients)
        });
        // In the place of gate and up are their gradients now, those of rows with experts by what all of these read.
        elementwise::swiglu_backward(rec, "mlp.act_backward", gate, up, da);
        if let Some((block, _, _, gradients)) = &gradients {
            let [dgate, dup] = gradients.each;
            block.moe.combine(rec, "mlp.experts.dgate", Combine::Plain, f, dgate, gate);
            block.moe.combine(rec, "mlp.experts.dup", Combine::Plain, f, dup, up);
        }
        self.gate_up.backward(rec, t, n, s.kept_gate_up, s.gate_up, Some(dn));
        if let Some((block, slots, dweight, gradients)) = gradients {
            inputs_backward(rec, block, slots, gradients, n, dn, d);
            if block.capacity && block.moe.shape.training {
                block.moe.overflow_backward(rec, "mlp.experts", d, n, dy, dn, dweight);
            }
            let dlogits = rec.transient("moe_gate.dlogits", t * block.moe.shape.stride());
            block.moe.route_backward(rec, "mlp.moe_gate", dweight, dlogits);
            block.router.input_gradient(rec, "mlp.moe_gate", dlogits, dn);
            block.router.gradient_a(rec, "mlp.moe_gate", dlogits, n);
        }
        self.jitter(rec, "mlp.jitter_backward", dn);
    }

    fn jitter(&self, rec: &mut Recorder, label: &str, x: Tensor) {
        if let Some(block) = self.experts.as_ref().filter(|block| block.jitter && block.moe.shape.training) {
            block.moe.jitter(rec, label, self.widths.0, x);
        }
    }
}

/// Routes the rows of `n`, lets their experts at gate and up, and puts the weighted activations into `a`. Returns the slots' activations, too.
fn spread_out(
    rec: &mut Recorder,
    block: &ExpertBlock,
    routing: Routing,
    n: Tensor,
    [gate, up]: [Tensor; 2],
    a: Tensor,
    f: usize,
) -> (Slots, Tensor) {
    let moe = &block.moe;
    let slots = moe.shape.slots();
    if routing == Routing::New {
        let logits = rec.transient("moe_gate.logits", moe.shape.rows * moe.shape.stride());
        block.router.inner(rec, "mlp.moe_gate", n, logits);
        moe.route(rec, "mlp.moe_gate", logits);
    }
    let together = GateUp::fit_together(slots, f);
    let h = rec.transient("experts.h", GateUp::words([&block.gate, &block.up, &block.down].map(Option::as_ref), together));
    let gate_up = GateUp { gate: block.gate, up: block.up, down: block.down, h, tables: block.tables, together };
    if let Some(input) = gathered(rec, block, n) {
        gate_up.inner(rec, input);
    }
    let act = rec.transient("experts.act", slots * f);
    moe.swiglu(rec, "mlp.experts.act", &gate_up, gate, up, act);
    moe.combine(rec, "mlp.experts.act", Combine::Weighted, f, act, a);
    let down = block.down.as_ref().map(|site| rec.transient("experts.h_down", slots * site.stride()));
    (Slots { gate_up, down }, act)
}

/// The input of gate's and up's experts by slot, where there are any.
fn gathered(rec: &mut Recorder, block: &ExpertBlock, n: Tensor) -> Option<Tensor> {
    let k = block.gate.or(block.up)?.k;
    let x = rec.transient("experts.x", block.moe.shape.slots() * k);
    block.moe.gather(rec, "mlp.experts.x", k, n, x);
    Some(x)
}

/// Records the gradients of down's experts and of the weights, and returns those of gate's and up's outputs by slot. `products` are the frozen ones.
fn down_backward(
    rec: &mut Recorder,
    block: &ExpertBlock,
    s: Slots,
    products: Outputs,
    dy: Tensor,
    da: Tensor,
    dweight: Tensor,
    (d, f): (usize, usize),
) -> GateUpOutputs {
    let (moe, slots) = (&block.moe, block.moe.shape.slots());
    let name = "mlp.experts.down_proj";
    let inner = block.down.as_ref().zip(s.down).zip(s.gate_up.down_gradient()).map(|((site, h), dh)| {
        let own_dy = rec.transient("experts.dy", slots * d);
        moe.gather(rec, "mlp.experts.dy", d, dy, own_dy);
        site.inner_gradient(rec, name, own_dy, dh);
        moe.weigh(rec, name, site.stride(), h, dh, dweight);
        site.gradient_b(rec, name, h, own_dy);
        (site, dh)
    });
    if let Some(joint) = products.joint().filter(|_| moe.experts_fit(f, inner.is_some())) {
        let found = moe.experts_backward(rec, "mlp.experts", &s.gate_up, joint, da, dweight);
        if let (Some((site, dh)), Some(act)) = (inner, found.act) {
            site.gradient_a(rec, name, dh, act);
        }
        return found.gate_up;
    }
    let [gate, up, _] = products.each;
    let act = rec.transient("experts.act_again", slots * f);
    moe.swiglu(rec, "mlp.experts.act_again", &s.gate_up, gate, up, act);
    let gradients = s.gate_up.outputs(rec, "experts.dgate_up", slots * f);
    let da_slots = gradients.each[0];
    moe.spread(rec, "mlp.experts.dact", f, da, act, da_slots, dweight, inner.is_some());
    if let Some((site, dh)) = inner {
        site.input_gradient(rec, name, dh, da_slots);
        site.gradient_a(rec, name, dh, act);
    }
    moe.swiglu_backward(rec, "mlp.experts.act_backward", &s.gate_up, gate, up, gradients);
    gradients
}

/// Records the gradients of gate's and up's experts from those of their outputs by slot, and adds to `dn`.
fn inputs_backward(rec: &mut Recorder, block: &ExpertBlock, s: Slots, gradients: GateUpOutputs, n: Tensor, dn: Tensor, d: usize) {
    let Some(input) = gathered(rec, block, n) else { return };
    let own_dn = rec.transient("experts.dn", block.moe.shape.slots() * d);
    rec.clear(own_dn);
    s.gate_up.backward(rec, input, gradients, own_dn);
    block.moe.combine(rec, "mlp.experts.dn", Combine::Add, d, own_dn, dn);
}
