//! A frozen matrix on the GPU.
use crate::gpu::Tensor;
use crate::quant::QuantFormat;
/// Rows of a matrix in one binding.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Packed rows.
    pub tensor: Tensor,
    /// First row.
    pub row_start: usize,
    /// Number of rows.
    pub rows: usize,
}
/// A frozen matrix.
#[derive(Clone)]
pub struct Matrix {
    /// Format.
    pub format: &'static QuantFormat,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Bindings.
    pub parts: Vec<Part>,
}
impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}, {}]", self.format.name, self.rows, self.cols)
    }
}
impl QuantFormat {
    /// tmp
    pub fn packed_words(&self, rows: usize, cols: usize) -> usize {
        rows * cols
    }
    /// tmp
    pub fn repack(&self, _rows: usize, _cols: usize, bytes: &[u8]) -> Vec<u32> {
        self.decode_vec(bytes).iter().map(|v| v.to_bits()).collect()
    }
}
