//! One view of a model, whatever container it came in: a configuration, named tensors, and rows of them on demand.

use super::check::{check_config, check_tensors};
use super::gguf::{Gguf, GgufTensor};
use super::gguf_config::{ROPE_TENSORS, read_config};
use super::gguf_value::Metadata;
use super::header::HINT_CONVERT;
use super::hf_config::parse_config;
use super::names::{gguf_row_order, hf_name};
use super::rows::RowOrder;
use super::safetensors::{parse_index, read_header};
use super::source::ByteSource;
use super::tensor_info::TensorInfo;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;

/// Text files that lie beside safetensors weights; all optional but `config_json`.
#[derive(Debug, Clone, Default)]
pub struct SideFiles {
    /// `config.json`; required for safetensors.
    pub config_json: Option<String>,
    /// `tokenizer.json`.
    pub tokenizer_json: Option<String>,
    /// What errors call `tokenizer_json`, where it is another file than that beside the weights.
    pub tokenizer_file: Option<String>,
    /// `tokenizer_config.json`.
    pub tokenizer_config_json: Option<String>,
    /// `chat_template.jinja`, where newer models keep it.
    pub chat_template: Option<String>,
    /// `generation_config.json`.
    pub generation_config_json: Option<String>,
}

/// A model's header, checked, and its sources; weights are read when asked for.
pub struct ModelFile {
    /// Shape of the model.
    pub config: ModelConfig,
    tensors: BTreeMap<String, TensorInfo>,
    sources: Vec<Box<dyn ByteSource>>,
    metadata: Metadata,
    config_tensors: Vec<GgufTensor>,
    side: SideFiles,
    warnings: Vec<String>,
}

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";
/// Bytes of two tensors that are compared at a time.
const COMPARED_BYTES: usize = 4 << 20;

impl ModelFile {
    /// Opens a GGUF model from its file, or from all its parts in any order.
    ///
    /// Fails on a damaged file, on an architecture that is no dense LLaMA or Mistral, and on missing or misshapen tensors.
    pub async fn open_gguf(sources: Vec<Box<dyn ByteSource>>) -> Result<Self> {
        let gguf = Gguf::read(&sources).await?;
        let file = sources[0].name();
        let config = read_config(&gguf, &sources).await?;
        check_config(file, &config)?;
        let mut tensors = BTreeMap::new();
        let mut config_tensors = Vec::new();
        for t in gguf.tensors {
            if ROPE_TENSORS.contains(&t.name.as_str()) {
                config_tensors.push(t);
                continue;
            }
            let Some(name) = hf_name(&t.name) else {
                return Err(Error::Unsupported {
                    what: format!("{}: tensor `{}`", sources[t.source].name(), t.name),
                    hint: "dense LLaMA and Mistral models without biases are".into(),
                });
            };
            let row_order = gguf_row_order(&name, &config);
            let info = TensorInfo {
                name: name.clone(),
                shape: t.shape,
                format: t.format,
                offset: t.offset,
                bytes: t.bytes,
                source: t.source,
                row_order,
            };
            tensors.insert(name, info);
        }
        check_tensors(file, &config, &tensors)?;
        Ok(Self { config, tensors, sources, metadata: gguf.metadata, config_tensors, side: SideFiles::default(), warnings: Vec::new() })
    }

