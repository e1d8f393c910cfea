//! Unquantised weights: f32, f16, bf16. A "block" is one weight.

use super::bytes::{decode_blocks, encode_blocks};
use super::format::{FloatField, QuantFormat};
use super::packed::{GpuLayout, Plane, u32_at};
use half::{bf16, f16};

/// IEEE single precision.
pub static F32: QuantFormat = QuantFormat {
    name: "f32",
    ggml_id: Some(0),
    safetensors_dtype: Some("F32"),
    block: 1,
    block_bytes: 4,
    floats: &[FloatField::f32(0)],
    decode: |bytes, out| decode_blocks::<4, 1>(bytes, out, |b, y| y[0] = f32::from_le_bytes(*b)),
    encode: Some(|weights, out| encode_blocks::<4, 1>(weights, out, |x| x[0].to_le_bytes())),
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/f32.wgsl"),
        planes: &[Plane::new(8, 256)],
        weights: 8,
        pack: |b, out| out.put(0, 0, &std::array::from_fn::<u32, 8, _>(|i| u32_at(b, 4 * i))),
    },
};

/// IEEE half precision; encoding rounds to nearest even.
pub static F16: QuantFormat = QuantFormat {
    name: "f16",
    ggml_id: Some(1),
    safetensors_dtype: Some("F16"),
    block: 1,
    block_bytes: 2,
    floats: &[FloatField::f16(0)],
    decode: |bytes, out| decode_blocks::<2, 1>(bytes, out, |b, y| y[0] = f16::from_le_bytes(*b).to_f32()),
    encode: Some(|weights, out| encode_blocks::<2, 1>(weights, out, |x| f16::from_f32(x[0]).to_le_bytes())),
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/f16.wgsl"),
        planes: &[Plane::new(8, 128)],
        weights: 8,
        pack: |b, out| out.put(0, 0, &std::array::from_fn::<u32, 4, _>(|i| u32_at(b, 4 * i))),
    },
};

/// bfloat16; encoding rounds to nearest even.
pub static BF16: QuantFormat = QuantFormat {
    name: "bf16",
    ggml_id: Some(30),
    safetensors_dtype: Some("BF16"),
    block: 1,
    block_bytes: 2,
    floats: &[FloatField::bf16(0)],
    decode: |bytes, out| decode_blocks::<2, 1>(bytes, out, |b, y| y[0] = bf16::from_le_bytes(*b).to_f32()),
    encode: Some(|weights, out| encode_blocks::<2, 1>(weights, out, |x| bf16::from_f32(x[0]).to_le_bytes())),
    gpu: GpuLayout {
        wgsl: include_str!("../../shaders/quant/bf16.wgsl"),
        planes: &[Plane::new(8, 128)],
        weights: 8,
        pack: |b, out| out.put(0, 0, &std::array::from_fn::<u32, 4, _>(|i| u32_at(b, 4 * i))),
    },
};
