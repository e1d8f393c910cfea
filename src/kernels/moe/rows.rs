//! Between rows and slots: what experts read and what becomes of their outputs.

use super::Moe;
use crate::gpu::{Access, KernelSpec, Recorder, Tensor, Variant, grid_1d};
use crate::kernels::reduce::row_lanes;

use Access::{Input, Read, ReadWrite};

/// slot_row, x, y.
pub const GATHER: KernelSpec =
    KernelSpec { name: "moe_gather", source: include_str!("../../../shaders/moe_gather.wgsl"), bindings: &[Read, Input, ReadWrite] };
/// row_job, routers, places, weight, v, y.
pub const COMBINE: KernelSpec = KernelSpec {
    name: "moe_combine",
    source: include_str!("../../../shaders/moe_combine.wgsl"),
    bindings: &[Read, Read, Read, Read, Input, ReadWrite],
};
/// slot_row, weight, h, dh, dweight.
pub const WEIGH: KernelSpec = KernelSpec {
    name: "moe_weigh",
    source: include_str!("../../../shaders/moe_weigh.wgsl"),
    bindings: &[Read, Read, ReadWrite, ReadWrite, ReadWrite],
};
/// slot_row, weight, dy, a, da, dweight.
pub const SPREAD: KernelSpec = KernelSpec {
    name: "moe_spread",
    source: include_str!("../../../shaders/moe_spread.wgsl"),
    bindings: &[Read, Read, Input, Input, ReadWrite, ReadWrite],
};
/// row_job, jobs, routers, x.
pub const JITTER: KernelSpec =
    KernelSpec { name: "moe_jitter", source: include_str!("../../../shaders/moe_jitter.wgsl"), bindings: &[Read, Read, Read, ReadWrite] };
/// places, weight, x, y.
pub const OVERFLOW: KernelSpec = KernelSpec {
    name: "moe_overflow",
    source: include_str!("../../../shaders/moe_overflow.wgsl"),
    bindings: &[Read, Read, Input, ReadWrite],
};
/// places, weight, x, dy, dx, dweight.
pub const OVERFLOW_BACKWARD: KernelSpec = KernelSpec {
    name: "moe_overflow_backward",
    source: include_str!("../../../shaders/moe_overflow.wgsl"),
    bindings: &[Read, Read, Input, Input, ReadWrite, ReadWrite],
};

/// How [`Moe::combine`] puts slots together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// In place of the rows, weighted: what `down` reads.
    Weighted,
    /// Added to the rows, weighted: what the experts add to the output.
    AddWeighted,
    /// In place of the rows: gradients of what slots took from them.
    Plain,
    /// Added to the rows.
    Add,
}

impl Moe {
    /// Whole vectors where rows are, and the lanes of `rows` rows.
    fn elements(rows: usize, width: usize) -> (Variant, [u32; 3]) {
        let vectors = width.is_multiple_of(4);
        let lanes = rows * if vectors { width / 4 } else { width };
        (Variant::new().flag_if("VEC4", vectors), grid_1d(lanes.div_ceil(64) as u32))
    }

    /// Records `y[slot] = x[row]`; x is `[rows, width]`, y `[slots, width]`.
    pub fn gather(&self, rec: &mut Recorder, label: &str, width: usize, x: Tensor, y: Tensor) {
        let variant = Variant::new().with("WG", row_lanes(rec, 64)).flag_if("VEC4", width.is_multiple_of(4));
        let what = self.dispatch(format!("{label}.gather"), width, &[self.slot_row(), x, y], 0);
        rec.dispatch(&GATHER, variant, grid_1d(self.shape.slots() as u32), what);
    }

    /// Records rows of jobs with a router as sums of their slots; v is `[slots, width]`, y `[rows, width]`.
    pub fn combine(&self, rec: &mut Recorder, label: &str, how: Combine, width: usize, v: Tensor, y: Tensor) {
        let (variant, grid) = Self::elements(self.shape.rows, width);
        let variant = variant.flag_if("WEIGHTED", matches!(how, Combine::Weighted | Combine::AddWeighted));
        let variant = variant.flag_if("ADD", matches!(how, Combine::Add | Combine::AddWeighted));
        let bind = [self.row_job, self.routers, self.routed.places, self.routed.weight, v, y];
        let what = self.dispatch(format!("{label}.combine"), width, &bind, 2 * self.shape.rows * self.shape.choices * width);
        rec.dispatch(&COMBINE, variant, grid, what);
    }

    /// Records the gradient of the weights by what experts add to `down`, and weighs their inner activations: `h` and `dh` are `[slots, stride]`.
    pub fn weigh(&self, rec: &mut Recorder, label: &str, stride: usize, h: Tensor, dh: Tensor, dweight: Tensor) {
        let bind = [self.slot_row(), self.routed.weight, h, dh, dweight];
        let what = self.dispatch(format!("{label}.weigh"), stride, &bind, 4 * self.shape.slots() * stride);
        rec.dispatch(&WEIGH, Variant::new(), grid_1d(self.shape.slots().div_ceil(64) as u32), what);
    }

    /// Records `da[slot] = w dy[row]` and the weights' gradient `dy[row] · a[slot]`, added with `add`.
    pub fn spread(&self, rec: &mut Recorder, label: &str, width: usize, dy: Tensor, a: Tensor, da: Tensor, dweight: Tensor, add: bool) {
        let variant = Variant::new().with("WG", row_lanes(rec, 64)).flag_if("VEC4", width.is_multiple_of(4)).flag_if("ADD", add);
        let bind = [self.slot_row(), self.routed.weight, dy, a, da, dweight];
        let what = self.dispatch(format!("{label}.spread"), width, &bind, 3 * self.shape.slots() * width);
        rec.dispatch(&SPREAD, variant, grid_1d(self.shape.slots() as u32), what);
    }

    /// Records the random factors of the input `x` `[rows, width]`, or of its gradient.
    pub fn jitter(&self, rec: &mut Recorder, label: &str, width: usize, x: Tensor) {
        let what = self.dispatch(format!("{label}.jitter"), width, &[self.row_job, self.jobs, self.routers, x], 0);
        rec.dispatch(&JITTER, Variant::new(), grid_1d((self.shape.rows * width).div_ceil(64) as u32), what);
    }

    /// Records `y += w x` for rows whose expert was full.
    pub fn overflow(&self, rec: &mut Recorder, label: &str, width: usize, x: Tensor, y: Tensor) {
        let what = self.dispatch(format!("{label}.overflow"), width, &[self.routed.places, self.routed.weight, x, y], 0);
        let variant = Variant::new().with("WG", row_lanes(rec, 64));
        rec.dispatch(&OVERFLOW, variant, grid_1d(self.shape.rows as u32), what);
    }

    /// Records `dx += w dy` and the weights' gradient for those rows, behind the slots' in `dweight`.
    pub fn overflow_backward(&self, rec: &mut Recorder, label: &str, width: usize, x: Tensor, dy: Tensor, dx: Tensor, dweight: Tensor) {
        let bind = [self.routed.places, self.routed.weight, x, dy, dx, dweight];
        let what = self.dispatch(format!("{label}.overflow_backward"), width, &bind, 0);
        let variant = Variant::new().with("WG", row_lanes(rec, 64)).flag("BACKWARD");
        rec.dispatch(&OVERFLOW_BACKWARD, variant, grid_1d(self.shape.rows as u32), what);
    }
}
