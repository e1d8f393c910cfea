//! Tensors for a probe: noise, zeros, tables, and frozen matrices of random but valid blocks.

use std::ops::Range;

use crate::gpu::{Class, Gpu, Store, Tensor};
use crate::kernels::matrix::{Matrix, Part};
use crate::quant::QuantFormat;
use crate::{Result, rng};

/// Bytes of a matrix that are made at a time.
const PART_BYTES: usize = 32 << 20;
/// Rows of a part are a multiple of this.
const PART_ROWS: usize = 64;

/// A store that fills what it declares once it is allocated.
#[derive(Default)]
pub(super) struct Scene {
    /// What was declared.
    pub store: Store,
    fills: Vec<(Tensor, Vec<u32>)>,
    matrices: Vec<Matrix>,
}

impl Scene {
    /// A tensor of zeros. What a kernel changes in place starts here: noise would shrink to denormals run by run.
    pub fn zeros(&mut self, label: &str, len: usize) -> Result<Tensor> {
        self.store.declare(label, Class::Io, len)
    }

    /// A tensor of numbers in (-1, 1).
    pub fn noise(&mut self, label: &str, len: usize) -> Result<Tensor> {
        let values: Vec<u32> = noise(label, len).into_iter().map(f32::to_bits).collect();
        self.words(label, values)
    }

    /// A tensor of these words.
    pub fn words(&mut self, label: &str, words: Vec<u32>) -> Result<Tensor> {
        let tensor = self.store.declare(label, Class::Io, words.len())?;
        self.fills.push((tensor, words));
        Ok(tensor)
    }

    /// A frozen matrix `[n, k]`; `k` is a multiple of the format's block.
    pub fn matrix(&mut self, format: &'static QuantFormat, n: usize, k: usize) -> Result<Matrix> {
        let rows = (PART_BYTES / 4 / format.packed_words(1, k).max(1)).next_multiple_of(PART_ROWS).min(n);
        let mut parts = Vec::new();
        for row_start in (0..n).step_by(rows) {
            let rows = rows.min(n - row_start);
            let tensor = self.store.declare(format!("{}[{row_start}]", format.name), Class::Weights, format.packed_words(rows, k))?;
            parts.push(Part { tensor, row_start, rows });
        }
        let matrix = Matrix { format, rows: n, cols: k, parts, members: Vec::new() };
        self.matrices.push(matrix.clone());
        Ok(matrix)
    }

    /// Allocates and fills everything; one part of a matrix is on the host at a time.
    pub async fn allocate(mut self, gpu: &Gpu) -> Result<Store> {
        self.store.allocate(gpu).await?;
        for (tensor, words) in &self.fills {
            self.store.write(gpu, *tensor, words)?;
        }
        for matrix in &self.matrices {
            for part in &matrix.parts {
                let packed = matrix.format.repack(part.rows, matrix.cols, &blocks(matrix, part));
                self.store.write(gpu, part.tensor, &packed)?;
                gpu.flush().await?;
            }
        }
        Ok(self.store)
    }
}

/// The numbers that [`Scene::noise`] puts into the tensor of this label.
pub(super) fn noise(label: &str, len: usize) -> Vec<f32> {
    rng::fill_uniform(label, len, 1.0)
}

/// The stored bytes of a part.
pub(super) fn blocks(matrix: &Matrix, part: &Part) -> Vec<u8> {
    let format = matrix.format;
    let count = part.rows * matrix.cols / format.block;
    random_blocks(format, rng::fnv1a(&format!("{}/{}", format.name, part.row_start)), 0..count as u64)
}

/// Blocks of a sequence: random codes, and floating-point fields between 1/64 and 1/32 of either sign. Any range of it can be made alone.
pub(super) fn random_blocks(format: &QuantFormat, seed: u64, blocks: Range<u64>) -> Vec<u8> {
    let size = format.block_bytes as u64;
    let (begin, end) = (blocks.start * size, blocks.end * size);
    let mut bytes: Vec<u8> = (begin / 8..end.div_ceil(8)).flat_map(|i| rng::bits(seed, i + 1).to_le_bytes()).collect();
    bytes.drain(..(begin % 8) as usize);
    bytes.truncate((end - begin) as usize);
    for block in bytes.chunks_exact_mut(format.block_bytes) {
        for field in format.floats {
            let at = &block[field.offset..];
            let random = u16::from_le_bytes([at[0], at[1]]);
            let magnitude = (1.0 + f32::from(random >> 1) / 32768.0) / 64.0;
            field.write(block, if random & 1 == 0 { magnitude } else { -magnitude });
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::FORMATS;

    #[test]
    fn random_blocks_are_valid_in_every_format() {
        for format in FORMATS {
            let mut scene = Scene::default();
            let matrix = scene.matrix(format, 3, 512).expect("declared");
            let bytes = blocks(&matrix, &matrix.parts[0]);
            assert_eq!(bytes.len(), 3 * format.row_bytes(512).expect("whole blocks"));
            assert_eq!(format.first_non_finite(&bytes), None, "{}", format.name);
            let weights = format.decode_vec(&bytes);
            assert!(weights.iter().any(|w| *w > 0.0) && weights.iter().any(|w| *w < 0.0), "{}", format.name);
        }
    }
}
