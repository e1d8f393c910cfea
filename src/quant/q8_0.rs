//! q8_0: 32 weights, one scale. `y = d * q`. Fields: d f16, qs i8[32].

use super::bytes::{decode_blocks, encode_blocks, half_at};
use super::format::{FloatField, QuantFormat};
use super::packed::{Fields, GpuLayout, Plane, u16_at};
use half::f16;

const BLOCK: usize = 32;
const QS: usize = 2;
const BYTES: usize = 34;
const _: () = assert!(QS + BLOCK == BYTES);

/// Symmetric 8 bits, 8.5 bits per weight.
pub static Q8_0: QuantFormat = QuantFormat {
    name: "q8_0",
    ggml_id: Some(8),
    safetensors_dtype: None,
    block: BLOCK,
    block_bytes: BYTES,
    floats: &[FloatField::f16(0)],
    decode: |bytes, out| decode_blocks::<BYTES, BLOCK>(bytes, out, decode_block),
    encode: Some(|weights, out| encode_blocks::<BYTES, BLOCK>(weights, out, encode_block)),
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/q8_0.wgsl"),
        planes: &[Plane::new(8, 64), Plane::new(32, 16)],
        weights: BLOCK,
        pack,
    },
};

fn decode_block(b: &[u8; BYTES], y: &mut [f32; BLOCK]) {
    let d = half_at(b, 0);
    for (out, &q) in y.iter_mut().zip(&b[QS..]) {
        *out = d * f32::from(q as i8);
    }
}

/// Rounds half away from zero with the f32 scale, as the reference does, although decoding will use the scale rounded to f16.
fn encode_block(x: &[f32; BLOCK]) -> [u8; BYTES] {
    let d = x.iter().fold(0.0f32, |largest, v| largest.max(v.abs())) / 127.0;
    let inverse = 1.0 / d;
    // A zero or subnormal scale has no finite inverse, and is zero in f16 anyway.
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    let mut b = [0; BYTES];
    b[..QS].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (q, v) in b[QS..].iter_mut().zip(x) {
        *q = (v * inverse).round() as i8 as u8;
    }
    b
}

fn pack(b: &[u8], out: &mut Fields) {
    out.put_codes(0, &b[QS..], 0, 8);
    out.put(1, 0, &[u16_at(b, 0)]);
}
