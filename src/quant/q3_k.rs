//! q3_k: 256 weights in 16 sub-blocks with 6-bit scales. `y = d * (sc - 32) * q`, q in -4..=3.
//! Fields: hmask[32], qs[64], scales[12], d f16. Weight order as in q2_k; a *clear* bit `s / 2` of hmask subtracts 4.

use super::bytes::{decode_blocks, half_at};
use super::format::{FloatField, QuantFormat};
use super::packed::{Fields, GpuLayout, Plane, u16_at};
use super::q2_k::low_codes;

const BLOCK: usize = 256;
const QS: usize = 32;
const SCALES: usize = 96;
const D: usize = 108;
const BYTES: usize = 110;
const _: () = assert!(QS + BLOCK / 4 == SCALES && SCALES + 12 == D && D + 2 == BYTES);

/// Symmetric 3 bits with 6-bit sub-scales, 3.4375 bits per weight.
pub static Q3_K: QuantFormat = QuantFormat {
    name: "q3_k",
    ggml_id: Some(11),
    safetensors_dtype: None,
    block: BLOCK,
    block_bytes: BYTES,
    floats: &[FloatField::f16(D)],
    decode: |bytes, out| decode_blocks::<BYTES, BLOCK>(bytes, out, decode_block),
    encode: None,
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/q3_k.wgsl"),
        planes: &[Plane::new(16, 32), Plane::new(16, 16), Plane::new(16, 8), Plane::new(256, 16)],
        weights: BLOCK,
        pack,
    },
};

/// Scale of sub-block `s`: four low bits in the nibbles of bytes 0..8, two high bits in bytes 8..12.
fn scale(scales: &[u8], s: usize) -> u8 {
    let low = scales[s % 8] >> (4 * (s / 8)) & 15;
    let high = scales[8 + s % 4] >> (2 * (s / 4)) & 3;
    low | high << 4
}

fn decode_block(b: &[u8; BYTES], y: &mut [f32; BLOCK]) {
    let d = half_at(b, D);
    for (s, sub) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (half, shift, odd) = (s / 8, s % 8 / 2 * 2, 16 * (s % 2));
        let scale = d * (f32::from(scale(&b[SCALES..D], s)) - 32.0);
        let qs = &b[QS + 32 * half + odd..][..16];
        let high = &b[odd..][..16];
        for ((out, q), h) in sub.iter_mut().zip(qs).zip(high) {
            let offset = if h >> (s / 2) & 1 == 1 { 0.0 } else { 4.0 };
            *out = scale * (f32::from(q >> shift & 3) - offset);
        }
    }
}

fn pack(b: &[u8], out: &mut Fields) {
    out.put_codes(0, &low_codes(&b[QS..SCALES]), 0, 2);
    let third: [u8; BLOCK] = std::array::from_fn(|i| b[i % 32] >> (i / 32) & 1);
    out.put_codes(1, &third, 0, 1);
    for s in 0..16 {
        out.put(2, s, &[u32::from(scale(&b[SCALES..D], s).wrapping_sub(32))]);
    }
    out.put(3, 0, &[u16_at(b, D)]);
}
