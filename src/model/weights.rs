//! The frozen base on the GPU: declared from a header alone, streamed tensor by tensor when it is real.

use std::ops::Range;

use crate::adapters::site::{Projection, Site};
use crate::config::ModelConfig;
use crate::formats::{ModelFile, TensorInfo};
use crate::gpu::device::PlanLimits;
use crate::gpu::{Class, Gpu, Store, Tensor};
use crate::kernels::matrix::{Matrix, Part, outputs};
use crate::quant::{QUAD, QuantFormat};
use crate::{Error, Result};

/// No part of a matrix is larger than this, so that the host never holds more than a few tens of MiB.
const MAX_PART_BYTES: u64 = 64 << 20;

/// Weights of one block, named as in the checkpoint.
#[derive(Debug, Clone)]
pub struct LayerWeights {
    /// `[d]`
    pub input_layernorm: Tensor,
    /// `[d]`
    pub post_attention_layernorm: Tensor,
    /// q, k and v, which have one input.
    pub qkv: Siblings,
    /// o.
    pub o: Matrix,
    /// gate and up, which have one input.
    pub gate_up: Siblings,
    /// down.
    pub down: Matrix,
}

/// Projections of one input.
#[derive(Debug, Clone)]
pub enum Siblings {
    /// Below each other in one matrix: one product for all.
    Joint(Matrix),
    /// Of different formats, or too large to be multiplied together.
    Apart(Vec<Matrix>),
}

impl Siblings {
    fn matrices(&self) -> &[Matrix] {
        match self {
            Self::Joint(matrix) => std::slice::from_ref(matrix),
            Self::Apart(matrices) => matrices,
        }
    }
}

/// All weights of a model.
#[derive(Debug, Clone)]
pub struct Weights {
    /// `[v, d]`
    pub embed_tokens: Matrix,
    /// Blocks, first to last.
    pub layers: Vec<LayerWeights>,
    /// `[d]`, before the head.
    pub norm: Tensor,
    /// `[v, d]`; the embedding itself when tied.
    pub lm_head: Matrix,
    /// What to read into what.
    uploads: Vec<Upload>,
}

/// Rows of a file's tensors, below each other, and their place.
#[derive(Debug, Clone)]
struct Upload {
    from: Vec<(String, Range<usize>)>,
    to: Tensor,
    /// `None`: plain f32 (norms); else repacked for the kernels.
    format: Option<&'static QuantFormat>,
    /// Quantise f32/f16/bf16 weights to `format` while loading.
    quantize: bool,
}

/// Declares buffers and remembers what fills them.
struct Declarer<'a> {
    file: &'a ModelFile,
    store: &'a mut Store,
    limits: PlanLimits,
    quantize: Option<&'static QuantFormat>,
    /// Rows of activations that the weights are multiplied with.
    rows: usize,
    uploads: Vec<Upload>,
}

