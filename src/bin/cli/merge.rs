//! `weblora merge`: links of a chain listed, dropped, split; adapters of one base joined or added up; ranks cut.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use weblora::export::edit::{self, Against, Edit, Edited, Part};
use weblora::export::folder::File;
use weblora::export::recompress::Cut;
use weblora::formats::ModelFile;
use weblora::{Error, Result};

use super::files::{AdapterFiles, OutFolder};
use super::output::Output;

/// Arguments of `merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// PEFT folders of one base; one alone to list, drop, split or recompress.
    #[arg(value_name = "ADAPTER", required = true)]
    pub adapters: Vec<PathBuf>,
    /// New folder for the result.
    #[arg(long, value_name = "DIR", required_unless_present = "list")]
    pub out: Option<PathBuf>,
    /// What each adapter's update is multiplied by, in their order; 1 for all when absent.
    #[arg(long, value_name = "X,..", value_delimiter = ',', allow_negative_numbers = true)]
    pub weights: Vec<f64>,
    /// Cut every site to this rank at most, keeping the largest singular values.
    #[arg(long, value_name = "R")]
    pub max_rank: Option<usize>,
    /// Cut every site to the smallest rank that keeps this share of its update's squared norm.
    #[arg(long, value_name = "SHARE")]
    pub energy: Option<f64>,
    /// Show the links of a chain.
    #[arg(long, conflicts_with_all = ["out", "weights", "max_rank", "energy", "drop", "split"])]
    pub list: bool,
    /// Take these links out of a chain (from 0, the oldest).
    #[arg(long, value_name = "LINK,..", value_delimiter = ',', conflicts_with = "split")]
    pub drop: Vec<usize>,
    /// Write each link of a chain as an adapter of its own: DIR/link-0, DIR/link-1, …
    #[arg(long, conflicts_with_all = ["weights", "max_rank", "energy"])]
    pub split: bool,
    /// Check that the adapters belong to this base.
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// Refuse adapters that were trained on another file of that base (Q4 for F16), instead of warning.
    #[arg(long, requires = "model")]
    pub strict_base: bool,
}

/// Runs the verb.
pub fn run(args: &MergeArgs, output: &mut Output) -> Result<()> {
    let cut = Cut { max_rank: args.max_rank, energy: args.energy };
    let edit = Edit { weights: args.weights.clone(), drop: args.drop.clone(), cut };
    check(args, &edit)?;
    let files = args.adapters.iter().map(|path| AdapterFiles::read(path)).collect::<Result<Vec<_>>>()?;
    let folders: Vec<_> = files.iter().map(AdapterFiles::folder).collect();
    let model = args.model.as_ref().map(|path| pollster::block_on(ModelFile::open_path(path))).transpose()?;
    let id = model.as_ref().map(|model| pollster::block_on(model.identity())).transpose()?;
    let base = model.as_ref().zip(id.as_ref());
    let base = base.map(|(model, base)| Against { model: &model.config, base, strict: args.strict_base });
    let parts = edit::read(&folders, base)?;
    parts.iter().for_each(|part| output.other_base(part.warning.clone()));
    if args.list {
        return list(&parts[0], output);
    }
    let Some(out) = &args.out else { return Err(Error::config("out", "is missing", "name a new folder for the result")) };
    if let Some(what) = lost_beside(&parts, args)? {
        output.warn(what);
    }
    if args.split {
        return split(&parts[0], out, output);
    }
    let edited = edit.apply(&parts)?;
    write(out, &edited.to_files(&out.display().to_string())?, &edited, output)
}

/// Refuses what contradicts itself before anything is read.
fn check(args: &MergeArgs, edit: &Edit) -> Result<()> {
    if let Some(out) = &args.out {
        OutFolder::check_unused("out", out)?;
    }
    if (args.list || args.split) && args.adapters.len() > 1 {
        let problem = format!("{} adapters given", args.adapters.len());
        return Err(Error::config("adapter", problem, "list and split take one chain at a time"));
    }
    edit.check(args.adapters.len())
}

