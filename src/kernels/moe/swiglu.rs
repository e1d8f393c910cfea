//! The inner activations of experts from the frozen products that they share, and the gradients of both: what each expert adds is put together
//! where it is read, so that neither pass keeps a copy of gate and up by slot.

use bytemuck::{Pod, Zeroable};

use super::{Moe, SLICE_ALIGN};
use crate::gpu::device::{Facts, PlanLimits};
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant};
use crate::kernels::lowrank::{LowrankSiblings, LowrankSite, LowrankTables};

use Access::{Input, Read, ReadWrite};

/// slot_tables, sites, adapter, h, gate, up, act.
pub const SWIGLU: KernelSpec = KernelSpec {
    name: "moe_swiglu",
    source: include_str!("../../../shaders/moe_swiglu.wgsl"),
    bindings: &[Read, Read, Read, Input, Input, Input, ReadWrite],
};
/// slot_tables, sites, adapter, h, gate, up, da (becomes dg), du.
pub const SWIGLU_BACKWARD: KernelSpec = KernelSpec {
    name: "moe_swiglu_backward",
    source: include_str!("../../../shaders/moe_swiglu.wgsl"),
    bindings: &[Read, Read, Read, Input, Input, Input, ReadWrite, ReadWrite],
};

/// An expert's row of the sites table, and where its inner activations begin.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(super) struct Half {
    site: u32,
    first: u32,
    dropout_key: u32,
    pad: u32,
}

/// As `shaders/lib/experts.wgsl` has them.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(super) struct Params {
    pub slots: u32,
    pub choices: u32,
    pub segments: u32,
    pub width: u32,
    pub row_at: u32,
    pub weight_at: u32,
    pub stride: u32,
    pub up_at: u32,
    pub dg_at: u32,
    pub du_at: u32,
    pub parts_at: u32,
    pub part_stride: u32,
    pub gate: Half,
    pub up: Half,
    pub down: Half,
}

/// The experts of a block, with the inner activations of those beside `gate_proj` and `up_proj`.
#[derive(Debug, Clone, Copy)]
pub struct GateUp {
    /// Experts beside `gate_proj`, where there are any. All sites have room for the same ranks.
    pub gate: Option<LowrankSite>,
    /// Experts beside `up_proj`.
    pub up: Option<LowrankSite>,
    /// Experts beside `down_proj`.
    pub down: Option<LowrankSite>,
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

/// Rows of inner activations that end where a binding may begin, whatever their ranks.
const ALIGN_ROWS: usize = SLICE_ALIGN / 4;

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

    /// Words of the inner activations: those of gate, those of up, and room for the gradient of down's.
    pub fn words([gate, up, down]: [Option<&LowrankSite>; 3], together: bool) -> usize {
        let rows = gate.map_or(0, |site| Self::rows(site, together)) + up.map_or(0, |site| site.rows);
        let of_down = down.map_or(0, |site| rows.next_multiple_of(ALIGN_ROWS) - rows + site.rows);
        let stride = gate.or(up).or(down).map_or(0, LowrankSite::stride);
        ((rows + of_down) * stride).max(1)
    }

