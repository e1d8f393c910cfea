//! An adapter, or base and adapter together, in the files of other programs: what `weblora export` makes, handed to a sink of the page's.

use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use super::convert::from_thrown;
use super::options::AdapterFiles;
use super::state::{State, loaded};
use crate::export::adapter::Adapter;
use crate::export::exporters::{self, Made};
use crate::export::folder::Folder;
use crate::export::gguf_lora;
use crate::export::mixlora::MixLoraAdapter;
use crate::export::request::{Request, Sink};
use crate::export::retention::{Retention, writable};
use crate::export::same;
use crate::formats::Bytes;
use crate::quant;
use crate::{Error, Result};

/// What errors call the files of a page.
const ADAPTER: &str = "the adapter";

#[wasm_bindgen]
extern "C" {
    /// Takes files one after the other, each in pieces.
    #[wasm_bindgen(typescript_type = "ExportSink")]
    pub type JsSink;

    #[wasm_bindgen(method, catch)]
    fn begin(this: &JsSink, name: &str, bytes: f64) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn write(this: &JsSink, bytes: &[u8]) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn end(this: &JsSink) -> Result<(), JsValue>;
}

/// A [`JsSink`] as the exporters know it; small files are kept beside it to be read back.
struct Handed {
    sink: JsSink,
    name: String,
    kept: Option<Vec<(String, Vec<u8>)>>,
}

impl Sink for Handed {
    fn begin(&mut self, name: &str, bytes: u64) -> Result<()> {
        name.clone_into(&mut self.name);
        if let Some(kept) = &mut self.kept {
            kept.push((name.to_owned(), Vec::new()));
        }
        self.sink.begin(name, bytes as f64).map_err(|e| from_thrown(name, &e))
    }
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some((_, last)) = self.kept.as_mut().and_then(|kept| kept.last_mut()) {
            last.extend_from_slice(bytes);
        }
        self.sink.write(bytes).map_err(|e| from_thrown(&self.name, &e))
    }
    fn end(&mut self) -> Result<()> {
        self.sink.end().map_err(|e| from_thrown(&self.name, &e))
    }
}

impl State {
    /// Makes `to` of the adapter in `files`, its weights in `format`; adapters are read back and compared. `Exported` of the package.
    pub async fn export_to(&self, files: &AdapterFiles, to: &str, format: Option<&str>, sink: JsSink) -> Result<Value> {
        let base = loaded(&self.base)?;
        let exporter = exporters::by_name(to)?;
        let unknown = |name: &str| Error::config("format", format!("`{name}` is no format to write"), format!("use one of {}", writable()));
        let format = format.map(|name| quant::by_name(name).filter(|f| f.encode.is_some()).ok_or_else(|| unknown(name))).transpose()?;
        let adapter = Adapter::read(Folder::of(ADAPTER, files)?, Some(&base.file.config))?;
        if let (Made::GgufAdapter, Some(problem)) = (exporter.makes, adapter.zero_problem()) {
            let hint = "train it (a learning rate of 0 or no step leaves it so) before it is exported";
            return Err(Error::Adapter { adapter: ADAPTER.into(), problem, hint });
        }
        let request = Request { name: ADAPTER, adapter: adapter.subject(), model: Some(&base.file), format };
        let compared = matches!(exporter.makes, Made::GgufAdapter | Made::MixLoraFolder);
        let mut handed = Handed { sink, name: String::new(), kept: compared.then(Vec::new) };
        let exported = (exporter.run)(&request, &mut handed).await?;
        let kept = handed.kept.unwrap_or_default();
        match exporter.makes {
            Made::GgufAdapter => {
                let bytes = kept.into_iter().map(|(_, bytes)| bytes).next().unwrap_or_default();
                let written = gguf_lora::read(Box::new(Bytes::new(gguf_lora::FILE, bytes)), &base.file.config).await?;
                same::check_same(&request, &written)?;
            }
            Made::MixLoraFolder => {
                let written = MixLoraAdapter::read(Folder::of(ADAPTER, &kept)?, &base.file.config)?;
                same::check_same_experts(&request, &written)?;
            }
            Made::PeftFolder | Made::ModelFolder | Made::ModelFile => {}
        }
        let mut answer = json!({ "files": exported.files, "bytes": exported.bytes, "warnings": exported.warnings });
        if !exported.tensors.is_empty() {
            let mut all = Retention::default();
            exported.tensors.iter().for_each(|tensor| all.merge(&tensor.sums));
            (answer["retention"], answer["relativeError"]) = (all.retention().into(), all.relative_error().into());
        }
        Ok(answer)
    }
}
