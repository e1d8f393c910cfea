//! What a row of the format table holds.

use super::packed::GpuLayout;
use half::{bf16, f16};

/// Appends the blocks of weights to `out`; see [`QuantFormat::encode`].
pub type Encode = fn(weights: &[f32], out: &mut Vec<u8>);

/// One block format: its size, its names in files, and how blocks become f32 and back.
pub struct QuantFormat {
    /// Lower-case name, as on the command line: "q4_1".
    pub name: &'static str,
    /// Number of the type in GGUF files; `None` when GGUF has no such type.
    pub ggml_id: Option<u32>,
    /// `dtype` in safetensors headers; `None` when safetensors has no such type.
    pub safetensors_dtype: Option<&'static str>,
    /// Weights in a block.
    pub block: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Floating-point fields of a block: the only places where NaN or infinity can hide.
    pub floats: &'static [FloatField],
    /// Decodes whole blocks. `bytes.len() / block_bytes == out.len() / block`, both without remainder, else it panics.
    pub decode: fn(bytes: &[u8], out: &mut [f32]),
    /// Appends the blocks of finite weights, whose number is a multiple of `block` (else it panics); `None`: decode only.
    /// A weight too large for the scale's type leaves an infinite scale, which [`QuantFormat::first_non_finite`] finds.
    pub encode: Option<Encode>,
    /// How the kernels read it.
    pub gpu: GpuLayout,
}

/// A floating-point number inside a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatField {
    /// Byte offset inside the block.
    pub offset: usize,
    /// How it is stored.
    pub kind: FloatKind,
}

/// How a floating-point field is stored; little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatKind {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl FloatField {
    pub(super) const fn f32(offset: usize) -> Self {
        Self { offset, kind: FloatKind::F32 }
    }
    pub(super) const fn f16(offset: usize) -> Self {
        Self { offset, kind: FloatKind::F16 }
    }
    pub(super) const fn bf16(offset: usize) -> Self {
        Self { offset, kind: FloatKind::Bf16 }
    }

    /// Its value in a block.
    pub(crate) fn read(self, block: &[u8]) -> f32 {
        let b = &block[self.offset..];
        match self.kind {
            FloatKind::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            FloatKind::F16 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
            FloatKind::Bf16 => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        }
    }

    /// Puts a value, rounded, into a block.
    pub(crate) fn write(self, block: &mut [u8], value: f32) {
        let b = &mut block[self.offset..];
        match self.kind {
            FloatKind::F32 => b[..4].copy_from_slice(&value.to_le_bytes()),
            FloatKind::F16 => b[..2].copy_from_slice(&f16::from_f32(value).to_le_bytes()),
            FloatKind::Bf16 => b[..2].copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
        }
    }
}

impl QuantFormat {
    /// Bytes of a row of `cols` weights, or `None` when `cols` is not a whole number of blocks (or the product overflows).
    pub fn row_bytes(&self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block) {
            return None;
        }
        (cols / self.block).checked_mul(self.block_bytes)
    }

    /// Bits per weight on disk: 5.0 for q4_1.
    pub fn bits_per_weight(&self) -> f64 {
        self.block_bytes as f64 * 8.0 / self.block as f64
    }

    /// Decodes whole blocks into a fresh vector. Panics when `bytes` is not a whole number of blocks.
    pub fn decode_vec(&self, bytes: &[u8]) -> Vec<f32> {
        assert!(bytes.len().is_multiple_of(self.block_bytes), "{} bytes are no whole number of {} blocks", bytes.len(), self.name);
        let mut out = vec![0.0; bytes.len() / self.block_bytes * self.block];
        (self.decode)(bytes, &mut out);
        out
    }

    /// Words of `rows` × `cols` weights on the GPU.
    pub fn packed_words(&self, rows: usize, cols: usize) -> usize {
        self.gpu.words(rows, cols)
    }

    /// Rows of stored blocks as the kernels read them, [`QuantFormat::packed_words`] words.
    ///
    /// # Panics
    /// If `bytes` is not `rows` rows of `cols` weights: the header was checked before anything was read.
    pub fn repack(&self, rows: usize, cols: usize, bytes: &[u8]) -> Vec<u32> {
        let row_bytes = self.row_bytes(cols).filter(|b| b * rows == bytes.len());
        let row_bytes = row_bytes.unwrap_or_else(|| panic!("{} bytes are not {rows} rows of {cols} {} weights", bytes.len(), self.name));
        self.gpu.pack_rows(rows, cols, bytes, row_bytes, self.gpu.weights / self.block * self.block_bytes)
    }

    /// Index of the first block of `bytes` with a NaN or infinite scale (for plain floats: of the first such weight).
    pub fn first_non_finite(&self, bytes: &[u8]) -> Option<usize> {
        bytes.chunks_exact(self.block_bytes).position(|block| !self.floats.iter().all(|f| f.read(block).is_finite()))
    }
}

impl PartialEq for QuantFormat {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for QuantFormat {}

impl std::fmt::Debug for QuantFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
