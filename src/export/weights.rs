//! The tensors of an adapter's file, whether it is safetensors or an archive of `torch.save`.

use std::borrow::Cow;

use safetensors::tensor::SafeTensors;

use super::folder::{PICKLE_FILE, WEIGHTS_FILE};
use crate::formats::pickle;
use crate::quant::{self, QuantFormat};
use crate::{Error, Result};

/// A named tensor of a file.
pub(super) struct Weight<'a> {
    /// Its name.
    pub name: String,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Type of its numbers; or what it is instead of a float.
    format: std::result::Result<&'static QuantFormat, String>,
    bytes: Cow<'a, [u8]>,
}

impl Weight<'_> {
    /// The numbers, or what is wrong with them.
    pub fn values(&self) -> std::result::Result<Vec<f32>, String> {
        let format = self.format.as_ref().map_err(|dtype| format!("is {dtype}; F32, F16 or BF16 was expected"))?;
        match format.first_non_finite(&self.bytes) {
            Some(at) => Err(format!("is NaN or infinite at element {at}")),
            None => Ok(format.decode_vec(&self.bytes)),
        }
    }
}

impl Weight<'_> {
    /// Whole numbers, which only our own tensors are; or what is wrong with them.
    pub fn whole_numbers(&self) -> std::result::Result<Vec<u32>, String> {
        match &self.format {
            Err(dtype) if dtype == "U32" => Ok(self.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
            Err(dtype) => Err(format!("is {dtype}; U32 was expected")),
            Ok(format) => Err(format!("is {}; U32 was expected", format.name)),
        }
    }
}

/// The name of the file whose bytes these are.
pub(super) fn file_of(weights: &[u8]) -> &'static str {
    if pickle::is_archive(weights) { PICKLE_FILE } else { WEIGHTS_FILE }
}

/// All tensors of the adapter that errors call `adapter`, sorted by name, so that of several mistakes it is always the same one that is named.
pub(super) fn read<'a>(adapter: &str, weights: &'a [u8], hint: &'static str) -> Result<Vec<Weight<'a>>> {
    let mut tensors: Vec<Weight<'a>> = if pickle::is_archive(weights) {
        let tensors = pickle::read(&format!("adapter {adapter}: {PICKLE_FILE}"), weights)?.into_iter();
        tensors.map(|t| Weight { name: t.name, shape: t.shape, format: Ok(t.format), bytes: t.bytes }).collect()
    } else {
        let damaged =
            |e| Error::Adapter { adapter: adapter.to_owned(), problem: format!("{WEIGHTS_FILE}: not a whole safetensors file: {e}"), hint };
        let tensors = SafeTensors::deserialize(weights).map_err(damaged)?.tensors().into_iter();
        let weight = |(name, view): (String, safetensors::tensor::TensorView<'a>)| {
            let dtype = format!("{:?}", view.dtype());
            let format = quant::by_safetensors_dtype(&dtype).ok_or(dtype);
            Weight { name, shape: view.shape().to_vec(), format, bytes: Cow::Borrowed(view.data()) }
        };
        tensors.map(weight).collect()
    };
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}
