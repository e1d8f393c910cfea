//! Final norm, head and cross-entropy, chunk by chunk: only rows with a target, and never all their logits at once.

use super::Inputs;
use super::weights::Weights;
use crate::adapters::{AdapterPool, norms};
use crate::gpu::{Recorder, Tensor};
use crate::kernels::cross_entropy::{self, Targets};
use crate::kernels::matmul::{self, Rows};
use crate::kernels::norm::{self, Weight};
use crate::kernels::preference;
use crate::kernels::rows;

/// Bytes that the logits of one chunk may take; a chunk has at least one and at most [`MAX_CHUNK`] rows.
const LOGIT_BYTES: usize = 128 << 20;
/// Rows beyond which a larger chunk gains nothing.
const MAX_CHUNK: usize = 256;
/// Slices of the row lists are bound at multiples of 64 words.
const CHUNK_STEP: usize = 64;
/// Logits between the end of a row and the next. Rows of a whole power of two, as vocabularies like to have, would all fall on the same lines
/// of a cache: the head's backward product was a quarter slower.
const GAP: usize = 64;

/// Rows of a chunk for a vocabulary: a multiple of 64 where the batch has that many rows.
pub fn chunk_rows(vocab: usize, rows: usize) -> usize {
    let fits = LOGIT_BYTES / 4 / (vocab + GAP);
    (fits / CHUNK_STEP * CHUNK_STEP).clamp(CHUNK_STEP, MAX_CHUNK).min(rows.next_multiple_of(CHUNK_STEP)).min(rows.max(1))
}

/// Chunks that a batch with `targets` loss rows runs.
pub fn active_chunks(vocab: usize, rows: usize, targets: usize) -> u32 {
    targets.div_ceil(chunk_rows(vocab, rows)) as u32
}

/// The final norm's weights for the rows of `row_job`, or of the whole batch.
pub(super) fn final_norm(weights: &Weights, adapters: Option<&AdapterPool>, row_job: Option<Tensor>) -> Weight {
    Weight { base: weights.norm, own: adapters.and_then(|a| a.own_norm(norms::last(weights.layers.len()), row_job)) }
}

/// Records the loss of every chunk from `x` `[t, d]`; with `dx` (cleared first) also its gradient, and that of jobs' own norms. Chunk i is
/// optional group i.
pub fn loss(
    rec: &mut Recorder,
    weights: &Weights,
    adapters: Option<&AdapterPool>,
    inputs: &Inputs,
    eps: f32,
    x: Tensor,
    dx: Option<Tensor>,
) {
    let (vocab, d) = (weights.lm_head.rows, weights.lm_head.cols);
    let chunk = chunk_rows(vocab, inputs.rows);
    if let Some(dx) = dx {
        rec.clear(dx);
    }
    // The gradient of the norm's weights is summed over whole rows, not chunk by chunk: its order must not depend on where chunks begin.
    let whole = final_norm(weights, adapters, None);
    let all_dn = dx.filter(|_| whole.own.is_some()).map(|dx| rec.transient("all_dnorm", dx.len as usize));
    if let Some(all) = all_dn {
        rec.clear(all);
    }
    if dx.is_some() && adapters.is_some_and(|a| a.capacity().pairs) {
        // What a pair's targets weigh follows from the losses of all of them, which may lie in several chunks.
        for (i, first) in (0..inputs.rows).step_by(chunk).enumerate() {
            rec.optional(i as u32, |rec| {
                let part = (first, chunk.min(inputs.rows - first));
                forward(rec, weights, adapters, inputs, eps, x, part, false);
            });
        }
        preference::weights(rec, "preference", inputs.pairs, inputs.losses, inputs.weights);
    }
    for (i, first) in (0..inputs.rows).step_by(chunk).enumerate() {
        let count = chunk.min(inputs.rows - first);
        rec.optional(i as u32, |rec| {
            let Chunk { list, ids, picked, rstd, logits, norm: w } =
                forward(rec, weights, adapters, inputs, eps, x, (first, count), dx.is_some());
            if let Some(dx) = dx {
                let (dn, dpicked) = (rec.transient("dnorm", count * d), rec.transient("dpicked", count * d));
                matmul::backward_rows(rec, "lm_head.matmul_backward", logits, count, &weights.lm_head, dn, false);
                norm::backward(rec, "norm_backward", picked, w, rstd, dn, dpicked, false);
                rows::scatter(rec, "scatter", list, ids, dpicked, dx);
                if let Some(all) = all_dn {
                    rows::scatter(rec, "scatter_dnorm", list, ids, dn, all);
                }
            }
        });
    }
    if let Some(all) = all_dn {
        let (n, rstd) = (rec.transient("norm_again", all.len as usize), rec.transient("norm_again.rstd", inputs.rows));
        norm::forward(rec, "norm_again", x, weights.norm, n, rstd, eps);
        norm::own_gradient(rec, "norm_gradient", x, whole, rstd, all);
    }
}

/// What the forward pass of a chunk leaves for the backward pass.
struct Chunk {
    list: Tensor,
    ids: Tensor,
    picked: Tensor,
    rstd: Tensor,
    logits: Rows,
    norm: Weight,
}

/// Records the losses of `count` target rows from the number `first` on; with `backward` the logits become their gradient.
fn forward(
    rec: &mut Recorder,
    weights: &Weights,
    adapters: Option<&AdapterPool>,
    inputs: &Inputs,
    eps: f32,
    x: Tensor,
    (first, count): (usize, usize),
    backward: bool,
) -> Chunk {
    let (vocab, d) = (weights.lm_head.rows, weights.lm_head.cols);
    let slice = |t: Tensor| t.slice(first..first + count);
    let (list, ids) = (slice(inputs.loss_rows), slice(inputs.targets));
    let (picked, n) = (rec.transient("picked", count * d), rec.transient("norm", count * d));
    let rstd = rec.transient("norm.rstd", count);
    rows::gather(rec, "gather", list, ids, x, picked);
    let norm = final_norm(weights, adapters, Some(slice(inputs.loss_jobs)));
    norm::forward(rec, "norm", picked, norm, n, rstd, eps);
    let logits = Rows { tensor: rec.transient("logits", count * (vocab + GAP)), stride: vocab + GAP };
    matmul::forward_rows(rec, "lm_head.matmul", n, count, &weights.lm_head, logits, false);
    let targets = Targets { ids: inputs.targets, weight: inputs.weights, loss: inputs.losses };
    cross_entropy::cross_entropy(rec, "loss", targets, logits, vocab, (first, count), backward);
    Chunk { list, ids, picked, rstd, logits, norm }
}
