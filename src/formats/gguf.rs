//! The GGUF container, versions 2 and 3: metadata, the tensor table, and files split into parts.
//!
//! `magic | version | counts | metadata | tensor table | padding | tensor data`, little-endian. Every length, offset, count and type is checked
//! against its cap and against the size of the file before it is used.

use super::gguf_value::{MAX_KEY_BYTES, Metadata, read_value};
use super::header::{HINT_CONVERT, HeaderReader};
use super::source::{ByteSource, HINT_TRUNCATED};
use crate::error::{Error, Result};
use crate::quant::{self, QuantFormat};
use std::collections::HashSet;

/// The first four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Most key/value pairs.
pub const MAX_KV: u64 = 65_536;
/// Most tensors in one file.
pub const MAX_TENSORS: u64 = 65_536;
/// Longest tensor name in bytes (the format's own limit).
pub const MAX_NAME_BYTES: u64 = 64;
/// Most dimensions of a tensor (the format's own limit).
pub const MAX_DIMS: u32 = 4;
/// Largest `general.alignment`.
pub const MAX_ALIGNMENT: u64 = 65_536;
/// Longest header, up to the tensor data.
pub const MAX_HEADER_BYTES: u64 = 256 << 20;
/// Most parts of a split model.
pub const MAX_SPLITS: usize = 1024;

/// Alignment of tensor data when the file does not say.
const DEFAULT_ALIGNMENT: u64 = 32;

/// A row of the tensor table, checked against the file.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufTensor {
    /// Name in the file: `blk.0.attn_q.weight`.
    pub name: String,
    /// Sizes in torch order (`[out, in]`): the file's order reversed.
    pub shape: Vec<usize>,
    /// How the weights are stored.
    pub format: &'static QuantFormat,
    /// Offset of the first byte in its source.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// Which of the sources holds it.
    pub source: usize,
}

/// The header of one GGUF model: one file, or all parts of a split one.
#[derive(Debug, Clone)]
pub struct Gguf {
    /// Metadata of the first part.
    pub metadata: Metadata,
    /// Tensors of all parts, in file order.
    pub tensors: Vec<GgufTensor>,
    /// Format version, 2 or 3.
    pub version: u32,
    /// Where the tensor data of each source starts.
    pub data_offsets: Vec<u64>,
}

impl Gguf {
    /// Reads the headers of all parts of a model, given in any order.
    pub async fn read(sources: &[Box<dyn ByteSource>]) -> Result<Self> {
        if sources.is_empty() || sources.len() > MAX_SPLITS {
            return Err(Error::config(
                "model",
                format!("{} GGUF files given, 1 to {MAX_SPLITS} were expected", sources.len()),
                "pass the parts of one model",
            ));
        }
        let mut parts = Vec::with_capacity(sources.len());
        for (index, source) in sources.iter().enumerate() {
            parts.push(read_part(source.as_ref(), index).await?);
        }
        merge_parts(parts, sources)
    }
}

/// The header of one file.
async fn read_part(source: &dyn ByteSource, index: usize) -> Result<Gguf> {
    let mut r = HeaderReader::new(source);
    let version = read_version(&mut r).await?;
    // A tensor needs at least 8 + 4 + 8 + 4 + 8 bytes of table, a pair 8 + 4 + 1.
    let tensor_count = r.count(MAX_TENSORS, 32, "the tensor count").await?;
    let kv_count = r.count(MAX_KV, 13, "the metadata count").await?;
    let mut metadata = Metadata::new(source.name());
    for _ in 0..kv_count {
        let key = r.string(MAX_KEY_BYTES, "a metadata key").await?;
        let kind = r.u32(&key).await?;
        let value = read_value(&mut r, kind, &key).await?;
        if r.position() > MAX_HEADER_BYTES {
            return Err(r.error(format!("the header is longer than {MAX_HEADER_BYTES} bytes"), HINT_CONVERT));
        }
        if !metadata.insert(key.clone(), value) {
            return Err(r.error(format!("metadata key `{key}` occurs twice"), HINT_CONVERT));
        }
    }
    let alignment = alignment(&metadata, source.name())?;
    let mut names = HashSet::new();
    let mut tensors = Vec::new();
    for _ in 0..tensor_count {
        let tensor = read_tensor(&mut r, alignment, index).await?;
        if !names.insert(tensor.name.clone()) {
            return Err(r.error(format!("tensor `{}` occurs twice", tensor.name), HINT_CONVERT));
        }
        tensors.push(tensor);
    }
    let data_offset = r.position().next_multiple_of(alignment);
    place_tensors(&mut tensors, data_offset, source)?;
    Ok(Gguf { metadata, tensors, version, data_offsets: vec![data_offset] })
}

