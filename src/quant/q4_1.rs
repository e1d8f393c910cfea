//! q4_1: 32 weights, scale and minimum. `y = d * q + m`. Fields: d f16, m f16, qs[16].

use super::bytes::{affine, decode_blocks, encode_blocks, half_at, join_nibbles, split_nibbles};
use super::format::{FloatField, QuantFormat};
use super::packed::{Fields, GpuLayout, Plane, nibble_codes, u32_at};

const BLOCK: usize = 32;
const QS: usize = 4;
const BYTES: usize = 20;
const _: () = assert!(QS + BLOCK / 2 == BYTES);

/// Affine 4 bits, 5 bits per weight.
pub static Q4_1: QuantFormat = QuantFormat {
    name: "q4_1",
    ggml_id: Some(3),
    safetensors_dtype: None,
    block: BLOCK,
    block_bytes: BYTES,
    floats: &[FloatField::f16(0), FloatField::f16(2)],
    decode: |bytes, out| decode_blocks::<BYTES, BLOCK>(bytes, out, decode_block),
    encode: Some(|weights, out| encode_blocks::<BYTES, BLOCK>(weights, out, encode_block)),
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/q4_1.wgsl"),
        planes: &[Plane::new(8, 32), Plane::new(32, 32)],
        weights: BLOCK,
        pack,
    },
};

fn decode_block(b: &[u8; BYTES], y: &mut [f32; BLOCK]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    split_nibbles(&b[QS..], y, |q| d * f32::from(q) + m);
}

fn encode_block(x: &[f32; BLOCK]) -> [u8; BYTES] {
    let (head, codes) = affine(x, 15);
    let mut b = [0; BYTES];
    b[..QS].copy_from_slice(&head);
    join_nibbles(&codes, &mut b[QS..]);
    b
}

fn pack(b: &[u8], out: &mut Fields) {
    out.put_codes(0, &nibble_codes::<BLOCK>(&b[QS..]), 0, 4);
    out.put(1, 0, &[u32_at(b, 0)]);
}
