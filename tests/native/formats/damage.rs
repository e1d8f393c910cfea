//! Random truncation and mutation: a damaged file is refused or read, never a panic, and never a read of more than the file or one window.

use super::build::*;
use proptest::prelude::*;
use serde_json::json;
use std::cell::Cell;
use std::rc::Rc;
use weblora::formats::{ByteSource, Bytes, LocalFuture, ModelFile};

/// Counts the bytes that are asked for.
struct Metered {
    inner: Bytes,
    read: Rc<Cell<u64>>,
}

impl ByteSource for Metered {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn read<'a>(&'a self, offset: u64, len: usize) -> LocalFuture<'a, weblora::Result<Vec<u8>>> {
        self.read.set(self.read.get() + len as u64);
        self.inner.read(offset, len)
    }
}

/// Opens and reads everything that can be read; returns how many bytes were fetched to open.
fn exercise(data: Vec<u8>, gguf: bool) -> u64 {
    let read = Rc::new(Cell::new(0));
    let source = Metered { inner: Bytes::new("damaged", data), read: read.clone() };
    let sources: Vec<Box<dyn ByteSource>> = vec![Box::new(source)];
    let opened = pollster::block_on(async {
        if gguf {
            ModelFile::open_gguf(sources).await
        } else {
            ModelFile::open_safetensors(sources, None, side(config_json(json!({})))).await
        }
    });
    let to_open = read.get();
    match opened {
        Err(e) => assert!(!e.to_string().is_empty()),
        Ok(model) => {
            let names: Vec<String> = model.tensors().map(|t| t.name.clone()).collect();
            for name in names {
                let _ = pollster::block_on(model.read_f32(&name)); // NaN is an error, everything else is a number
            }
        }
    }
    to_open
}

fn safetensors() -> Vec<u8> {
    let model = GgufFile::llama().open().unwrap();
    let tensors: Vec<_> = model
        .tensors()
        .map(|t| (t.name.clone(), t.shape.clone(), pollster::block_on(model.read_rows(&t.name, 0..t.rows())).unwrap()))
        .collect();
    let views = tensors.iter().map(|(n, s, b)| (n, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, s.clone(), b).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// A few changes: position as a fraction of the header, and the new byte; or eight equal bytes, which hit whole length fields.
fn changes() -> impl Strategy<Value = Vec<(f64, u8, bool)>> {
    let byte = prop_oneof![any::<u8>(), Just(0), Just(0xff), Just(0x7f)];
    prop::collection::vec((0.0..1.0, byte, any::<bool>()), 1..4)
}

fn damage(mut data: Vec<u8>, header: usize, changes: &[(f64, u8, bool)], keep: Option<f64>) -> Vec<u8> {
    for &(at, byte, wide) in changes {
        let at = (at * header as f64) as usize;
        let end = (at + if wide { 8 } else { 1 }).min(data.len());
        data[at..end].fill(byte);
    }
    if let Some(keep) = keep {
        data.truncate((keep * data.len() as f64) as usize);
    }
    data
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn gguf(changes in changes(), keep in prop::option::weighted(0.3, 0.0..1.0)) {
        let mut file = GgufFile::llama();
        file.kv.push(kv_array("tokenizer.ggml.tokens", 8, 3, &["a", "bc", ""].map(string).concat()));
        file.kv.push(kv_array("tokenizer.ggml.scores", 6, 3, &[0; 12]));
        let data = file.bytes();
        let size = data.len() as u64;
        let header = file.bytes().len() - file.tensors.iter().map(|t| t.data.len().next_multiple_of(32)).sum::<usize>();
        prop_assert!(exercise(damage(data, header, &changes, keep), true) <= 2 * size);
    }

    #[test]
    fn safetensors_file(changes in changes(), keep in prop::option::weighted(0.3, 0.0..1.0)) {
        let data = safetensors();
        let size = data.len() as u64;
        let header = 8 + u64::from_le_bytes(data[..8].try_into().unwrap()) as usize;
        prop_assert!(exercise(damage(data, header, &changes, keep), false) <= 2 * size);
    }
}

#[test]
fn every_truncation() {
    for (data, gguf) in [(GgufFile::llama().bytes(), true), (safetensors(), false)] {
        assert!(exercise(data.clone(), gguf) > 0);
        for len in 0..data.len() {
            let cut = data[..len].to_vec();
            let opened = pollster::block_on(async {
                let sources = sources(vec![cut]);
                if gguf {
                    ModelFile::open_gguf(sources).await
                } else {
                    ModelFile::open_safetensors(sources, None, side(config_json(json!({})))).await
                }
            });
            assert!(opened.is_err(), "{len} of {} bytes were accepted", data.len());
        }
    }
}
