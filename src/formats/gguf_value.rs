//! Metadata values of a GGUF file: every scalar type, strings and (nested) arrays, with typed look-ups.

use super::header::{HINT_CONVERT, HeaderReader};
use super::source::LocalFuture;
use crate::error::{Error, Result};
use std::collections::HashMap;

/// Longest metadata key in bytes (the format's own limit).
pub const MAX_KEY_BYTES: u64 = 65_535;
/// Longest metadata string in bytes; the longest known is a whole `tokenizer.json`, about 35 MB.
pub const MAX_STRING_BYTES: u64 = 64 << 20;
/// Most elements of a metadata array; the longest known are merges, about 500 thousand.
pub const MAX_ARRAY_LEN: u64 = 1 << 22;
/// Deepest nesting of arrays in arrays.
pub const MAX_ARRAY_DEPTH: usize = 4;

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Type 0.
    U8(u8),
    /// Type 1.
    I8(i8),
    /// Type 2.
    U16(u16),
    /// Type 3.
    I16(i16),
    /// Type 4.
    U32(u32),
    /// Type 5.
    I32(i32),
    /// Type 6.
    F32(f32),
    /// Type 7, one byte that is 0 or 1.
    Bool(bool),
    /// Type 8.
    String(String),
    /// Type 9.
    Array(Array),
    /// Type 10.
    U64(u64),
    /// Type 11.
    I64(i64),
    /// Type 12.
    F64(f64),
}

/// The elements of an array, all of one type.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Elements of type 0.
    U8(Vec<u8>),
    /// Elements of type 1.
    I8(Vec<i8>),
    /// Elements of type 2.
    U16(Vec<u16>),
    /// Elements of type 3.
    I16(Vec<i16>),
    /// Elements of type 4.
    U32(Vec<u32>),
    /// Elements of type 5.
    I32(Vec<i32>),
    /// Elements of type 6.
    F32(Vec<f32>),
    /// Elements of type 7.
    Bool(Vec<bool>),
    /// Elements of type 8.
    String(Vec<String>),
    /// Elements of type 9.
    Array(Vec<Array>),
    /// Elements of type 10.
    U64(Vec<u64>),
    /// Elements of type 11.
    I64(Vec<i64>),
    /// Elements of type 12.
    F64(Vec<f64>),
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Array(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Value {
    /// Name of the type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::F32(_) => "f32",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F64(_) => "f64",
        }
    }

    /// The value as a non-negative integer, from any integer type.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => v.try_into().ok(),
            Self::I16(v) => v.try_into().ok(),
            Self::I32(v) => v.try_into().ok(),
            Self::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// The value as a number, from either float type.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(v) => Some(v.into()),
            Self::F64(v) => Some(v),
            _ => None,
        }
    }
}

/// All key/value pairs of a GGUF file, in file order; empty for other containers.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    file: String,
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Metadata {
    /// No entries; errors call the file `file`.
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), ..Self::default() }
    }

    /// Adds a pair; `false` (and nothing added) when the key is there already.
    pub fn insert(&mut self, key: String, value: Value) -> bool {
        if self.index.contains_key(&key) {
            return false;
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
        true
    }

    /// Pairs in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `key`, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&i| &self.entries[i].1)
    }

    fn typed<'a, T>(&'a self, key: &str, expected: &str, cast: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match cast(value) {
            Some(v) => Ok(Some(v)),
            None => {
                let problem = format!("metadata key `{key}` is a {}, {expected} was expected", value.type_name());
                Err(Error::format(&self.file, problem, HINT_CONVERT))
            }
        }
    }

    /// A non-negative integer of any integer type; an error when the key has another type.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// A non-negative integer that fits this machine's sizes; an error when the key has another type or is larger.
    pub fn usize(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "an integer that fits in memory sizes", |v| v.as_u64()?.try_into().ok())
    }

    /// A float of either width; an error when the key has another type.
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a float", Value::as_f64)
    }

    /// A bool; an error when the key has another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |v| if let Value::Bool(b) = v { Some(*b) } else { None })
    }

    /// A string; an error when the key has another type.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |v| if let Value::String(s) = v { Some(s.as_str()) } else { None })
    }

    /// An array of strings; an error when the key has another type.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of strings", |v| if let Value::Array(Array::String(s)) = v { Some(s.as_slice()) } else { None })
    }

    /// An array of f32; an error when the key has another type.
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "an array of f32", |v| if let Value::Array(Array::F32(s)) = v { Some(s.as_slice()) } else { None })
    }

    /// An array of i32; an error when the key has another type.
    pub fn i32s(&self, key: &str) -> Result<Option<&[i32]>> {
        self.typed(key, "an array of i32", |v| if let Value::Array(Array::I32(s)) = v { Some(s.as_slice()) } else { None })
    }

    /// The value of a getter, or an error that names the missing key: `metadata.require(key, metadata.usize(key)?)`.
    pub fn require<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::format(&self.file, format!("metadata key `{key}` is missing"), HINT_CONVERT))
    }
}

