//! q6_k: 256 weights in 16 sub-blocks with 8-bit scales. `y = d * sc * (q - 32)`.
//! Fields: ql[128], qh[64], scales i8[16], d f16. Each half of 128 weights uses 64 bytes of ql and 32 of qh; quarter `j` (32 weights) of a half
//! takes nibble `j / 2` of ql[32 (j % 2)..] and bits 2j..2j+2 of qh.

use super::bytes::{decode_blocks, half_at};
use super::format::{FloatField, QuantFormat};
use super::packed::{Fields, GpuLayout, Plane, u16_at};

const BLOCK: usize = 256;
const QH: usize = 128;
const SCALES: usize = 192;
const D: usize = 208;
const BYTES: usize = 210;
const _: () = assert!(BLOCK / 2 == QH && QH + BLOCK / 4 == SCALES && SCALES + 16 == D && D + 2 == BYTES);

/// Symmetric 6 bits with 8-bit sub-scales, 6.5625 bits per weight.
pub static Q6_K: QuantFormat = QuantFormat {
    name: "q6_k",
    ggml_id: Some(14),
    safetensors_dtype: None,
    block: BLOCK,
    block_bytes: BYTES,
    floats: &[FloatField::f16(D)],
    decode: |bytes, out| decode_blocks::<BYTES, BLOCK>(bytes, out, decode_block),
    encode: None,
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/q6_k.wgsl"),
        planes: &[Plane::new(8, 32), Plane::new(16, 32), Plane::new(16, 8), Plane::new(256, 16)],
        weights: BLOCK,
        pack,
    },
};

fn decode_block(b: &[u8; BYTES], y: &mut [f32; BLOCK]) {
    let d = half_at(b, D);
    for (s, sub) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (half, quarter, odd) = (s / 8, s % 8 / 2, 16 * (s % 2));
        let scale = d * f32::from(b[SCALES + s] as i8);
        let ql = &b[64 * half + 32 * (quarter % 2) + odd..][..16];
        let qh = &b[QH + 32 * half + odd..][..16];
        for ((out, l), h) in sub.iter_mut().zip(ql).zip(qh) {
            let q = l >> (4 * (quarter / 2)) & 15 | (h >> (2 * quarter) & 3) << 4;
            *out = scale * (f32::from(q) - 32.0);
        }
    }
}

fn pack(b: &[u8], out: &mut Fields) {
    let codes: [u8; BLOCK] = std::array::from_fn(|i| {
        let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        let low = b[64 * half + 32 * (quarter % 2) + l] >> (4 * (quarter / 2)) & 15;
        low | (b[QH + 32 * half + l] >> (2 * quarter) & 3) << 4
    });
    out.put_codes(0, &codes, 0, 4);
    out.put_codes(1, &codes, 4, 2);
    for s in 0..16 {
        out.put(2, s, &[u32::from(b[SCALES + s])]);
    }
    out.put(3, 0, &[u16_at(b, D)]);
}
