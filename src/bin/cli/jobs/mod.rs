//! `weblora jobs`: many jobs over one base. A run's folder is also how other processes talk to it: no port is opened.

mod folder;
mod requests;
mod status;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use weblora::export::peft::File;
use weblora::formats::ModelFile;
use weblora::gpu::Gpu;
use weblora::jobs::{JobEntry, JobsFile};
use weblora::settings::Map;
use weblora::train::fleet::{Entry, Fleet, FleetPlan, Keeper};
use weblora::train::start::from_adapter;
use weblora::train::{Event, TrainConfig};
use weblora::{Error, Result};

use self::folder::RunFolder;
use self::requests::{Ask, Request};
use super::base::open_model;
use super::data;
use super::device::{Device, DeviceArgs};
use super::files::{self, AdapterFiles, Existing, OutFolder};
use super::output::Output;
use super::settings::{TrainArgs, parse_run_file};
use super::signals::Stop;
use super::train::needed;

/// How often the status file is written, and requests are looked for while nobody trains.
const TICK: Duration = Duration::from_millis(500);

/// Arguments of `jobs`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct JobsArgs {
    /// The jobs file: keys of `train` as defaults, `[[job]]` tables, `[sweep]`.
    #[arg(value_name = "FILE.toml", required = true)]
    file: Option<PathBuf>,
    /// Take over a run folder that exists.
    #[arg(long)]
    overwrite: bool,
    /// The GPU.
    #[command(flatten)]
    device: DeviceArgs,
    /// Something that is asked of a run which is under way.
    #[command(subcommand)]
    ask: Option<AskCommand>,
}

