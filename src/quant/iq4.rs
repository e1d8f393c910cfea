//! iq4_nl and iq4_xs: 4-bit codes into a fixed non-linear table.
//! iq4_nl: 32 weights, `y = d * T[q]`; fields d f16, qs[16].
//! iq4_xs: 256 weights in 8 sub-blocks, `y = d * (s - 32) * T[q]` with 6-bit s; fields d f16, scales_h u16, scales_l[4], qs[128].

use super::bytes::{decode_blocks, half_at, split_nibbles};
use super::format::{FloatField, QuantFormat};
use super::packed::{Fields, GpuLayout, Plane, nibble_codes, u16_at};

const BLOCK_NL: usize = 32;
const BYTES_NL: usize = 18;
const BLOCK_XS: usize = 256;
const BYTES_XS: usize = 136;
/// Weights of a sub-block of iq4_xs.
const SUB: usize = 32;
const SCALES_L: usize = 4;
const QS_XS: usize = 8;
const _: () = assert!(2 + BLOCK_NL / 2 == BYTES_NL);
const _: () = assert!(QS_XS + BLOCK_XS / 2 == BYTES_XS);

static TABLE: [f32; 16] = [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// Non-linear 4 bits, 4.5 bits per weight.
pub static IQ4_NL: QuantFormat = QuantFormat {
    name: "iq4_nl",
    ggml_id: Some(20),
    safetensors_dtype: None,
    block: BLOCK_NL,
    block_bytes: BYTES_NL,
    floats: &[FloatField::f16(0)],
    decode: |bytes, out| {
        decode_blocks::<BYTES_NL, BLOCK_NL>(bytes, out, |b, y| {
            let d = half_at(b, 0);
            split_nibbles(&b[2..], y, |q| d * TABLE[usize::from(q)]);
        })
    },
    encode: None,
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/iq4_nl.wgsl"),
        planes: &[Plane::new(8, 32), Plane::new(32, 16)],
        weights: BLOCK_NL,
        pack: |b, out| {
            out.put_codes(0, &nibble_codes::<BLOCK_NL>(&b[2..]), 0, 4);
            out.put(1, 0, &[u16_at(b, 0)]);
        },
    },
};

/// Non-linear 4 bits with 6-bit sub-scales, 4.25 bits per weight.
pub static IQ4_XS: QuantFormat = QuantFormat {
    name: "iq4_xs",
    ggml_id: Some(23),
    safetensors_dtype: None,
    block: BLOCK_XS,
    block_bytes: BYTES_XS,
    floats: &[FloatField::f16(0)],
    decode: |bytes, out| decode_blocks::<BYTES_XS, BLOCK_XS>(bytes, out, decode_xs),
    encode: None,
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/iq4_xs.wgsl"),
        planes: &[Plane::new(8, 32), Plane::new(32, 8), Plane::new(256, 16)],
        weights: BLOCK_XS,
        pack: pack_xs,
    },
};

fn decode_xs(b: &[u8; BYTES_XS], y: &mut [f32; BLOCK_XS]) {
    let d = half_at(b, 0);
    for s in 0..BLOCK_XS / SUB {
        let scale = d * (f32::from(scale_xs(b, s)) - 32.0);
        split_nibbles(&b[QS_XS + s * SUB / 2..][..SUB / 2], &mut y[s * SUB..][..SUB], |q| scale * TABLE[usize::from(q)]);
    }
}

fn pack_xs(b: &[u8], out: &mut Fields) {
    let codes: [u8; BLOCK_XS] = std::array::from_fn(|i| b[QS_XS + 16 * (i / SUB) + i % 16] >> (i % SUB / 16 * 4) & 15);
    out.put_codes(0, &codes, 0, 4);
    for s in 0..BLOCK_XS / SUB {
        out.put(1, s, &[u32::from(scale_xs(b, s).wrapping_sub(32))]);
    }
    out.put(2, 0, &[u16_at(b, 0)]);
}

/// The 6-bit scale of sub-block `s`.
fn scale_xs(b: &[u8], s: usize) -> u8 {
    let low = b[SCALES_L + s / 2] >> (4 * (s % 2)) & 15;
    low | ((u16_at(b, 2) >> (2 * s) & 3) as u8) << 4
}