    /// Rows of gate's, up to where a binding may begin if up's are bound alone.
    fn rows(site: &LowrankSite, together: bool) -> usize {
        if together { site.rows } else { site.rows.next_multiple_of(ALIGN_ROWS) }
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

    /// The row of `h` that belongs to the first slot of the gradient of down's.
    fn first_of_down(&self) -> usize {
        (self.first_of_up() + self.up.map_or(0, |site| site.rows)).next_multiple_of(ALIGN_ROWS)
    }

    /// The place of the gradient of down's inner activations `[slots, stride]`, where there are experts.
    pub fn down_gradient(&self) -> Option<Tensor> {
        let (site, first) = (self.down?, self.first_of_down());
        Some(self.h.slice(first * site.stride()..(first + site.rows) * site.stride()))
    }

    /// What `shaders/lib/experts.wgsl` takes for them, and the kernels' variant.
    pub(super) fn params(&self, moe: &Moe, width: usize) -> Params {
        let half = |site: &Option<LowrankSite>, first: usize| {
            site.map_or_else(Half::default, |site| Half {
                site: site.site as u32,
                first: first as u32,
                dropout_key: site.dropout_key,
                pad: 0,
            })
        };
        Params {
            slots: moe.shape.slots() as u32,
            choices: moe.shape.choices as u32,
            segments: moe.shape.segments as u32,
            width: width as u32,
            row_at: moe.shape.slot_row_at() as u32,
            weight_at: moe.shape.slot_weight_at() as u32,
            stride: (self.most_ranks() as u32).div_ceil(4),
            gate: half(&self.gate, 0),
            up: half(&self.up, self.first_of_up()),
            down: half(&self.down, self.first_of_down()),
            ..Params::default()
        }
    }

    /// Ranks that every site has room for.
    fn most_ranks(&self) -> usize {
        let ranks = [self.gate, self.up, self.down].map(|site| site.map(|site| site.r_max));
        let most = ranks.into_iter().flatten().max().unwrap_or(0);
        assert!(ranks.into_iter().flatten().all(|own| own == most), "experts with room for ranks {ranks:?}");
        most
    }

    /// The variant and grid of a walk over slots, with down's experts or without.
    pub(super) fn variant(&self, rec: &Recorder, slots: usize, width: usize, with_down: bool) -> (Variant, [u32; 3]) {
        let Lanes { wg, rows, broadcast } = Lanes::of(rec.facts());
        let variant = Variant::new().with("WG", wg).with("ROWS", rows).flag_if("VEC4", width.is_multiple_of(4)).broadcast(broadcast);
        let variant = variant.flag_if("GATE", self.gate.is_some()).flag_if("UP", self.up.is_some()).flag_if("DOWN", with_down);
        let grid = [(width as u32).div_ceil(4 * wg), (slots as u32).div_ceil(rows), 1];
        (variant.flag_if("ONE_BLOCK", self.most_ranks() <= 8), grid)
    }

    /// Operations for an element of a slot of the products that are put together.
    pub(super) fn product_flops(&self, with_down: bool) -> usize {
        let sites = [self.gate, self.up, self.down.filter(|_| with_down)];
        2 * sites.into_iter().flatten().map(|site| site.r_max).sum::<usize>()
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

/// How slots are walked: a CPU loads slowly and has few cores.
struct Lanes {
    /// Lanes of a workgroup.
    wg: u32,
    /// Slots that they walk.
    rows: u32,
    /// Lanes that can broadcast to each other; 0: none.
    broadcast: u32,
}

impl Lanes {
    fn of(facts: Option<&Facts>) -> Self {
        match facts {
            Some(facts) if facts.is_cpu && facts.broadcast_width() > 0 => {
                Self { wg: facts.subgroup_sizes.1.clamp(8, 32), rows: 64, broadcast: facts.broadcast_width() }
            }
            Some(facts) if facts.is_cpu => Self { wg: 8, rows: 64, broadcast: 0 },
            _ => Self { wg: 64, rows: 16, broadcast: 0 },
        }
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
        let (slots, width) = (self.shape.slots(), gate.len as usize / self.shape.rows);
        let backward = of_slots.len() > 1;
        let bind = [&[self.routed.slots, experts.tables.sites, experts.tables.adapter, experts.h, gate, up][..], of_slots].concat();
        let (variant, grid) = experts.variant(rec, slots, width, false);
        let flops = slots * width * (experts.product_flops(false) + if backward { 10 } else { 5 });
        let what = Dispatch::new(format!("{label}.swiglu"), &experts.params(self, width), &bind, flops as u64);
        rec.dispatch(spec, variant.flag_if("BACKWARD", backward), grid, what);
    }
}