    /// Opens safetensors weights: one file, or all shards in any order with the text of `model.safetensors.index.json`.
    ///
    /// Fails on a damaged file, on an architecture that is no dense LLaMA or Mistral, on quantised checkpoints, on missing or misshapen tensors,
    /// and when the shards are not those of the index.
    pub async fn open_safetensors(shards: Vec<Box<dyn ByteSource>>, index: Option<&str>, side: SideFiles) -> Result<Self> {
        let Some(config_json) = &side.config_json else {
            return Err(Error::config("model", "safetensors weights without a config.json", "put config.json into the same folder"));
        };
        let config = parse_config("config.json", config_json)?;
        check_config("config.json", &config)?;
        let mut tensors: BTreeMap<String, TensorInfo> = BTreeMap::new();
        for (source, shard) in shards.iter().enumerate() {
            for e in read_header(shard.as_ref(), is_needed).await? {
                let info = TensorInfo {
                    name: e.name.clone(),
                    shape: e.shape,
                    format: e.format,
                    offset: e.offset,
                    bytes: e.bytes,
                    source,
                    row_order: RowOrder::Hf,
                };
                if let Some(first) = tensors.insert(e.name, info) {
                    let problem = format!("tensor `{}` is in {} too", first.name, shards[first.source].name());
                    return Err(Error::format(shard.name(), problem, "pass the shards of one model, each once"));
                }
            }
        }
        if let Some(text) = index {
            check_index(text, &shards, &tensors)?;
        }
        let (metadata, config_tensors, warnings) = Default::default();
        let mut file = Self { config, tensors, sources: shards, metadata, config_tensors, side, warnings };
        file.settle_head().await?;
        check_tensors(file.name(), &file.config, &file.tensors)?;
        Ok(file)
    }

    /// A stored copy of a tied head is left out, as transformers does; a stored head that is no copy is the model's head, whatever the
    /// configuration says.
    async fn settle_head(&mut self) -> Result<()> {
        let (Some(head), Some(embedding)) = (self.tensors.get(HEAD), self.tensors.get(EMBEDDING)) else { return Ok(()) };
        if !self.config.tie_word_embeddings {
            return Ok(());
        }
        if head.shape != [self.config.vocab_size, self.config.hidden_size] || head.shape != embedding.shape {
            self.warnings
                .push(format!("{}: `{HEAD}` does not have the embedding's shape and is left out: config.json ties the head", self.name()));
        } else if !self.equal(HEAD, EMBEDDING).await? {
            self.config.tie_word_embeddings = false;
            self.warnings.push(format!(
                "{}: config.json says that the head is the embedding (`tie_word_embeddings`), but the file has another `{HEAD}`: that one is used",
                self.name()
            ));
            return Ok(());
        }
        self.tensors.remove(HEAD);
        Ok(())
    }