async fn read_version(r: &mut HeaderReader<'_>) -> Result<u32> {
    let magic: [u8; 4] = r.array("the magic number").await?;
    if magic != MAGIC {
        let hint = "pass a .gguf file, a .safetensors file or a folder with config.json";
        return Err(r.error(format!("it starts with {magic:02x?}, \"GGUF\" was expected"), hint));
    }
    match r.u32("the version").await? {
        version @ (2 | 3) => Ok(version),
        swapped if (1..=3).contains(&swapped.swap_bytes()) => Err(Error::Unsupported {
            what: format!("{}: a big-endian GGUF file", r.name()),
            hint: "convert the model to little-endian".into(),
        }),
        version => Err(Error::Unsupported {
            what: format!("{}: GGUF version {version}", r.name()),
            hint: "versions 2 and 3 are; convert the model again with a current converter".into(),
        }),
    }
}

fn alignment(metadata: &Metadata, file: &str) -> Result<u64> {
    let alignment = metadata.u64("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment == 0 || alignment % 8 != 0 || alignment > MAX_ALIGNMENT {
        let problem = format!("`general.alignment` is {alignment}, a multiple of 8 up to {MAX_ALIGNMENT} was expected");
        return Err(Error::format(file, problem, HINT_CONVERT));
    }
    Ok(alignment)
}

/// One row of the tensor table; `offset` is still relative to the tensor data.
async fn read_tensor(r: &mut HeaderReader<'_>, alignment: u64, source: usize) -> Result<GgufTensor> {
    let name = r.string(MAX_NAME_BYTES, "a tensor name").await?;
    let dims = r.u32(&name).await?;
    if dims == 0 || dims > MAX_DIMS {
        return Err(r.error(format!("tensor `{name}` has {dims} dimensions, 1 to {MAX_DIMS} was expected"), HINT_CONVERT));
    }
    let mut shape = Vec::new();
    for _ in 0..dims {
        let size = r.u64(&name).await?;
        match usize::try_from(size) {
            Ok(size) if size > 0 => shape.push(size),
            _ => return Err(r.error(format!("tensor `{name}` has a dimension of size {size}"), HINT_CONVERT)),
        }
    }
    shape.reverse();
    let kind = r.u32(&name).await?;
    let Some(format) = quant::by_ggml_id(kind) else { return Err(unsupported_type(r, &name, kind)) };
    let offset = r.u64(&name).await?;
    if offset % alignment != 0 {
        return Err(r.error(format!("tensor `{name}` is at offset {offset}, a multiple of {alignment} was expected"), HINT_CONVERT));
    }
    let Some(bytes) = tensor_bytes(&shape, format) else {
        let problem = format!("tensor `{name}` of shape {shape:?} does not fit {} blocks of {} weights", format.name, format.block);
        return Err(r.error(problem, HINT_CONVERT));
    };
    Ok(GgufTensor { name, shape, format, offset, bytes, source })
}

/// Bytes of a tensor, or `None` when a row is no whole number of blocks or the product overflows.
pub(super) fn tensor_bytes(shape: &[usize], format: &QuantFormat) -> Option<u64> {
    let (&cols, rows) = shape.split_last()?;
    let row = format.row_bytes(cols)? as u64;
    rows.iter().try_fold(row, |bytes, &n| bytes.checked_mul(n as u64))
}

