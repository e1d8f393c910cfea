//! Base and adapter as one GGUF file: the base's metadata and tensors as they are, but for the weights that the adapter changes.

use super::{Place, Updates};
use crate::config::{ModelConfig, RopeScaling};
use crate::export::request::{Exported, Request, Sink};
use crate::export::retention::check_writable;
use crate::formats::gguf_write::{NewTensor, header};
use crate::formats::{TensorInfo, Value, gguf_name};
use crate::{Error, Result};

/// Name of the file.
pub const FILE: &str = "model.gguf";

/// Alignment of tensor data when the base does not say.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Where a GGUF file has its chat template.
const TEMPLATE_KEY: &str = "tokenizer.chat_template";

/// Where a GGUF file has the length that the model reads, and how its angles are stretched.
const CONTEXT_KEY: &str = "llama.context_length";
const ROPE_KEYS: &str = "llama.rope.scaling.";

/// The metadata of stretched angles, empty where they are the base's; `None` where GGUF has no words for the method.
fn angles(trained: &ModelConfig, base: &ModelConfig) -> Option<Vec<(&'static str, Value)>> {
    let known = |kind: &str, factor: f64, original: usize| {
        vec![
            (CONTEXT_KEY, Value::U32(trained.max_position_embeddings as u32)),
            ("llama.rope.scaling.type", Value::String(kind.to_owned())),
            ("llama.rope.scaling.factor", Value::F32(factor as f32)),
            ("llama.rope.scaling.original_context_length", Value::U32(original as u32)),
        ]
    };
    Some(match &trained.rope_scaling {
        same if *same == base.rope_scaling => Vec::new(),
        RopeScaling::Linear { factor } => known("linear", *factor, (trained.max_position_embeddings as f64 / factor).round() as usize),
        RopeScaling::Yarn { factor, original_max_position_embeddings: original, attention_factor: None, beta_fast, beta_slow }
            if (*beta_fast, *beta_slow) == (32.0, 1.0) =>
        {
            known("yarn", *factor, *original)
        }
        _ => return None,
    })
}

/// Writes it. Changed weights keep their format, or take the request's; everything else keeps its bytes.
///
/// # Errors
/// When the base is no GGUF, a format cannot be written, or a weight does not fit it.
pub async fn export(request: &Request<'_>, sink: &mut dyn Sink) -> Result<Exported> {
    let updates = Updates::new(request)?;
    let model = updates.model;
    if model.metadata().is_empty() {
        return Err(Error::Unsupported {
            what: format!("{}: a merged GGUF of a safetensors base", model.name()),
            hint: "export with --to merged-safetensors, or use the GGUF of this base".into(),
        });
    }
    if let Some(format) = request.format.filter(|f| f.ggml_id.is_none()) {
        return Err(Error::config("format", format!("GGUF has no {}", format.name), "use f16, bf16, q8_0, q5_0, q5_1, q4_0 or q4_1"));
    }
    let mut tensors: Vec<&TensorInfo> = model.tensors().collect();
    tensors.sort_by_key(|t| (t.source, t.offset));
    let tensors = updates.places(tensors);
    let format = |place: &Place<'_>| request.format.filter(|_| updates.changes(place)).unwrap_or(place.tensor.format);
    let mut table: Vec<NewTensor> = Vec::with_capacity(tensors.len());
    for t in model.config_tensors() {
        table.push(NewTensor { name: t.name.clone(), shape: t.shape.clone(), format: t.format });
    }
    for place in &tensors {
        let t = place.tensor;
        // Before anything is written.
        if updates.changes(place) {
            check_writable(&t.name, t.cols(), format(place))?;
        }
        let name = gguf_name(&place.name)
            .ok_or_else(|| Error::format(model.name(), format!("`{}` has no name in GGUF", place.name), "report it"))?;
        table.push(NewTensor { name, shape: t.shape.clone(), format: format(place) });
    }
    // The file type names the format of most weights; a split file becomes one.
    let stale = |key: &str| key.starts_with("split.") || key == "general.file_type" && request.format.is_some();
    // The chat template that the adapter was trained with takes the place of the base's.
    let template = request.plain("a merged model")?.chat_template()?.map(|source| Value::String(source.to_owned()));
    let mut done = Exported::default();
    let angles = angles(&request.trained_config()?, &model.config).unwrap_or_else(|| {
        done.loses_angles = true;
        Vec::new()
    });
    if let Some(words) = request.angles()?.filter(|_| done.loses_angles) {
        done.warnings.push(format!(
            "GGUF has no words for rotary angles stretched by {words}, with which the adapter was trained: answers will differ; train with \
             --rope-scaling linear or yarn, or export with --to merged-safetensors"
        ));
    }
    let kept = |key: &str| {
        !stale(key)
            && (template.is_none() || key != TEMPLATE_KEY)
            && (angles.is_empty() || key != CONTEXT_KEY && !key.starts_with(ROPE_KEYS))
    };
    let mut metadata: Vec<(&str, &Value)> = model.metadata().iter().filter(|(key, _)| kept(key)).collect();
    metadata.extend(template.as_ref().map(|template| (TEMPLATE_KEY, template)));
    metadata.extend(angles.iter().map(|(key, value)| (*key, value)));
    let alignment = model.metadata().u64("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    let header = header(&metadata, &table, alignment);
    (done.files, done.bytes) = (vec![FILE.into()], header.total);
    sink.begin(FILE, header.total)?;
    sink.write(&header.bytes)?;
    let mut padding = header.padding.iter().map(|&n| vec![0; n]);
    let mut pad = |sink: &mut dyn Sink| padding.next().map_or(Ok(()), |zeros| sink.write(&zeros));
    for t in model.config_tensors() {
        sink.write(&model.read_config_tensor(t).await?)?;
        pad(sink)?;
    }
    for place in tensors {
        done.tensors.extend(updates.write(&place, format(&place), place.tensor.row_order, |bytes| sink.write(bytes)).await?);
        pad(sink)?;
    }
    sink.end()?;
    Ok(done)
}
