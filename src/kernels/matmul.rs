//! Products with a frozen matrix in any stored format: `y = x Wᵀ` and its input gradient `dx = dy W`. Weights are dequantised inside the
//! kernels, each once per tile of rows; there is never a dense copy and never a loop over tokens. Accumulation is f32.

use super::matrix::{Matrix, Params, Part};
use super::matvec;
use super::real::Real;
use crate::gpu::{Access, Candidate, Dispatch, KernelSpec, Recorder, Tensor, Variant};

const BINDINGS: &[Access] = &[Access::ReadWrite, Access::Read, Access::ReadWrite];

/// Register tiles, with or without subgroups: x, w, y.
pub const MATMUL: KernelSpec = KernelSpec { name: "matmul", source: include_str!("../../shaders/matmul.wgsl"), bindings: BINDINGS };
/// Workgroup-memory tiles: x, w, y.
pub const MATMUL_TILE: KernelSpec =
    KernelSpec { name: "matmul_tile", source: include_str!("../../shaders/matmul_tile.wgsl"), bindings: BINDINGS };

/// Invocations of a register-tile workgroup: few, since each owns eight columns.
const LANES: usize = 32;
/// The same on adapters with eight lanes, where a wider group only coarsens the work.
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
}

/// `y[t_rows, w.rows] (+)= x[t_rows, w.cols] Wᵀ`; adds when `accumulate`.
pub fn forward(rec: &mut Recorder, label: &str, x: Tensor, t_rows: usize, w: &Matrix, y: Tensor, accumulate: bool) {
    for part in &w.parts {
        record(rec, label, Direction::Forward, (x, y), t_rows, w, part, accumulate);
    }
}

/// `dx[t_rows, w.cols] (+)= dy[t_rows, w.rows] W`; adds when `accumulate`. Parts add up one after the other.
pub fn backward(rec: &mut Recorder, label: &str, dy: Tensor, t_rows: usize, w: &Matrix, dx: Tensor, accumulate: bool) {
    for (i, part) in w.parts.iter().enumerate() {
        record(rec, label, Direction::Backward, (dy, dx), t_rows, w, part, accumulate || i > 0);
    }
}

fn record(
    rec: &mut Recorder,
    label: &str,
    direction: Direction,
    (x, y): (Tensor, Tensor),
    t: usize,
    w: &Matrix,
    part: &Part,
    accumulate: bool,
) {
    let (ldx, ldy) = match direction {
        Direction::Forward => (w.cols, w.rows),
        Direction::Backward => (w.rows, w.cols),
    };
    assert!(x.len as usize >= t * ldx && y.len as usize >= t * ldy, "{label}: {t} rows of {ldx} and {ldy} do not fit the tensors");
    let params = Params {
        t: t as u32,
        n: part.rows as u32,
        k: w.cols as u32,
        ldx: ldx as u32,
        ldy: ldy as u32,
        offset: part.row_start as u32,
        accumulate: accumulate.into(),
        rows: w.rows as u32,
    };
    let what = Dispatch::new(label, &params, &[x, part.tensor, y], 2 * (t * part.rows * w.cols) as u64);
    rec.dispatch_tuned(key(direction, t, w, part), candidates(rec, direction, t, w, part), what);
}

/// Names a tunable case: direction, format, sizes.
pub fn key(direction: Direction, t: usize, w: &Matrix, part: &Part) -> String {
    format!("matmul {} {} t{t} n{} k{}", direction.flag().to_lowercase(), w.format.name, part.rows, w.cols)
}

/// The ways to multiply by `part` that are worth measuring on the recorder's adapter, a good guess first.
pub fn candidates(rec: &Recorder, direction: Direction, t: usize, w: &Matrix, part: &Part) -> Vec<Candidate> {
    let (inner, width, ldx) = match direction {
        Direction::Forward => (w.cols, part.rows, w.cols),
        Direction::Backward => (part.rows, w.cols, w.rows),
    };
    let base = w.variant().flag(direction.flag()).flag_if("VEC4", inner.is_multiple_of(4) && ldx.is_multiple_of(4));
    let facts = rec.facts();
    let is_cpu = facts.is_some_and(|f| f.is_cpu);
    let (smallest, largest) = facts.map_or((0, 0), |f| f.subgroup_sizes);
    // Eight inputs go round by broadcast, so a subgroup must hold whole octets.
    let octets = facts.is_some_and(|f| f.subgroups) && smallest >= 8 && smallest.is_multiple_of(8);
    let lanes = if largest == 8 { NARROW_LANES } else { LANES };
    let few = t <= matvec::MAX_ROWS && direction == Direction::Forward;
    let sizes: Vec<usize> = [8, 16, 4].into_iter().filter(|rows| *rows == 4 || *rows < 2 * t.next_multiple_of(4)).collect();
    let mut all = Vec::new();
    if is_cpu {
        // Workgroup memory is ordinary memory here: those forms were measured at half the others and cost seconds to compile.
        all.extend(sizes.iter().filter(|rows| octets || **rows < 16).map(|rows| registers(&base, lanes, *rows, octets, t, width)));
        if few {
            all.push(matvec::candidate(&base, t, part.rows));
        }
        return all;
    }
    let tile = |size: usize| Candidate {
        spec: &MATMUL_TILE,
        variant: base.clone().with("TILE", size as u32),
        grid: [width.div_ceil(size) as u32, t.div_ceil(size) as u32, 1],
    };
    if few {
        all.push(matvec::candidate(&base, t, part.rows));
    } else {
        all.push(tile(if t > 32 { 64 } else { 32 }));
        if t > 32 {
            all.push(tile(32));
        }
    }
    for rows in sizes {
        if octets {
            all.push(registers(&base, lanes, rows, true, t, width));
        }
        // Sixteen rows of unshared loads gain nothing over eight.
        if rows < 16 {
            all.push(registers(&base, lanes, rows, false, t, width));
        }
    }
    all
}

fn registers(base: &Variant, lanes: usize, rows: usize, subgroups: bool, t: usize, width: usize) -> Candidate {
    let variant = base
        .clone()
        .with("WG", lanes as u32)
        .with("ROWS", rows as u32)
        .flag_if("ROWS8", rows >= 8)
        .flag_if("ROWS16", rows >= 16)
        .flag_if("SUBGROUPS", subgroups);
    Candidate { spec: &MATMUL, variant, grid: [width.div_ceil(8 * lanes) as u32, t.div_ceil(rows) as u32, 1] }
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
