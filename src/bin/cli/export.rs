//! `weblora export`: an adapter, or base and adapter together, in the files of other programs.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use weblora::analysis::median::median;
use weblora::export::adapter::Adapter;
use weblora::export::exporters::{self, EXPORTERS, Exporter, Made};
use weblora::export::gguf_lora;
use weblora::export::peft::PeftAdapter;
use weblora::export::request::{Exported, Request};
use weblora::export::retention::{ENOUGH, Retention, TensorExport, writable};
use weblora::export::same;
use weblora::formats::{File, ModelFile};
use weblora::quant;
use weblora::train::proof::{Noise, Proof, Written, prove};
use weblora::{Error, Result};

use super::base::open_model;
use super::device::{Device, DeviceArgs};
use super::files::{AdapterFiles, OutFolder};
use super::output::{Output, bytes};
use super::sink::DiskSink;

/// Share of an update below which nothing is left of it.
const NOTHING: f64 = 0.1;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A PEFT or MixLoRA folder.
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// What to make.
    #[arg(long, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(EXPORTERS.iter().map(possible)))]
    pub to: String,
    /// The base that the adapter was trained on: a GGUF file, a safetensors file, or a folder with either.
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// A tokenizer.json, or a folder with one, instead of the base's own tokenizer; it is written beside merged safetensors.
    #[arg(long, value_name = "FILE", requires = "model")]
    pub tokenizer: Option<PathBuf>,
    /// How weights are stored: f32, f16, bf16, q8_0, q5_0, q5_1, q4_0 or q4_1; the exporter's choice when absent.
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// New folder for the result; a new file for --to gguf and --to merged-gguf.
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// Refuse an adapter that was trained on another file of the base (Q4 for F16), instead of warning.
    #[arg(long, requires = "model")]
    pub strict_base: bool,
    /// Do not score a text with what was written.
    #[arg(long)]
    pub no_check: bool,
    /// The GPU that scores it.
    #[command(flatten)]
    pub device: DeviceArgs,
}

fn possible(exporter: &Exporter) -> clap::builder::PossibleValue {
    clap::builder::PossibleValue::new(exporter.name).help(exporter.help)
}

/// Runs the verb.
pub fn run(args: &ExportArgs, output: &mut Output) -> Result<()> {
    let exporter = exporters::by_name(&args.to)?;
    OutFolder::check_unused("out", &args.out)?;
    let format = args.format.as_deref().map(|name| {
        let found = quant::by_name(name).filter(|f| f.encode.is_some());
        found.ok_or_else(|| Error::config("format", format!("`{name}` is no format to write"), format!("use one of {}", writable())))
    });
    let format = format.transpose()?;
    let name = args.adapter.display().to_string();
    let model = args.model.as_ref().map(|path| open_model(path, args.tokenizer.as_deref())).transpose()?;
    if exporter.needs_model && model.is_none() {
        return Err(Error::config(
            "model",
            format!("is missing for --to {}", exporter.name),
            "name the base that the adapter was trained on",
        ));
    }
    let adapter = read(args, &name, model.as_ref(), output)?;
    let request = Request { name: &name, adapter: adapter.subject(), model: model.as_ref(), format };
    let mut sink = DiskSink::new(&args.out, !output.is_json() && std::io::stderr().is_terminal())?;
    let exported = pollster::block_on((exporter.run)(&request, &mut sink))?;
    let single_file = exporter.makes.is_file();
    // What is left out is often why a check fails.
    exported.warnings.iter().for_each(|warning| output.warn(warning.clone()));
    if !args.no_check {
        check_retention(&name, &exported)?;
    }
    if let (Some(tokenizer), Made::ModelFile) = (&args.tokenizer, exporter.makes) {
        let file = tokenizer.display();
        output.warn(format!(
            "the file holds the base's own tokenizer, not {file}: give --tokenizer where it is used, too, or export merged-safetensors"
        ));
    }
    let proof = check(args, exporter.makes, &request, &exported, sink.written(single_file), output)?;
    sink.finish(single_file)?;
    tell(&exported, proof.as_ref(), &args.out, output)
}

/// The adapter, read against the base where there is one.
fn read(args: &ExportArgs, name: &str, model: Option<&ModelFile>, output: &mut Output) -> Result<Adapter> {
    let files = AdapterFiles::read(&args.adapter)?;
    let adapter = Adapter::read(files.folder(), model.map(|model| &model.config))?;
    if let Some(model) = model {
        let base = pollster::block_on(model.identity())?;
        output.other_base(adapter.check_base(name, &base, args.strict_base)?);
    }
    match adapter.zero_problem() {
        Some(problem) if args.no_check => output.warn(format!("adapter {name}: {problem}")),
        Some(problem) => {
            let hint = "train it (a learning rate of 0 or too few steps leave it so), or add --no-check to export it all the same";
            return Err(Error::Adapter { adapter: name.to_owned(), problem, hint });
        }
        None => {}
    }
    Ok(adapter)
}

/// Refuses a model in which nothing is left of the adapter.
fn check_retention(name: &str, exported: &Exported) -> Result<()> {
    let mut all = Retention::default();
    exported.tensors.iter().for_each(|t| all.merge(&t.sums));
    if all.retention() >= NOTHING {
        return Ok(());
    }
    let problem = format!(
        "it has no effect in this format: {:.1} % of its changes are left, the others are smaller than the format's steps",
        100.0 * all.retention()
    );
    let hint = "keep the adapter beside the base, export with --format f16, or add --no-check to write it all the same";
    Err(Error::Adapter { adapter: name.to_owned(), problem, hint })
}

