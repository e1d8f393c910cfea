//! The feed-forward layer of a block: `down(silu(gate(n)) · up(n))`, with adapters beside all three, or with a router and experts.
//!
//! Where jobs have experts (MixLoRA), the frozen products run once over all rows, as without: rows of such jobs are spread over slots after gate and
//! up and put together again before down (see [`crate::kernels::moe`]). Other jobs' rows in the same batch do not notice.

use super::linear::{Kept, Linear, LinearSiblings, Outputs};
use crate::adapters::pool::ExpertBlock;
use crate::gpu::{Recorder, Tensor};
use crate::kernels::elementwise;
use crate::kernels::lowrank::LowrankSite;
use crate::kernels::matrix::MOST_MEMBERS;
use crate::kernels::moe::Combine;

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
    /// Hidden and feed-forward width.
    pub widths: (usize, usize),
}

/// What the backward pass needs of the forward pass.
#[derive(Debug, Clone, Copy)]
pub struct Saved {
    gate_up: Outputs,
    kept_gate_up: [Kept; MOST_MEMBERS],
    kept_down: Kept,
    slots: Option<Slots>,
}

/// The same of the experts.
#[derive(Debug, Clone, Copy)]
struct Slots {
    /// `[slots, f]`
    gate: Tensor,
    up: Tensor,
    /// `[slots, rank]`: inner activations beside gate, up and down.
    inner: [Option<Tensor>; 3],
}

/// Whether the routing is made or is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// The first time.
    New,
    /// Recompute takes the forward pass's: a router must get the same gradient with and without.
    Again,
}

