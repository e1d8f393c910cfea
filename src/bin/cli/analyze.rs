//! `weblora analyze`: singular values, effective ranks and shared directions of adapters, experts of MixLoRA; as a table, JSON and pictures.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use weblora::analysis::median::median;
use weblora::analysis::report::{AdapterReport, PairReport, PairSite, compare};
use weblora::analysis::{Grid, Links, RouterLoad, Spectrum, svg};
use weblora::export::adapter::Adapter;
use weblora::export::chain::Chain;
use weblora::export::update::Inside;
use weblora::train::{Checkpoint, Event};
use weblora::{Error, Result};

use super::files::{AdapterFiles, CHECKPOINT_FILE, OutFolder, read, write_atomic};
use super::output::Output;

/// Arguments of `analyze`.
#[derive(Debug, Args)]
pub struct AnalyzeArgs {
    /// PEFT or MixLoRA folders; several of one base are compared too.
    #[arg(value_name = "ADAPTER", required = true)]
    pub adapters: Vec<PathBuf>,
    /// Analyse the links of chains one by one, together and in pairs.
    #[arg(long)]
    pub links: bool,
    /// What `train --json` of this one MixLoRA adapter printed: how much its experts were used at the end of the run.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Write pictures (SVG) into this new folder.
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: &AnalyzeArgs, output: &mut Output) -> Result<()> {
    if let Some(folder) = &args.svg {
        OutFolder::check_unused("svg", folder)?;
    }
    let names = names(&args.adapters);
    let adapters: Vec<Inside> =
        args.adapters.iter().map(|path| inside(path, args.links, args.adapters.len() == 1)).collect::<Result<_>>()?;
    let factors = adapters.iter().map(Inside::factors).collect::<Result<Vec<_>>>()?;
    let load = args.events.as_deref().map(|path| load(path, args.adapters.len())).transpose()?;
    let mut pictures = Vec::new();
    for (((name, adapter), sites), path) in names.iter().zip(&adapters).zip(&factors).zip(&args.adapters) {
        let mut report = adapter.report(name, sites, args.links);
        add_modules(&mut report, path, output)?;
        if let Some(load) = &load {
            add_load(&mut report, load)?;
        }
        show_adapter(&report, output)?;
        pictures.extend(svg::of_adapter(&report).into_iter().map(|(end, svg)| (format!("{name}-{end}"), svg)));
    }
    for (i, first) in names.iter().enumerate() {
        for (j, second) in names.iter().enumerate().skip(i + 1) {
            let pair = compare((first, &factors[i]), (second, &factors[j]))?;
            show_pair(&pair, output)?;
            pictures.extend(svg::of_pair(&pair).into_iter().map(|(end, svg)| (format!("{first}-{second}-{end}"), svg)));
        }
    }
    if let Some(folder) = &args.svg {
        let folder = OutFolder::create("svg", folder)?;
        for (name, svg) in &pictures {
            write_atomic(&folder.path().join(name), svg.as_bytes())?;
        }
        let (count, folder) = (pictures.len(), folder.path().display().to_string());
        let names: Vec<&String> = pictures.iter().map(|(name, _)| name).collect();
        match output.is_json() {
            true => output.print(&json!({"event": "pictures", "folder": folder, "files": names}).to_string())?,
            false => output.print(&format!("{count} pictures in {folder}"))?,
        }
    }
    Ok(())
}

/// The adapter alone, its links, or its experts.
fn inside(path: &Path, links: bool, alone: bool) -> Result<Inside> {
    let files = AdapterFiles::read(path)?;
    let name = path.display().to_string();
    let adapter = match Adapter::read(files.folder(), None)? {
        Adapter::Routed(adapter) if !links => return Ok(Inside::Routed(Box::new(adapter))),
        adapter => adapter.subject().plain(&name, "a chain of links")?.clone(),
    };
    if !links {
        return Ok(Inside::Links(vec![adapter]));
    }
    // Beside others a plain adapter is one link; alone it has none to tell apart.
    let chain = if alone { Chain::read_chain(&name, adapter, files.chain())? } else { Chain::read(&name, adapter, files.chain())? };
    Ok(Inside::Links(chain.split()))
}

