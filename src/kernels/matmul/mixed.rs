//! Products in mixed precision: a scale for each row of x, then matrix units with operands in f16 and sums in f32. Used wherever the device was
//! opened for it and rows are whole vectors, whatever the number of rows: a row's bits must not depend on what else is in the batch.

use super::product::Direction;
use crate::gpu::device::Facts;
use crate::gpu::kernel::COOPERATIVE;
use crate::gpu::{Access, Candidate, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};
use crate::kernels::matrix::Matrix;

/// Matrix units: x, w, y, scales of the rows of x.
pub const MATMUL_MIXED: KernelSpec = KernelSpec {
    name: "matmul_mixed",
    source: include_str!("../../../shaders/matmul_mixed.wgsl"),
    bindings: &[Access::Input, Access::Read, Access::ReadWrite, Access::Input],
};
/// Scales of the rows of x: bound as [`MATMUL_MIXED`], of which it writes the last.
pub const ROW_SCALE: KernelSpec = KernelSpec {
    name: "row_scale",
    source: include_str!("../../../shaders/row_scale.wgsl"),
    bindings: &[Access::Input, Access::Read, Access::Input, Access::ReadWrite],
};

/// Rows and columns of a workgroup's tile.
const TILE: usize = 128;
/// Lanes that look at one row.
const LANES: u32 = 64;

/// Whether a product runs in mixed precision.
pub(super) fn applies(facts: Option<&Facts>, vectors: bool) -> bool {
    vectors && facts.is_some_and(|facts| facts.mixed)
}

/// The forms of a product of `t` rows and `width` columns whose inputs are dealt to `parts` workgroups.
pub(super) fn forms(base: &Variant, t: usize, width: usize, parts: usize) -> Vec<Candidate> {
    let grid = [width.div_ceil(TILE) as u32, t.div_ceil(TILE) as u32, parts as u32];
    let form = |depth: u32| {
        let variant = base.clone().with("DEPTH", depth).flag(COOPERATIVE).flag_if("DEEP", depth == 64).order("matmul_mixed");
        Candidate { spec: &MATMUL_MIXED, variant, grid }
    };
    vec![form(64), form(32)]
}

/// Records the scales of the rows that `product` multiplies, and binds them to it.
pub(super) fn scale_rows(rec: &mut Recorder, direction: Direction, w: &Matrix, rows: usize, product: &mut Dispatch) {
    let scales: Tensor = rec.transient(&format!("{}.row_scale", product.label), 2 * rows);
    product.bind.push(scales);
    let mut what = product.clone();
    what.label += ".row_scale";
    what.flops = 0;
    let what = what.touching(rows * direction.widths(w).0);
    rec.dispatch(&ROW_SCALE, direction.variant(w, true).with("WG", LANES), grid_1d(rows as u32), what);
}
