//! Refuses what cannot be run, before anything is recorded.

use super::head::chunk_rows;
use crate::config::ModelConfig;
use crate::gpu::device::PlanLimits;
use crate::kernels::attention::MAX_HEAD_DIM;
use crate::{Error, Result};

/// Refuses shapes that attention is not written for.
pub(super) fn check_shape(file: &str, config: &ModelConfig) -> Result<()> {
    let width = config.head_dim;
    if width.is_multiple_of(4) && (4..=MAX_HEAD_DIM as usize).contains(&width) {
        return Ok(());
    }
    let what = format!("{file}: a head width of {width}");
    Err(Error::Unsupported { what, hint: format!("head widths are multiples of 4 up to {MAX_HEAD_DIM}") })
}

/// Refuses batches whose activations no binding holds; `rank` is the largest of the adapters at one site, `at_once` rows of `rows` go through the
/// feed-forward layer at once.
///
/// # Errors
/// [`Error::Limit`] with the tensor that is too large.
pub fn check_rows(config: &ModelConfig, rank: usize, rows: usize, at_once: usize, limits: PlanLimits) -> Result<()> {
    let logits = chunk_rows(config.vocab_size, rows);
    let widths = [
        // Attention reads all rows of these, so that they are in one binding each.
        ("the hidden states", config.hidden_size, rows, "use a smaller --batch or --seq, or a device that binds more"),
        ("the queries", config.q_width(), rows, "use a smaller --batch or --seq, or a device that binds more"),
        ("the feed-forward layer", config.intermediate_size, at_once, "use a smaller --batch or --seq, or a method without experts"),
        ("an adapter's inner product", rank, rows, "use a smaller --batch, --seq or --rank"),
        ("the logits", config.vocab_size, logits, "use a model with a smaller vocabulary"),
    ];
    let allowed = limits.addressable().min(limits.max_buffer);
    let bytes = |width: usize, rows: usize| 4 * width as u128 * rows as u128;
    let Some((what, width, rows, hint)) = widths.into_iter().find(|(_, width, rows, _)| bytes(*width, *rows) > allowed.into()) else {
        return Ok(());
    };
    Err(Error::Limit {
        what: format!("{what} of {rows} tokens"),
        needed: format!("{} bytes in one binding", bytes(width, rows)),
        allowed: format!("{allowed} bytes"),
        hint,
    })
}

/// Refuses token ids that the embedding has no row for.
///
/// # Errors
/// [`Error::Config`] with the id and the size of the vocabulary.
pub fn check_tokens(tokens: &[u32], config: &ModelConfig) -> Result<()> {
    match tokens.iter().find(|id| **id as usize >= config.vocab_size) {
        None => Ok(()),
        Some(id) => {
            let problem = format!("token {id} is past the model's vocabulary of {}", config.vocab_size);
            Err(Error::config("tokenizer", problem, "use the tokenizer that belongs to the model"))
        }
    }
}
