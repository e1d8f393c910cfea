//! Products with a frozen matrix in any stored format: `y = x Wᵀ` and its input gradient `dx = dy W`. Weights are dequantised inside the
//! kernels, each once per tile of rows; there is never a dense copy and never a loop over tokens. Accumulation is f32.

use std::ops::Range;

use super::MOST_FLOPS;
use super::matrix::{Matrix, Params, Part};
use super::matvec::{self, MATVEC};
use super::real::Real;
use crate::gpu::device::Facts;
use crate::gpu::{Access, Candidate, Dispatch, KernelSpec, Recorder, Tensor, Variant};

const BINDINGS: &[Access] = &[Access::Input, Access::Read, Access::ReadWrite];

/// Register tiles, with or without subgroups: x, w, y.
pub const MATMUL: KernelSpec = KernelSpec { name: "matmul", source: include_str!("../../shaders/matmul.wgsl"), bindings: BINDINGS };
/// Workgroup-memory tiles: x, w, y.
pub const MATMUL_TILE: KernelSpec =
    KernelSpec { name: "matmul_tile", source: include_str!("../../shaders/matmul_tile.wgsl"), bindings: BINDINGS };

/// Rows of the tallest tile.
const TALLEST_TILE: usize = 64;

/// Invocations of a register-tile workgroup: few, since each owns eight columns.
const LANES: usize = 32;
/// The same on adapters with at most eight lanes, where a wider group only coarsens the work.
const NARROW_LANES: usize = 8;

/// Which product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `y[t, n] = Σ_k x[t, k] W[n, k]`
    Forward,
    /// `dx[t, k] = Σ_n dy[t, n] W[n, k]`
    Backward,
}

