//! The inner activations of experts from the frozen products that they share, and the gradients of both: what each expert adds is put together
//! where it is read, so that neither pass keeps a copy of gate and up by slot.

use bytemuck::{Pod, Zeroable};

use super::{Moe, SLICE_ALIGN};
use crate::gpu::device::Facts;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant};
use crate::kernels::lowrank::{LowrankSite, LowrankTables};

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
}

impl GateUp {
    /// Words of the inner activations: those of gate, then those of up, where a binding may begin.
    pub fn words(gate: Option<&LowrankSite>, up: Option<&LowrankSite>) -> usize {
        let own = |site: Option<&LowrankSite>| site.map_or(0, |site| Self::rows(site) * site.stride());
        (own(gate) + own(up)).max(1)
    }

    /// Rows until a whole number of which a binding may begin with is full.
    fn rows(site: &LowrankSite) -> usize {
        site.rows.next_multiple_of(SLICE_ALIGN / 4)
    }

    /// The row of `h` that belongs to up's first slot.
    fn first_of_up(&self) -> usize {
        self.gate.as_ref().map_or(0, Self::rows)
    }

    /// Gate's experts with their inner activations.
    pub fn gate_inner(&self) -> Option<(LowrankSite, Tensor)> {
        self.gate.map(|site| (site, self.h.slice(0..site.rows * site.stride())))
    }

    /// Up's experts with their inner activations.
    pub fn up_inner(&self) -> Option<(LowrankSite, Tensor)> {
        self.up.map(|site| {
            let begin = self.first_of_up() * site.stride();
            (site, self.h.slice(begin..begin + site.rows * site.stride()))
        })
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

    /// Records the gradients of gate's and up's outputs by slot from that of `act`: `da` becomes gate's, `du` is up's.
    pub fn swiglu_backward(&self, rec: &mut Recorder, label: &str, experts: &GateUp, gate: Tensor, up: Tensor, da: Tensor, du: Tensor) {
        self.record_swiglu(rec, &SWIGLU_BACKWARD, label, experts, [gate, up], &[da, du]);
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
        let GateUp { gate: gate_site, up: up_site, tables, h } = experts;
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
