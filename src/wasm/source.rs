//! Bytes from JavaScript: a `Blob`, a file of the origin's storage, a server that answers ranges.

use std::cell::Cell;
use std::rc::Rc;

use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::convert::from_thrown;
use crate::formats::{ByteSource, LocalFuture, check_range};
use crate::{Error, Result};

#[wasm_bindgen]
extern "C" {
    /// An object with `name`, `size` and `read(offset, length)`.
    #[wasm_bindgen(typescript_type = "ByteSource")]
    pub type JsByteSource;

    #[wasm_bindgen(method, getter)]
    fn name(this: &JsByteSource) -> String;
    #[wasm_bindgen(method, getter)]
    fn size(this: &JsByteSource) -> f64;
    #[wasm_bindgen(method, catch)]
    fn read(this: &JsByteSource, offset: f64, length: f64) -> Result<js_sys::Promise, JsValue>;
}

/// A [`JsByteSource`] as the library reads it. Reading fails once the running call is aborted.
pub struct Foreign {
    source: JsByteSource,
    name: String,
    len: u64,
    abort: Rc<Cell<bool>>,
}

impl Foreign {
    /// Wraps a source.
    pub fn new(source: JsByteSource, abort: Rc<Cell<bool>>) -> Self {
        Self { name: source.name(), len: source.size() as u64, source, abort }
    }
}

impl ByteSource for Foreign {
    fn name(&self) -> &str {
        &self.name
    }
    fn len(&self) -> u64 {
        self.len
    }
    fn read<'a>(&'a self, offset: u64, len: usize) -> LocalFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            check_range(&self.name, self.len, offset, len)?;
            if self.abort.get() {
                return Err(Error::Stopped);
            }
            let failed = |e: JsValue| from_thrown(&self.name, &e);
            let promise = self.source.read(offset as f64, len as f64).map_err(failed)?;
            let bytes = JsFuture::from(promise).await.map_err(failed)?;
            let Some(bytes) = bytes.dyn_ref::<js_sys::Uint8Array>() else {
                return Err(Error::config("source", "read gave no Uint8Array", "return the bytes of the range"));
            };
            if bytes.length() as usize != len {
                let problem = format!("{} bytes came where {len} at offset {offset} were expected", bytes.length());
                return Err(Error::format(&self.name, problem, "download or choose the file again"));
            }
            Ok(bytes.to_vec())
        })
    }
}