/// A warning where norms or embeddings, which were trained with all links in place and belong to the newest, part from others.
fn lost_beside(parts: &[Part<'_>], args: &MergeArgs) -> Result<Option<String>> {
    let ([part], true) = (parts, args.split || !args.drop.is_empty()) else { return Ok(None) };
    let chain = part.chain()?;
    let newest = chain.links.len().saturating_sub(1);
    let has_own = chain.links.last().is_some_and(|link| !link.adapter.norms.is_empty() || link.adapter.embeddings.is_some());
    let what = "the norms and embeddings that were trained beside the links";
    Ok(match (has_own, args.split) {
        (true, true) => Some(format!("{what} go with the newest: link-{newest} alone has them")),
        (true, false) if args.drop.contains(&newest) => Some(format!("{what} go with the newest link: without it the base's are used")),
        _ => None,
    })
}

fn list(part: &Part<'_>, output: &mut Output) -> Result<()> {
    let chain = part.chain()?;
    if output.is_json() {
        let event = json!({"event": "chain", "name": part.name, "base_hash": chain.base_hash, "links": chain.manifest().links});
        return output.print(&event.to_string());
    }
    let base = chain.base_hash.as_deref().unwrap_or("unknown");
    output.print(&format!("{}: a chain of {} links on the base {base}", part.name, chain.links.len()))?;
    for (i, facts) in chain.facts().iter().enumerate() {
        output.print(&facts.line(i))?;
    }
    Ok(())
}

fn split(part: &Part<'_>, out: &Path, output: &mut Output) -> Result<()> {
    let links = part.chain()?.split();
    let files = links.iter().map(|link| link.to_files(part.name)).collect::<Result<Vec<_>>>()?;
    OutFolder::create("out", out)?;
    let mut all = links.into_iter().zip(&files).enumerate();
    let written = all.try_for_each(|(i, (link, files))| {
        write(&out.join(format!("link-{i}")), files, &Edited { adapter: link, chain: None, cut: None }, output)
    });
    whole_or_nothing(out, written)
}

/// Removes the folder, which is ours and new, where not all of it could be written.
fn whole_or_nothing(out: &Path, written: Result<()>) -> Result<()> {
    if written.is_err() {
        std::fs::remove_dir_all(out).ok(); // the error of writing matters more
    }
    written
}

fn write(out: &Path, files: &[File], edited: &Edited, output: &mut Output) -> Result<()> {
    let folder = OutFolder::create("out", out)?;
    whole_or_nothing(out, folder.write_adapter(files))?;
    if let Some(problem) = edited.adapter.zero_problem() {
        output.warn(format!("adapter {}: {problem}", out.display()));
    }
    let Edited { adapter, chain, cut } = edited;
    let (largest, parameters, chained) = (adapter.max_rank(), adapter.parameters(), chain.is_some());
    if output.is_json() {
        let event = json!({
            "event": "merge", "out": out.display().to_string(), "sites": adapter.sites.len(), "max_rank": largest, "parameters": parameters,
            "chain": chained, "recompressed": cut,
        });
        return output.print(&event.to_string());
    }
    if let Some(cut) = cut {
        output.print("  site                                rank  now  dropped energy")?;
        for site in &cut.sites {
            output.print(&format!("  {:34} {:5} {:4}  {:12.4} %", site.site, site.from, site.to, 100.0 * site.dropped))?;
        }
        output.print(&format!("dropped energy over all sites: {:.4} %", 100.0 * cut.dropped))?;
    }
    if let Some(message) = edited.warning() {
        output.warn(message.to_owned());
    }
    let kind = if chained { "a chain" } else { "an adapter" };
    output.print(&format!("{}: {kind} of {} sites, rank up to {largest}, {parameters} parameters", out.display(), adapter.sites.len()))
}