impl Direction {
    fn flag(self) -> &'static str {
        match self {
            Direction::Forward => "FORWARD",
            Direction::Backward => "BACKWARD",
        }
    }

    /// Inputs and outputs of the product.
    fn widths(self, w: &Matrix) -> (usize, usize) {
        match self {
            Direction::Forward => (w.cols, w.rows),
            Direction::Backward => (w.rows, w.cols),
        }
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

/// `y[t_rows, w.rows] (+)= x[t_rows, w.cols] Wᵀ`; adds when `accumulate`. Where W has members, y is one tensor of their outputs
/// ([`Matrix::outputs`]).
pub fn forward(rec: &mut Recorder, label: &str, x: Tensor, t_rows: usize, w: &Matrix, y: Tensor, accumulate: bool) {
    forward_rows(rec, label, x, t_rows, w, Rows { tensor: y, stride: w.rows }, accumulate);
}

/// As [`forward`], into rows with a stride of their own.
pub fn forward_rows(rec: &mut Recorder, label: &str, x: Tensor, t_rows: usize, w: &Matrix, y: Rows, accumulate: bool) {
    let x = Rows { tensor: x, stride: w.cols };
    for part in &w.parts {
        record(rec, label, Direction::Forward, (x, y), t_rows, w, part, accumulate);
    }
}

/// `dx[t_rows, w.cols] (+)= dy[t_rows, w.rows] W`; adds when `accumulate`. Parts add up one after the other. Where W has members, dy is one
/// tensor of their outputs.
pub fn backward(rec: &mut Recorder, label: &str, dy: Tensor, t_rows: usize, w: &Matrix, dx: Tensor, accumulate: bool) {
    backward_rows(rec, label, Rows { tensor: dy, stride: w.rows }, t_rows, w, dx, accumulate);
}

/// As [`backward`], from rows with a stride of their own.
pub fn backward_rows(rec: &mut Recorder, label: &str, dy: Rows, t_rows: usize, w: &Matrix, dx: Tensor, accumulate: bool) {
    let dx = Rows { tensor: dx, stride: w.cols };
    for (i, part) in w.parts.iter().enumerate() {
        record(rec, label, Direction::Backward, (dy, dx), t_rows, w, part, accumulate || i > 0);
    }
}

fn record(
    rec: &mut Recorder,
    label: &str,
    direction: Direction,
    (x, y): (Rows, Rows),
    t: usize,
    w: &Matrix,
    part: &Part,
    accumulate: bool,
) {
    let rows = rows_at_once(t, w, part);
    let key =
        if rows < t { format!("{} of t{t}", key(direction, rows, w, part, accumulate)) } else { key(direction, t, w, part, accumulate) };
    let ways = candidates(rec, direction, rows, w, part, accumulate);
    for first in (0..t).step_by(rows.max(1)) {
        let what = product_of_rows(label, direction, (x, y), t, first..(first + rows).min(t), w, part);
        rec.dispatch_tuned(key.clone(), ways.clone(), what);
    }
}

/// Rows of x that one dispatch multiplies with a part of W: all, or as many as take `MOST_FLOPS`. They are whole tiles, so that bits do not depend
/// on it.
fn rows_at_once(t: usize, w: &Matrix, part: &Part) -> usize {
    let of_a_row = 2 * part.rows as u64 * w.cols as u64;
    let most = (MOST_FLOPS / of_a_row.max(1)) as usize;
    if t <= most { t } else { t.div_ceil(t.div_ceil(most.max(1))).next_multiple_of(TALLEST_TILE).min(t) }
}

/// The dispatch of one part, for any form: `x` and `y` are dy and dx for [`Direction::Backward`].
///
/// # Panics
/// If a tensor is too small: a bug in a recording.
pub fn product(label: &str, direction: Direction, (x, y): (Rows, Rows), t: usize, w: &Matrix, part: &Part) -> Dispatch {
    product_of_rows(label, direction, (x, y), t, 0..t, w, part)
}

/// As [`product`] for the rows `rows` of `t`, which begin at a multiple of `TALLEST_TILE`.
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
    let (inputs, outputs) = direction.widths(w);
    let (ldx, ldy) = (x.stride, y.stride);
    assert!(ldx >= inputs && ldy >= outputs, "{label}: rows of {inputs} and {outputs} overlap at strides of {ldx} and {ldy}");
    let words = |r: Rows, outputs: bool| if outputs { (t * r.stride).max(w.output_words(t)) } else { t * r.stride };
    let fits = |r: Rows, outputs: bool| r.tensor.len as usize >= words(r, outputs);
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

/// The forms worth measuring on the recorder's adapter, a good guess first.
pub fn candidates(rec: &Recorder, direction: Direction, t: usize, w: &Matrix, part: &Part, accumulate: bool) -> Vec<Candidate> {
    let mut all = forms(rec, direction, t, w, part, accumulate);
    if rec.facts().is_some_and(|f| f.is_cpu) {
        // Workgroup memory is ordinary memory here, and loads that are not broadcast cost most (docs/tuning.md).
        let shared = all.iter().any(|c| c.variant.needs_subgroups());
        all.retain(|c| c.spec.name != MATMUL_TILE.name && (!shared || c.spec.name == MATVEC.name || c.variant.needs_subgroups()));
        all.sort_by_key(|c| c.spec.name == MATVEC.name);
    }
    all
}

/// Every form that can run on the recorder's adapter.
pub fn forms(rec: &Recorder, direction: Direction, t: usize, w: &Matrix, part: &Part, accumulate: bool) -> Vec<Candidate> {
    let width = match direction {
        Direction::Forward => part.rows,
        Direction::Backward => w.cols,
    };
    let vectors = [w.cols, w.rows, part.rows].iter().all(|size| size.is_multiple_of(4));
    let joint = !w.members.is_empty();
    let base = w.variant().flag(direction.flag()).flag_if("VEC4", vectors).flag_if("JOINT", joint).flag_if("ACCUMULATE", accumulate);
    let mut all = Vec::new();
    if t <= matvec::MAX_ROWS && direction == Direction::Forward {
        all.push(matvec::candidate(&base, t, part.rows));
    } else {
        let sizes: &[usize] = if t > 32 { &[64, 32] } else { &[32] };
        all.extend(sizes.iter().map(|&size| tile(&base, size, t, width)));
    }
    let facts = rec.facts();
    let lanes = if facts.is_some_and(|f| (1..=8).contains(&f.subgroup_sizes.1)) { NARROW_LANES } else { LANES };
    if let Some(facts) = facts.filter(|f| f.broadcast_width() > 0) {
        let rows = rows_of(w, t, vectors, facts).iter();
        all.extend(rows.map(|&rows| registers(&base, w, direction, lanes, rows, facts.broadcast_width(), t, width)));
    }
    // More than four rows of unshared loads gain nothing.
    all.push(registers(&base, w, direction, lanes, 4, 0, t, width));
    all
}

/// Row counts of a register tile worth measuring. A CPU adapter spills to its cache, which is cheap: there, formats whose weights are many
/// loads need more rows to pay for them, and so do all where only four lanes share. Elsewhere 16 rows of eight columns are as many sums as
/// a lane has registers for all it does. Widths that are no whole vectors belong to toys, not worth the time to compile tall tiles.
fn rows_of(w: &Matrix, t: usize, vectors: bool, facts: &Facts) -> &'static [usize] {
    let heavy = w.format.gpu.planes[0].bits > 64;
    let tall = vectors && facts.is_cpu;
    match t {
        0..=4 => &[4],
        5..=8 => &[8],
        _ if tall && facts.broadcast_width() == 4 => &[16],
        9..=16 if tall && heavy => &[16],
        _ if tall && heavy => &[16, 32],
        _ => &[8],
    }
}

