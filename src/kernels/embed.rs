//! Rows of a table, dequantised: the embedding lookup; and what jobs that train embeddings add to it ([`OwnEmbeddings`]).

use bytemuck::{Pod, Zeroable};

use super::lowrank::NO_GRADIENT;
use super::matrix::{Matrix, Params};
use super::real::Real;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

/// One invocation per token and eight inputs: tokens, w, y.
pub const EMBED: KernelSpec = KernelSpec {
    name: "embed",
    source: include_str!("../../shaders/embed.wgsl"),
    bindings: &[Access::Input, Access::Read, Access::ReadWrite],
};

/// What jobs add to the rows of their tokens: tokens, row_job, own, values, y.
pub const OWN: KernelSpec = KernelSpec {
    name: "embed_own",
    source: include_str!("../../shaders/embed_own.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::ReadWrite],
};

/// The gradient of what jobs add: tokens, row_job, own, order, dx, grads.
pub const OWN_GRADIENT: KernelSpec = KernelSpec {
    name: "embed_own_gradient",
    source: include_str!("../../shaders/embed_own_gradient.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Input, Access::ReadWrite],
};

/// A token without a row among those that a job trains, in the table of [`OwnEmbeddings`].
pub const NO_ROW: u32 = NO_GRADIENT;

/// Uniform parameters of [`OWN`] and [`OWN_GRADIENT`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct OwnParams {
    rows: u32,
    cols: u32,
    vocab: u32,
    jobs: u32,
}

/// Embeddings of tokens that jobs train for themselves: `ΔE [tokens of the job, d]`, added to the base's.
#[derive(Debug, Clone, Copy)]
pub struct OwnEmbeddings {
    /// `[t]` u32: job of each row.
    pub row_job: Tensor,
    /// u32: `[jobs, 2]`, the first word of a job's ΔE among the values and of its gradient ([`NO_GRADIENT`] where it does not train), then
    /// `[jobs, vocab]`, each token's row of ΔE, or [`NO_ROW`].
    pub table: Tensor,
    /// Parameters of all jobs.
    pub values: Tensor,
    /// Their gradients.
    pub grads: Tensor,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Jobs of the table.
    pub jobs: usize,
}

impl OwnEmbeddings {
    fn params(&self, rows: u32, cols: usize) -> OwnParams {
        OwnParams { rows, cols: cols as u32, vocab: self.vocab as u32, jobs: self.jobs as u32 }
    }
}

/// `y[t, cols] += ΔE[tokens[t]]` for the rows whose jobs train their tokens.
pub fn add_own(rec: &mut Recorder, label: &str, tokens: Tensor, own: OwnEmbeddings, cols: usize, y: Tensor) {
    let rows = tokens.len;
    let bind = [tokens, own.row_job, own.table, own.values, y];
    let what = Dispatch::new(label, &own.params(rows, cols), &bind, u64::from(rows) * cols as u64);
    rec.dispatch(&OWN, Variant::new(), grid_1d((rows as usize * cols).div_ceil(64) as u32), what);
}

/// `dΔE[token] += Σ dx[t]` over the job's rows t of that token. `order` is [`order`] of the batch, `dx` `[t, cols]`.
pub fn own_gradient(rec: &mut Recorder, label: &str, tokens: Tensor, own: OwnEmbeddings, order: Tensor, cols: usize, dx: Tensor) {
    let rows = tokens.len;
    let bind = [tokens, own.row_job, own.table, order, dx, own.grads];
    let what = Dispatch::new(label, &own.params(rows, cols), &bind, u64::from(rows) * cols as u64);
    rec.dispatch(&OWN_GRADIENT, Variant::new(), grid_1d(rows * (cols as u32).div_ceil(64)), what);
}

/// `[t, 2]`: the batch's rows that have a job, those of one job and token side by side in ascending order, each with the length of the run that
/// begins with it, 0 inside of one. Rows of nobody come last and begin none.
pub fn order(tokens: &[u32], row_job: &[u32]) -> Vec<[u32; 2]> {
    let mut rows: Vec<u32> = (0..tokens.len() as u32).collect();
    let key = |row: &u32| (row_job[*row as usize], tokens[*row as usize]);
    // Stable: rows of one job and token stay ascending.
    rows.sort_by_key(key);
    let run = |run: &[u32]| {
        let length = if row_job[run[0] as usize] == NO_ROW { 0 } else { run.len() as u32 };
        run.iter().enumerate().map(|(i, row)| [*row, if i == 0 { length } else { 0 }]).collect::<Vec<_>>()
    };
    rows.chunk_by(|a, b| key(a) == key(b)).flat_map(run).collect()
}

/// `y[t, w.cols] = w[tokens[t]]`, for `tokens.len` tokens, equal to the format's decoder bit for bit. Zeros for a token past the table.
pub fn gather(rec: &mut Recorder, label: &str, tokens: Tensor, w: &Matrix, y: Tensor) {
    let t = tokens.len;
    assert!(y.holds(t as usize * w.cols), "{label}: {t} rows of {} do not fit", w.cols);
    for part in &w.parts {
        let params = Params {
            t,
            n: part.rows as u32,
            k: w.cols as u32,
            ldx: 1,
            ldy: w.cols as u32,
            offset: part.row_start as u32,
            rows: w.rows as u32,
            first: 0,
            members: [0; 4],
            span: 0,
            unused: [0; 3],
        };
        // One row a token, decoded to eight times as many bytes at most.
        let words = t as usize * (1 + 2 * w.cols);
        let groups = (t as usize * w.cols.div_ceil(8)).div_ceil(64) as u32;
        rec.dispatch(&EMBED, w.variant(), grid_1d(groups), Dispatch::new(label, &params, &[tokens, part.tensor, y], 0).touching(words));
    }
}

/// The lookup on decoded rows of `k` weights.
pub fn embed_twin(tokens: &[u32], w: &[f32], k: usize) -> Vec<f32> {
    tokens.iter().flat_map(|&token| w[token as usize * k..][..k].iter().copied()).collect()
}

/// The twin of [`add_own`] for one job that has all rows: `y[t] + ΔE[place[tokens[t]]]`, with [`NO_ROW`] where a token has none.
pub fn add_own_twin<R: Real>(tokens: &[u32], places: &[u32], delta: &[R], y: &[R], cols: usize) -> Vec<R> {
    let mut out = y.to_vec();
    for (row, token) in out.chunks_exact_mut(cols).zip(tokens) {
        let place = places[*token as usize];
        if place != NO_ROW {
            row.iter_mut().zip(&delta[place as usize * cols..]).for_each(|(y, own)| *y += *own);
        }
    }
    out
}

/// The twin of [`own_gradient`] for one job that has all rows and trains `count` tokens: returns dΔE.
pub fn own_gradient_twin<R: Real>(tokens: &[u32], places: &[u32], count: usize, dx: &[R], cols: usize) -> Vec<R> {
    let mut gradient = vec![R::default(); count * cols];
    for (row, token) in dx.chunks_exact(cols).zip(tokens) {
        let place = places[*token as usize];
        if place != NO_ROW {
            gradient[place as usize * cols..][..cols].iter_mut().zip(row).for_each(|(sum, dx)| *sum += *dx);
        }
    }
    gradient
}
