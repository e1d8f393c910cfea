//! Model files: bytes to a configuration and named tensors, for GGUF and safetensors, read by range.
//!
//! [`ModelFile`] is the door: it opens either container, checks every length, offset, count and type a file declares, gives tensors their
//! Hugging Face names and gives their rows, still in the file's own quantisation, in Hugging Face order.

mod check;
pub mod foreign;
pub mod gguf;
mod gguf_config;
mod gguf_value;
pub mod gguf_write;
mod hash;
mod header;
mod hf_config;
mod identity;
mod json;
mod model_file;
mod names;
#[cfg(not(target_arch = "wasm32"))]
mod open;
pub mod pickle;
mod rows;
pub mod safetensors;
mod source;
mod tensor_info;
pub mod zip;

pub use gguf::{Gguf, GgufTensor};
pub use gguf_value::{Array, MAX_ARRAY_DEPTH, MAX_ARRAY_LEN, MAX_KEY_BYTES, MAX_STRING_BYTES, Metadata, Value};
pub use hf_config::parse_config;
pub use identity::{BaseId, file_name};
pub use model_file::{ModelFile, SideFiles};
pub use names::{expected_tensors, gguf_name, gguf_row_order, hf_name};
pub use rows::RowOrder;
#[cfg(not(target_arch = "wasm32"))]
pub use source::File;
pub use source::{ByteSource, Bytes, LocalFuture, check_range};
pub use tensor_info::TensorInfo;
