//! Base and adapter as one float model: a Hugging Face folder that transformers loads as it is.

use serde_json::{Map, Value, json};

use super::{Place, Updates, hf_config};
use crate::export::request::{Exported, Request, Sink, write_whole};
use crate::export::retention::check_writable;
use crate::formats::{RowOrder, TensorInfo};
use crate::quant::{F16, QuantFormat};
use crate::{Error, Result};

/// Name of the weights' file.
pub const FILE: &str = "model.safetensors";

/// Writes it. Float tensors keep their format unless the request names one; quantised ones become f16. Norms stay as they are.
///
/// # Errors
/// When the format is none of safetensors', or a weight does not fit it.
pub async fn export(request: &Request<'_>, sink: &mut dyn Sink) -> Result<Exported> {
    let updates = Updates::new(request)?;
    let model = updates.model;
    if let Some(format) = request.format.filter(|f| f.safetensors_dtype.is_none()) {
        return Err(Error::config("format", format!("safetensors has no {}", format.name), "use f16, bf16 or f32"));
    }
    let format = |t: &TensorInfo| -> &'static QuantFormat {
        let own = t.format.safetensors_dtype.map(|_| t.format);
        match request.format {
            Some(format) if t.shape.len() > 1 => format,
            _ => own.unwrap_or(request.format.unwrap_or(&F16)),
        }
    };
    let tensors: Vec<Place<'_>> = updates.places(model.tensors().collect());
    let mut table = Map::new();
    table.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0u64;
    for place in &tensors {
        let t = place.tensor;
        check_writable(&t.name, t.cols(), format(t))?;
        let end = offset + t.rows() as u64 * t.cols() as u64 * format(t).block_bytes as u64;
        let entry = json!({"dtype": format(t).safetensors_dtype, "shape": t.shape, "data_offsets": [offset, end]});
        table.insert(place.name.clone(), entry);
        offset = end;
    }
    let mut header = Value::Object(table).to_string();
    // The format's own writer aligns the data so.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));

    let mut done = Exported::default();
    // Most weights decide what the configuration says.
    let dtype = tensors.iter().map(|place| place.tensor).filter(|t| t.shape.len() > 1).map(format).next().unwrap_or(&F16);
    let mut config = request.trained_config()?;
    config.tie_word_embeddings &= !updates.unties();
    for (name, bytes) in hf_config::side_files(model, &config, dtype, request.plain("a merged model")?.chat_template()?)? {
        write_whole(sink, &mut done, name, &bytes)?;
    }
    let total = 8 + header.len() as u64 + offset;
    sink.begin(FILE, total)?;
    sink.write(&(header.len() as u64).to_le_bytes())?;
    sink.write(header.as_bytes())?;
    for place in tensors {
        done.tensors.extend(updates.write(&place, format(place.tensor), RowOrder::Hf, |bytes| sink.write(bytes)).await?);
    }
    sink.end()?;
    done.files.push(FILE.into());
    done.bytes += total;
    Ok(done)
}