impl FeedForward<'_> {
    /// Records `y` `[t, d]` from the normed hidden states `n` `[t, d]`, which become jittered where a router says so.
    pub fn forward(&self, rec: &mut Recorder, n: Tensor, y: Tensor, routing: Routing) -> Saved {
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
            if let (Some(site), Some(h)) = (&block.down, slots.inner[2]) {
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
        Saved { gate_up, kept_gate_up, kept_down, slots: slots.map(|(slots, _)| slots) }
    }

    /// Records `dn` from `dy`; `n` is the normed input as a norm gives it.
    pub fn backward(&self, rec: &mut Recorder, s: Saved, n: Tensor, dy: Tensor, dn: Tensor) {
        let (t, (d, f)) = (self.rows, self.widths);
        self.jitter(rec, "mlp.jitter_again", n);
        let [gate, up, _] = s.gate_up.each;
        let (a, da) = (rec.transient("act_again", t * f), rec.transient("dact", t * f));
        elementwise::swiglu(rec, "mlp.act_again", gate, up, a);
        self.down.backward(rec, t, a, s.kept_down, dy, Some(da));
        // In their place are their gradients now.
        elementwise::swiglu_backward(rec, "mlp.act_backward", gate, up, da);
        let experts = self.experts.as_ref().zip(s.slots);
        let gradients = experts.map(|(block, slots)| {
            let dweight = rec.transient("experts.dweight", block.moe.shape.slots() + t);
            let da_slots = down_backward(rec, block, slots, dy, da, dweight, (d, f));
            elementwise::swiglu_backward(rec, "mlp.experts.act_backward", slots.gate, slots.up, da_slots);
            block.moe.combine(rec, "mlp.experts.dgate", Combine::Plain, f, slots.gate, gate);
            block.moe.combine(rec, "mlp.experts.dup", Combine::Plain, f, slots.up, up);
            (block, slots, dweight)
        });
        self.gate_up.backward(rec, t, n, s.kept_gate_up, s.gate_up, Some(dn));
        if let Some((block, slots, dweight)) = gradients {
            inputs_backward(rec, block, slots, n, dn, d);
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
    let mut inner = [block.gate, block.up, block.down].map(|site| site.map(|site| rec.transient("experts.h", slots * site.stride())));
    let input = gathered(rec, block, n);
    let mut product = |rec: &mut Recorder, i: usize, name: &str, site: &Option<LowrankSite>, x: Tensor| {
        let y = rec.transient(name, slots * f);
        moe.gather(rec, &format!("mlp.{name}"), f, x, y);
        if let (Some(site), Some(h), Some(input)) = (site, inner[i], input) {
            site.inner(rec, &format!("mlp.{name}"), input, h);
            site.outer(rec, &format!("mlp.{name}"), h, y);
        } else {
            inner[i] = None;
        }
        y
    };
    let own_gate = product(rec, 0, "experts.gate_proj", &block.gate, gate);
    let own_up = product(rec, 1, "experts.up_proj", &block.up, up);
    let act = rec.transient("experts.act", slots * f);
    elementwise::swiglu(rec, "mlp.experts.act", own_gate, own_up, act);
    moe.combine(rec, "mlp.experts.act", Combine::Weighted, f, act, a);
    (Slots { gate: own_gate, up: own_up, inner }, act)
}

/// The input of gate's and up's experts by slot, where there are any.
fn gathered(rec: &mut Recorder, block: &ExpertBlock, n: Tensor) -> Option<Tensor> {
    let k = block.gate.or(block.up)?.k;
    let x = rec.transient("experts.x", block.moe.shape.slots() * k);
    block.moe.gather(rec, "mlp.experts.x", k, n, x);
    Some(x)
}

/// Records the gradients of down's experts and of the weights, and returns that of the slots' activations.
fn down_backward(
    rec: &mut Recorder,
    block: &ExpertBlock,
    s: Slots,
    dy: Tensor,
    da: Tensor,
    dweight: Tensor,
    (d, f): (usize, usize),
) -> Tensor {
    let (moe, slots) = (&block.moe, block.moe.shape.slots());
    let (act, da_slots) = (rec.transient("experts.act_again", slots * f), rec.transient("experts.dact", slots * f));
    elementwise::swiglu(rec, "mlp.experts.act_again", s.gate, s.up, act);
    let name = "mlp.experts.down_proj";
    let inner = block.down.as_ref().zip(s.inner[2]).map(|(site, h)| {
        let (own_dy, dh) = (rec.transient("experts.dy", slots * d), rec.transient("experts.dh", slots * site.stride()));
        moe.gather(rec, "mlp.experts.dy", d, dy, own_dy);
        site.inner_gradient(rec, name, own_dy, dh);
        moe.weigh(rec, name, site.stride(), h, dh, dweight);
        site.gradient_b(rec, name, h, own_dy);
        (site, dh)
    });
    moe.spread(rec, "mlp.experts.dact", f, da, act, da_slots, dweight, inner.is_some());
    if let Some((site, dh)) = inner {
        site.input_gradient(rec, name, dh, da_slots);
        site.gradient_a(rec, name, dh, act);
    }
    da_slots
}

/// Records the gradients of gate's and up's experts, whose outputs' gradients are in place of the outputs, and adds to `dn`.
fn inputs_backward(rec: &mut Recorder, block: &ExpertBlock, s: Slots, n: Tensor, dn: Tensor, d: usize) {
    let (moe, slots) = (&block.moe, block.moe.shape.slots());
    let Some(input) = gathered(rec, block, n) else { return };
    let own_dn = rec.transient("experts.dn", slots * d);
    rec.clear(own_dn);
    let sites = [("mlp.experts.gate_proj", block.gate, s.inner[0], s.gate), ("mlp.experts.up_proj", block.up, s.inner[1], s.up)];
    for (name, site, h, dy) in sites {
        if let (Some(site), Some(h)) = (site, h) {
            let dh = rec.transient("experts.dh", slots * site.stride());
            crate::kernels::lowrank::backward(rec, name, &site, input, dy, h, dh, Some(own_dn));
        }
    }
    moe.combine(rec, "mlp.experts.dn", Combine::Add, d, own_dn, dn);
}
