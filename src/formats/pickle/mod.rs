//! Tensors in the files of `torch.save`: a zip archive with a pickle and one file for each storage.
//!
//! A pickle is a program that may call any function of Python. Here it can only build numbers, texts, tuples, dictionaries and tensors: see
//! `machine`; whatever else it names is refused. What is read is a dictionary from names to float tensors.

mod machine;
mod opcodes;
mod write;

use std::borrow::Cow;
use std::collections::HashMap;

pub use machine::GLOBALS;
pub use write::write;

use self::machine::{HINT, Strided, run};
use super::zip;
use crate::error::{Error, Result};
use crate::quant::QuantFormat;

/// Largest pickle: names and shapes of a hundred thousand tensors.
const MAX_PICKLE_BYTES: usize = 32 << 20;
/// The pickle's name in its folder.
const PROGRAM: &str = "data.pkl";

/// A tensor of a file.
#[derive(Debug, Clone)]
pub struct PickledTensor<'a> {
    /// Its key in the dictionary.
    pub name: String,
    /// Sizes; none for a single number.
    pub shape: Vec<usize>,
    /// Type of its numbers.
    pub format: &'static QuantFormat,
    /// Its numbers, row after row: of the file, or put in order where it has them otherwise.
    pub bytes: Cow<'a, [u8]>,
}

/// Whether a file begins as one of `torch.save` does.
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(zip::MAGIC)
}

/// Reads all tensors of a file that errors call `file`, in its order.
///
/// # Errors
/// When the archive is damaged, when the pickle does anything but describe tensors by name, when a tensor leaves its storage, or when the
/// tensors have more numbers together than their storages.
pub fn read<'a>(file: &str, archive: &'a [u8]) -> Result<Vec<PickledTensor<'a>>> {
    let bad = |problem: String| Error::format(file, problem, HINT);
    let entries = zip::read(file, archive)?;
    let program = entries.iter().find_map(|entry| Some((entry.name.strip_suffix(PROGRAM)?.strip_suffix('/')?, entry.bytes)));
    let (folder, program) = program.ok_or_else(|| bad(format!("it has no {PROGRAM}: torch.save did not write it")))?;
    if program.len() > MAX_PICKLE_BYTES {
        return Err(bad(format!("its pickle has {} bytes, at most {MAX_PICKLE_BYTES} were expected", program.len())));
    }
    let files: HashMap<&str, &[u8]> =
        entries.iter().filter_map(|entry| Some((entry.name.strip_prefix(folder)?.strip_prefix('/')?, entry.bytes))).collect();
    if let Some(order) = files.get("byteorder").filter(|order| **order != b"little") {
        return Err(bad(format!("its numbers are {}-endian", String::from_utf8_lossy(&order[..order.len().min(16)]))));
    }
    let named = run(file, program)?;
    let mut left = HashMap::new();
    let mut tensors = Vec::with_capacity(named.len());
    for (name, tensor) in named {
        let wrong = |problem: String| bad(format!("tensor `{name}` {problem}"));
        let key = tensor.storage.key.as_str();
        let storage =
            *files.get(format!("data/{key}").as_str()).ok_or_else(|| wrong(format!("is in storage {key:?}, which is not there")))?;
        let expected = tensor.storage.format.row_bytes(tensor.storage.numel);
        if expected != Some(storage.len()) {
            let problem = format!("is in storage {key:?} of {} numbers in {} bytes", tensor.storage.numel, storage.len());
            return Err(wrong(problem));
        }
        let count = elements(&tensor).map_err(wrong)?;
        let left = left.entry(key.to_owned()).or_insert(tensor.storage.numel);
        *left = left.checked_sub(count).ok_or_else(|| wrong(format!("shares the numbers of storage {key:?} with others")))?;
        let bytes = place(&tensor, count, storage);
        tensors.push(PickledTensor { name, shape: tensor.shape, format: tensor.storage.format, bytes });
    }
    Ok(tensors)
}

/// How many numbers a tensor has, all of them in its storage; or what is wrong with it.
fn elements(tensor: &Strided) -> std::result::Result<usize, String> {
    let outside = || format!("of shape {:?} and strides {:?} from {} leaves its storage", tensor.shape, tensor.strides, tensor.offset);
    let count = tensor.shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size)).ok_or_else(outside)?;
    if count == 0 {
        return Ok(0);
    }
    let mut last = tensor.offset;
    for (size, stride) in tensor.shape.iter().zip(&tensor.strides) {
        last = (size - 1).checked_mul(*stride).and_then(|step| last.checked_add(step)).ok_or_else(outside)?;
    }
    if last < tensor.storage.numel { Ok(count) } else { Err(outside()) }
}

/// The tensor's numbers in order; [`elements`] has checked that they are there.
fn place<'a>(tensor: &Strided, count: usize, storage: &'a [u8]) -> Cow<'a, [u8]> {
    if count == 0 {
        return Cow::Borrowed(&[]);
    }
    let width = tensor.storage.format.block_bytes;
    let mut dense = 1;
    let in_order = tensor.shape.iter().zip(&tensor.strides).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == dense;
        dense *= size;
        fits
    });
    if in_order {
        return Cow::Borrowed(&storage[tensor.offset * width..(tensor.offset + count) * width]);
    }
    let mut bytes = Vec::with_capacity(count * width);
    let mut index = vec![0; tensor.shape.len()];
    for _ in 0..count {
        let at = tensor.offset + index.iter().zip(&tensor.strides).map(|(i, stride)| i * stride).sum::<usize>();
        bytes.extend_from_slice(&storage[at * width..(at + 1) * width]);
        for (i, size) in index.iter_mut().zip(&tensor.shape).rev() {
            *i += 1;
            if *i < *size {
                break;
            }
            *i = 0;
        }
    }
    Cow::Owned(bytes)
}
