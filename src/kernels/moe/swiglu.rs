//! The inner activations of experts from the frozen products that they share, and the gradients of both: what each expert adds is put together
//! where it is read, so that neither pass keeps a copy of gate and up by slot.

use bytemuck::{Pod, Zeroable};

use super::{Moe, SLICE_ALIGN};
use crate::gpu::device::{Facts, PlanLimits};
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant};
use crate::kernels::lowrank::{LowrankSiblings, LowrankSite, LowrankTables};

use Access::{Input, Read, ReadWrite};

/// slot_tables, sites, adapter, gate, up, h, act.
pub const SWIGLU: KernelSpec = KernelSpec {
    name: "moe_swiglu",
    source: include_str!("../../../shaders/moe_swiglu.wgsl"),
    bindings: &[Read, Read, Read, Input, Input, Input, ReadWrite],
};
/// slot_tables, sites, adapter, gate, up, h, da (becomes dg), du.
pub const SWIGLU_BACKWARD: KernelSpec = KernelSpec {
    name: "moe_swiglu_backward",
    source: include_str!("../../../shaders/moe_swiglu.wgsl"),
    bindings: &[Read, Read, Read, Input, Input, Input, ReadWrite, ReadWrite],
};

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
struct Half {
    site: u32,
    first: u32,
    pad: [u32; 2],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    slots: u32,
    choices: u32,
    segments: u32,
    width: u32,
    row_at: u32,
    stride: u32,
    pad: [u32; 2],
    gate: Half,
    up: Half,
}

/// The experts beside `gate_proj` and `up_proj`, with their inner activations.
#[derive(Debug, Clone, Copy)]
pub struct GateUp {
    /// Experts beside `gate_proj`, where there are any. Both sites have room for the same ranks.
    pub gate: Option<LowrankSite>,
    /// Experts beside `up_proj`.
    pub up: Option<LowrankSite>,
    /// Inner activations of both, of [`Self::words`].
    pub h: Tensor,
    /// The tables of all experts.
    pub tables: LowrankTables,
    /// Whether one binding holds the outputs of both ([`Self::fit_together`]): then each product is one dispatch for both.
    pub together: bool,
}

/// Outputs of gate and up by slot, `[slots, f]` each, or their gradients.
#[derive(Debug, Clone, Copy)]
pub struct GateUpOutputs {
    /// Both, where one binding holds them; else gate's.
    whole: Tensor,
    /// Gate's and up's.
    pub each: [Tensor; 2],
}

impl GateUpOutputs {
    /// Words of a tensor that holds both, of `words` each.
    pub fn words(words: usize) -> usize {
        Self::up_at(words) + words
    }

    /// Both in one tensor of [`Self::words`].
    pub fn within(whole: Tensor, words: usize) -> Self {
        let begin = Self::up_at(words);
        Self { whole, each: [whole.slice(0..words), whole.slice(begin..begin + words)] }
    }

    /// Where those of up begin: where a binding may begin.
    fn up_at(words: usize) -> usize {
        words.next_multiple_of(SLICE_ALIGN)
    }
}

/// Experts that share dispatches.
struct Group {
    layers: LowrankSiblings,
    name: &'static str,
    h: Tensor,
    outputs: Option<Tensor>,
}

impl GateUp {
    /// Whether one binding of any device holds the outputs of both.
    pub fn fit_together(slots: usize, width: usize) -> bool {
        4 * GateUpOutputs::words(slots * width) as u64 <= PlanLimits::FLOOR.max_binding
    }

    /// Words of the inner activations: those of gate, then those of up.
    pub fn words(gate: Option<&LowrankSite>, up: Option<&LowrankSite>, together: bool) -> usize {
        let begin = gate.map_or(0, |site| Self::rows(site, together) * site.stride());
        let of_up = up.map_or(0, |site| site.rows * site.stride());
        (begin + of_up).max(1)
    }

    /// Rows of gate's, up to where a binding may begin if up's are bound alone.
    fn rows(site: &LowrankSite, together: bool) -> usize {
        if together { site.rows } else { site.rows.next_multiple_of(SLICE_ALIGN / 4) }
    }

    /// Tensors for outputs of `words` each.
    pub fn outputs(&self, rec: &mut Recorder, label: &str, words: usize) -> GateUpOutputs {
        if self.together {
            GateUpOutputs::within(rec.transient(label, GateUpOutputs::words(words)), words)
        } else {
            let each = ["gate", "up"].map(|name| rec.transient(&format!("{label}.{name}"), words));
            GateUpOutputs { whole: each[0], each }
        }
    }

    /// The row of `h` that belongs to up's first slot.
    fn first_of_up(&self) -> usize {
        self.gate.as_ref().map_or(0, |site| Self::rows(site, self.together))
    }