/// What can be asked of a run.
#[derive(Debug, Subcommand)]
enum AskCommand {
    /// Print the jobs of a run and where they stand.
    Status(RunArgs),
    /// Move jobs to host memory until they are resumed.
    Pause(NamedArgs),
    /// Let paused jobs go on.
    Resume(NamedArgs),
    /// End jobs; their adapters are saved as they are.
    Stop(NamedArgs),
    /// Add the jobs of another jobs file on the same base.
    Add(AddArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The run's folder.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
}

#[derive(Debug, Args)]
struct NamedArgs {
    /// The jobs.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// The run's folder.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
}

#[derive(Debug, Args)]
struct AddArgs {
    /// A jobs file.
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
    /// The run's folder.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
}

/// Runs the verb.
pub fn run(args: &JobsArgs, output: &mut Output) -> Result<()> {
    match &args.ask {
        None => train(args, output),
        Some(AskCommand::Status(of)) => output.print(&RunFolder::existing(&of.run)?.status(output.is_json())?),
        Some(AskCommand::Pause(of)) => ask(of, Ask::Pause, output),
        Some(AskCommand::Resume(of)) => ask(of, Ask::Resume, output),
        Some(AskCommand::Stop(of)) => ask(of, Ask::Stop, output),
        Some(AskCommand::Add(of)) => {
            // Mistakes are found here, where they can be told; the run reads the file again.
            read_file(&of.file)?;
            let path = std::path::absolute(&of.file).map_err(|e| files::io_error("find", &of.file, e))?;
            RunFolder::existing(&of.run)?.ask(&Request { ask: Ask::Add, names: vec![path.display().to_string()] })?;
            output.print("asked; the run takes it up at its next step")
        }
    }
}

fn ask(of: &NamedArgs, ask: Ask, output: &mut Output) -> Result<()> {
    let folder = RunFolder::existing(&of.run)?;
    folder.check_names(&of.names)?;
    folder.ask(&Request { ask, names: of.names.clone() })?;
    output.print("asked; the run takes it up at its next step")
}

/// The jobs file with its settings read; keys are those of `train`.
fn read_file(path: &Path) -> Result<JobsFile> {
    let map: Map = parse_run_file(&path.display().to_string(), &files::read_text(path)?)?;
    let keys = TrainArgs::keys();
    JobsFile::read(&map, &keys.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A job with its rows. `folder` is where it will save.
fn entry(job: JobEntry, model: &ModelFile, hash: &str) -> Result<(Entry, Vec<String>)> {
    let JobEntry { priority, group, settings, .. } = job;
    let first = TrainConfig::from_map(&settings)?;
    let (mut config, start) = match &first.init_adapter {
        None => (first, None),
        Some(path) => {
            let adapter = AdapterFiles::read(Path::new(path))?;
            let (config, start) = from_adapter(settings, adapter.folder(), &model.config, &model.identity_of(hash.to_owned()))?;
            (config, Some(start))
        }
    };
    let (data, warnings) = data::read(&mut config, model, false)?;
    Ok((Entry { config, data, start, priority, group, saved: None }, warnings))
}

fn train(args: &JobsArgs, output: &mut Output) -> Result<()> {
    let path = args.file.as_deref().ok_or_else(|| Error::config("file", "is missing", "give a jobs file"))?;
    let file = read_file(path)?;
    let text = |key: &str| first_text(&file.base, key);
    let model = open_model(needed("model", text("model").as_ref())?, text("tokenizer").as_deref().map(Path::new))?;
    let hash = pollster::block_on(model.content_hash())?;
    let existing = if args.overwrite { Existing::Overwrite } else { Existing::Refuse };
    if existing == Existing::Refuse {
        OutFolder::check_free(Path::new(&file.out))?;
    }
    let (mut entries, mut failed) = (Vec::new(), Vec::new());
    for job in file.jobs {
        let name = job.name.clone();
        let free = |out: &str| if args.overwrite { Ok(()) } else { OutFolder::check_free(Path::new(out)) };
        match entry(job, &model, &hash).and_then(|(entry, warnings)| free(&entry.config.out).map(|()| (entry, warnings))) {
            Ok((entry, warnings)) => {
                for message in warnings {
                    output.event(&Event::Warning { job: Some(name.clone()), message });
                }
                entries.push(entry);
            }
            Err(error) => failed.push((name, error.to_string())),
        }
    }
    for (job, reason) in failed {
        output.event(&Event::JobFailed { job, reason });
    }
    let mut device = Device::open(&args.device)?;
    let plan = FleetPlan::new(&model, &hash, None, entries, file.options, device.gpu.plan_limits(), &device.tuner)?;
    let planned = plan.planned.footprint().total();
    let folder = RunFolder::create(Path::new(&file.out))?;
    let stop = Stop::listen()?;
    let Device { gpu, tuner, measure } = &mut device;
    let fleet = plan.open(gpu, &model, tuner, *measure, output.loading());
    let mut fleet = pollster::block_on(fleet)?;
    device.remember();
    output.event(&Event::Jobs {
        jobs: fleet.members().len() as u64,
        rows: fleet.session().rows() as u64,
        planned_bytes: planned,
        adapter: device.gpu.facts().name.clone(),
    });
    let mut keeper = Folders { output, existing, open: BTreeMap::new() };
    drive(&mut fleet, &device.gpu, &model, &hash, &folder, &mut keeper, &stop)
}

fn first_text(map: &Map, key: &str) -> Option<String> {
    map.get(key).and_then(|value| value.as_str()).map(str::to_owned)
}

/// Steps to the end, taking up what is asked for between steps.
fn drive(
    fleet: &mut Fleet,
    gpu: &Gpu,
    model: &ModelFile,
    hash: &str,
    folder: &RunFolder,
    keeper: &mut Folders<'_>,
    stop: &Stop,
) -> Result<()> {
    let mut written = Instant::now();
    folder.write_status(fleet)?;
    while !fleet.is_over() {
        for request in folder.take_requests()? {
            if let Err(error) = take_up(fleet, model, hash, request) {
                keeper.tell(Event::Warning { job: None, message: error.to_string() })?;
            }
        }
        let went_on = pollster::block_on(fleet.advance(gpu, keeper))?;
        if stop.asked() {
            // What has trained is kept: every job that has not ended is stopped, which saves its adapter.
            let names: Vec<String> = fleet.unfinished();
            names.iter().try_for_each(|name| fleet.request(name, weblora::jobs::event::Request::Stop))?;
            while !fleet.is_over() {
                pollster::block_on(fleet.advance(gpu, keeper))?;
            }
            folder.write_status(fleet)?;
            return Err(Error::Stopped);
        }
        if written.elapsed() >= TICK {
            folder.write_status(fleet)?;
            written = Instant::now();
        }
        if !went_on {
            std::thread::sleep(TICK);
        }
    }
    folder.write_status(fleet)?;
    folder.write_results(fleet)?;
    keeper.output.print(&folder.status(keeper.output.is_json())?)
}

fn take_up(fleet: &mut Fleet, model: &ModelFile, hash: &str, request: Request) -> Result<()> {
    let Some(what) = request.ask.of_one_job() else {
        for path in &request.names {
            for job in read_file(Path::new(path))?.jobs {
                let (entry, _) = entry(job, model, hash)?;
                OutFolder::check_free(Path::new(&entry.config.out))?;
                fleet.add(entry)?;
            }
        }
        return Ok(());
    };
    request.names.iter().try_for_each(|name| fleet.request(name, what))
}

/// Every job's own folder, locked from its first use to the end of the run, and the terminal.
struct Folders<'o> {
    output: &'o mut Output,
    existing: Existing,
    open: BTreeMap<String, OutFolder>,
}

impl Folders<'_> {
    fn folder(&mut self, out: &str) -> Result<&OutFolder> {
        if !self.open.contains_key(out) {
            self.open.insert(out.to_owned(), OutFolder::open(Path::new(out), self.existing)?);
        }
        Ok(&self.open[out])
    }
}

impl Keeper for Folders<'_> {
    fn tell(&mut self, event: Event) -> Result<()> {
        self.output.event(&event);
        Ok(())
    }
    fn best(&mut self, out: &str, files: &[File]) -> Result<()> {
        self.folder(out)?.write_best(files)
    }
    fn finish(&mut self, out: &str, files: &[File]) -> Result<()> {
        self.folder(out)?.write_adapter(files)
    }
}