fn tile(base: &Variant, size: usize, t: usize, width: usize) -> Candidate {
    let grid = [width.div_ceil(size) as u32, t.div_ceil(size) as u32, 1];
    Candidate { spec: &MATMUL_TILE, variant: base.clone().with("TILE", size as u32), grid }
}

fn registers(
    base: &Variant,
    w: &Matrix,
    direction: Direction,
    lanes: usize,
    rows: usize,
    broadcast: u32,
    t: usize,
    width: usize,
) -> Candidate {
    // Adapters with subgroups of four (SwiftShader) pay more for a loop in a loop than for decoding scales again.
    let grouped = direction == Direction::Forward && w.format.block > 8 && broadcast != 4;
    let variant = base
        .clone()
        .flag_if("GROUPED", grouped)
        .with("WG", lanes as u32)
        .with("ROWS", rows as u32)
        .flag_if("ROWS8", rows >= 8)
        .flag_if("ROWS16", rows >= 16)
        .flag_if("ROWS32", rows >= 32)
        .broadcast(broadcast);
    let (columns, rows) = (width.div_ceil(8 * lanes) as u32, t.div_ceil(rows) as u32);
    let grid = if direction == Direction::Forward { [rows, columns, 1] } else { [columns, rows, 1] };
    Candidate { spec: &MATMUL, variant, grid }
}

/// The forward product, three loops: `y[t, n] (+)= Σ_k x[t, k] w[n, k]`.
pub fn matmul_twin<R: Real>(x: &[R], w: &[R], (t, n, k): (usize, usize, usize), y: &mut [R], accumulate: bool) {
    for row in 0..t {
        for out in 0..n {
            let mut sum = if accumulate { y[row * n + out] } else { R::default() };
            for i in 0..k {
                sum += x[row * k + i] * w[out * k + i];
            }
            y[row * n + out] = sum;
        }
    }
}

/// The input gradient, three loops: `dx[t, k] (+)= Σ_n dy[t, n] w[n, k]`.
pub fn matmul_backward_twin<R: Real>(dy: &[R], w: &[R], (t, n, k): (usize, usize, usize), dx: &mut [R], accumulate: bool) {
    for row in 0..t {
        for i in 0..k {
            let mut sum = if accumulate { dx[row * k + i] } else { R::default() };
            for out in 0..n {
                sum += dy[row * n + out] * w[out * k + i];
            }
            dx[row * k + i] = sum;
        }
    }
}