impl Declarer<'_> {
    fn vector(&mut self, name: String) -> Result<Tensor> {
        let info = self.file.tensor(&name)?;
        let len: usize = info.shape.iter().product();
        let to = self.store.declare(name.clone(), Class::Weights, len)?;
        self.uploads.push(Upload { from: vec![(name, 0..1)], to, format: None, quantize: false });
        Ok(to)
    }

    /// Projections of one input, joint where they can be.
    fn siblings(&mut self, names: Vec<String>) -> Result<Siblings> {
        let infos = names.iter().map(|name| self.file.tensor(name)).collect::<Result<Vec<_>>>()?;
        let rows: Vec<usize> = infos.iter().map(|info| info.rows()).collect();
        let alike = infos.windows(2).all(|two| (two[0].format.name, two[0].cols()) == (two[1].format.name, two[1].cols()));
        let whole = rows.iter().chain([&infos[0].cols()]).all(|size| size.is_multiple_of(QUAD));
        let words = outputs(&rows, self.rows).last().map_or(0, |last| last.end);
        if alike && whole && 4 * words as u64 <= self.limits.addressable() {
            let mut joint = self.stack(names, infos[0].format, infos[0].cols(), rows.clone(), true)?;
            joint.members = rows;
            return Ok(Siblings::Joint(joint));
        }
        names.into_iter().map(|name| self.matrix(name, true)).collect::<Result<_>>().map(Siblings::Apart)
    }

    /// `quantizable`: a projection, which `--quantize` applies to; embeddings and heads keep their precision.
    fn matrix(&mut self, name: String, quantizable: bool) -> Result<Matrix> {
        let info: &TensorInfo = self.file.tensor(&name)?;
        self.stack(vec![name], info.format, info.cols(), vec![info.rows()], quantizable)
    }

    /// One matrix of tensors of one width and format below each other.
    fn stack(
        &mut self,
        names: Vec<String>,
        stored: &'static QuantFormat,
        cols: usize,
        each: Vec<usize>,
        quantizable: bool,
    ) -> Result<Matrix> {
        let name = names.join(" + ");
        let rows: usize = each.iter().sum();
        let quantize = self.quantize.filter(|q| quantizable && q.name != stored.name && stored.safetensors_dtype.is_some());
        let format = quantize.unwrap_or(stored);
        if quantize.is_some() && format.row_bytes(cols).is_none() {
            let problem = format!(
                "`{name}` has rows of {cols} weights, which is no multiple of the {} weights of a {} block",
                format.block, format.name
            );
            return Err(Error::config("quantize", problem, "choose another format or none"));
        }
        let cap = self.limits.max_binding.min(self.limits.max_buffer).min(MAX_PART_BYTES);
        // Four rows share vectors.
        let row_words = (format.packed_words(QUAD, cols) / QUAD).max(1) as u64;
        let per_part = ((cap / 4).saturating_sub(64) / row_words) as usize;
        if per_part < QUAD {
            return Err(Error::Limit {
                what: format!("four rows of {name}"),
                needed: format!("{} bytes", row_words * 16),
                allowed: format!("{cap} bytes"),
                hint: "use a model with narrower layers",
            });
        }
        // Whole 64-row tiles in every part but the last.
        let per_part = if per_part >= rows {
            rows
        } else if per_part < 64 {
            per_part / QUAD * QUAD
        } else {
            per_part / 64 * 64
        };
        let mut parts = Vec::new();
        for start in (0..rows).step_by(per_part) {
            let count = per_part.min(rows - start);
            let label = if per_part == rows { name.clone() } else { format!("{name}[{start}..{}]", start + count) };
            let to = self.store.declare(label, Class::Weights, format.packed_words(count, cols))?;
            let from = rows_within(&names, &each, start..start + count);
            self.uploads.push(Upload { from, to, format: Some(format), quantize: quantize.is_some() });
            parts.push(Part { tensor: to, row_start: start, rows: count });
        }
        Ok(Matrix { format, rows, cols, parts, members: Vec::new() })
    }
}

/// Which rows of which tensor the rows `wanted` are of tensors with `each` so many rows below each other.
fn rows_within(names: &[String], each: &[usize], wanted: Range<usize>) -> Vec<(String, Range<usize>)> {
    let mut begin = 0;
    let mut found = Vec::new();
    for (name, &rows) in names.iter().zip(each) {
        let own = wanted.start.max(begin)..wanted.end.min(begin + rows);
        if !own.is_empty() {
            found.push((name.clone(), own.start - begin..own.end - begin));
        }
        begin += rows;
    }
    found
}