/// The load in the events of a run, which are of one adapter.
fn load(path: &Path, adapters: usize) -> Result<RouterLoad> {
    if adapters != 1 {
        let problem = format!("are of one run, and there are {adapters} adapters");
        return Err(Error::config("events", problem, "analyse the adapter of that run alone"));
    }
    let name = path.display().to_string();
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| Error::format(&name, e.to_string(), "give what `weblora train --json` printed"))?;
    RouterLoad::of_events(&name, text)
}

fn add_load(report: &mut AdapterReport, load: &RouterLoad) -> Result<()> {
    let name = report.name.clone();
    match &mut report.experts {
        Some(experts) => experts.add_load(&name, load),
        None => Err(Error::config("events", format!("{name} has no experts"), "leave --events out")),
    }
}

/// What the checkpoint beside the adapter knows of its modules. A checkpoint that cannot be read, or is of another step, is a warning: the adapter
/// is there to be analysed all the same.
fn add_modules(report: &mut AdapterReport, path: &Path, output: &mut Output) -> Result<()> {
    let file = path.join(CHECKPOINT_FILE);
    if !file.is_file() {
        return Ok(());
    }
    let name = file.display().to_string();
    let bytes = read(&file)?;
    let added = Checkpoint::read(&name, &bytes).and_then(|saved| match saved.modules()?.as_slice() {
        [] => Ok(()),
        modules => report.add_modules(modules),
    });
    if let Err(error) = added {
        output.event(&Event::Warning { job: None, message: format!("modules are left out: {error}") });
    }
    Ok(())
}

/// The folders' last names where those differ, else numbered; fit for file names.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let last = |path: &PathBuf| -> String {
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
    };
    let names: Vec<String> = paths.iter().map(last).collect();
    let twice = |name: &String| names.iter().filter(|other| *other == name).count() > 1;
    names.iter().enumerate().map(|(i, name)| if twice(name) { format!("{}-{name}", i + 1) } else { name.clone() }).collect()
}

fn show_adapter(report: &AdapterReport, output: &mut Output) -> Result<()> {
    if output.is_json() {
        let mut event = serde_json::to_value(report).map_err(|e| Error::format(&report.name, e.to_string(), "report it"))?;
        event["event"] = "analysis".into();
        return output.print(&event.to_string());
    }
    let experts = report.experts.as_ref().map(|own| format!(", {} experts in a block", own.experts)).unwrap_or_default();
    output.print(&format!("{}: {} sites{experts}", report.name, report.sites.len()))?;
    output.print("  projection  sites  rank sum  rank  eff. rank  eff. rank (σ)  entropy  stable  top-1 energy       ‖ΔW‖")?;
    for p in &report.projections {
        output.print(&format!(
            "  {:10}  {:5}  {:8}  {:4}  {:9.2}  {:13.2}  {:7.3}  {:6.2}  {:10.1} %  {:9.3e}",
            p.projection,
            p.sites,
            p.rank_sum,
            p.rank,
            p.effective_rank,
            p.effective_rank_sigma,
            p.normalized_entropy,
            p.stable_rank,
            100.0 * p.top1_energy,
            p.frobenius
        ))?;
    }
    output.print("  (medians over layers; eff. rank: exp of the entropy of σ²/Σσ², and of σ/Σσ; entropy: of σ², over ln n)")?;
    show_layers(report, output)?;
    show_links(report, output)?;
    show_experts(report, output)?;
    show_modules(report, output)
}

/// Expert by expert: the size of its update, of its row of the router, and its load where a run told it.
fn show_experts(report: &AdapterReport, output: &mut Output) -> Result<()> {
    let Some(experts) = &report.experts else { return Ok(()) };
    if let Some(steps) = experts.load_steps {
        output.print(&format!("  (load: share of tokens, mean over the run's end, steps: {steps})"))?;
    }
    for block in &experts.blocks {
        let line = |values: &[f64]| values.iter().map(|x| format!(" {x:9.2e}")).collect::<String>();
        output.print(&format!("  layer {:4} experts' ‖ΔW‖   {}", block.layer, line(&block.frobenius)))?;
        output.print(&format!("             ‖router row‖  {}", line(&block.router)))?;
        if let (Some(load), Some(entropy)) = (&block.load, block.entropy) {
            let shares: String = load.iter().map(|x| format!(" {:7.1} %", 100.0 * x)).collect();
            output.print(&format!("             load          {shares}, entropy {entropy:.3}"))?;
        }
    }
    Ok(())
}