    fn groups(&self, outputs: Option<GateUpOutputs>) -> Vec<Group> {
        if let (Some(gate), Some(up), true) = (self.gate, self.up, self.together) {
            let begin = outputs.map_or(0, |outputs| GateUpOutputs::up_at(outputs.each[0].len as usize));
            let layers = LowrankSiblings::new(&[(gate, 0), (up, begin)]);
            return vec![Group { layers, name: "mlp.experts.gate_up_proj", h: self.h, outputs: outputs.map(|outputs| outputs.whole) }];
        }
        let places = [(self.gate, "mlp.experts.gate_proj", 0), (self.up, "mlp.experts.up_proj", self.first_of_up())];
        let group = |(i, (site, name, first)): (usize, (Option<LowrankSite>, &'static str, usize))| {
            let site = site?;
            let h = self.h.slice(first * site.stride()..(first + site.rows) * site.stride());
            Some(Group { layers: LowrankSiblings::alone(&site), name, h, outputs: outputs.map(|outputs| outputs.each[i]) })
        };
        places.into_iter().enumerate().filter_map(group).collect()
    }

    /// Records the inner activations of the input `x` `[slots, d]`.
    pub fn inner(&self, rec: &mut Recorder, x: Tensor) {
        for Group { layers, name, h, .. } in self.groups(None) {
            layers.inner(rec, name, x, h);
        }
    }

    /// Records the experts' gradients from those of their outputs, and adds to that of the input `dx` `[slots, d]`.
    pub fn backward(&self, rec: &mut Recorder, x: Tensor, dy: GateUpOutputs, dx: Tensor) {
        for Group { layers, name, h, outputs } in self.groups(Some(dy)) {
            let dh = rec.transient("experts.dh", layers.inner_words());
            layers.backward(rec, name, x, outputs.unwrap_or(dy.whole), h, dh, Some(dx));
        }
    }
}

/// Lanes of a workgroup, slots that they walk, and lanes that can broadcast to each other (0: none): a CPU loads slowly and has few cores.
fn lanes(facts: Option<&Facts>) -> (u32, u32, u32) {
    match facts {
        Some(facts) if facts.is_cpu && facts.broadcast_width() > 0 => (facts.subgroup_sizes.1.clamp(8, 128), 64, facts.broadcast_width()),
        Some(facts) if facts.is_cpu => (8, 64, 0),
        _ => (64, 16, 0),
    }
}

impl Moe {
    /// Records `act` `[slots, f]` from the frozen `gate` and `up` `[rows, f]`.
    pub fn swiglu(&self, rec: &mut Recorder, label: &str, experts: &GateUp, gate: Tensor, up: Tensor, act: Tensor) {
        self.record_swiglu(rec, &SWIGLU, label, experts, [gate, up], &[act]);
    }

    /// Records the gradients of gate's and up's outputs by slot; gate's hold that of `act` before.
    pub fn swiglu_backward(&self, rec: &mut Recorder, label: &str, experts: &GateUp, gate: Tensor, up: Tensor, gradients: GateUpOutputs) {
        self.record_swiglu(rec, &SWIGLU_BACKWARD, label, experts, [gate, up], &gradients.each);
    }

    fn record_swiglu(
        &self,
        rec: &mut Recorder,
        spec: &'static KernelSpec,
        label: &str,
        experts: &GateUp,
        [gate, up]: [Tensor; 2],
        of_slots: &[Tensor],
    ) {
        let GateUp { gate: gate_site, up: up_site, tables, h, .. } = experts;
        let [r_gate, r_up] = [gate_site, up_site].map(|site| site.map_or(0, |site| site.r_max));
        assert!(r_gate == 0 || r_up == 0 || r_gate == r_up, "room for {r_gate} ranks of gate and {r_up} of up");
        let (slots, width) = (self.shape.slots(), gate.len as usize / self.shape.rows);
        let half = |site: &Option<LowrankSite>, first: usize| {
            site.map_or_else(Half::default, |site| Half { site: site.site as u32, first: first as u32, pad: [0; 2] })
        };
        let params = Params {
            slots: slots as u32,
            choices: self.shape.choices as u32,
            segments: self.shape.segments as u32,
            width: width as u32,
            row_at: self.shape.slot_row_at() as u32,
            stride: r_gate.max(r_up).div_ceil(4) as u32,
            pad: [0; 2],
            gate: half(gate_site, 0),
            up: half(up_site, experts.first_of_up()),
        };
        let bind = [&[self.routed.slots, tables.sites, tables.adapter, gate, up, *h][..], of_slots].concat();
        let (wg, rows, broadcast) = lanes(rec.facts());
        let backward = of_slots.len() > 1;
        let variant = Variant::new().with("WG", wg).with("ROWS", rows).flag_if("VEC4", width.is_multiple_of(4)).broadcast(broadcast);
        let variant = variant.flag_if("GATE", r_gate > 0).flag_if("UP", r_up > 0);
        let variant = variant.flag_if("ONE_BLOCK", r_gate.max(r_up) <= 8).flag_if("BACKWARD", backward);
        let grid = [(width as u32).div_ceil(4 * wg), (slots as u32).div_ceil(rows), 1];
        let flops = slots * width * (2 * (r_gate + r_up) + if backward { 10 } else { 5 });
        rec.dispatch(spec, variant, grid, Dispatch::new(format!("{label}.swiglu"), &params, &bind, flops as u64));
    }
}
