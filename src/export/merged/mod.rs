//! Base and adapter as one model, streamed: a few rows of one tensor are in memory at a time, never a whole model.

pub mod gguf;
mod hf_config;
pub mod safetensors;

use std::collections::BTreeMap;
use std::ops::Range;

use super::exporters::Request;
use super::retention::{Retention, TensorExport, encode};
use crate::Result;
use crate::adapters::{Projection, norms};
use crate::analysis::Factors;
use crate::formats::{ModelFile, RowOrder, TensorInfo};
use crate::quant::QuantFormat;

/// Weights that are in memory at a time, about.
const PIECE: usize = 1 << 20;

/// What the adapter does, by the name of the weight it does it to.
struct Updates<'a> {
    model: &'a ModelFile,
    by_tensor: BTreeMap<String, (Projection, Factors<'a>)>,
    /// Norms that take the place of the base's.
    norms: BTreeMap<String, &'a [f32]>,
}

impl<'a> Updates<'a> {
    fn new(request: &Request<'a>) -> Result<Self> {
        let adapter = request.plain("a merged model")?;
        let of = |site: &'a super::peft::PeftSite| {
            Ok((format!("{}.weight", site.site.module()), (site.site.projection, site.factors(adapter.rslora)?)))
        };
        let names = norms::names(adapter.norms.len() / 2).map(|name| format!("model.{name}.weight"));
        let norms = names.zip(adapter.norms.iter().map(Vec::as_slice)).collect();
        Ok(Self { model: request.need_model()?, norms, by_tensor: adapter.sites.iter().map(of).collect::<Result<_>>()? })
    }

    fn changes(&self, tensor: &TensorInfo) -> bool {
        self.by_tensor.contains_key(&tensor.name)
    }

    /// The tensor's rows, merged where the adapter changes them, in `format`, piece by piece in `order`. A tensor that stays as it is keeps its
    /// bytes.
    async fn write(
        &self,
        tensor: &TensorInfo,
        format: &'static QuantFormat,
        order: RowOrder,
        mut put: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Option<TensorExport>> {
        if let Some(norm) = self.norms.get(&tensor.name) {
            put(&encode(&tensor.name, norm, tensor.cols(), format)?)?;
            return Ok(None);
        }
        let update = self.by_tensor.get(&tensor.name);
        let mut sums = Retention::default();
        let unit = match order {
            RowOrder::Hf => 1,
            RowOrder::Interleaved { head_dim } => head_dim,
        };
        let step = (PIECE / tensor.cols()).max(1).next_multiple_of(unit);
        for start in (0..tensor.rows()).step_by(step) {
            let rows = start..(start + step).min(tensor.rows());
            let stored = self.model.read_rows(&tensor.name, rows.clone()).await?;
            let bytes = match update {
                None if tensor.format == format => stored,
                None => encode(&tensor.name, &tensor.format.decode_vec(&stored), tensor.cols(), format)?,
                Some((_, factors)) => merge(tensor, &stored, factors, rows.clone(), format, &mut sums)?,
            };
            put(&reorder(bytes, rows, order))?;
        }
        Ok(update.map(|(projection, _)| TensorExport {
            tensor: tensor.name.clone(),
            projection: projection.short_name(),
            format: format.name,
            retention: sums.retention(),
            relative_error: sums.relative_error(),
            relative_size: sums.relative_size(),
            sums,
        }))
    }
}

/// `W + scale · B A` of some rows, stored.
fn merge(
    tensor: &TensorInfo,
    stored: &[u8],
    factors: &Factors<'_>,
    rows: Range<usize>,
    format: &'static QuantFormat,
    sums: &mut Retention,
) -> Result<Vec<u8>> {
    let (weights, cols) = (tensor.format.decode_vec(stored), tensor.cols());
    let delta = delta_rows(factors, rows);
    let merged: Vec<f32> = weights.iter().zip(&delta).map(|(w, d)| w + d).collect();
    let bytes = encode(&tensor.name, &merged, cols, format)?;
    let alone = encode(&tensor.name, &weights, cols, format)?;
    sums.add(&weights, &delta, &format.decode_vec(&alone), &format.decode_vec(&bytes));
    Ok(bytes)
}

/// Rows of `scale · B A`, row-major.
pub fn delta_rows(factors: &Factors<'_>, rows: Range<usize>) -> Vec<f32> {
    let (rank, inputs) = (factors.rank(), factors.shape().1);
    let mut delta = vec![0.0f32; rows.len() * inputs];
    for (out, o) in delta.chunks_exact_mut(inputs).zip(rows) {
        for (b, a) in factors.b()[o * rank..(o + 1) * rank].iter().zip(factors.a().chunks_exact(inputs)) {
            let b = (f64::from(*b) * factors.scale()) as f32;
            out.iter_mut().zip(a).for_each(|(x, a)| *x += b * a);
        }
    }
    delta
}

/// Whole heads of rows from Hugging Face's order into the file's.
fn reorder(bytes: Vec<u8>, rows: Range<usize>, order: RowOrder) -> Vec<u8> {
    if order == RowOrder::Hf {
        return bytes;
    }
    let row_bytes = bytes.len() / rows.len();
    let mut out = vec![0; bytes.len()];
    for (i, row) in rows.clone().enumerate() {
        let at = (order.file_row(row) - rows.start) * row_bytes;
        out[at..at + row_bytes].copy_from_slice(&bytes[i * row_bytes..(i + 1) * row_bytes]);
    }
    out
}