/// Fewest bytes an element of that type can take, or `None` for a type number that does not exist.
fn least_bytes(kind: u32) -> Option<u64> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        9 => 12,
        _ => return None,
    })
}

pub(super) async fn read_value(r: &mut HeaderReader<'_>, kind: u32, key: &str) -> Result<Value> {
    Ok(match kind {
        0 => Value::U8(u8::from_le_bytes(r.array(key).await?)),
        1 => Value::I8(i8::from_le_bytes(r.array(key).await?)),
        2 => Value::U16(u16::from_le_bytes(r.array(key).await?)),
        3 => Value::I16(i16::from_le_bytes(r.array(key).await?)),
        4 => Value::U32(r.u32(key).await?),
        5 => Value::I32(i32::from_le_bytes(r.array(key).await?)),
        6 => Value::F32(f32::from_le_bytes(r.array(key).await?)),
        7 => Value::Bool(read_bool(r, key).await?),
        8 => Value::String(r.string(MAX_STRING_BYTES, key).await?),
        9 => Value::Array(read_array(r, key, 1).await?),
        10 => Value::U64(r.u64(key).await?),
        11 => Value::I64(i64::from_le_bytes(r.array(key).await?)),
        12 => Value::F64(f64::from_le_bytes(r.array(key).await?)),
        _ => return Err(r.error(format!("metadata key `{key}` has the unknown value type {kind}, 0 to 12 was expected"), HINT_CONVERT)),
    })
}

async fn read_bool(r: &mut HeaderReader<'_>, key: &str) -> Result<bool> {
    match r.array::<1>(key).await? {
        [0] => Ok(false),
        [1] => Ok(true),
        [b] => Err(r.error(format!("metadata key `{key}` is a bool of value {b}, 0 or 1 was expected"), HINT_CONVERT)),
    }
}

/// Numbers of `N` bytes each, fetched in bounded pieces: nothing is allocated for elements that have not arrived.
async fn read_numbers<const N: usize, T>(r: &mut HeaderReader<'_>, len: usize, key: &str, number: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
    const PIECE: usize = 65_536;
    let mut numbers = Vec::with_capacity(len.min(PIECE));
    let mut left = len;
    while left > 0 {
        let piece = left.min(PIECE);
        let bytes = r.take(piece * N, key).await?;
        numbers.extend(bytes.as_chunks::<N>().0.iter().map(|&b| number(b)));
        left -= piece;
    }
    Ok(numbers)
}

/// Boxed because arrays nest.
fn read_array<'r>(r: &'r mut HeaderReader<'_>, key: &'r str, depth: usize) -> LocalFuture<'r, Result<Array>> {
    Box::pin(async move {
        let kind = r.u32(key).await?;
        let Some(item_bytes) = least_bytes(kind) else {
            return Err(r.error(format!("metadata key `{key}` has the unknown element type {kind}, 0 to 12 was expected"), HINT_CONVERT));
        };
        if depth > MAX_ARRAY_DEPTH {
            return Err(r.error(format!("metadata key `{key}` nests arrays deeper than {MAX_ARRAY_DEPTH}"), HINT_CONVERT));
        }
        let n = r.count(MAX_ARRAY_LEN, item_bytes, key).await?;
        Ok(match kind {
            0 => Array::U8(read_numbers(r, n, key, u8::from_le_bytes).await?),
            1 => Array::I8(read_numbers(r, n, key, i8::from_le_bytes).await?),
            2 => Array::U16(read_numbers(r, n, key, u16::from_le_bytes).await?),
            3 => Array::I16(read_numbers(r, n, key, i16::from_le_bytes).await?),
            4 => Array::U32(read_numbers(r, n, key, u32::from_le_bytes).await?),
            5 => Array::I32(read_numbers(r, n, key, i32::from_le_bytes).await?),
            6 => Array::F32(read_numbers(r, n, key, f32::from_le_bytes).await?),
            7 => {
                let mut items = Vec::new();
                for _ in 0..n {
                    items.push(read_bool(r, key).await?);
                }
                Array::Bool(items)
            }
            8 => {
                let mut items = Vec::new();
                for _ in 0..n {
                    items.push(r.string(MAX_STRING_BYTES, key).await?);
                }
                Array::String(items)
            }
            9 => {
                let mut items = Vec::new();
                for _ in 0..n {
                    items.push(read_array(r, key, depth + 1).await?);
                }
                Array::Array(items)
            }
            10 => Array::U64(read_numbers(r, n, key, u64::from_le_bytes).await?),
            11 => Array::I64(read_numbers(r, n, key, i64::from_le_bytes).await?),
            _ => Array::F64(read_numbers(r, n, key, f64::from_le_bytes).await?),
        })
    })
}
