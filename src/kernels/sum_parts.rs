//! The second pass of what several workgroups computed parts of: their sum, in order, so that bits never depend on who was first.

use bytemuck::{Pod, Zeroable};

use super::matmul::Rows;
use super::real::Real;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

/// parts, y.
pub const SUM_PARTS: KernelSpec =
    KernelSpec { name: "sum_parts", source: include_str!("../../shaders/sum_parts.wgsl"), bindings: &[Access::Input, Access::ReadWrite] };

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    width: u32,
    count: u32,
    first: u32,
    stride: u32,
    offset: u32,
    unused: [u32; 2],
}

/// Where a sum goes: columns from `column` on of the rows from `row` on.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// All rows.
    pub y: Rows,
    /// First row.
    pub row: usize,
    /// First column, a multiple of four.
    pub column: usize,
}

/// Records `y[row + t, column + c] (+)= Σ_s parts[s, t, c]` for `parts` `[count, rows, width]`; `width` and the stride of y are multiples of four.
pub fn sum_parts(rec: &mut Recorder, label: &str, parts: Tensor, (rows, width): (usize, usize), to: Place, accumulate: bool) {
    let each = rows * width;
    let count = parts.len as usize / each.max(1);
    let params = Params {
        rows: rows as u32,
        width: width as u32,
        count: count as u32,
        first: to.row as u32,
        stride: to.y.stride as u32,
        offset: to.column as u32,
        unused: [0; 2],
    };
    let what = Dispatch::new(label, &params, &[parts, to.y.tensor], (count * each) as u64).touching((count + 1) * each);
    rec.dispatch(&SUM_PARTS, Variant::new().flag_if("ACCUMULATE", accumulate), grid_1d((each / 4).div_ceil(64) as u32), what);
}

/// The twin of [`sum_parts`] on whole rows: `y[i] (+)= Σ_s parts[s, i]`.
pub fn sum_parts_twin<R: Real>(parts: &[R], y: &mut [R], accumulate: bool) {
    let each = y.len();
    for (i, y) in y.iter_mut().enumerate() {
        let mut sum = parts[i];
        parts[i..].iter().step_by(each.max(1)).skip(1).for_each(|part| sum += *part);
        *y = if accumulate { *y + sum } else { sum };
    }
}
