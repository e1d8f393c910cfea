//! `weblora merge`: links of a chain listed, dropped, split; adapters of one base joined or added up; ranks cut.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use weblora::export::chain::Chain;
use weblora::export::peft::{File, PeftAdapter};
use weblora::export::rank_sum::{Weighted, check_one_base, rank_sum};
use weblora::export::recompress::{Cut, Recompressed, recompress};
use weblora::formats::ModelFile;
use weblora::train::Event;
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
}

/// An adapter folder as read.
struct Part {
    name: String,
    files: AdapterFiles,
    adapter: PeftAdapter,
}

/// Runs the verb.
pub fn run(args: &MergeArgs, output: &mut Output) -> Result<()> {
    check(args)?;
    let parts = read(args)?;
    if args.list {
        return list(&parts[0], output);
    }
    let Some(out) = &args.out else { return Err(Error::config("out", "is missing", "name a new folder for the result")) };
    if args.split {
        return split(&parts[0], out, output);
    }
    let cut = Cut { max_rank: args.max_rank, energy: args.energy };
    let merged = match chain(args, &parts)? {
        Some(chain) if cut.is_none() => return write(out, &chain.to_files(&out.display().to_string())?, (&chain.merged(), None), output),
        Some(chain) => chain.merged(),
        None => rank_sum(&weighted(args, &parts))?,
    };
    if cut.is_none() {
        return write(out, &merged.to_files(&out.display().to_string())?, (&merged, None), output);
    }
    let (merged, report) = recompress(&merged, cut)?;
    write(out, &merged.to_files(&out.display().to_string())?, (&merged, Some(&report)), output)
}

/// Refuses what contradicts itself before anything is read.
fn check(args: &MergeArgs) -> Result<()> {
    if let Some(out) = &args.out {
        OutFolder::check_unused("out", out)?;
    }
    if (args.list || args.split || !args.drop.is_empty()) && args.adapters.len() > 1 {
        let problem = format!("{} adapters given", args.adapters.len());
        return Err(Error::config("adapter", problem, "list, drop and split take one chain at a time"));
    }
    if !args.weights.is_empty() && args.weights.len() != args.adapters.len() {
        let problem = format!("{} weights for {} adapters", args.weights.len(), args.adapters.len());
        return Err(Error::config("weights", problem, "give one number per adapter, separated by commas"));
    }
    Ok(())
}

fn read(args: &MergeArgs) -> Result<Vec<Part>> {
    let model = args.model.as_ref().map(|path| pollster::block_on(ModelFile::open_path(path))).transpose()?;
    let hash = model.as_ref().map(|model| pollster::block_on(model.content_hash())).transpose()?;
    let mut parts = Vec::with_capacity(args.adapters.len());
    for path in &args.adapters {
        let (name, files) = (path.display().to_string(), AdapterFiles::read(path)?);
        let adapter = match &model {
            Some(model) => PeftAdapter::read(files.folder(), &model.config)?,
            None => PeftAdapter::read_alone(files.folder())?,
        };
        if let Some(hash) = &hash {
            adapter.check_base(&name, hash)?;
        }
        parts.push(Part { name, files, adapter });
    }
    // An adapter that names single modules does not say how many blocks there are; another one may.
    let known = parts.iter().map(|part| part.adapter.blocks).filter(|&blocks| blocks != usize::MAX).max();
    for part in parts.iter_mut().filter(|part| part.adapter.blocks == usize::MAX) {
        let own = part.adapter.sites.iter().map(|site| site.site.layer + 1).max().unwrap_or(0);
        part.adapter.blocks = known.filter(|&blocks| blocks >= own).unwrap_or(usize::MAX);
    }
    Ok(parts)
}

fn weighted<'a>(args: &MergeArgs, parts: &'a [Part]) -> Vec<Weighted<'a>> {
    let weight = |i: usize| args.weights.get(i).copied().unwrap_or(1.0);
    parts.iter().enumerate().map(|(i, part)| Weighted { name: &part.name, adapter: &part.adapter, weight: weight(i) }).collect()
}