/// Opens what was written, compares it with the adapter, and scores a text with both where there is a base and a device.
fn check(
    args: &ExportArgs,
    makes: Made,
    request: &Request<'_>,
    exported: &Exported,
    written: &Path,
    output: &mut Output,
) -> Result<Option<Proof>> {
    if args.no_check {
        return Ok(None);
    }
    let config = request.model.map(|model| &model.config);
    if makes == Made::MixLoraFolder {
        // The same numbers are the same model: there is nothing to score.
        let files = AdapterFiles::read(written)?;
        let again = Adapter::read(files.folder(), config)?;
        same::check_same_experts(request, again.subject().routed(request.name, "a comparison")?)?;
        return Ok(None);
    }
    let adapter = match (makes, config) {
        (Made::PeftFolder, Some(config)) => Some(PeftAdapter::read(AdapterFiles::read(written)?.folder(), config)?),
        (Made::PeftFolder, None) => Some(PeftAdapter::read_alone(AdapterFiles::read(written)?.folder())?),
        (Made::GgufAdapter, Some(config)) => Some(pollster::block_on(gguf_lora::read(Box::new(File::open(written)?), config))?),
        _ => None,
    };
    if let Some(adapter) = &adapter {
        same::check_same(request, adapter)?;
    }
    let Some(base) = request.model else { return Ok(None) };
    let model = match adapter {
        Some(_) => None,
        None => Some(pollster::block_on(ModelFile::open_path(written))?),
    };
    let again = match (&adapter, &model) {
        (Some(adapter), _) => Written::Adapter(adapter),
        (None, Some(model)) => Written::Model(model),
        (None, None) => return Ok(None),
    };
    let mut device = match Device::open(&args.device) {
        Ok(device) => device,
        Err(error @ Error::NoAdapter { .. }) if !args.device.requires_gpu() => {
            output.warn(format!("what was written is not scored: {error}"));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let plain = request.plain("a comparison")?;
    let noise = Noise::of(makes, same::rounding(plain, request.format), exported);
    let mut part = plain.clone();
    // No GGUF adapter holds norms or embeddings, which is told: what it does hold is compared.
    if makes == Made::GgufAdapter {
        (part.norms, part.embeddings) = (Vec::new(), None);
    }
    let whole = (part != *plain).then_some(plain);
    let proving = prove(&device.gpu, base, &part, whole, again, noise, &mut device.tuner, output.loading());
    let proof = pollster::block_on(proving)?;
    if let Some(message) = proof.check(request.name)? {
        output.warn(message);
    }
    Ok(Some(proof))
}

/// Says what was written, and how much of the update is in it.
fn tell(exported: &Exported, proof: Option<&Proof>, out: &Path, output: &mut Output) -> Result<()> {
    let mut all = Retention::default();
    exported.tensors.iter().for_each(|t| all.merge(&t.sums));
    let formats: BTreeMap<&str, ()> = exported.tensors.iter().map(|t| (t.format, ())).collect();
    let formats: Vec<&str> = formats.into_keys().collect();
    if output.is_json() {
        let mut event = json!({"event": "export", "out": out.display().to_string(), "exported": exported, "proof": proof});
        if !exported.tensors.is_empty() {
            event["retention"] = all.retention().into();
            event["relative_error"] = all.relative_error().into();
            event["relative_size"] = all.relative_size().into();
        }
        output.print(&event.to_string())?;
    } else {
        show(exported, &all, output)?;
        if let Some(proof) = proof {
            output.print(&proof.line())?;
        }
        let files = if exported.files.len() == 1 { "1 file".to_owned() } else { format!("{} files", exported.files.len()) };
        output.print(&format!("{}: {files}, {}", out.display(), bytes(exported.bytes)))?;
    }
    if !exported.tensors.is_empty() && all.retention() < ENOUGH {
        let message = format!(
            "only {:.1} % of the adapter survives in {}: its changes are smaller than the format's steps; keep the adapter beside the base, or \
             export with --format f16",
            100.0 * all.retention(),
            formats.join(", ")
        );
        output.warn(message);
    }
    Ok(())
}

/// Medians by projection.
fn show(exported: &Exported, all: &Retention, output: &mut Output) -> Result<()> {
    if exported.tensors.is_empty() {
        return Ok(());
    }
    output.print("  projection  sites  ‖Δ‖/‖W‖  retention  relative error  (medians)")?;
    let mut projections: Vec<&str> = Vec::new();
    for t in exported.tensors.iter().filter(|t| !t.projection.is_empty()) {
        if !projections.contains(&t.projection) {
            projections.push(t.projection);
        }
    }
    for projection in projections {
        let own: Vec<&TensorExport> = exported.tensors.iter().filter(|t| t.projection == projection).collect();
        let of = |f: &dyn Fn(&TensorExport) -> f64| median(own.iter().map(|t| f(t))).unwrap_or(0.0);
        output.print(&format!(
            "  {projection:10}  {:5}  {:5.2} %  {:9.3}  {:14.3}",
            own.len(),
            100.0 * of(&|t| t.relative_size),
            of(&|t| t.retention),
            of(&|t| t.relative_error)
        ))?;
    }
    let (kept, error) = (100.0 * all.retention(), all.relative_error());
    output.print(&format!("retention over all weights: {kept:.1} % of the update, relative error {error:.3}"))
}
