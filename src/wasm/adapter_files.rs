//! What a page asks of an adapter's files against the loaded base: whether they fit it, and the file of another program.

use serde_json::{Value, json};

use super::options::AdapterFiles;
use super::state::{Base, State, loaded};
use crate::export::adapter::Adapter;
use crate::export::exporters::{self, Request, Sink};
use crate::export::gguf_lora;
use crate::export::peft::{File, Folder, PeftAdapter};
use crate::formats::Bytes;
use crate::{Error, Result};

/// What errors call the files of a page.
const ADAPTER: &str = "the adapter";

/// One file in memory.
#[derive(Default)]
struct Memory(Vec<u8>);

impl Sink for Memory {
    fn begin(&mut self, _: &str, bytes: u64) -> Result<()> {
        let bytes = usize::try_from(bytes).map_err(|_| Error::OutOfMemory { what: "the file".into(), bytes })?;
        self.0 = Vec::with_capacity(bytes);
        Ok(())
    }
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

fn read(files: &AdapterFiles, base: &Base) -> Result<PeftAdapter> {
    PeftAdapter::read(Folder::of(ADAPTER, files)?, &base.file.config)
}

impl State {
    /// `AdapterFacts` of the package.
    pub fn check_adapter(&self, files: &AdapterFiles, strict: bool) -> Result<Value> {
        let base = loaded(&self.base)?;
        let adapter = Adapter::read(Folder::of(ADAPTER, files)?, Some(&base.file.config))?;
        let warning = adapter.check_base(ADAPTER, &base.id, strict)?;
        let warning = warning.or_else(|| adapter.zero_problem().map(|problem| format!("{ADAPTER}: {problem}")));
        let note = adapter.note();
        let adapter = match &adapter {
            Adapter::Plain(adapter) => adapter,
            Adapter::Routed(adapter) => {
                let config = adapter.config();
                return Ok(json!({
                    "rank": config.experts.r, "alpha": config.experts.alpha, "rslora": adapter.rslora,
                    "sites": adapter.attention.len() + adapter.experts.len(), "parameters": adapter.parameters().iter().sum::<usize>(),
                    "targets": config.target_modules, "base": config.base_name, "baseHash": note.map(|note| &note.base_hash),
                    "steps": note.map(|note| note.steps), "zero": adapter.is_zero(), "warning": warning, "experts": adapter.routing.experts,
                }));
            }
        };
        let config = adapter.config();
        Ok(json!({
            "rank": adapter.max_rank(), "alpha": config.lora_alpha, "rslora": adapter.rslora, "sites": adapter.sites.len(),
            "parameters": adapter.parameters(), "targets": config.target_modules, "base": config.base_model_name_or_path,
            "baseHash": note.map(|note| &note.base_hash), "steps": note.map(|note| note.steps), "zero": adapter.is_zero(), "warning": warning,
        }))
    }

    /// The adapter as one GGUF file, read back and compared.
    pub async fn adapter_gguf(&self, files: &AdapterFiles) -> Result<File> {
        let base = loaded(&self.base)?;
        let adapter = read(files, base)?;
        if let Some(problem) = adapter.zero_problem() {
            let hint = "train it (a learning rate of 0 or no step leaves it so) before it is exported";
            return Err(Error::Adapter { adapter: ADAPTER.into(), problem, hint });
        }
        let request = Request { name: ADAPTER, adapter: (&adapter).into(), model: Some(&base.file), format: None };
        let mut memory = Memory::default();
        gguf_lora::export(&request, &mut memory).await?;
        let written = gguf_lora::read(Box::new(Bytes::new(gguf_lora::FILE, memory.0.clone())), &base.file.config).await?;
        exporters::check_same(&request, &written)?;
        Ok((gguf_lora::FILE, memory.0))
    }
}
