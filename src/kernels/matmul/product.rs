//! The dispatch of a product, whatever its form: which way, of which rows, with which parameters.

use std::ops::Range;

use crate::gpu::{Access, Dispatch, KernelSpec, Tensor, Variant};
use crate::kernels::matrix::{Matrix, Params, Part};

const BINDINGS: &[Access] = &[Access::Input, Access::Read, Access::ReadWrite];

/// Register tiles, with or without subgroups: x, w, y.
pub const MATMUL: KernelSpec = KernelSpec { name: "matmul", source: include_str!("../../../shaders/matmul.wgsl"), bindings: BINDINGS };
/// Workgroup-memory tiles: x, w, y.
pub const MATMUL_TILE: KernelSpec =
    KernelSpec { name: "matmul_tile", source: include_str!("../../../shaders/matmul_tile.wgsl"), bindings: BINDINGS };

/// Which product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `y[t, n] = Σ_k x[t, k] W[n, k]`
    Forward,
    /// `dx[t, k] = Σ_n dy[t, n] W[n, k]`
    Backward,
}

impl Direction {
    pub(super) fn flag(self) -> &'static str {
        match self {
            Direction::Forward => "FORWARD",
            Direction::Backward => "BACKWARD",
        }
    }

    /// Inputs and outputs of the product.
    pub(super) fn widths(self, w: &Matrix) -> (usize, usize) {
        match self {
            Direction::Forward => (w.cols, w.rows),
            Direction::Backward => (w.rows, w.cols),
        }
    }

    /// Inputs that a part of W has, and outputs that it makes.
    pub(super) fn sizes(self, w: &Matrix, part: &Part) -> (usize, usize) {
        match self {
            Direction::Forward => (w.cols, part.rows),
            Direction::Backward => (part.rows, w.cols),
        }
    }

    /// What every form of the product has in its variant; `vectors` where all rows are whole vectors.
    pub(super) fn variant(self, w: &Matrix, vectors: bool) -> Variant {
        w.variant().flag(self.flag()).flag_if("VEC4", vectors).flag_if("JOINT", !w.members.is_empty())
    }
}

/// A matrix of activations whose rows begin `stride` elements apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Where.
    pub tensor: Tensor,
    /// Elements from a row to the next, at least its length.
    pub stride: usize,
}

/// The dispatch of one part, for any form: `x` and `y` are dy and dx for [`Direction::Backward`].
///
/// # Panics
/// If a tensor is too small: a bug in a recording.
pub fn product(label: &str, direction: Direction, (x, y): (Rows, Rows), t: usize, w: &Matrix, part: &Part) -> Dispatch {
    product_of_rows(label, direction, (x, y), t, 0..t, w, part)
}

/// As [`product`] for the rows `rows` of `t`, which begin at a multiple of the tallest tile.
///
/// # Panics
/// As [`product`].
pub fn product_of_rows(
    label: &str,
    direction: Direction,
    (x, y): (Rows, Rows),
    t: usize,
    rows: Range<usize>,
    w: &Matrix,
    part: &Part,
) -> Dispatch {
    let span = direction.sizes(w, part).0;
    part_of_product(label, direction, (x, y), t, rows, w, part, span)
}

/// As [`product_of_rows`], where a workgroup sums `span` of the inputs.
pub(super) fn part_of_product(
    label: &str,
    direction: Direction,
    (x, y): (Rows, Rows),
    t: usize,
    rows: Range<usize>,
    w: &Matrix,
    part: &Part,
    span: usize,
) -> Dispatch {
    let (inputs, outputs) = direction.widths(w);
    let (ldx, ldy) = (x.stride, y.stride);
    assert!(ldx >= inputs && ldy >= outputs, "{label}: rows of {inputs} and {outputs} overlap at strides of {ldx} and {ldy}");
    let words = |r: Rows, outputs: bool| if outputs { (t * r.stride).max(w.output_words(t)) } else { t * r.stride };
    let fits = |r: Rows, outputs: bool| r.tensor.holds(words(r, outputs));
    let forward = direction == Direction::Forward;
    assert!(fits(x, !forward) && fits(y, forward), "{label}: {t} rows of {ldx} and {ldy} do not fit the tensors");
    let params = Params {
        t: rows.end as u32,
        n: part.rows as u32,
        k: w.cols as u32,
        ldx: ldx as u32,
        ldy: ldy as u32,
        offset: part.row_start as u32,
        rows: w.rows as u32,
        first: rows.start as u32,
        members: w.places(t),
        span: span as u32,
        unused: [0; 3],
    };
    let own = rows.len() * (ldx + ldy) + part.tensor.len as usize;
    Dispatch::new(label, &params, &[x.tensor, part.tensor, y.tensor], 2 * (rows.len() * part.rows * w.cols) as u64).touching(own)
}

/// Names a tunable case: direction, format, sizes, members, whether it adds.
pub fn key(direction: Direction, t: usize, w: &Matrix, part: &Part, accumulate: bool) -> String {
    let adds = if accumulate { " +" } else { "" };
    let joint = if w.members.is_empty() { "" } else { " joint" };
    format!("matmul {} {} t{t} n{} k{}{joint}{adds}", direction.flag().to_lowercase(), w.format.name, part.rows, w.cols)
}
