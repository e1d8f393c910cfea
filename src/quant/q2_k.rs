//! q2_k: 256 weights in 16 sub-blocks with 4-bit scales and minima. `y = d * sc * q - dmin * m`.
//! Fields: scales[16] (low nibble sc, high nibble m), qs[64], d f16, dmin f16.
//! Order: each half of 128 weights uses 32 bytes of qs, whose bits 2j..2j+2 hold weights 32j..32j+32 of the half.

use super::bytes::{decode_blocks, half_at};
use super::format::{FloatField, QuantFormat};
use super::packed::{Fields, GpuLayout, Plane, u32_at};

const BLOCK: usize = 256;
const QS: usize = 16;
const D: usize = 80;
const DMIN: usize = 82;
const BYTES: usize = 84;
const _: () = assert!(QS + BLOCK / 4 == D && DMIN + 2 == BYTES);

/// Affine 2 bits with 4-bit sub-scales, 2.625 bits per weight.
pub static Q2_K: QuantFormat = QuantFormat {
    name: "q2_k",
    ggml_id: Some(10),
    safetensors_dtype: None,
    block: BLOCK,
    block_bytes: BYTES,
    floats: &[FloatField::f16(D), FloatField::f16(DMIN)],
    decode: |bytes, out| decode_blocks::<BYTES, BLOCK>(bytes, out, decode_block),
    encode: None,
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/q2_k.wgsl"),
        planes: &[Plane::new(16, 32), Plane::new(16, 8), Plane::new(256, 32)],
        weights: BLOCK,
        pack,
    },
};

fn decode_block(b: &[u8; BYTES], y: &mut [f32; BLOCK]) {
    let (d, dmin) = (half_at(b, D), half_at(b, DMIN));
    for (s, sub) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (half, shift) = (s / 8, s % 8 / 2 * 2);
        let scale = d * f32::from(b[s] & 15);
        let minimum = dmin * f32::from(b[s] >> 4);
        let qs = &b[QS + 32 * half + 16 * (s % 2)..][..16];
        for (out, q) in sub.iter_mut().zip(qs) {
            *out = scale * f32::from(q >> shift & 3) - minimum;
        }
    }
}

/// Two-bit codes in the order of the weights; q3_k's low bits have the same order.
pub(super) fn low_codes(qs: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|i| qs[32 * (i / 128) + i % 32] >> (i % 128 / 32 * 2) & 3)
}

fn pack(b: &[u8], out: &mut Fields) {
    out.put_codes(0, &low_codes(&b[QS..D]), 0, 2);
    for s in 0..16 {
        out.put(1, s, &[u32::from(b[s])]);
    }
    out.put(2, 0, &[u32_at(b, D)]);
}
