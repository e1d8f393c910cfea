//! A frozen matrix on the GPU.

use crate::gpu::{Tensor, Variant};
use crate::quant::QuantFormat;

/// Consecutive rows of a matrix in one binding.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The rows as [`QuantFormat::repack`] packs them.
    pub tensor: Tensor,
    /// First row; a multiple of four.
    pub row_start: usize,
    /// Number of rows; a multiple of four but in the last part.
    pub rows: usize,
}

/// A frozen matrix `[rows = out_features, cols = in_features]` in the precision of its file, split by rows where it exceeds a binding.
#[derive(Clone)]
pub struct Matrix {
    /// How weights are stored.
    pub format: &'static QuantFormat,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// All rows, in order.
    pub parts: Vec<Part>,
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}, {}]", self.format.name, self.rows, self.cols)
    }
}

impl Matrix {
    /// A variant that can read this matrix.
    pub(super) fn variant(&self) -> Variant {
        Variant::new()
            .import("products", include_str!("../../shaders/lib/products.wgsl"), "")
            .import("matrix", include_str!("../../shaders/lib/matrix.wgsl"), "")
            .import("iq4_table", include_str!("../../shaders/quant/iq4_table.wgsl"), "")
            .import("quant", self.format.gpu.wgsl, self.format.name)
    }
}

/// Uniform parameters of every kernel that reads a frozen matrix; see `shaders/lib/matrix.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    /// Rows of x and y.
    pub t: u32,
    /// Rows of this part.
    pub n: u32,
    /// Inputs.
    pub k: u32,
    /// Width of a row of x.
    pub ldx: u32,
    /// Width of a row of y.
    pub ldy: u32,
    /// First row of this part.
    pub offset: u32,
    /// Rows of the whole matrix.
    pub rows: u32,
    /// Zero.
    pub pad: u32,
}
