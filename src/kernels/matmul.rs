//! Products with a frozen matrix in any stored format: `y = x Wᵀ` and its input gradient `dx = dy W`. Weights are dequantised inside the
//! kernels, each once per tile of rows; there is never a dense copy and never a loop over tokens. Accumulation is f32.

mod forms;
mod mixed;
mod product;
mod split;

pub use self::forms::{candidates, forms};
pub use self::mixed::{MATMUL_MIXED, ROW_SCALE};
pub use self::product::{Direction, MATMUL, MATMUL_TILE, Rows, key, product, product_of_rows};
use super::matrix::{Matrix, Part};
use super::real::Real;
use super::work::most_flops;
use crate::gpu::{Recorder, Tensor};

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
    let rows = rows_at_once(t, w, part, most_flops(rec.facts()));
    let of_all = if rows < t { format!(" of t{t}") } else { String::new() };
    let splits = split::count(rec.facts(), direction, t, w, part, y);
    if splits > 1 {
        for first in (0..t).step_by(rows.max(1)) {
            let some = first..(first + rows).min(t);
            split::record(rec, label, direction, (x, y), (t, some), w, part, (accumulate, splits), &of_all);
        }
        return;
    }
    let ways = candidates(rec, direction, rows, w, part, accumulate);
    let mixed = ways[0].spec.name == MATMUL_MIXED.name;
    let key = key(direction, rows, w, part, accumulate) + &of_all + if mixed { " mixed" } else { "" };
    for first in (0..t).step_by(rows.max(1)) {
        let some = first..(first + rows).min(t);
        let mut what = product_of_rows(label, direction, (x, y), t, some.clone(), w, part);
        if mixed {
            mixed::scale_rows(rec, direction, w, some.len(), &mut what);
        }
        rec.dispatch_tuned(key.clone(), ways.clone(), what);
    }
}

/// Rows of x that one dispatch multiplies with a part of W: all, or as many as take `most` operations. They are whole tiles, so that bits do
/// not depend on it.
fn rows_at_once(t: usize, w: &Matrix, part: &Part, most: u64) -> usize {
    let of_a_row = 2 * part.rows as u64 * w.cols as u64;
    let most = (most / of_a_row.max(1)) as usize;
    if t <= most { t } else { t.div_ceil(t.div_ceil(most.max(1))).next_multiple_of(forms::TALLEST_TILE).min(t) }
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
