//! A tensor of a model file, whatever container it lies in.

use super::rows::RowOrder;
use crate::quant::QuantFormat;

/// A tensor of the model and where its bytes are.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Hugging Face name: `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Sizes in torch order: `[out, in]`, or `[width]`.
    pub shape: Vec<usize>,
    /// How the weights are stored.
    pub format: &'static QuantFormat,
    /// Offset of the first byte in its source.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// Which of the model's sources holds it.
    pub source: usize,
    /// How stored rows correspond to the rows that [`super::ModelFile::read_rows`] gives.
    pub row_order: RowOrder,
}

impl TensorInfo {
    /// Number of rows; a vector is one row.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len() - 1].iter().product()
    }

    /// Weights in a row.
    pub fn cols(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.cols() / self.format.block * self.format.block_bytes
    }
}
