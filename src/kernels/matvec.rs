//! The forward product for a few rows (decoding one token of a few sequences): bound by reading the weights, so a workgroup shares each quad
//! of rows of W. [`super::matmul::forward`] offers it among its candidates.

use crate::gpu::{Access, Candidate, KernelSpec, Variant};

/// Few rows: x, w, y.
pub const MATVEC: KernelSpec = KernelSpec {
    name: "matvec",
    source: include_str!("../../shaders/matvec.wgsl"),
    bindings: &[Access::Input, Access::Read, Access::ReadWrite],
};

/// From here on, a tile that reuses each weight wins.
pub(super) const MAX_ROWS: usize = 8;
/// Invocations that share a quad; at least eight octets each at usual widths.
const WG: u32 = 32;

/// `base` reads the matrix; `rows` outputs for `t` rows.
pub(super) fn candidate(base: &Variant, t: usize, rows: usize) -> Candidate {
    let [x, y, _] = crate::gpu::grid_1d(rows.div_ceil(4) as u32);
    Candidate { spec: &MATVEC, variant: base.clone().with("WG", WG), grid: [x, y, t.div_ceil(4) as u32] }
}
