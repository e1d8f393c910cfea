//! What lies between the gradient of down's input and those of the experts' gate and up, in one walk over the slots: activations, the weights'
//! gradient and what down's experts add are computed where gate and up are put together once, instead of in five passes over memory.

use super::swiglu::Params;
use super::{GateUp, GateUpOutputs, Moe, SLICE_ALIGN};
use crate::gpu::device::PlanLimits;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor};
use crate::kernels::matmul::Rows;
use crate::kernels::sum_parts::{Place, sum_parts};

use Access::{Input, Read, ReadWrite};

/// slot_tables, sites, adapter, h, gate_up, da, out.
pub const EXPERTS_BACKWARD: KernelSpec = KernelSpec {
    name: "moe_experts_backward",
    source: include_str!("../../../shaders/moe_experts_backward.wgsl"),
    bindings: &[Read, Read, Read, Input, Input, Input, ReadWrite],
};

/// The same where experts may drop inputs; then the segments.
pub const EXPERTS_BACKWARD_DROPPED: KernelSpec = KernelSpec {
    name: "moe_experts_backward_dropped",
    bindings: &[Read, Read, Read, Input, Input, Input, ReadWrite, Read],
    ..EXPERTS_BACKWARD
};

/// What [`Moe::experts_backward`] leaves.
#[derive(Debug, Clone, Copy)]
pub struct ExpertGradients {
    /// Activations by slot `[slots, f]`, where down has experts.
    pub act: Option<Tensor>,
    /// Gradients of gate's and up's outputs.
    pub gate_up: GateUpOutputs,
}

/// Columns of four that a workgroup owns at least, of which every device has a form: bounds the parts.
const LEAST_COLUMNS: usize = 4 * 8;

/// Where everything lies in one tensor.
struct Layout {
    act: usize,
    gate_up: usize,
    parts: usize,
    part_stride: usize,
    columns: usize,
}

impl Layout {
    fn new(slots: usize, width: usize, with_down: bool, columns: usize) -> Self {
        let each = slots * width;
        let act = if with_down { each } else { 0 };
        let gate_up = act.next_multiple_of(SLICE_ALIGN);
        let parts = (gate_up + GateUpOutputs::words(each)).next_multiple_of(SLICE_ALIGN);
        Self { act, gate_up, parts, part_stride: slots.next_multiple_of(4), columns }
    }

    fn words(&self) -> usize {
        self.parts + self.columns * self.part_stride
    }
}

impl Moe {
    /// Whether one binding of any device holds what [`Self::experts_backward`] makes.
    pub fn experts_fit(&self, width: usize, with_down: bool) -> bool {
        let layout = Layout::new(self.shape.slots(), width, with_down, width.div_ceil(LEAST_COLUMNS));
        4 * layout.words() as u64 <= PlanLimits::FLOOR.max_binding
    }

    /// Records the gradients of the experts' gate and up from the gradient `da` `[rows, f]` of what `down` reads, and writes the weights' gradient to
    /// `dweight` `[slots rounded up to whole vectors ..]`, or adds it where down has experts: the gradient of their inner activations is in its
    /// place ([`GateUp::down_gradient`]), weighted. `gate_up` holds both frozen products, up's from word `up_at` on.
    pub fn experts_backward(
        &self,
        rec: &mut Recorder,
        label: &str,
        experts: &GateUp,
        (gate_up, up_at): (Tensor, usize),
        da: Tensor,
        dweight: Tensor,
    ) -> ExpertGradients {
        let (slots, width, with_down) = (self.shape.slots(), da.len as usize / self.shape.rows, experts.down.is_some());
        let (variant, grid) = experts.variant(rec, slots, width, with_down);
        let layout = Layout::new(slots, width, with_down, grid[0] as usize);
        let out = rec.transient(&format!("{label}.gradients"), layout.words());
        let gradients =
            GateUpOutputs::within(out.slice(layout.gate_up..layout.gate_up + GateUpOutputs::words(slots * width)), slots * width);
        let [dg, du] = gradients.each.map(|each| each.offset - out.offset);
        let params = Params {
            up_at: up_at as u32,
            dg_at: dg,
            du_at: du,
            parts_at: layout.parts as u32,
            part_stride: layout.part_stride as u32,
            ..experts.params(self, width)
        };
        let dropped = experts.down.is_some_and(|site| site.dropout);
        let mut bind = vec![self.routed.slots, experts.tables.sites, experts.tables.adapter, experts.h, gate_up, da, out];
        bind.extend(dropped.then_some(self.routed.segments));
        let spec = if dropped { &EXPERTS_BACKWARD_DROPPED } else { &EXPERTS_BACKWARD };
        let flops = slots * width * (experts.product_flops(with_down) + 20);
        rec.dispatch(
            spec,
            variant.flag_if("DROPOUT", dropped),
            grid,
            Dispatch::new(format!("{label}.backward"), &params, &bind, flops as u64),
        );
        let parts = out.slice(layout.parts..layout.words());
        let to = Place { y: Rows { tensor: dweight, stride: layout.part_stride }, row: 0, column: 0 };
        sum_parts(rec, &format!("{label}.dweight"), parts, (1, layout.part_stride), to, with_down);
        ExpertGradients { act: with_down.then(|| out.slice(0..layout.act)), gate_up: gradients }
    }
}
