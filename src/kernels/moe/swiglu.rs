//! The inner activations of experts from the frozen products that they share, and the gradients of both: what each expert adds is put together
//! where it is read, so that neither pass keeps a copy of gate and up by slot.

use bytemuck::{Pod, Zeroable};

use super::{Moe, SLICE_ALIGN};
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

/// Lanes of a workgroup, and slots that they walk.
const WG: u32 = 64;
const ROWS: u32 = 16;

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
struct Half {
    site: u32,
    stride: u32,
    inner: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    slots: u32,
    choices: u32,
    segments: u32,
    width: u32,
    row_at: u32,
    pad: [u32; 3],
    gate: Half,
    up: Half,
}

/// The experts beside `gate_proj` and `up_proj`, with their inner activations.
#[derive(Debug, Clone, Copy)]
pub struct GateUp {
    /// Experts beside `gate_proj`, where there are any.
    pub gate: Option<LowrankSite>,
    /// Experts beside `up_proj`.
    pub up: Option<LowrankSite>,
    /// Inner activations of both: see [`Self::words`].
    pub h: Tensor,
    /// The tables of all experts.
    pub tables: LowrankTables,
}

impl GateUp {
    /// Words of the inner activations of `slots` slots: those of gate, then those of up.
    pub fn words(gate: Option<&LowrankSite>, up: Option<&LowrankSite>) -> usize {
        (Self::own(gate) + Self::own(up)).max(1)
    }

    /// Whole ranges that a binding may begin with.
    fn own(site: Option<&LowrankSite>) -> usize {
        site.map_or(0, |site| (site.rows * site.stride()).next_multiple_of(SLICE_ALIGN))
    }

    /// The inner activations of gate's experts.
    pub fn gate_inner(&self) -> Option<(LowrankSite, Tensor)> {
        self.gate.map(|site| (site, self.h.slice(0..site.rows * site.stride())))
    }

    /// The inner activations of up's experts.
    pub fn up_inner(&self) -> Option<(LowrankSite, Tensor)> {
        let begin = Self::own(self.gate.as_ref());
        self.up.map(|site| (site, self.h.slice(begin..begin + site.rows * site.stride())))
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
        let width = gate.len as usize / self.shape.rows;
        let half = |site: Option<&LowrankSite>, begin: usize| {
            site.map_or_else(Half::default, |site| Half {
                site: site.site as u32,
                stride: site.stride() as u32 / 4,
                inner: begin as u32 / 4,
                pad: 0,
            })
        };
        let slots = self.shape.slots();
        let params = Params {
            slots: slots as u32,
            choices: self.shape.choices as u32,
            segments: self.shape.segments as u32,
            width: width as u32,
            row_at: self.shape.slot_row_at() as u32,
            pad: [0; 3],
            gate: half(experts.gate.as_ref(), 0),
            up: half(experts.up.as_ref(), GateUp::own(experts.gate.as_ref())),
        };
        let ranks: usize = experts.gate.iter().chain(&experts.up).map(|site| site.r_max).sum();
        let most = experts.gate.iter().chain(&experts.up).map(|site| site.r_max).max().unwrap_or(0);
        let tables = experts.tables;
        let bind = [&[self.routed.slots, tables.sites, tables.adapter, gate, up, experts.h][..], of_slots].concat();
        let vectors = width.is_multiple_of(4);
        let variant = Variant::new().with("WG", WG).with("ROWS", ROWS).flag_if("VEC4", vectors).flag_if("ONE_BLOCK", most <= 8);
        let variant = variant.flag_if("GATE", experts.gate.is_some()).flag_if("UP", experts.up.is_some());
        let variant = variant.flag_if("BACKWARD", of_slots.len() > 1);
        let lanes = if vectors { width / 4 } else { width };
        let grid = [(lanes as u32).div_ceil(WG), (slots as u32).div_ceil(ROWS), 1];
        let flops = slots * width * (2 * ranks + 5 * of_slots.len());
        rec.dispatch(spec, variant, grid, Dispatch::new(format!("{label}.swiglu"), &params, &bind, flops as u64));
    }
}
