//! Cross-entropy over a chunk of rows, with its gradient written over the logits.

use bytemuck::{Pod, Zeroable};

use super::matmul::Rows;
use super::real::Real;
use super::reduce::row_lanes;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

/// Lanes per row of a GPU.
const LANES: u32 = 256;

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    vocab: u32,
    first: u32,
    stride: u32,
}

/// targets, weight, logits (become their gradient), loss.
pub const CROSS_ENTROPY: KernelSpec = KernelSpec {
    name: "cross_entropy",
    source: include_str!("../../shaders/cross_entropy.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::ReadWrite, Access::ReadWrite],
};

/// What a chunk of rows is scored against.
#[derive(Debug, Clone, Copy)]
pub struct Targets {
    /// `[rows]` i32: the token that must follow, or −1.
    pub ids: Tensor,
    /// `[rows]` f32: what each row's loss counts, 1 / (targets of its job).
    pub weight: Tensor,
    /// `[rows]` f32 out: the unweighted loss of each row in nats.
    pub loss: Tensor,
}

/// Records the loss of rows `first..first + rows` of `targets` from `logits[rows, vocab]`; with `backward` the logits become
/// their gradient.
///
/// # Panics
/// If the logits are too few: a bug in a recording.
pub fn cross_entropy(
    rec: &mut Recorder,
    label: &str,
    targets: Targets,
    logits: Rows,
    vocab: usize,
    (first, rows): (usize, usize),
    backward: bool,
) {
    let Rows { tensor, stride } = logits;
    assert!(stride >= vocab && tensor.holds(rows * stride), "{label}: {rows} rows of {vocab} do not fit the logits");
    let params = Params { rows: rows as u32, vocab: vocab as u32, first: first as u32, stride: stride as u32 };
    let what = Dispatch::new(label, &params, &[targets.ids, targets.weight, tensor, targets.loss], 8 * (rows * vocab) as u64);
    let variant = Variant::new().with("WG", row_lanes(rec, LANES)).flag_if("BACKWARD", backward);
    rec.dispatch(&CROSS_ENTROPY, variant, grid_1d(rows as u32), what);
}

/// The twin: returns (loss per row, gradient of Σ weight · loss).
pub fn cross_entropy_twin<R: Real>(targets: &[i32], weight: &[R], logits: &[R]) -> (Vec<R>, Vec<R>) {
    let vocab = logits.len() / targets.len();
    let mut loss = Vec::new();
    let mut gradient = Vec::with_capacity(logits.len());
    for ((row, goal), weight) in logits.chunks_exact(vocab).zip(targets).zip(weight) {
        let high = row.iter().copied().reduce(Real::max).unwrap_or_default();
        let sum = row.iter().map(|z| (*z - high).exp()).sum::<R>();
        let masked = *goal < 0;
        loss.push(if masked { R::default() } else { high + sum.ln() - row[*goal as usize] });
        gradient.extend(row.iter().enumerate().map(|(v, z)| {
            let one = if v as i32 == *goal { R::of(1.0) } else { R::default() };
            if masked { R::default() } else { *weight * ((*z - high).exp() / sum - one) }
        }));
    }
    (loss, gradient)
}
