//! A LoRA adapter as one GGUF file, as llama.cpp (`--lora`) and Ollama (`ADAPTER`) load it beside a GGUF of the base.
//!
//! A site's tensors are `blk.0.attn_q.weight.lora_a` `[rank, in]` and `….lora_b` `[out, rank]`. The reader multiplies their product by
//! `adapter.lora.alpha / rank`, with the rank of each pair and one alpha for the file. Rows of q's and k's B are interleaved as the rows of
//! those weights are. There is no place for rsLoRA or for alphas by layer: B takes what the common alpha leaves over.

use super::peft::{Note, PeftAdapter, PeftSite};
use super::request::{Exported, Request, Sink};
use super::retention::{check_writable, encode};
use super::same::rounding;
use crate::adapters::Site;
use crate::config::ModelConfig;
use crate::formats::gguf_write::{NewTensor, header};
use crate::formats::{ByteSource, Gguf, GgufTensor, RowOrder, Value, file_name, gguf_name, gguf_row_order, hf_name};
use crate::quant::{F32, QuantFormat};
use crate::settings::Map;
use crate::{Error, Result};

/// Name of the file.
pub const FILE: &str = "adapter.gguf";

/// Alignment of tensor data: GGUF's own.
const ALIGNMENT: u64 = 32;
/// llama.cpp calls every dense LLaMA and Mistral so.
const ARCHITECTURE: &str = "llama";

/// Keys of ours, which other programs do not look at.
const KEY_BASE_HASH: &str = "weblora.base_hash";
const KEY_STEPS: &str = "weblora.steps";

/// Rounding of factors from which a warning tells of it.
const COARSE: f64 = 0.01;

/// Writes it; factors are f32 unless the request names another float format.
///
/// # Errors
/// When no base was given, the format is no float one, a site is no layer of the base, or a number does not fit the format.
pub async fn export(request: &Request<'_>, sink: &mut dyn Sink) -> Result<Exported> {
    let model = request.need_model()?;
    let format = request.format.unwrap_or(&F32);
    if format.block != 1 || format.ggml_id.is_none() {
        return Err(Error::config("format", format!("{} for the factors of an adapter", format.name), "use f32, f16 or bf16"));
    }
    let adapter = request.plain("a GGUF adapter")?;
    let alpha = common_alpha(adapter);
    let mut tensors = Vec::with_capacity(2 * adapter.sites.len());
    let mut data = Vec::with_capacity(2 * adapter.sites.len());
    for site in &adapter.sites {
        for (tensor, values) in halves(request.name, site, adapter.rslora, alpha, &model.config)? {
            let tensor = NewTensor { format, ..tensor };
            check_writable(&tensor.name, tensor.shape[1], format)?;
            data.push(encode(&tensor.name, &values, tensor.shape[1], format)?);
            tensors.push(tensor);
        }
    }
    let metadata = metadata(adapter, alpha, format);
    let pairs: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let header = header(&pairs, &tensors, ALIGNMENT);
    sink.begin(FILE, header.total)?;
    sink.write(&header.bytes)?;
    for (bytes, padding) in data.iter().zip(&header.padding) {
        sink.write(bytes)?;
        sink.write(&vec![0; *padding])?;
    }
    sink.end()?;
    let angles = request.angles()?.map(|angles| {
        format!(
            "the adapter was trained with rotary angles stretched by {angles}, which no GGUF adapter can say: answers will differ where the program \
             that loads it is not told (llama.cpp: --rope-scaling linear or yarn, and --rope-scale)"
        )
    });
    let left_out = |(what, _): (&str, usize)| {
        format!(
            "the adapter's trained {what} are left out, because no GGUF adapter can hold them: answers will differ; export with --to merged-gguf"
        )
    };
    let lost = rounding(adapter, Some(format));
    let coarse = (lost > COARSE).then(|| {
        let percent = 100.0 * lost;
        format!(
            "{} rounds some of the adapter's factors by up to {percent:.1} %: they are below its range; export with --format f32",
            format.name
        )
    });
    let warnings = adapter.beside().into_iter().map(left_out).chain(angles).chain(coarse).collect();
    Ok(Exported { files: vec![FILE.into()], bytes: header.total, warnings, ..Exported::default() })
}

/// The alpha that most sites have in terms of alpha / rank, as the file can hold it. The others' B make up for the rest.
fn common_alpha(adapter: &PeftAdapter) -> f32 {
    let plain = |site: &PeftSite| site.scale(adapter.rslora) * site.rank as f64;
    let alpha = super::peft_config::most(adapter.sites.iter().map(plain)) as f32;
    // 0 means "no scale" to the reader, and what is no normal number would lose digits.
    if alpha.is_normal() { alpha } else { 1.0 }
}

/// A and B of a site as the file has them.
fn halves(name: &str, site: &PeftSite, rslora: bool, alpha: f32, model: &ModelConfig) -> Result<[(NewTensor, Vec<f32>); 2]> {
    let hf = format!("{}.weight", site.site.module());
    let (out, inputs) = site.site.projection.shape(model);
    let found = site.factors(rslora)?.shape();
    let weight = gguf_name(&hf).filter(|_| found == (out, inputs) && site.site.layer < model.num_hidden_layers);
    let Some(weight) = weight else {
        let problem = format!("{} is {} x {}, in this model it is {out} x {inputs}", site.site, found.0, found.1);
        return Err(Error::Adapter { adapter: name.to_owned(), problem, hint: "use the model that it was trained on" });
    };
    // What the reader's alpha / rank leaves over; exactly 1 where the alphas agree.
    let left_over = (site.scale(rslora) * site.rank as f64 / f64::from(alpha)) as f32;
    let order = gguf_row_order(&hf, model);
    let mut b = vec![0.0; site.b.len()];
    for (row, values) in site.b.chunks_exact(site.rank).enumerate() {
        let at = order.file_row(row) * site.rank;
        b[at..at + site.rank].iter_mut().zip(values).for_each(|(to, x)| *to = x * left_over);
    }
    let tensor = |half: &str, shape| NewTensor { name: format!("{weight}.lora_{half}"), shape, format: &F32 };
    Ok([(tensor("a", vec![site.rank, inputs]), site.a.clone()), (tensor("b", vec![out, site.rank]), b)])
}

