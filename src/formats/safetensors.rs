//! The safetensors container: one file, or shards with `model.safetensors.index.json`.
//!
//! `header length u64 | JSON header | tensor data`. The `safetensors` crate keeps offsets in `usize`, which is 32 bits in a browser while shards
//! of 5 GB are common, and wants the whole file in memory to check a header; so the header is checked here, by the same rules, in u64.

use super::gguf::tensor_bytes;
use super::header::HINT_CONVERT;
use super::json::Object;
use super::source::{ByteSource, HINT_TRUNCATED};
use crate::error::{Error, Result};
use crate::quant::{self, QuantFormat};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Longest JSON header in bytes (the format's own limit).
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Bytes of the header length.
const PREFIX: u64 = 8;

/// A tensor of one file, checked against it.
#[derive(Debug, Clone, PartialEq)]
pub struct SafetensorsEntry {
    /// Name as stored.
    pub name: String,
    /// Sizes in torch order.
    pub shape: Vec<usize>,
    /// How the weights are stored.
    pub format: &'static QuantFormat,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Reads and checks the header of one file: tensors lie without gaps or overlaps and fill the file exactly.
/// Tensors whose name `wanted` refuses are checked for place only.
pub async fn read_header(source: &dyn ByteSource, wanted: impl Fn(&str) -> bool) -> Result<Vec<SafetensorsEntry>> {
    let name = source.name();
    let bad = |problem: String| Error::format(name, problem, HINT_CONVERT);
    if source.len() < PREFIX {
        return Err(Error::format(name, format!("{} bytes, a header of at least {PREFIX} was expected", source.len()), HINT_TRUNCATED));
    }
    let mut prefix = [0; PREFIX as usize];
    prefix.copy_from_slice(&source.read(0, PREFIX as usize).await?);
    let len = u64::from_le_bytes(prefix);
    if len > MAX_HEADER_BYTES {
        return Err(bad(format!("the header claims {len} bytes, at most {MAX_HEADER_BYTES} was expected")));
    }
    if len > source.len() - PREFIX {
        let problem = format!("the header claims {len} bytes but only {} follow", source.len() - PREFIX);
        return Err(Error::format(name, problem, HINT_TRUNCATED));
    }
    let text = String::from_utf8(source.read(PREFIX, len as usize).await?).map_err(|_| bad("the header is not UTF-8 text".into()))?;
    let header = Object::parse(name, &text)?;
    let mut raw = Vec::new();
    for (tensor, value) in header.iter().filter(|(key, _)| *key != "__metadata__") {
        let entry = RawEntry::deserialize(value).map_err(|e| bad(format!("tensor `{tensor}`: {e}")))?;
        raw.push((tensor, entry));
    }
    raw.sort_by_key(|(_, e)| e.data_offsets);
    let data_start = PREFIX + len;
    check_places(source, data_start, &raw)?;
    raw.into_iter().filter(|(tensor, _)| wanted(tensor)).map(|(tensor, e)| entry(source, data_start, tensor, &e)).collect()
}

/// `raw` is sorted by offset.
fn check_places(source: &dyn ByteSource, data_start: u64, raw: &[(&str, RawEntry)]) -> Result<()> {
    let mut end = 0;
    for (tensor, RawEntry { data_offsets: (from, to), .. }) in raw {
        if *from != end || to < from {
            let problem = format!("tensor `{tensor}` is at {from}..{to} of the data, a start at {end} was expected");
            return Err(Error::format(source.name(), problem, HINT_CONVERT));
        }
        end = *to;
    }
    let size = source.len() - data_start;
    if end != size {
        let problem = format!("the header describes {end} bytes of data but {size} follow it");
        return Err(Error::format(source.name(), problem, HINT_TRUNCATED));
    }
    Ok(())
}

/// Checks type and shape of one tensor, whose place is known to be inside the file.
fn entry(source: &dyn ByteSource, data_start: u64, tensor: &str, e: &RawEntry) -> Result<SafetensorsEntry> {
    let Some(format) = quant::by_safetensors_dtype(&e.dtype) else {
        return Err(Error::Unsupported {
            what: format!("{}: tensor `{tensor}` of dtype {}", source.name(), e.dtype),
            hint: "F32, F16 and BF16 are".into(),
        });
    };
    let wrong = |problem: String| Error::format(source.name(), format!("tensor `{tensor}` {problem}"), HINT_CONVERT);
    let shape: Option<Vec<usize>> = e.shape.iter().map(|&n| usize::try_from(n).ok().filter(|&n| n > 0)).collect();
    let shape = shape.filter(|s| !s.is_empty()).ok_or_else(|| wrong(format!("has the shape {:?}", e.shape)))?;
    let (from, to) = e.data_offsets;
    match tensor_bytes(&shape, format) {
        Some(bytes) if bytes == to - from => {
            Ok(SafetensorsEntry { name: tensor.to_owned(), shape, format, offset: data_start + from, bytes })
        }
        _ => Err(wrong(format!("has {} bytes, which its shape {:?} of {} contradicts", to - from, e.shape, e.dtype))),
    }
}

/// The `weight_map` of a `model.safetensors.index.json`: tensor name to file name. File names with a folder in them are refused.
pub fn parse_index(file: &str, text: &str) -> Result<BTreeMap<String, String>> {
    let index = Object::parse(file, text)?;
    let map = index.require("weight_map", index.object("weight_map")?)?;
    let mut shards = BTreeMap::new();
    for (tensor, shard) in map.iter() {
        match shard.as_str() {
            Some(shard) if is_plain_name(shard) => shards.insert(tensor.to_owned(), shard.to_owned()),
            _ => {
                return Err(
                    map.error(format!("tensor `{tensor}` is said to be in {shard}, the name of a file in the same folder was expected"))
                );
            }
        };
    }
    Ok(shards)
}

/// A file name that cannot lead out of its folder.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0'])
}