    /// Whether two matrices of one shape hold the same numbers.
    async fn equal(&self, one: &str, other: &str) -> Result<bool> {
        let (a, b) = (self.tensor(one)?, self.tensor(other)?);
        let step = (COMPARED_BYTES / a.row_bytes().max(b.row_bytes()).max(1)).max(1);
        for start in (0..a.rows()).step_by(step) {
            let rows = start..(start + step).min(a.rows());
            let (x, y) = (self.read_rows(one, rows.clone()).await?, self.read_rows(other, rows).await?);
            let same = if a.format.name == b.format.name { x == y } else { a.format.decode_vec(&x) == b.format.decode_vec(&y) };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the user should know about the files.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Metadata of a GGUF file; empty for safetensors.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Tensors of a GGUF file that are part of the configuration (RoPE divisors), for who writes the file again; empty for safetensors.
    pub fn config_tensors(&self) -> &[GgufTensor] {
        &self.config_tensors
    }

    /// The stored bytes of one of [`Self::config_tensors`].
    pub async fn read_config_tensor(&self, tensor: &GgufTensor) -> Result<Vec<u8>> {
        // Read once already, and small.
        self.sources[tensor.source].read(tensor.offset, tensor.bytes as usize).await
    }

    /// Side files of a safetensors folder; for GGUF only a tokenizer that was set.
    pub fn side_files(&self) -> &SideFiles {
        &self.side
    }

    /// Takes the tokenizer from these texts of `tokenizer.json`, which errors call `file`, and `tokenizer_config.json` instead of the
    /// model's own. A chat template or end tokens that they do not name stay the model's.
    pub fn set_tokenizer(&mut self, file: String, tokenizer_json: String, tokenizer_config_json: Option<String>) {
        (self.side.tokenizer_file, self.side.tokenizer_json) = (Some(file), Some(tokenizer_json));
        self.side.tokenizer_config_json = tokenizer_config_json;
    }

    /// Takes the chat template from the text of a `chat_template.jinja`, where there is one.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn set_chat_template(&mut self, template: Option<String>) {
        if template.is_some() {
            self.side.chat_template = template;
        }
    }

    /// What errors call the model: the name of its first source.
    pub fn name(&self) -> &str {
        self.sources.first().map_or("model", |s| s.name())
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// The tensor of that Hugging Face name; an error when the model has none (the head of a tied model, a misspelling).
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors.get(name).ok_or_else(|| Error::format(self.name(), format!("there is no tensor `{name}`"), HINT_CONVERT))
    }

    /// The stored blocks of rows `rows` of a tensor, `rows.len() * row_bytes` bytes, rows in Hugging Face order (q and k of GGUF files are
    /// put back into it). A NaN or infinite weight or scale is an error. Panics when `rows` leaves the tensor.
    pub async fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<u8>> {
        let t = self.tensor(name)?;
        assert!(rows.start <= rows.end && rows.end <= t.rows(), "rows {rows:?} of `{name}`, which has {}", t.rows());
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let source = &self.sources[t.source];
        let row_bytes = t.row_bytes();
        let file_rows = t.row_order.file_range(rows.clone());
        let Some(len) = file_rows.len().checked_mul(row_bytes) else {
            let what = format!("{} rows of tensor `{name}`", rows.len());
            return Err(Error::Unsupported { what, hint: "they do not fit the memory of this machine; use a smaller model".into() });
        };
        let stored = source.read(t.offset + file_rows.start as u64 * row_bytes as u64, len).await?;
        let bytes = match t.row_order {
            RowOrder::Hf => stored,
            order => {
                let mut bytes = Vec::with_capacity(rows.len() * row_bytes);
                for row in rows.clone() {
                    let at = (order.file_row(row) - file_rows.start) * row_bytes;
                    bytes.extend_from_slice(&stored[at..at + row_bytes]);
                }
                bytes
            }
        };
        match t.format.first_non_finite(&bytes) {
            None => Ok(bytes),
            Some(block) => {
                let first = block * t.format.block;
                let problem = format!(
                    "tensor `{name}` has a NaN or infinite {} near row {}, column {}",
                    if t.format.block == 1 { "weight" } else { "scale" },
                    rows.start + first / t.cols(),
                    first % t.cols()
                );
                Err(Error::format(source.name(), problem, "use an undamaged copy of the model"))
            }
        }
    }

    /// A whole tensor as f32, row-major in Hugging Face order. For norms and tests; large tensors are read by rows.
    pub async fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let t = self.tensor(name)?;
        Ok(t.format.decode_vec(&self.read_rows(name, 0..t.rows()).await?))
    }
}

/// Leaves out what transformers leaves out: cached rotary frequencies of old checkpoints.
fn is_needed(name: &str) -> bool {
    !name.ends_with(".rotary_emb.inv_freq")
}

/// Refuses shards that are not those of the index.
fn check_index(text: &str, shards: &[Box<dyn ByteSource>], tensors: &BTreeMap<String, TensorInfo>) -> Result<()> {
    const INDEX: &str = "model.safetensors.index.json";
    const HINT: &str = "pass the shards that belong to the index";
    let file_name = |source: &dyn ByteSource| {
        let path = source.name().split(['?', '#']).next().unwrap_or_default();
        path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned()
    };
    let given: Vec<String> = shards.iter().map(|s| file_name(s.as_ref())).collect();
    for (tensor, shard) in parse_index(INDEX, text)? {
        if !given.contains(&shard) {
            return Err(Error::format(INDEX, format!("tensor `{tensor}` is said to be in {shard}, which is not there"), HINT));
        }
        if let Some(t) = tensors.get(&tensor).filter(|t| given[t.source] != shard) {
            let problem = format!("tensor `{tensor}` is said to be in {shard} but is in {}", given[t.source]);
            return Err(Error::format(INDEX, problem, HINT));
        }
    }
    Ok(())
}
