//! What a page asks of an adapter's files against the loaded base: what they are and whether they fit it.

use serde_json::{Value, json};

use super::options::AdapterFiles;
use super::state::{State, loaded};
use crate::Result;
use crate::export::adapter::Adapter;
use crate::export::folder::Folder;

/// What errors call the files of a page.
const ADAPTER: &str = "the adapter";

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
}