impl Weights {
    /// Declares every weight of `file` for products with up to `rows` rows of activations; nothing is read but the header. `quantize` re-encodes
    /// float projections at load.
    ///
    /// # Errors
    /// A missing tensor, a row past the device's limits, a `quantize` format that does not divide the rows.
    pub fn declare(
        file: &ModelFile,
        store: &mut Store,
        limits: PlanLimits,
        quantize: Option<&'static QuantFormat>,
        rows: usize,
    ) -> Result<Weights> {
        let config: &ModelConfig = &file.config;
        let mut d = Declarer { file, store, limits, quantize, rows, uploads: Vec::new() };
        let embed_tokens = d.matrix("model.embed_tokens.weight".into(), false)?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for layer in 0..config.num_hidden_layers {
            let name = |projection| format!("{}.weight", Site { layer, projection }.module());
            layers.push(LayerWeights {
                input_layernorm: d.vector(format!("model.layers.{layer}.input_layernorm.weight"))?,
                post_attention_layernorm: d.vector(format!("model.layers.{layer}.post_attention_layernorm.weight"))?,
                qkv: d.siblings([Projection::Q, Projection::K, Projection::V].map(name).into())?,
                o: d.matrix(name(Projection::O), true)?,
                gate_up: d.siblings([Projection::Gate, Projection::Up].map(name).into())?,
                down: d.matrix(name(Projection::Down), true)?,
            });
        }
        let norm = d.vector("model.norm.weight".into())?;
        let lm_head = if config.tie_word_embeddings { embed_tokens.clone() } else { d.matrix("lm_head.weight".into(), false)? };
        let uploads = d.uploads;
        Ok(Weights { embed_tokens, layers, norm, lm_head, uploads })
    }

    /// Streams every weight from the file into its allocated buffer. `progress` gets (bytes done, bytes in all) of the file.
    ///
    /// # Errors
    /// Unreadable or damaged weights, a lost device.
    pub async fn upload(&self, gpu: &Gpu, store: &Store, file: &ModelFile, mut progress: impl FnMut(u64, u64)) -> Result<()> {
        let bytes = |u: &Upload| -> Result<u64> {
            let of = |(name, rows): &(String, Range<usize>)| {
                let info = file.tensor(name)?;
                Ok(if u.format.is_some() { (info.row_bytes() * rows.len()) as u64 } else { info.bytes })
            };
            u.from.iter().map(of).sum()
        };
        let total = self.uploads.iter().map(bytes).sum::<Result<u64>>()?;
        let mut done = 0;
        let mut pending = 0u64;
        for upload in &self.uploads {
            let (name, _) = &upload.from[0];
            match upload.format {
                None => store.write(gpu, upload.to, &file.read_f32(name).await?)?,
                Some(format) => {
                    let info = file.tensor(name)?;
                    let cols = info.cols();
                    let mut stored = Vec::new();
                    for (name, rows) in &upload.from {
                        let read = file.read_rows(name, rows.clone()).await?;
                        if stored.is_empty() { stored = read } else { stored.extend(read) }
                    }
                    let rows = upload.from.iter().map(|(_, rows)| rows.len()).sum();
                    let blocks = match format.encode {
                        Some(encode) if upload.quantize => {
                            let mut out = Vec::new();
                            encode(&info.format.decode_vec(&stored), &mut out);
                            out
                        }
                        _ => stored,
                    };
                    store.write(gpu, upload.to, &format.repack(rows, cols, &blocks))?;
                }
            }
            pending += upload.to.bytes();
            // Writes are staged until something is submitted: bound what is staged.
            if pending > 32 << 20 {
                gpu.flush().await?;
                pending = 0;
            }
            done += bytes(upload)?;
            progress(done, total);
        }
        gpu.flush().await
    }

    /// Bytes of the largest output of projections that are multiplied together, for `rows` rows of activations.
    pub fn largest_joint_output(&self, rows: usize) -> u64 {
        let bytes = |siblings: &Siblings| match siblings {
            Siblings::Joint(matrix) => 4 * matrix.output_words(rows) as u64,
            Siblings::Apart(_) => 0,
        };
        self.layers.iter().flat_map(|layer| [bytes(&layer.qkv), bytes(&layer.gate_up)]).max().unwrap_or(0)
    }

    /// Weights in the matrices that a forward pass multiplies by: projections and head, not the embedding lookup.
    pub fn matmul_parameters(&self) -> u64 {
        let size = |m: &Matrix| (m.rows * m.cols) as u64;
        let layer = |l: &LayerWeights| l.qkv.matrices().iter().chain(l.gate_up.matrices()).chain([&l.o, &l.down]).map(size).sum::<u64>();
        self.layers.iter().map(layer).sum::<u64>() + size(&self.lm_head)
    }
}
