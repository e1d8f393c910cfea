//! `weblora export`: an adapter, or base and adapter together, in the files of other programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use weblora::analysis::report::median;
use weblora::export::exporters::{self, EXPORTERS, Exported, Exporter, Request, Sink};
use weblora::export::peft::PeftAdapter;
use weblora::export::retention::{ENOUGH, Retention, TensorExport, writable};
use weblora::formats::ModelFile;
use weblora::quant;
use weblora::train::Event;
use weblora::{Error, Result};

use super::files::{AdapterFiles, OutFolder, io_error};
use super::lock::Lock;
use super::output::{Output, bytes};

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A PEFT folder.
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// What to make.
    #[arg(long, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(EXPORTERS.iter().map(possible)))]
    pub to: String,
    /// The base that the adapter was trained on: a GGUF file, a safetensors file, or a folder with either.
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// How weights are stored: f32, f16, bf16, q8_0, q5_0, q5_1, q4_0 or q4_1; the exporter's choice when absent.
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// New folder for the result; a new file for --to merged-gguf.
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
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
    let model = args.model.as_ref().map(|path| pollster::block_on(ModelFile::open_path(path))).transpose()?;
    if exporter.needs_model && model.is_none() {
        return Err(Error::config(
            "model",
            format!("is missing for --to {}", exporter.name),
            "name the base that the adapter was trained on",
        ));
    }
    let files = AdapterFiles::read(&args.adapter)?;
    let adapter = match &model {
        Some(model) => {
            let adapter = PeftAdapter::read(files.folder(), &model.config)?;
            adapter.check_base(&name, &pollster::block_on(model.content_hash())?)?;
            adapter
        }
        None => PeftAdapter::read_alone(files.folder())?,
    };
    let request = Request { name: &name, adapter: &adapter, model: model.as_ref(), format };
    let mut sink = DiskSink::new(&args.out, !output.is_json() && std::io::stderr().is_terminal())?;
    let exported = pollster::block_on((exporter.run)(&request, &mut sink))?;
    sink.finish(exporter.single_file)?;
    tell(&exported, &args.out, output)
}

/// Says what was written, and how much of the update is in it.
fn tell(exported: &Exported, out: &Path, output: &mut Output) -> Result<()> {
    let mut all = Retention::default();
    exported.tensors.iter().for_each(|t| all.merge(&t.sums));
    let formats: BTreeMap<&str, ()> = exported.tensors.iter().map(|t| (t.format, ())).collect();
    let formats: Vec<&str> = formats.into_keys().collect();
    if output.is_json() {
        let mut event = json!({"event": "export", "out": out.display().to_string(), "exported": exported});
        if !exported.tensors.is_empty() {
            event["retention"] = all.retention().into();
            event["relative_error"] = all.relative_error().into();
            event["relative_size"] = all.relative_size().into();
        }
        output.print(&event.to_string())?;
    } else {
        show(exported, &all, output)?;
        output.print(&format!("{}: {} files, {}", out.display(), exported.files.len(), bytes(exported.bytes)))?;
    }
    if !exported.tensors.is_empty() && all.retention() < ENOUGH {
        let message = format!(
            "only {:.1} % of the adapter survives in {}: its changes are smaller than the format's steps; keep the adapter beside the base, or \
             export with --format f16",
            100.0 * all.retention(),
            formats.join(", ")
        );
        output.event(&Event::Warning { job: None, message });
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

/// Files in a hidden folder beside their place, moved there when all are whole. What a killed export left in it is removed by the next one.
struct DiskSink {
    place: PathBuf,
    temporary: PathBuf,
    files: PathBuf,
    /// Nobody else writes to that place meanwhile.
    _lock: Option<Lock>,
    current: Option<(PathBuf, BufWriter<fs::File>)>,
    last: PathBuf,
    bar: Option<ProgressBar>,
}

impl DiskSink {
    fn new(place: &Path, show: bool) -> Result<Self> {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let temporary = place.with_file_name(format!(".{name}.tmp"));
        fs::create_dir_all(&temporary).map_err(|e| io_error("create", &temporary, e))?;
        let lock = Lock::take(&temporary, "out")?;
        let files = temporary.join("files");
        match fs::remove_dir_all(&files) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(io_error("replace", &files, e)),
            _ => fs::create_dir(&files).map_err(|e| io_error("create", &files, e))?,
        }
        let bar = show.then(|| ProgressBar::new(0));
        Ok(Self { place: place.to_owned(), temporary, files, _lock: lock, current: None, last: PathBuf::new(), bar })
    }

    /// Moves the folder, or its only file, to its place.
    fn finish(&self, single_file: bool) -> Result<()> {
        let from = if single_file { &self.last } else { &self.files };
        // Somebody may have put something there meanwhile.
        OutFolder::check_unused("out", &self.place)?;
        fs::rename(from, &self.place).map_err(|e| io_error("write", &self.place, e))
    }
}

impl Sink for DiskSink {
    fn begin(&mut self, name: &str, bytes: u64) -> Result<()> {
        let path = self.files.join(name);
        let file = fs::File::create(&path).map_err(|e| io_error("create", &path, e))?;
        self.current = Some((path, BufWriter::new(file)));
        if let Some(bar) = &self.bar {
            bar.inc_length(bytes);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some((path, file)) = &mut self.current else { return Ok(()) };
        file.write_all(bytes).map_err(|e| io_error("write", path, e))?;
        if let Some(bar) = &self.bar {
            bar.inc(bytes.len() as u64);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some((path, file)) = self.current.take() else { return Ok(()) };
        let synced = file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        synced.map_err(|e| io_error("write", &path, e))?;
        self.last = path;
        Ok(())
    }
}

impl Drop for DiskSink {
    fn drop(&mut self) {
        // Nothing is left of an export that failed, or of the folder around a single file.
        fs::remove_dir_all(&self.temporary).ok();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
