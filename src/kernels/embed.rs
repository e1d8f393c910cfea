//! tmp
use super::matmul::TMP;
use super::matrix::Matrix;
use crate::gpu::{Dispatch, Recorder, Tensor, Variant};
/// tmp
pub fn gather(rec: &mut Recorder, label: &str, tokens: Tensor, w: &Matrix, x: Tensor) {
    let p = w.parts[0];
    let params: [u32; 8] = [tokens.len, p.rows as u32, w.cols as u32, 0, w.rows as u32, 0, 2, 0];
    rec.dispatch(
        &TMP,
        Variant::new(),
        [(w.cols as u32).div_ceil(64), tokens.len, 1],
        Dispatch::new(label, &params, &[x, p.tensor, tokens], 0),
    );
}
