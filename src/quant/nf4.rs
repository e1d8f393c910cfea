//! nf4: 64 weights of one row, one scale. `y = code[q] * absmax`. Fields: absmax f32, qs[32].
//!
//! This is our own layout, used when a float model is quantised at load. Codes, thresholds and rounding are those of bitsandbytes; the
//! bytes differ from its files in three ways: blocks never cross a row (so a row is addressable and in_features must be a multiple of 64),
//! the scale sits beside its codes, and weight `2k` is the *low* nibble of byte `k` (bitsandbytes: the high one), which is the order of the
//! GPU's code planes. Not double-quantised: 4.5 bits per weight.

use super::bytes::{decode_blocks, encode_blocks};
use super::format::{FloatField, QuantFormat};
use super::packed::{Fields, GpuLayout, Plane, u32_at};

const BLOCK: usize = 64;
const QS: usize = 4;
const BYTES: usize = 36;
const _: () = assert!(QS + BLOCK / 2 == BYTES);

/// NormalFloat 4 bits, 4.5 bits per weight.
pub static NF4: QuantFormat = QuantFormat {
    name: "nf4",
    ggml_id: None,
    safetensors_dtype: None,
    block: BLOCK,
    block_bytes: BYTES,
    floats: &[FloatField::f32(0)],
    decode: |bytes, out| decode_blocks::<BYTES, BLOCK>(bytes, out, decode_block),
    encode: Some(|weights, out| encode_blocks::<BYTES, BLOCK>(weights, out, encode_block)),
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/nf4.wgsl"),
        planes: &[Plane::new(8, 32), Plane::new(64, 32)],
        weights: BLOCK,
        pack,
    },
};

/// Values of the sixteen codes: quantiles of the normal distribution scaled to [-1, 1], with an exact zero (code 7).
#[allow(clippy::excessive_precision)] // the published digits
pub static NF4_CODE: [f32; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];

/// A scaled weight above `THRESHOLDS[i]` has a code above `i`: the midpoints of neighbouring codes, as published.
#[allow(clippy::excessive_precision)] // the published digits
static THRESHOLDS: [f32; 15] = [
    -0.8480964004993439,
    -0.6106329262256622,
    -0.4599952697753906,
    -0.33967943489551544,
    -0.23460740596055984,
    -0.13791173323988914,
    -0.045525018125772476,
    0.03979014977812767,
    0.1202552504837513,
    0.2035212516784668,
    0.2920137718319893,
    0.3893125355243683,
    0.5016634166240692,
    0.6427869200706482,
    0.8614784181118011,
];

/// Smallest scale whose inverse is taken, so that a block of zeros encodes as zeros.
const SMALLEST_ABSMAX: f32 = 1e-38;

fn decode_block(b: &[u8; BYTES], y: &mut [f32; BLOCK]) {
    let absmax = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    for (pair, &q) in y.as_chunks_mut::<2>().0.iter_mut().zip(&b[QS..]) {
        *pair = [NF4_CODE[usize::from(q & 15)] * absmax, NF4_CODE[usize::from(q >> 4)] * absmax];
    }
}

fn encode_block(x: &[f32; BLOCK]) -> [u8; BYTES] {
    let absmax = x.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
    let inverse = 1.0 / absmax.max(SMALLEST_ABSMAX);
    let code = |v: f32| {
        let scaled = (v * inverse).clamp(-1.0, 1.0);
        THRESHOLDS.iter().filter(|&&t| scaled > t).count() as u8
    };
    let mut b = [0; BYTES];
    b[..QS].copy_from_slice(&absmax.to_le_bytes());
    for (q, pair) in b[QS..].iter_mut().zip(x.as_chunks::<2>().0) {
        *q = code(pair[0]) | code(pair[1]) << 4;
    }
    b
}

fn pack(b: &[u8], out: &mut Fields) {
    let codes: [u8; BLOCK] = std::array::from_fn(|i| b[QS + i / 2] >> (4 * (i % 2)) & 15);
    out.put_codes(0, &codes, 0, 4);
    out.put(1, 0, &[u32_at(b, 0)]);
}
