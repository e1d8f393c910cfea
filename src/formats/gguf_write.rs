//! The header of a GGUF file that is written tensor by tensor after it: metadata, tensor table, and where each tensor's bytes go.

use super::gguf::MAGIC;
use super::gguf_value::{Array, Value};
use crate::quant::QuantFormat;

/// The version that is written.
const VERSION: u32 = 3;

/// A tensor of the file to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTensor {
    /// Name in the file: `blk.0.attn_q.weight`.
    pub name: String,
    /// Sizes in torch order, `[out, in]`.
    pub shape: Vec<usize>,
    /// How its weights will be stored; a format that GGUF has, of whose blocks a row is a whole number.
    pub format: &'static QuantFormat,
}

impl NewTensor {
    /// Bytes of the tensor.
    ///
    /// # Panics
    /// When a row is no whole number of blocks.
    pub fn bytes(&self) -> u64 {
        let (cols, rows) = self.shape.split_last().map_or((0, &[][..]), |(cols, rows)| (*cols, rows));
        let row = self.format.row_bytes(cols).expect("rows are whole blocks") as u64;
        rows.iter().fold(row, |bytes, &n| bytes * n as u64)
    }
}

/// A header, ready to be written, and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewHeader {
    /// The file's bytes up to the first tensor, padding included.
    pub bytes: Vec<u8>,
    /// Zero bytes to write after each tensor.
    pub padding: Vec<usize>,
    /// Size of the whole file.
    pub total: u64,
}

/// Lays a file out: tensors follow the header in their order, each at a multiple of `alignment` (which is a power of two, or what the key
/// `general.alignment` in the metadata says).
///
/// # Panics
/// When a tensor's format is none of GGUF's, or a row is no whole number of blocks.
pub fn header(metadata: &[(&str, &Value)], tensors: &[NewTensor], alignment: u64) -> NewHeader {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        put_string(&mut bytes, key);
        bytes.extend(kind(value).to_le_bytes());
        put_value(&mut bytes, value);
    }
    let (mut offset, mut padding) = (0u64, Vec::with_capacity(tensors.len()));
    for tensor in tensors {
        put_string(&mut bytes, &tensor.name);
        bytes.extend((tensor.shape.len() as u32).to_le_bytes());
        // The file has the fastest dimension first.
        tensor.shape.iter().rev().for_each(|&n| bytes.extend((n as u64).to_le_bytes()));
        bytes.extend(tensor.format.ggml_id.expect("a format of GGUF").to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        let end = offset + tensor.bytes();
        offset = end.next_multiple_of(alignment);
        padding.push((offset - end) as usize);
    }
    bytes.resize((bytes.len() as u64).next_multiple_of(alignment) as usize, 0);
    let total = bytes.len() as u64 + offset;
    NewHeader { bytes, padding, total }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The type number of a value.
fn kind(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.extend(v.to_le_bytes()),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => put_string(out, v),
        Value::Array(v) => put_array(out, v),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    let head = |out: &mut Vec<u8>, kind: u32| {
        out.extend(kind.to_le_bytes());
        out.extend((array.len() as u64).to_le_bytes());
    };
    macro_rules! numbers {
        ($kind:literal, $items:expr) => {{
            head(out, $kind);
            $items.iter().for_each(|v| out.extend(v.to_le_bytes()));
        }};
    }
    match array {
        Array::U8(v) => numbers!(0, v),
        Array::I8(v) => numbers!(1, v),
        Array::U16(v) => numbers!(2, v),
        Array::I16(v) => numbers!(3, v),
        Array::U32(v) => numbers!(4, v),
        Array::I32(v) => numbers!(5, v),
        Array::F32(v) => numbers!(6, v),
        Array::Bool(v) => {
            head(out, 7);
            out.extend(v.iter().map(|b| u8::from(*b)));
        }
        Array::String(v) => {
            head(out, 8);
            v.iter().for_each(|text| put_string(out, text));
        }
        Array::Array(v) => {
            head(out, 9);
            v.iter().for_each(|inner| put_array(out, inner));
        }
        Array::U64(v) => numbers!(10, v),
        Array::I64(v) => numbers!(11, v),
        Array::F64(v) => numbers!(12, v),
    }
}
