//! What each target counts in a preference loss, from the losses of both answers under the adapter and under the reference (DPO).

use bytemuck::{Pod, Zeroable};

use super::real::Real;
use super::reduce::row_lanes;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

/// Lanes per pair of a GPU.
const LANES: u32 = 64;
/// Rows that a pair takes at least: two answers of a prompt and a target each, twice.
const LEAST_ROWS: usize = 8;

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    pairs: u32,
}

/// A row of the table of pairs. The default is no pair.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct Pair {
    /// Number of the chosen answer's first target in the batch.
    pub chosen: u32,
    /// Number of the rejected answer's first target, where the chosen one's end.
    pub rejected: u32,
    /// Where the rejected answer's targets end.
    pub end: u32,
    /// How much further on the same target of the reference is.
    pub reference: u32,
    /// DPO's β.
    pub beta: f32,
    /// Share of labels taken for wrong: conservative DPO's ε.
    pub smoothing: f32,
    /// What the pair's loss counts, 1 / pairs of the job's step.
    pub share: f32,
    /// 0.
    pub unused: u32,
}

/// pairs, losses, weights.
pub const PREFERENCE: KernelSpec = KernelSpec {
    name: "preference",
    source: include_str!("../../shaders/preference.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::ReadWrite],
};

/// Most pairs in a batch of `rows` rows.
pub const fn most_pairs(rows: usize) -> usize {
    rows.div_ceil(LEAST_ROWS)
}

/// Words of the table for batches of `rows` rows.
pub const fn table_words(rows: usize) -> usize {
    most_pairs(rows) * size_of::<Pair>() / 4
}

/// Records the weights of the targets of all pairs in `table`; `losses` and `weights` are `[rows]`.
pub fn weights(rec: &mut Recorder, label: &str, table: Tensor, losses: Tensor, weights: Tensor) {
    let pairs = (table.len as usize * 4 / size_of::<Pair>()) as u32;
    let what = Dispatch::new(label, &Params { pairs }, &[table, losses, weights], 4 * u64::from(losses.len));
    rec.dispatch(&PREFERENCE, Variant::new().with("WG", row_lanes(rec, LANES)), grid_1d(pairs), what);
}

/// The twin of the loss of one pair from minus the log-likelihoods of its answers, `[chosen, rejected]` under the adapter and under the
/// reference: the loss, and the gradient by the chosen one's; that by the rejected one's is its negative.
pub fn loss_twin<R: Real>(beta: R, smoothing: R, policy: [R; 2], reference: [R; 2]) -> (R, R) {
    let one = R::of(1.0);
    let h = beta * ((reference[0] - policy[0]) - (reference[1] - policy[1]));
    // log(1 + e^x), without overflow.
    let softplus = |x: R| x.max(R::default()) + (one + (-x.max(-x)).exp()).ln();
    let sigmoid = |x: R| (-softplus(-x)).exp();
    let loss = (one - smoothing) * softplus(-h) + smoothing * softplus(h);
    (loss, beta * ((one - smoothing) * sigmoid(-h) - smoothing * sigmoid(h)))
}