/// The result as a chain, whose links can be told apart later; `None` where weights, or ranks beyond a weight's size, leave no links.
fn chain(args: &MergeArgs, parts: &[Part]) -> Result<Option<Chain>> {
    let read = |part: &Part| -> Result<Chain> { Chain::read(&part.name, part.adapter.clone(), part.files.chain()) };
    if !args.drop.is_empty() {
        return drop_links(&parts[0], &args.drop).map(Some);
    }
    if args.weights.iter().any(|&weight| weight != 1.0) {
        return Ok(None);
    }
    check_one_base(&weighted(args, parts))?;
    if let [one] = parts {
        // Without a manifest it stays a plain adapter.
        return one.files.chain().map(|_| read(one)).transpose();
    }
    let mut chain = read(&parts[0])?;
    for part in &parts[1..] {
        chain.extend(&part.name, read(part)?)?;
    }
    let fits = chain.merged().sites.iter().all(|site| site.rank <= (site.a.len() / site.rank).min(site.b.len() / site.rank));
    Ok(fits.then_some(chain))
}

fn drop_links(part: &Part, links: &[usize]) -> Result<Chain> {
    let mut chain = Chain::read_chain(&part.name, part.adapter.clone(), part.files.chain())?;
    let mut links = links.to_vec();
    links.sort_unstable();
    links.dedup();
    let count = chain.links.len();
    if let Some(beyond) = links.iter().find(|&&link| link >= count) {
        return Err(Error::config("drop", format!("there is no link {beyond}"), format!("name links from 0 to {}", count - 1)));
    }
    if links.len() == count {
        return Err(Error::config("drop", format!("all {count} links of {} are named", part.name), "leave one at least"));
    }
    // From the end, so that the numbers of those before stay.
    links.iter().rev().try_for_each(|&link| chain.drop_link(link).map(drop))?;
    Ok(chain)
}

fn list(part: &Part, output: &mut Output) -> Result<()> {
    let chain = Chain::read_chain(&part.name, part.adapter.clone(), part.files.chain())?;
    if output.is_json() {
        let event = json!({"event": "chain", "name": part.name, "base_hash": chain.base_hash, "links": chain.manifest().links});
        return output.print(&event.to_string());
    }
    let base = chain.base_hash.as_deref().unwrap_or("unknown");
    output.print(&format!("{}: a chain of {} links on the base {base}", part.name, chain.links.len()))?;
    for (i, link) in chain.links.iter().enumerate() {
        let (about, adapter) = (&link.about, &link.adapter);
        let parameters: usize = adapter.sites.iter().map(|site| site.a.len() + site.b.len()).sum();
        let kind = if about.rslora { ", rsLoRA" } else { "" };
        output.print(&format!(
            "  link {i}: rank {}, alpha {}{kind}, {} steps, {} sites, {parameters} parameters",
            about.rank,
            about.alpha,
            about.steps,
            adapter.sites.len()
        ))?;
    }
    Ok(())
}

fn split(part: &Part, out: &Path, output: &mut Output) -> Result<()> {
    let chain = Chain::read_chain(&part.name, part.adapter.clone(), part.files.chain())?;
    let links = chain.split();
    let files = links.iter().map(|link| link.to_files(&part.name)).collect::<Result<Vec<_>>>()?;
    OutFolder::create("out", out)?;
    for (i, (link, files)) in links.iter().zip(&files).enumerate() {
        write(&out.join(format!("link-{i}")), files, (link, None), output)?;
    }
    Ok(())
}

fn write(out: &Path, files: &[File], (adapter, cut): (&PeftAdapter, Option<&Recompressed>), output: &mut Output) -> Result<()> {
    OutFolder::create("out", out)?.write_adapter(files)?;
    let largest = adapter.sites.iter().map(|site| site.rank).max().unwrap_or(0);
    let parameters: usize = adapter.sites.iter().map(|site| site.a.len() + site.b.len()).sum();
    let chained = files.iter().any(|(name, _)| *name == weblora::export::chain::CHAIN_FILE);
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
    if adapter.note.is_none() {
        let message = "none of the adapters says which base it was trained on, so that could not be checked".to_owned();
        output.event(&Event::Warning { job: None, message })?;
    }
    let kind = if chained { "a chain" } else { "an adapter" };
    output.print(&format!("{}: {kind} of {} sites, rank up to {largest}, {parameters} parameters", out.display(), adapter.sites.len()))
}
