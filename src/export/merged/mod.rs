//! Base and adapter as one model, streamed: a few rows of one tensor are in memory at a time, never a whole model.

pub mod gguf;
mod hf_config;
pub mod safetensors;

use std::collections::BTreeMap;
use std::ops::Range;

use super::request::Request;
use super::retention::{Retention, TensorExport, encode};
use crate::Result;
use crate::adapters::embeddings::{self, EmbeddingRows};
use crate::adapters::{Projection, norms};
use crate::analysis::Factors;
use crate::formats::{ModelFile, RowOrder, TensorInfo};
use crate::quant::QuantFormat;

/// Names of the embedding and of the head.
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Weights that are in memory at a time, about.
const PIECE: usize = 1 << 20;

/// What the adapter does, by the name of the weight it does it to.
struct Updates<'a> {
    model: &'a ModelFile,
    by_tensor: BTreeMap<String, (Projection, Factors<'a>)>,
    /// Norms that take the place of the base's.
    norms: BTreeMap<String, &'a [f32]>,
    /// What is added to rows of the embedding.
    embeddings: Option<&'a EmbeddingRows>,
}

/// A tensor of the merged model.
struct Place<'a> {
    /// Its name there.
    name: String,
    /// Where its numbers come from.
    tensor: &'a TensorInfo,
}

impl<'a> Updates<'a> {
    fn new(request: &Request<'a>) -> Result<Self> {
        let adapter = request.plain("a merged model")?;
        let of = |site: &'a super::peft::PeftSite| {
            Ok((format!("{}.weight", site.site.module()), (site.site.projection, site.factors(adapter.rslora)?)))
        };
        let names = norms::names(adapter.norms.len() / 2).map(|name| format!("model.{name}.weight"));
        let norms = names.zip(adapter.norms.iter().map(Vec::as_slice)).collect();
        let by_tensor = adapter.sites.iter().map(of).collect::<Result<_>>()?;
        Ok(Self { model: request.need_model()?, norms, embeddings: adapter.embeddings.as_ref(), by_tensor })
    }

    fn changes(&self, place: &Place<'_>) -> bool {
        self.by_tensor.contains_key(&place.name) || self.embeddings.is_some() && place.name == EMBEDDING
    }

    /// Whether the model's head, so far its embedding, becomes a matrix of its own.
    fn unties(&self) -> bool {
        self.embeddings.is_some() && self.model.config.tie_word_embeddings
    }

    /// The base's tensors, in the order of `list`, and the head where it had none.
    fn places(&self, list: Vec<&'a TensorInfo>) -> Vec<Place<'a>> {
        let head = list.iter().find(|tensor| self.unties() && tensor.name == EMBEDDING).copied();
        let own = list.into_iter().map(|tensor| Place { name: tensor.name.clone(), tensor });
        own.chain(head.map(|tensor| Place { name: HEAD.to_owned(), tensor })).collect()
    }

    /// The tensor's rows, merged where the adapter changes them, in `format`, piece by piece in `order`. A tensor that stays as it is keeps its
    /// bytes.
    async fn write(
        &self,
        place: &Place<'_>,
        format: &'static QuantFormat,
        order: RowOrder,
        mut put: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Option<TensorExport>> {
        let tensor = place.tensor;
        if let Some(norm) = self.norms.get(&tensor.name) {
            put(&encode(&tensor.name, norm, tensor.cols(), format)?)?;
            return Ok(None);
        }
        let update = self.by_tensor.get(&tensor.name);
        let own = self.embeddings.filter(|_| place.name == EMBEDDING);
        let mut sums = Retention::default();
        let unit = match order {
            RowOrder::Hf => 1,
            RowOrder::Interleaved { head_dim } => head_dim,
        };
        let step = (PIECE / tensor.cols()).max(1).next_multiple_of(unit);
        for start in (0..tensor.rows()).step_by(step) {
            let rows = start..(start + step).min(tensor.rows());
            let stored = self.model.read_rows(&tensor.name, rows.clone()).await?;
            let before = own.map(|own| (own, stored.clone()));
            let mut bytes = match update {
                None if tensor.format == format => stored,
                None => encode(&tensor.name, &tensor.format.decode_vec(&stored), tensor.cols(), format)?,
                Some((_, factors)) => merge(tensor, &stored, factors, rows.clone(), format, &mut sums)?,
            };
            if let Some((own, stored)) = before {
                add_rows(tensor, &stored, own, rows.clone(), format, &mut bytes, &mut sums)?;
            }
            put(&reorder(bytes, rows, order))?;
        }
        let what = update.map(|(projection, _)| projection.short_name()).or(own.map(|_| embeddings::MODULE));
        Ok(what.map(|what| TensorExport {
            tensor: tensor.name.clone(),
            projection: what,
            format: format.name,
            retention: sums.retention(),
            relative_error: sums.relative_error(),
            relative_size: sums.relative_size(),
            sums,
        }))
    }
}

/// Adds trained embeddings to the rows `rows` in `bytes`, which has them in `format`; other rows keep theirs.
fn add_rows(
    tensor: &TensorInfo,
    stored: &[u8],
    own: &EmbeddingRows,
    rows: Range<usize>,
    format: &'static QuantFormat,
    bytes: &mut [u8],
    sums: &mut Retention,
) -> Result<()> {
    let (from, to, cols) = (stored.len() / rows.len(), bytes.len() / rows.len(), tensor.cols());
    for (i, row) in rows.enumerate() {
        let Some(delta) = own.row(row as u32) else { continue };
        let weights = tensor.format.decode_vec(&stored[i * from..(i + 1) * from]);
        let place = &mut bytes[i * to..(i + 1) * to];
        let alone = format.decode_vec(place);
        let merged: Vec<f32> = weights.iter().zip(delta).map(|(w, d)| w + d).collect();
        place.copy_from_slice(&encode(&tensor.name, &merged, cols, format)?);
        sums.add(&weights, delta, &alone, &format.decode_vec(place));
    }
    Ok(())
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
