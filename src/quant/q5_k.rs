//! q5_k: q4_k with a fifth bit. `y = d * sc * q - dmin * m`.
//! Fields: d f16, dmin f16, scales[12], qh[32], qs[128]. Bit `s` of qh[l] is the fifth bit of weight `l` of sub-block `s`.

use super::bytes::{decode_blocks, half_at};
use super::format::{FloatField, QuantFormat};
use super::packed::{Fields, GpuLayout, Plane, u32_at};
use super::q4_k::{nibbles_of_64, put_scales, scale_and_min};

const BLOCK: usize = 256;
const SCALES: usize = 4;
const QH: usize = 16;
const QS: usize = 48;
const BYTES: usize = 176;
const _: () = assert!(SCALES + 12 == QH && QH + BLOCK / 8 == QS && QS + BLOCK / 2 == BYTES);

/// Affine 5 bits with 6-bit sub-scales, 5.5 bits per weight.
pub static Q5_K: QuantFormat = QuantFormat {
    name: "q5_k",
    ggml_id: Some(13),
    safetensors_dtype: None,
    block: BLOCK,
    block_bytes: BYTES,
    floats: &[FloatField::f16(0), FloatField::f16(2)],
    decode: |bytes, out| decode_blocks::<BYTES, BLOCK>(bytes, out, decode_block),
    encode: None,
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/q5_k.wgsl"),
        planes: &[Plane::new(8, 32), Plane::new(32, 32), Plane::new(32, 16), Plane::new(256, 32)],
        weights: BLOCK,
        pack,
    },
};

fn decode_block(b: &[u8; BYTES], y: &mut [f32; BLOCK]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    for (s, sub) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (sc, m) = scale_and_min(&b[SCALES..QH], s);
        let (scale, minimum) = (d * f32::from(sc), dmin * f32::from(m));
        let shift = 4 * (s % 2);
        for ((out, q), h) in sub.iter_mut().zip(&b[QS + 32 * (s / 2)..][..32]).zip(&b[QH..QS]) {
            *out = scale * f32::from(q >> shift & 15 | (h >> s & 1) << 4) - minimum;
        }
    }
}

fn pack(b: &[u8], out: &mut Fields) {
    out.put_codes(0, &nibbles_of_64(&b[QS..]), 0, 4);
    let fifth: [u8; BLOCK] = std::array::from_fn(|i| b[QH + i % 32] >> (i / 32) & 1);
    out.put_codes(1, &fifth, 0, 1);
    put_scales(&b[SCALES..QH], out, 2);
    out.put(3, 0, &[u32_at(b, 0)]);
}
