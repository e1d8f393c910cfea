//! Block formats of weights: one table row and one file per format (or close family).
//!
//! A row of a weight matrix is a whole number of *blocks*; a block packs a fixed number of weights into a fixed number of bytes.
//! Everything that depends on the format hangs on its [`QuantFormat`] row, so nothing else in the crate matches on formats.
//! To add a format: a file here, a row in [`FORMATS`], a golden in `tests/golden/make_quant.py`.

mod bytes;
mod float;
mod format;
mod iq4;
mod nf4;
mod packed;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5;
mod q5_k;
mod q6_k;
mod q8_0;

pub use float::{BF16, F16, F32};
pub use format::{Encode, FloatField, FloatKind, QuantFormat};
pub use iq4::{IQ4_NL, IQ4_XS};
pub use nf4::{NF4, NF4_CODE};
pub use packed::{Fields, GpuLayout, Plane, QUAD};
pub use q2_k::Q2_K;
pub use q3_k::Q3_K;
pub use q4_0::Q4_0;
pub use q4_1::Q4_1;
pub use q4_k::Q4_K;
pub use q5::{Q5_0, Q5_1};
pub use q5_k::Q5_K;
pub use q6_k::Q6_K;
pub use q8_0::Q8_0;

/// Every format that weights may be stored in.
pub static FORMATS: &[&QuantFormat] =
    &[&F32, &F16, &BF16, &Q4_0, &Q4_1, &Q5_0, &Q5_1, &Q8_0, &Q2_K, &Q3_K, &Q4_K, &Q5_K, &Q6_K, &IQ4_NL, &IQ4_XS, &NF4];

/// The format of that lower-case name ("q4_1"), if there is one.
pub fn by_name(name: &str) -> Option<&'static QuantFormat> {
    FORMATS.iter().copied().find(|f| f.name == name)
}

/// The format that GGUF numbers `id`, if it is supported.
pub fn by_ggml_id(id: u32) -> Option<&'static QuantFormat> {
    FORMATS.iter().copied().find(|f| f.ggml_id == Some(id))
}

/// The format of a safetensors `dtype` ("BF16"), if it is supported.
pub fn by_safetensors_dtype(dtype: &str) -> Option<&'static QuantFormat> {
    FORMATS.iter().copied().find(|f| f.safetensors_dtype == Some(dtype))
}