fn unsupported_type(r: &HeaderReader<'_>, name: &str, kind: u32) -> Error {
    // Names of the types that ggml knows and this crate does not, so that the message can say which it is.
    const KNOWN: &[(u32, &str)] = &[
        (9, "Q8_1"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (24, "I8"),
        (25, "I16"),
        (26, "I32"),
        (27, "I64"),
        (28, "F64"),
        (29, "IQ1_M"),
        (34, "TQ1_0"),
        (35, "TQ2_0"),
        (39, "MXFP4"),
    ];
    match KNOWN.iter().find(|(id, _)| *id == kind) {
        Some((_, known)) => Error::Unsupported {
            what: format!("{}: tensor `{name}` of type {known}", r.name()),
            hint: format!(
                "use a file with one of {}",
                quant::FORMATS.iter().filter(|f| f.ggml_id.is_some()).map(|f| f.name).collect::<Vec<_>>().join(", ")
            ),
        },
        None => r.error(format!("tensor `{name}` has the unknown type number {kind}"), HINT_CONVERT),
    }
}

/// Makes offsets absolute, and refuses tensors that leave the file or overlap.
fn place_tensors(tensors: &mut [GgufTensor], data_offset: u64, source: &dyn ByteSource) -> Result<()> {
    for t in tensors.iter_mut() {
        let end = data_offset.checked_add(t.offset).and_then(|o| o.checked_add(t.bytes));
        if end.is_none_or(|end| end > source.len()) {
            let problem = format!(
                "tensor `{}` takes {} bytes at offset {} of the data, which starts at byte {data_offset}, but the file has {} bytes",
                t.name,
                t.bytes,
                t.offset,
                source.len()
            );
            return Err(Error::format(source.name(), problem, HINT_TRUNCATED));
        }
        t.offset += data_offset;
    }
    let mut order: Vec<&GgufTensor> = tensors.iter().collect();
    order.sort_by_key(|t| t.offset);
    match order.windows(2).find(|pair| pair[0].offset + pair[0].bytes > pair[1].offset) {
        Some(pair) => Err(Error::format(source.name(), format!("tensors `{}` and `{}` overlap", pair[0].name, pair[1].name), HINT_CONVERT)),
        None => Ok(()),
    }
}

/// Puts the parts of a split model in order and joins their tensor tables.
fn merge_parts(parts: Vec<Gguf>, sources: &[Box<dyn ByteSource>]) -> Result<Gguf> {
    const HINT: &str = "pass every part of one model, each once";
    let count = parts.len();
    let mut first = None;
    let mut seen = vec![false; count];
    let mut data_offsets = Vec::with_capacity(count);
    for (index, part) in parts.iter().enumerate() {
        let file = sources[index].name();
        let declared = part.metadata.usize("split.count")?.unwrap_or(1).max(1);
        let no = part.metadata.usize("split.no")?.unwrap_or(0);
        if declared != count {
            return Err(Error::format(
                file,
                format!("it is part {} of {declared} but {count} files were given", no.saturating_add(1)),
                HINT,
            ));
        }
        match seen.get_mut(no) {
            Some(slot) if !*slot => *slot = true,
            _ => return Err(Error::format(file, format!("part number {no} of {count} is out of range or there twice"), HINT)),
        }
        if no == 0 {
            first = Some(index);
        }
        data_offsets.push(part.data_offsets[0]);
    }
    let first = first.unwrap_or(0); // every number below `count` was seen once
    let declared = parts[first].metadata.usize("split.tensors.count")?;
    let version = parts[first].version;
    let metadata = parts[first].metadata.clone();
    let tensors: Vec<GgufTensor> = parts.into_iter().flat_map(|p| p.tensors).collect();
    if let Some(declared) = declared.filter(|&n| n != tensors.len()) {
        let problem = format!("`split.tensors.count` is {declared} but the parts hold {} tensors", tensors.len());
        return Err(Error::format(sources[first].name(), problem, HINT));
    }
    let mut names = HashSet::new();
    if let Some(twice) = tensors.iter().find(|t| !names.insert(t.name.as_str())) {
        return Err(Error::format(sources[twice.source].name(), format!("tensor `{}` is in another part too", twice.name), HINT));
    }
    Ok(Gguf { metadata, tensors, version, data_offsets })
}
