//! Adapters of a page put together and taken apart: what `weblora merge` does with folders.

use serde::Deserialize;
use serde_json::json;
use wasm_bindgen::prelude::*;

use super::convert::{from_js, from_thrown, to_js};
use super::options::{AdapterFiles, adapter_files, adapter_to_js};
use crate::export::edit::{self, Edit, LinkFacts, Part};
use crate::export::folder::Folder;
use crate::export::peft::PeftAdapter;
use crate::export::recompress::Cut;
use crate::{Error, Result};

/// `MergeOptions` of the package.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Options {
    weights: Vec<f64>,
    drop: Vec<usize>,
    max_rank: Option<usize>,
    energy: Option<f64>,
}

/// What errors call the adapters, by their place.
fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| if count == 1 { "the adapter".to_owned() } else { format!("adapter {i}") }).collect()
}

fn missing() -> Error {
    Error::config("adapter", "is missing", "pass an array of { name, bytes }")
}

/// Works on adapters as they were read.
fn with_parts<T>(adapters: &[AdapterFiles], work: impl FnOnce(&[Part<'_>]) -> Result<T>) -> Result<T> {
    let names = names(adapters.len());
    let folders = names.iter().zip(adapters).map(|(name, files)| Folder::of(name, files)).collect::<Result<Vec<_>>>()?;
    work(&edit::read(&folders, None)?)
}

/// The links of a chain, oldest first; none of an adapter that is no chain.
///
/// # Errors
/// Damaged files; a chain whose manifest does not match.
pub fn links(files: &JsValue) -> Result<JsValue> {
    let files = adapter_files(files)?;
    let found: Vec<LinkFacts> = with_parts(&[files], |parts| match &parts[0] {
        part if part.is_chain() => Ok(part.chain()?.facts()),
        _ => Ok(Vec::new()),
    })?;
    to_js(&found)
}

/// Every link of a chain as an adapter of its own, oldest first.
///
/// # Errors
/// As [`links`]; an adapter that is no chain.
pub fn split(files: &JsValue) -> Result<JsValue> {
    let adapters: Vec<PeftAdapter> = with_parts(&[adapter_files(files)?], |parts| Ok(parts[0].chain()?.split()))?;
    let list = js_sys::Array::new();
    for adapter in &adapters {
        list.push(&adapter_to_js(&adapter.to_files("the link")?)?);
    }
    Ok(list.into())
}

/// One adapter made of several, or of one with fewer links or ranks: `Merged` of the package.
///
/// # Errors
/// As [`Edit::apply`].
pub fn merge(adapters: &JsValue, options: JsValue) -> Result<JsValue> {
    let list = adapters.dyn_ref::<js_sys::Array>().ok_or_else(missing)?;
    let Options { weights, drop, max_rank, energy } = from_js::<Option<Options>>(options, "options")?.unwrap_or_default();
    let edit = Edit { weights, drop, cut: Cut { max_rank, energy } };
    edit.check(list.length() as usize)?;
    let adapters = list.iter().map(|files| adapter_files(&files)).collect::<Result<Vec<_>>>()?;
    let edited = with_parts(&adapters, |parts| edit.apply(parts))?;
    let facts = to_js(&json!({
        "rank": edited.adapter.max_rank(), "sites": edited.adapter.sites.len(), "parameters": edited.adapter.parameters(),
        "links": edited.chain.as_ref().map_or(0, |chain| chain.links.len()), "dropped": edited.cut.as_ref().map(|cut| cut.dropped),
        "warning": edited.warning(),
    }))?;
    let files = adapter_to_js(&edited.to_files("the merged adapter")?)?;
    js_sys::Reflect::set(&facts, &"files".into(), &files).map_err(|e| from_thrown("files", &e))?;
    Ok(facts)
}
