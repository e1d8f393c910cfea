//! A frozen matrix on the GPU.

use std::ops::Range;

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
    /// Rows of each of the two or three matrices of one input that lie below each other in this one, so that one product computes all;
    /// empty for a matrix alone. Members and `cols` are whole vectors: multiples of four.
    pub members: Vec<usize>,
}

/// Most matrices that lie in one.
pub const MOST_MEMBERS: usize = 3;
/// A member's activations begin at a multiple of so many words, as slices that are bound must.
const MEMBER_ALIGN: usize = 64;

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}, {}]", self.format.name, self.rows, self.cols)
    }
}

/// Where the `[t, n]` outputs of matrices of `rows` rows each lie, one after the other.
pub fn outputs(rows: &[usize], t: usize) -> Vec<Range<usize>> {
    let mut begin = 0;
    let place = |&rows: &usize| {
        let place = begin..begin + t * rows;
        begin = place.end.next_multiple_of(MEMBER_ALIGN);
        place
    };
    rows.iter().map(place).collect()
}

impl Matrix {
    /// Where the `[t, n]` outputs of each member lie within one tensor, one after the other; of a matrix alone its own.
    pub fn outputs(&self, t: usize) -> Vec<Range<usize>> {
        let alone = [self.rows];
        outputs(if self.members.is_empty() { &alone } else { &self.members }, t)
    }

    /// Words of such a tensor.
    pub fn output_words(&self, t: usize) -> usize {
        self.outputs(t).last().map_or(0, |last| last.end)
    }

    /// What kernels know of the members: first rows of the second and third, and where their outputs begin.
    pub(super) fn places(&self, t: usize) -> [u32; 4] {
        let outputs = self.outputs(t);
        let second = self.members.first().copied().unwrap_or(self.rows);
        let third = second + self.members.get(1).copied().unwrap_or(0);
        let begin = |i: usize| outputs.get(i).map_or(0, |place| place.start as u32);
        [second as u32, third as u32, begin(1), begin(2)]
    }

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
    /// End of the rows of x and y that are multiplied.
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
    /// The first of these rows: a multiple of the tiles' heights.
    pub first: u32,
    /// [`Matrix::places`].
    pub members: [u32; 4],
    /// Inputs that one workgroup sums.
    pub span: u32,
    /// Zero.
    pub unused: [u32; 3],
}
