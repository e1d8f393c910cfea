//! q4_k: 256 weights in 8 sub-blocks with 6-bit scales and minima. `y = d * sc * q - dmin * m`.
//! Fields: d f16, dmin f16, scales[12], qs[128]. Each 32 bytes of qs hold two sub-blocks: low nibbles, then high nibbles.

use super::bytes::{decode_blocks, half_at};
use super::format::{FloatField, QuantFormat};
use super::packed::{Fields, GpuLayout, Plane, u32_at};

const BLOCK: usize = 256;
const SCALES: usize = 4;
const QS: usize = 16;
const BYTES: usize = 144;
const _: () = assert!(SCALES + 12 == QS && QS + BLOCK / 2 == BYTES);

/// Affine 4 bits with 6-bit sub-scales, 4.5 bits per weight.
pub static Q4_K: QuantFormat = QuantFormat {
    name: "q4_k",
    ggml_id: Some(12),
    safetensors_dtype: None,
    block: BLOCK,
    block_bytes: BYTES,
    floats: &[FloatField::f16(0), FloatField::f16(2)],
    decode: |bytes, out| decode_blocks::<BYTES, BLOCK>(bytes, out, decode_block),
    encode: None,
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/q4_k.wgsl"),
        planes: &[Plane::new(8, 32), Plane::new(32, 16), Plane::new(256, 32)],
        weights: BLOCK,
        pack,
    },
};

/// The 6-bit scale and minimum of sub-block `s` (0..8) from the twelve packed bytes of q4_k and q5_k: the first four of each fill the low six
/// bits of bytes 0..4 and 4..8; the last four keep their low nibbles in bytes 8..12 and their top two bits above the first four's.
pub(super) fn scale_and_min(scales: &[u8], s: usize) -> (u8, u8) {
    if s < 4 {
        (scales[s] & 63, scales[s + 4] & 63)
    } else {
        (scales[s + 4] & 15 | scales[s - 4] >> 6 << 4, scales[s + 4] >> 4 | scales[s] >> 6 << 4)
    }
}

fn decode_block(b: &[u8; BYTES], y: &mut [f32; BLOCK]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    for (s, sub) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (sc, m) = scale_and_min(&b[SCALES..QS], s);
        let (scale, minimum) = (d * f32::from(sc), dmin * f32::from(m));
        let shift = 4 * (s % 2);
        for (out, q) in sub.iter_mut().zip(&b[QS + 32 * (s / 2)..][..32]) {
            *out = scale * f32::from(q >> shift & 15) - minimum;
        }
    }
}

/// Nibbles in the order of the weights: each 32 bytes hold 32 low, then 32 high.
pub(super) fn nibbles_of_64(qs: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|i| qs[32 * (i / 64) + i % 32] >> (i % 64 / 32 * 4) & 15)
}

/// Scales and minima as pairs of bytes.
pub(super) fn put_scales(scales: &[u8], out: &mut Fields, plane: usize) {
    for s in 0..8 {
        let (sc, m) = scale_and_min(scales, s);
        out.put(plane, s, &[u32::from(sc) | u32::from(m) << 8]);
    }
}

fn pack(b: &[u8], out: &mut Fields) {
    out.put_codes(0, &nibbles_of_64(&b[QS..]), 0, 4);
    put_scales(&b[SCALES..QS], out, 1);
    out.put(2, 0, &[u32_at(b, 0)]);
}
