//! The scales of parallel modules, folded into one factor that the low-rank kernels read, and the gradients taken apart again.
//!
//! A site of an adapter with n modules has `Bt` `[n · r, out]` (the transposed B_i one after the other) and scales `s` `[n, out]` or `[n]`.
//! Per step, over all sites at once:
//!
//! | what | kernel |
//! |---|---|
//! | `effective[i r + k, o] = s[i, o] · Bt[i r + k, o]` | expand, before the forward pass |
//! | `ds[i, o] = Σ_k Bt[i r + k, o] · M[i r + k, o]`, then `dBt = s ⊙ M` in the place of M | gradient, before the update |
//!
//! M is what the low-rank kernels add up as the gradient of the effective factor. A scalar s sums over o too; sums have a fixed order.

use bytemuck::{Pod, Zeroable};

use super::real::Real;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant};

/// Lanes along the outputs.
const LANES: usize = 64;
/// Lanes that share the sum of a scalar's gradient.
const SUM_LANES: usize = 256;

/// One site of one job. Offsets count words from the start of the values, or of the gradients.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct ModuleRow {
    /// `Bt` `[modules · rank, outputs]` among the values.
    pub b_offset: u32,
    /// Scales among the values, `[modules, outputs]` or `[modules]`.
    pub scale_offset: u32,
    /// Where the product goes among the values, as large as `Bt`.
    pub effective_offset: u32,
    /// M among the gradients, which becomes the gradient of `Bt`.
    pub grad_b_offset: u32,
    /// The scales' gradient among the gradients.
    pub grad_scale_offset: u32,
    /// Outputs of the layer.
    pub outputs: u32,
    /// Rank of each module.
    pub rank: u32,
    /// Modules; 0 in a row that is not used.
    pub modules: u32,
    /// Row of the job in the hyper table.
    pub job: u32,
    /// Zero.
    pub pad: [u32; 3],
}

/// How many sites a table has room for, and the largest of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModuleGrid {
    /// Rows of the table.
    pub rows: usize,
    /// Most outputs of a layer.
    pub outputs: usize,
    /// Most modules of a site.
    pub modules: usize,
}

impl ModuleGrid {
    /// Room for both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, outputs: self.outputs.max(other.outputs), modules: self.modules.max(other.modules) }
    }

    /// Whether there is room for `need`.
    pub fn holds(self, need: Self) -> bool {
        self.rows >= need.rows && (need.rows == 0 || self.outputs >= need.outputs && self.modules >= need.modules)
    }
}

/// The table of all sites of one kind of scale.
#[derive(Debug, Clone, Copy)]
pub struct Modules {
    /// [`ModuleRow`]s on the device: those of this kind begin at `first`. Rows that are not used are zero.
    pub table: Tensor,
    /// First row of this kind in the table.
    pub first: usize,
    /// How many rows there are, and how large.
    pub grid: ModuleGrid,
    /// One scale a module, not one per output.
    pub scalar: bool,
}

/// table, values.
pub const EXPAND: KernelSpec = KernelSpec {
    name: "multilora_expand",
    source: include_str!("../../shaders/multilora_expand.wgsl"),
    bindings: &[Access::Read, Access::ReadWrite],
};
/// table, values, grads, hyper; one scale per output.
pub const GRADIENT: KernelSpec = KernelSpec {
    name: "multilora_gradient",
    source: include_str!("../../shaders/multilora_gradient.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::ReadWrite, Access::Read],
};
/// table, values, grads, hyper; one scale a module.
pub const GRADIENT_SCALAR: KernelSpec = KernelSpec {
    name: "multilora_gradient_scalar",
    source: include_str!("../../shaders/multilora_gradient_scalar.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::ReadWrite, Access::Read],
};

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    first: u32,
    pad: [u32; 3],
}

impl Modules {
    fn dispatch(&self, label: &str, bind: &[Tensor], flops: u64) -> Dispatch {
        let ModuleGrid { rows, outputs, modules } = self.grid;
        // The rank is data; its work is small beside what the products do.
        let elements = (rows * outputs * modules) as u64;
        Dispatch::new(label, &Params { first: self.first as u32, pad: [0; 3] }, bind, flops * elements)
    }

    /// Column tiles x modules x sites.
    fn grid(&self) -> [u32; 3] {
        [self.grid.outputs.div_ceil(LANES) as u32, self.grid.modules as u32, self.grid.rows as u32]
    }

    /// Records the effective factors of all sites.
    pub fn expand(&self, rec: &mut Recorder, values: Tensor) {
        let variant = Variant::new().with("WG", LANES as u32).flag_if("SCALAR", self.scalar);
        rec.dispatch(&EXPAND, variant, self.grid(), self.dispatch("multilora.expand", &[self.table, values], 1));
    }

    /// Records the gradients of `Bt` and the scales from those of the effective factors, at all sites of jobs that `hyper`
    /// ([`super::optimizer::Hyper`]) lets step now.
    pub fn gradient(&self, rec: &mut Recorder, values: Tensor, grads: Tensor, hyper: Tensor) {
        let what = self.dispatch("multilora.gradient", &[self.table, values, grads, hyper], 3);
        if self.scalar {
            let grid = [self.grid.modules as u32, self.grid.rows as u32, 1];
            rec.dispatch(&GRADIENT_SCALAR, Variant::new().with("WG", SUM_LANES as u32), grid, what);
        } else {
            rec.dispatch(&GRADIENT, Variant::new().with("WG", LANES as u32), self.grid(), what);
        }
    }
}

/// Index of a row's element (module, rank of the module, output) within its factor, and of its scale.
fn places(row: &ModuleRow, scalar: bool) -> impl Iterator<Item = (usize, usize)> {
    let (modules, rank, outputs) = (row.modules as usize, row.rank as usize, row.outputs as usize);
    (0..modules * rank * outputs).map(move |at| {
        let module = at / (rank * outputs);
        (at, if scalar { module } else { module * outputs + at % outputs })
    })
}

/// The twin of [`Modules::expand`].
pub fn expand_twin<R: Real>(rows: &[ModuleRow], scalar: bool, values: &mut [R]) {
    for row in rows {
        for (at, scale) in places(row, scalar) {
            values[row.effective_offset as usize + at] = values[row.scale_offset as usize + scale] * values[row.b_offset as usize + at];
        }
    }
}

/// The twin of [`Modules::gradient`].
pub fn gradient_twin<R: Real>(rows: &[ModuleRow], scalar: bool, values: &[R], grads: &mut [R]) {
    for row in rows {
        let mut ds = vec![R::default(); (row.modules * if scalar { 1 } else { row.outputs }) as usize];
        for (at, scale) in places(row, scalar) {
            let m = &mut grads[row.grad_b_offset as usize + at];
            ds[scale] += values[row.b_offset as usize + at] * *m;
            *m = values[row.scale_offset as usize + scale] * *m;
        }
        let begin = row.grad_scale_offset as usize;
        grads[begin..begin + ds.len()].copy_from_slice(&ds);
    }
}
