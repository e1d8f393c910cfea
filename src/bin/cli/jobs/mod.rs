//! `weblora jobs`: many jobs over one base. A run's folder is also how other processes talk to it: no port is opened.

mod begin;
mod failed;
mod folder;
mod folders;
mod read;
mod requests;
mod status;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use weblora::gpu::Gpu;
use weblora::jobs::{JobEntry, folders::check as check_folders};
use weblora::settings::Map;
use weblora::train::fleet::{Fleet, Keeper};
use weblora::train::{Event, TrainConfig};
use weblora::{Error, Result};

use self::begin::{On, begin, entry, resume, text_of};
use self::failed::FailedJob;
use self::folder::RunFolder;
use self::folders::Folders;
use self::read::{here, read_added, read_file};
use self::requests::{Ask, Request};
use super::base::open_model;
use super::device::{Device, DeviceArgs};
use super::files::{Existing, OutFolder};
use super::io_error::io_error;
use super::output::Output;
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
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Go on with a run that was interrupted, from where it was saved; `save-every` says how often that is.
    #[arg(long)]
    resume: bool,
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
            read_added(&of.file, &of.run, &Map::new(), false)?;
            let path = std::path::absolute(&of.file).map_err(|e| io_error("find", &of.file, e))?;
            let asked = RunFolder::existing(&of.run)?.ask(&Request { ask: Ask::Add, names: vec![path.display().to_string()] })?;
            output.print(asked)
        }
    }
}

fn ask(of: &NamedArgs, ask: Ask, output: &mut Output) -> Result<()> {
    let folder = RunFolder::existing(&of.run)?;
    folder.check_names(&of.names)?;
    output.print(folder.ask(&Request { ask, names: of.names.clone() })?)
}

fn train(args: &JobsArgs, output: &mut Output) -> Result<()> {
    let path = args.file.as_deref().ok_or_else(|| Error::config("file", "is missing", "give a jobs file"))?;
    let file = read_file(path, args.resume)?;
    output.of_several();
    let text = |key: &str| text_of(&file.base, key);
    let model = open_model(needed("model", text("model").as_ref())?, text("tokenizer").as_deref().map(Path::new))?;
    let hash = pollster::block_on(model.content_hash())?;
    let existing = match (args.resume, args.overwrite) {
        (true, _) => Existing::Continue,
        (false, true) => Existing::Overwrite,
        (false, false) => Existing::Refuse,
    };
    let base = file.base.clone();
    let on = On { model: &model, hash: &hash, base: &base };
    let mut device = Device::open(&args.device)?;
    let (plan, folder) =
        if args.resume { resume(&file, on, &mut device, output)? } else { begin(file, on, existing, &mut device, output)? };
    device.warn_of_software();
    let planned = plan.planned.footprint().total();
    let (places, spare_bytes) = plan.room();
    let stop = Stop::listen()?;
    let Device { gpu, tuner, measure } = &mut device;
    let fleet = plan.open(gpu, &model, tuner, *measure, output.loading());
    let mut fleet = pollster::block_on(fleet)?;
    device.remember();
    output.event(&Event::Jobs {
        jobs: fleet.members().len() as u64,
        rows: fleet.session().rows() as u64,
        planned_bytes: planned,
        places: places as u64,
        spare_bytes,
        adapter: device.gpu.facts().name.clone(),
    });
    for event in fleet.members().iter().flat_map(|member| member.start_events(device.gpu.facts().name.clone())) {
        output.event(&event);
    }
    if let Some(message) = fleet.kernel_warning() {
        output.event(&Event::Warning { job: None, message: message.to_owned() });
    }
    let mut keeper = Folders::new(output, existing, &folder);
    let outs: Vec<String> =
        fleet.members().iter().filter(|member| member.job().is_some()).map(|member| member.run.config.out.clone()).collect();
    outs.iter().for_each(|out| keeper.lock(&mut fleet, out));
    drive(&mut fleet, &device.gpu, on, &folder, &mut keeper, &stop)
}

