//! q5_0 and q5_1: like q4_0 and q4_1 with a fifth bit per weight, bit `j` of a u32 for weight `j`.
//! q5_0: `y = d * (q - 16)`; fields d f16, qh[4], qs[16]. q5_1: `y = d * q + m`; fields d f16, m f16, qh[4], qs[16].

use super::bytes::{affine, decode_blocks, encode_blocks, half_at, join_nibbles, symmetric};
use super::format::{FloatField, QuantFormat};
use super::packed::{Fields, GpuLayout, Plane, nibble_codes, u16_at, u32_at};

const BLOCK: usize = 32;
const BYTES_0: usize = 22;
const BYTES_1: usize = 24;
const _: () = assert!(2 + 4 + BLOCK / 2 == BYTES_0);
const _: () = assert!(4 + 4 + BLOCK / 2 == BYTES_1);

/// Symmetric 5 bits, 5.5 bits per weight.
pub static Q5_0: QuantFormat = QuantFormat {
    name: "q5_0",
    ggml_id: Some(6),
    safetensors_dtype: None,
    block: BLOCK,
    block_bytes: BYTES_0,
    floats: &[FloatField::f16(0)],
    decode: |bytes, out| {
        decode_blocks::<BYTES_0, BLOCK>(bytes, out, |b, y| {
            let d = half_at(b, 0);
            five_bits(&b[2..], y, |q| d * (f32::from(q) - 16.0));
        })
    },
    encode: Some(|weights, out| encode_blocks::<BYTES_0, BLOCK>(weights, out, encode_block_0)),
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/q5_0.wgsl"),
        planes: &[Plane::new(8, 32), Plane::new(32, 32), Plane::new(32, 16)],
        weights: BLOCK,
        pack: |b, out| {
            pack_codes(&b[2..], out);
            out.put(2, 0, &[u16_at(b, 0)]);
        },
    },
};

/// Affine 5 bits, 6 bits per weight.
pub static Q5_1: QuantFormat = QuantFormat {
    name: "q5_1",
    ggml_id: Some(7),
    safetensors_dtype: None,
    block: BLOCK,
    block_bytes: BYTES_1,
    floats: &[FloatField::f16(0), FloatField::f16(2)],
    decode: |bytes, out| {
        decode_blocks::<BYTES_1, BLOCK>(bytes, out, |b, y| {
            let (d, m) = (half_at(b, 0), half_at(b, 2));
            five_bits(&b[4..], y, |q| d * f32::from(q) + m);
        })
    },
    encode: Some(|weights, out| encode_blocks::<BYTES_1, BLOCK>(weights, out, encode_block_1)),
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/q5_1.wgsl"),
        planes: &[Plane::new(8, 32), Plane::new(32, 32), Plane::new(32, 32)],
        weights: BLOCK,
        pack: |b, out| {
            pack_codes(&b[4..], out);
            out.put(2, 0, &[u32_at(b, 0)]);
        },
    },
};

/// `codes` is qh[4] followed by qs[16].
fn five_bits(codes: &[u8], y: &mut [f32; BLOCK], value: impl Fn(u8) -> f32) {
    let high = u32::from_le_bytes([codes[0], codes[1], codes[2], codes[3]]);
    let fifth = |j: usize| ((high >> j & 1) as u8) << 4;
    for (j, &q) in codes[4..].iter().enumerate() {
        y[j] = value(q & 15 | fifth(j));
        y[j + BLOCK / 2] = value(q >> 4 | fifth(j + BLOCK / 2));
    }
}

fn encode_block_0(x: &[f32; BLOCK]) -> [u8; BYTES_0] {
    let (head, codes) = symmetric(x, 16);
    let mut b = [0; BYTES_0];
    b[..2].copy_from_slice(&head);
    put_five_bits(&codes, &mut b[2..]);
    b
}

fn encode_block_1(x: &[f32; BLOCK]) -> [u8; BYTES_1] {
    let (head, codes) = affine(x, 31);
    let mut b = [0; BYTES_1];
    b[..4].copy_from_slice(&head);
    put_five_bits(&codes, &mut b[4..]);
    b
}

/// The inverse of [`five_bits`].
fn put_five_bits(codes: &[u8; BLOCK], out: &mut [u8]) {
    let high = codes.iter().enumerate().fold(0, |bits, (j, code)| bits | u32::from(code >> 4) << j);
    out[..4].copy_from_slice(&high.to_le_bytes());
    join_nibbles(&codes.map(|code| code & 15), &mut out[4..]);
}

fn pack_codes(codes: &[u8], out: &mut Fields) {
    out.put_codes(0, &nibble_codes::<BLOCK>(&codes[4..]), 0, 4);
    out.put(1, 0, &[u32_at(codes, 0)]);
}
