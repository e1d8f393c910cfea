//! Rows of a table, dequantised: the embedding lookup.

use super::matrix::{Matrix, Params};
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, grid_1d};

/// One invocation per token and eight inputs: tokens, w, y.
pub const EMBED: KernelSpec = KernelSpec {
    name: "embed",
    source: include_str!("../../shaders/embed.wgsl"),
    bindings: &[Access::Input, Access::Read, Access::ReadWrite],
};

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
            pad: 0,
            members: [0; 4],
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