/// Scales and shares of a run's modules, medians over the sites.
fn show_modules(report: &AdapterReport, output: &mut Output) -> Result<()> {
    for (i, m) in report.modules.iter().enumerate() {
        output.print(&format!(
            "  module {i}: |s| {:.3e} on average, {:.3e} at most, rms {:.3e}; ‖s ⊙ B A‖ {:.3e}, {:.1} % of the modules' norms",
            m.mean_scale,
            m.max_scale,
            m.rms_scale,
            m.frobenius,
            100.0 * m.share
        ))?;
    }
    Ok(())
}

/// Effective rank by layer and projection.
fn show_layers(report: &AdapterReport, output: &mut Output) -> Result<()> {
    let names: Vec<&str> = report.projections.iter().map(|p| p.projection.as_str()).collect();
    output.print(&format!("  eff. rank  {}", names.iter().map(|name| format!("{name:>7}")).collect::<String>()))?;
    let last = report.sites.iter().map(|s| s.layer).max().unwrap_or(0);
    for layer in 0..=last {
        let cell = |name: &&str| {
            // Of a block with experts the middle one.
            let own = report.sites.iter().filter(|s| s.layer == layer && s.projection == **name);
            median(own.map(|s| s.spectrum.effective_rank)).map_or("      -".to_owned(), |rank| format!("{rank:7.2}"))
        };
        if report.sites.iter().any(|s| s.layer == layer) {
            output.print(&format!("  layer {layer:4} {}", names.iter().map(cell).collect::<String>()))?;
        }
    }
    Ok(())
}

fn show_links(report: &AdapterReport, output: &mut Output) -> Result<()> {
    let linked: Vec<&Links> = report.sites.iter().filter_map(|s| s.links.as_ref()).collect();
    let count = linked.iter().map(|l| l.count()).max().unwrap_or(0);
    for link in 0..count {
        let of = |f: &dyn Fn(&Links) -> Option<f64>| median(linked.iter().filter_map(|l| f(l))).unwrap_or(0.0);
        let own = |f: fn(&Spectrum) -> f64| of(&|l| Some(f(&l.spectra[l.place(link)?])));
        let (norm, rank) = (own(|s| s.frobenius), own(|s| s.effective_rank));
        let sum = of(&|l| Some(l.so_far(link)?.effective_rank));
        let before = |grid: fn(&Links) -> &Grid| {
            of(&|l| {
                let place = l.place(link)?;
                grid(l)[place][..place].iter().copied().reduce(f64::max)
            })
        };
        let overlap = if link == 0 {
            String::new()
        } else {
            let (inputs, outputs) = (before(|l| &l.overlap_right), before(|l| &l.overlap_left));
            format!(", largest overlap with an earlier link: inputs {inputs:.3}, outputs {outputs:.3}")
        };
        output.print(&format!("  link {link}: ‖ΔW‖ {norm:.3e}, eff. rank {rank:.2}, of the chain so far {sum:.2}{overlap}"))?;
    }
    Ok(())
}

fn show_pair(pair: &PairReport, output: &mut Output) -> Result<()> {
    if output.is_json() {
        let mut event = serde_json::to_value(pair).map_err(|e| Error::format(&pair.second, e.to_string(), "report it"))?;
        event["event"] = "similarity".into();
        return output.print(&event.to_string());
    }
    let of = |f: &dyn Fn(&PairSite) -> f64| median(pair.sites.iter().map(f)).unwrap_or(0.0);
    output.print(&format!(
        "{} and {}: {} common sites; median φ of inputs {:.3} (random: {:.3}), of outputs {:.3} (random: {:.3}), cosine of ΔW {:.3}",
        pair.first,
        pair.second,
        pair.sites.len(),
        of(&|s| s.right),
        of(&|s| s.random.1),
        of(&|s| s.left),
        of(&|s| s.random.0),
        of(&|s| s.cosine)
    ))
}
