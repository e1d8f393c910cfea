//! Base and adapter as one GGUF file: the base's metadata and tensors as they are, but for the weights that the adapter changes.

use super::Updates;
use crate::export::exporters::{Exported, Request, Sink};
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
    let format = |t: &TensorInfo| request.format.filter(|_| updates.changes(t)).unwrap_or(t.format);
    let mut table: Vec<NewTensor> = Vec::with_capacity(tensors.len());
    for t in model.config_tensors() {
        table.push(NewTensor { name: t.name.clone(), shape: t.shape.clone(), format: t.format });
    }
    for t in &tensors {
        // Before anything is written.
        if updates.changes(t) {
            check_writable(&t.name, t.cols(), format(t))?;
        }
        let name =
            gguf_name(&t.name).ok_or_else(|| Error::format(model.name(), format!("`{}` has no name in GGUF", t.name), "report it"))?;
        table.push(NewTensor { name, shape: t.shape.clone(), format: format(t) });
    }
    // The file type names the format of most weights; a split file becomes one.
    let stale = |key: &str| key.starts_with("split.") || key == "general.file_type" && request.format.is_some();
    // The chat template that the adapter was trained with takes the place of the base's.
    let template = request.plain("a merged model")?.chat_template()?.map(|source| Value::String(source.to_owned()));
    let kept = |key: &str| !stale(key) && (template.is_none() || key != TEMPLATE_KEY);
    let mut metadata: Vec<(&str, &Value)> = model.metadata().iter().filter(|(key, _)| kept(key)).collect();
    metadata.extend(template.as_ref().map(|template| (TEMPLATE_KEY, template)));
    let alignment = model.metadata().u64("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    let header = header(&metadata, &table, alignment);
    let mut done = Exported { files: vec![FILE.into()], bytes: header.total, tensors: Vec::new() };
    sink.begin(FILE, header.total)?;
    sink.write(&header.bytes)?;
    let mut padding = header.padding.iter().map(|&n| vec![0; n]);
    let mut pad = |sink: &mut dyn Sink| padding.next().map_or(Ok(()), |zeros| sink.write(&zeros));
    for t in model.config_tensors() {
        sink.write(&model.read_config_tensor(t).await?)?;
        pad(sink)?;
    }
    for t in tensors {
        done.tensors.extend(updates.write(t, format(t), t.row_order, |bytes| sink.write(bytes)).await?);
        pad(sink)?;
    }
    sink.end()?;
    Ok(done)
}
