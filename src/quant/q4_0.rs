//! q4_0: 32 weights, one scale. `y = d * (q - 8)`. Fields: d f16, qs[16].

use super::bytes::{decode_blocks, encode_blocks, half_at, join_nibbles, split_nibbles, symmetric};
use super::format::{FloatField, QuantFormat};
use super::packed::{Fields, GpuLayout, Plane, nibble_codes, u16_at};

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

fn encode_block(x: &[f32; BLOCK]) -> [u8; BYTES] {
    let (head, codes) = symmetric(x, 8);
    let mut b = [0; BYTES];
    b[..QS].copy_from_slice(&head);
    join_nibbles(&codes, &mut b[QS..]);
    b
}

fn pack(b: &[u8], out: &mut Fields) {
    out.put_codes(0, &nibble_codes::<BLOCK>(&b[QS..]), 0, 4);
    out.put(1, 0, &[u16_at(b, 0)]);
}