fn metadata(adapter: &PeftAdapter, alpha: f32, format: &QuantFormat) -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::String(text.to_owned());
    // llama.cpp's numbers of whole files in one float format: 0 f32, 1 f16, 32 bf16; the latter two after the types themselves.
    let file_type = match format.ggml_id {
        Some(0) => 0,
        Some(1) => 1,
        _ => 32,
    };
    let mut map = vec![
        ("general.architecture", text(ARCHITECTURE)),
        ("general.type", text("adapter")),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", Value::F32(alpha)),
        ("general.file_type", Value::U32(file_type)),
    ];
    if let Some(base) = adapter.base_name.as_deref().map(file_name).filter(|name| !name.is_empty()) {
        map.push(("general.name", Value::String(format!("LoRA for {base}"))));
        map.push(("general.base_model.count", Value::U32(1)));
        map.push(("general.base_model.0.name", text(base)));
    }
    if let Some(note) = &adapter.note {
        map.push((KEY_BASE_HASH, text(&note.base_hash)));
        map.push((KEY_STEPS, Value::U64(note.steps)));
    }
    map
}

/// Reads such a file back and checks it against the model it is to be used with.
///
/// # Errors
/// When the file is damaged, is no LoRA adapter of this architecture, or has a tensor that is no half of a pair for a layer of this model.
pub async fn read(source: Box<dyn ByteSource>, model: &ModelConfig) -> Result<PeftAdapter> {
    let sources = [source];
    let gguf = Gguf::read(&sources).await?;
    let [source] = &sources;
    let name = source.name().to_owned();
    let error = |problem: String| Error::Adapter { adapter: name.clone(), problem, hint: "export the adapter again" };
    for (key, expected) in [("general.type", "adapter"), ("adapter.type", "lora"), ("general.architecture", ARCHITECTURE)] {
        let found = gguf.metadata.str(key)?;
        if found != Some(expected) {
            return Err(error(format!(
                "`{key}` is {}, \"{expected}\" was expected",
                found.map_or("missing".into(), |f| format!("\"{f}\""))
            )));
        }
    }
    let alpha = gguf.metadata.f64("adapter.lora.alpha")?.unwrap_or(0.0);
    let mut pairs: std::collections::BTreeMap<Site, [Option<&GgufTensor>; 2]> = std::collections::BTreeMap::new();
    for tensor in &gguf.tensors {
        let stranger = || error(format!("tensor `{}` is no lora_a or lora_b of a linear layer of this model", tensor.name));
        let (site, half) = parse_name(&tensor.name).filter(|(site, _)| site.layer < model.num_hidden_layers).ok_or_else(stranger)?;
        pairs.entry(site).or_default()[half] = Some(tensor);
    }
    let mut sites = Vec::with_capacity(pairs.len());
    for (site, pair) in pairs {
        let [Some(a), Some(b)] = pair else { return Err(error(format!("{site} has only one of lora_a and lora_b"))) };
        let (out, inputs) = site.projection.shape(model);
        let rank = a.shape[0];
        if a.shape != [rank, inputs] || b.shape != [out, rank] {
            return Err(error(format!("{site} is {:?} and {:?}, a weight of {out} x {inputs} was expected", a.shape, b.shape)));
        }
        let read = async |t: &GgufTensor| Ok::<_, Error>(t.format.decode_vec(&source.read(t.offset, t.bytes as usize).await?));
        let (a, stored) = (read(a).await?, read(b).await?);
        let order: RowOrder = gguf_row_order(&format!("{}.weight", site.module()), model);
        let b = (0..out).flat_map(|row| order.file_row(row) * rank..(order.file_row(row) + 1) * rank).map(|i| stored[i]).collect();
        sites.push(PeftSite { site, rank, alpha: if alpha == 0.0 { rank as f64 } else { alpha }, a, b });
    }
    if sites.is_empty() {
        return Err(error("it holds no tensor".to_owned()));
    }
    let base_hash = gguf.metadata.str(KEY_BASE_HASH)?.map(str::to_owned);
    let steps = gguf.metadata.u64(KEY_STEPS)?.unwrap_or(0);
    let note = base_hash.map(|base_hash| Note { base_hash, steps, config: Map::new(), ..Note::default() });
    let base_name = gguf.metadata.str("general.base_model.0.name")?.map(str::to_owned);
    let (norms, blocks) = (Vec::new(), model.num_hidden_layers);
    Ok(PeftAdapter { sites, norms, embeddings: None, rslora: false, blocks, dropout: 0.0, base_name, note })
}

/// The site of a tensor, and 0 for its A, 1 for its B.
fn parse_name(name: &str) -> Option<(Site, usize)> {
    let (weight, half) = name.rsplit_once('.')?;
    let half = ["lora_a", "lora_b"].iter().position(|known| *known == half)?;
    let module = hf_name(weight)?;
    Some((Site::parse(module.strip_prefix("model.")?.strip_suffix(".weight")?)?, half))
}
