//! The look inside an adapter that `weblora analyze` gives, for a page: figures and the same pictures.

use serde::Serialize;

use super::options::AdapterFiles;
use super::state::State;
use super::state::running;
use crate::analysis::report::AdapterReport;
use crate::analysis::svg;
use crate::analysis::{SiteModules, mean_scales, scale_words};
use crate::export::adapter::Adapter;
use crate::export::chain::Chain;
use crate::export::folder::Folder;
use crate::export::update::Inside;
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
    report_of(&files).map(Analysis::of)
}

impl Analysis {
    fn of(report: AdapterReport) -> Self {
        let pictures = svg::of_adapter(&report).into_iter().map(|(name, svg)| Picture { name: name.into(), svg }).collect();
        Self { report, pictures }
    }
}

impl State {
    /// Analyses the adapter of the run, with the modules that only the run knows.
    pub async fn analyze(&mut self) -> Result<Analysis> {
        let trainer = &mut running(&mut self.job)?.trainer;
        let files = trainer.export(&self.gpu).await?.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        let mut report = report_of(&files)?;
        let layout = trainer.layout().clone();
        let modules = SiteModules::of_layout(&layout, &trainer.session().read_values(&self.gpu, 0).await?)?;
        if !modules.is_empty() {
            report.add_modules(&modules)?;
        }
        Ok(Analysis::of(report))
    }

    /// Mean |s| of every module of the run; none where it has no modules.
    pub async fn module_scales(&mut self) -> Result<Vec<f64>> {
        let trainer = &mut running(&mut self.job)?.trainer;
        let layout = trainer.layout().clone();
        let Some(words) = scale_words(&layout) else { return Ok(Vec::new()) };
        Ok(mean_scales(&layout, &trainer.session().read_some_values(&self.gpu, 0, words).await?))
    }
}

fn report_of(files: &AdapterFiles) -> Result<AdapterReport> {
    let folder = Folder::of(ADAPTER, files)?;
    let manifest = folder.chain;
    let inside = match Adapter::read(folder, None)? {
        Adapter::Routed(adapter) => Inside::Routed(Box::new(adapter)),
        Adapter::Plain(adapter) if manifest.is_some() => Inside::Links(Chain::read_chain(ADAPTER, adapter, manifest)?.split()),
        Adapter::Plain(adapter) => Inside::Links(vec![adapter]),
    };
    Ok(inside.report(ADAPTER, &inside.factors()?, manifest.is_some()))
}
