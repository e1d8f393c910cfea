//! q4_0: 32 weights, one scale. `y = d * (q - 8)`. Fields: d f16, qs[16].

use super::bytes::{decode_blocks, encode_blocks, half_at, split_nibbles};
use super::format::{FloatField, QuantFormat};
use super::packed::{Fields, GpuLayout, Plane, nibble_codes, u16_at};
use half::f16;

const BLOCK: usize = 32;
const QS: usize = 2;
const BYTES: usize = 18;
const _: () = assert!(QS + BLOCK / 2 == BYTES);

/// Symmetric 4 bits, 4.5 bits per weight.
pub static Q4_0: QuantFormat = QuantFormat {
    name: "q4_0",
    ggml_id: Some(2),
    safetensors_dtype: None,
    block: BLOCK,
    block_bytes: BYTES,
    floats: &[FloatField::f16(0)],
    decode: |bytes, out| decode_blocks::<BYTES, BLOCK>(bytes, out, decode_block),
    encode: Some(|weights, out| encode_blocks::<BYTES, BLOCK>(weights, out, encode_block)),
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/q4_0.wgsl"),
        planes: &[Plane::new(8, 32), Plane::new(32, 16)],
        weights: BLOCK,
        pack,
    },
};

fn decode_block(b: &[u8; BYTES], y: &mut [f32; BLOCK]) {
    let d = half_at(b, 0);
    split_nibbles(&b[QS..], y, |q| d * (f32::from(q) - 8.0));
}

/// The weight of largest magnitude (the first of equals) becomes code 0, that is -8 d; the others round to nearest with the f32 scale,
/// as the reference does, although decoding will use the scale rounded to f16.
fn encode_block(x: &[f32; BLOCK]) -> [u8; BYTES] {
    let extreme = x.iter().fold(0.0f32, |best, &v| if v.abs() > best.abs() { v } else { best });
    let d = extreme / -8.0;
    let inverse = 1.0 / d;
    // A zero or subnormal scale has no finite inverse, and is zero in f16 anyway.
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    let code = |v: f32| ((v * inverse + 8.5).trunc() as u8).min(15);
    let mut b = [0; BYTES];
    b[..QS].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for j in 0..BLOCK / 2 {
        b[QS + j] = code(x[j]) | code(x[j + BLOCK / 2]) << 4;
    }
    b
}

fn pack(b: &[u8], out: &mut Fields) {
    out.put_codes(0, &nibble_codes::<BLOCK>(&b[QS..]), 0, 4);
    out.put(1, 0, &[u16_at(b, 0)]);
}
