//! The look inside an adapter that `weblora analyze` gives, for a page: figures and the same pictures.

use serde::Serialize;

use super::options::AdapterFiles;
use crate::analysis::report::{AdapterReport, report};
use crate::analysis::svg;
use crate::export::chain::Chain;
use crate::export::peft::{Folder, PeftAdapter};
use crate::export::update::site_factors;
use crate::{Error, Result};

/// What errors call the files of a page.
const ADAPTER: &str = "the adapter";

/// Figures and pictures of one adapter.
#[derive(Debug, Serialize)]
pub struct Analysis {
    /// Site by site.
    report: AdapterReport,
    /// A name ending in `.svg`, and the picture.
    pictures: Vec<Picture>,
}

#[derive(Debug, Serialize)]
struct Picture {
    name: String,
    svg: String,
}

/// Analyses the adapter in `files`; a chain link by link.
///
/// # Errors
/// Damaged files; a chain whose manifest does not match.
pub fn analyze(files: Option<AdapterFiles>) -> Result<Analysis> {
    let files = files.ok_or_else(|| Error::config("adapter", "is missing", "pass an array of { name, bytes }"))?;
    let folder = Folder::of(ADAPTER, &files)?;
    let (adapter, manifest) = (PeftAdapter::read_alone(folder)?, folder.chain);
    let parts = if manifest.is_some() { Chain::read_chain(ADAPTER, adapter, manifest)?.split() } else { vec![adapter] };
    let report = report(ADAPTER, &site_factors(&parts)?, manifest.is_some());
    let pictures = svg::of_adapter(&report).into_iter().map(|(name, svg)| Picture { name: name.into(), svg }).collect();
    Ok(Analysis { report, pictures })
}