/// Steps to the end, taking up what is asked for between steps. All is saved as the run begins, whenever a job's `save-every` says so, when
/// something is asked for, and at the end.
fn drive(fleet: &mut Fleet, gpu: &Gpu, on: On<'_>, folder: &RunFolder, keeper: &mut Folders<'_>, stop: &Stop) -> Result<()> {
    let mut written = Instant::now();
    folder.write_status(fleet)?;
    pollster::block_on(fleet.save_all(gpu, &mut folder.keeping(&[])))?;
    while !fleet.is_over() {
        take_up_all(fleet, gpu, on, folder, keeper)?;
        let went_on = pollster::block_on(fleet.advance(gpu, keeper))?;
        if stop.asked() {
            return interrupted(fleet, gpu, folder, keeper);
        }
        if fleet.wants_saving() {
            pollster::block_on(fleet.save_all(gpu, &mut folder.keeping(&[])))?;
            keeper.tell(Event::Saved { path: folder.path().display().to_string() })?;
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
    pollster::block_on(fleet.save_all(gpu, &mut folder.keeping(&[])))?;
    keeper.output.print(&folder.status(keeper.output.is_json())?)?;
    all_went_well(fleet, folder)
}

/// An error where jobs failed, so that whoever started the run need not read the results to know.
fn all_went_well(fleet: &Fleet, folder: &RunFolder) -> Result<()> {
    let jobs = folder.statuses(fleet);
    match status::failures(&jobs) {
        0 => Ok(()),
        failed => {
            let hint = format!("`weblora jobs status --run {}` says why", folder.path().display());
            Err(Error::JobsFailed { failed, all: jobs.len(), hint })
        }
    }
}

/// What is asked for is in the saved state before its file is removed, so that nothing that was asked is lost or done twice.
fn take_up_all(fleet: &mut Fleet, gpu: &Gpu, on: On<'_>, folder: &RunFolder, keeper: &mut Folders<'_>) -> Result<()> {
    let (names, requests): (Vec<String>, Vec<Request>) = folder.requests()?.into_iter().unzip();
    if names.is_empty() {
        return Ok(());
    }
    for Request { ask, names } in requests {
        for name in names {
            match ask.of_one_job() {
                Some(what) => {
                    if let Err(error) = fleet.request(&name, what) {
                        keeper.tell(Event::Warning { job: None, message: error.to_string() })?;
                    }
                }
                // Nobody reads the run's terminal where the file was added: a file that cannot be read is a failure in its table.
                None => {
                    if let Err(error) = take_in(fleet, gpu, on, Path::new(&name), keeper) {
                        let reason = format!("the file cannot be added: {error}");
                        keeper.tell(Event::JobFailed { job: name, reason })?;
                    }
                }
            }
        }
    }
    pollster::block_on(fleet.save_all(gpu, &mut folder.keeping(&names)))?;
    folder.forget(&names)
}

/// Saves the run, then every adapter as it is.
fn interrupted(fleet: &mut Fleet, gpu: &Gpu, folder: &RunFolder, keeper: &mut Folders<'_>) -> Result<()> {
    pollster::block_on(fleet.save_all(gpu, &mut folder.keeping(&[])))?;
    folder.write_status(fleet)?;
    keeper.tell(Event::Saved { path: folder.path().display().to_string() })?;
    pollster::block_on(fleet.keep_all(gpu, keeper))?;
    Err(Error::Stopped)
}

/// Takes in the jobs of a file, each by itself: one with something wrong fails, and those after it join all the same.
fn take_in(fleet: &mut Fleet, gpu: &Gpu, on: On<'_>, path: &Path, keeper: &mut Folders<'_>) -> Result<()> {
    let file = read_added(path, keeper.run.path(), on.base, true)?;
    let wrong_base = on.check(&file.base).err().map(|error| error.to_string());
    for job in file.jobs {
        // It is no failure of the job that has the name.
        if let Some(there) = fleet.scheduler().by_name(&job.name) {
            let message = format!("job {} was not added: there is one called {} already; give it another name", job.name, there.spec.name);
            keeper.tell(Event::Warning { job: None, message })?;
            continue;
        }
        let (name, out) = (job.name.clone(), text_of(&job.settings, "out"));
        let joined = match &wrong_base {
            Some(reason) => Err(reason.clone()),
            None => join(fleet, gpu, on, job, keeper).map_err(|error| error.to_string()),
        };
        if let Err(reason) = joined {
            keeper.tell(Event::JobFailed { job: name.clone(), reason: reason.clone() })?;
            keeper.run.failed().note(FailedJob { job: name, out, reason });
        }
    }
    Ok(())
}

/// Takes in one job and tells how it begins.
fn join(fleet: &mut Fleet, gpu: &Gpu, on: On<'_>, job: JobEntry, keeper: &mut Folders<'_>) -> Result<()> {
    let name = job.name.clone();
    let (entry, warnings) = entry(job, on)?;
    OutFolder::check_unused("out", Path::new(&entry.config.out))?;
    let configs = fleet.members().iter().map(|member| &member.run.config).chain([&entry.config]);
    let placed: Vec<(&str, String)> = configs.map(|config: &TrainConfig| (config.name.as_str(), config.out.clone())).collect();
    check_folders(&placed, &keeper.run.path().display().to_string(), &here())?;
    fleet.add(entry)?;
    keeper.run.note_added(&name);
    keeper.run.failed().forget(&name);
    let out = fleet.members().last().map(|member| member.run.config.out.clone()).unwrap_or_default();
    keeper.lock(fleet, &out);
    let started = fleet.members().last().map(|member| member.start_events(gpu.facts().name.clone())).unwrap_or_default();
    let warnings = warnings.into_iter().map(|message| Event::Warning { job: Some(name.clone()), message });
    warnings.chain(started).try_for_each(|event| keeper.tell(event))
}
