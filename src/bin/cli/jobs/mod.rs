//! `weblora jobs`: many jobs over one base. A run's folder is also how other processes talk to it: no port is opened.

mod failed;
mod folder;
mod read;
mod requests;
mod status;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::Value;
use weblora::export::folder::File;
use weblora::formats::ModelFile;
use weblora::gpu::Gpu;
use weblora::jobs::state::State;
use weblora::jobs::{JobEntry, JobsFile};
use weblora::settings::Map;
use weblora::train::fleet::{Entry, Fleet, FleetPlan, Found, Founders, Keeper};
use weblora::train::start::from_adapter;
use weblora::train::{Event, TrainConfig};
use weblora::{Error, Result};

use self::failed::FailedJob;
use self::folder::RunFolder;
use self::read::{read_added, read_file};
use self::requests::{Ask, Request};
use super::base::open_model;
use super::data;
use super::device::{Device, DeviceArgs};
use super::files::{AdapterFiles, Existing, OutFolder};
use super::io_error::io_error;
use super::output::Output;
use super::signals::Stop;
use super::train::{last_sound, needed, once_mended};

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
            read_added(&of.file, &of.run, &Map::new())?;
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

/// A job with its rows.
fn entry(job: JobEntry, on: On<'_>) -> Result<(Entry, Vec<String>)> {
    let On { model, hash, .. } = on;
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
    let file = read_file(path, args.resume)?;
    output.of_several();
    let text = |key: &str| first_text(&file.base, key);
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
    let mut keeper = Folders { output, existing, run: &folder, open: BTreeMap::new() };
    let outs: Vec<String> =
        fleet.members().iter().filter(|member| member.job().is_some()).map(|member| member.run.config.out.clone()).collect();
    outs.iter().for_each(|out| keeper.lock(&mut fleet, out));
    drive(&mut fleet, &device.gpu, on, &folder, &mut keeper, &stop)
}

/// What jobs train on.
#[derive(Clone, Copy)]
struct On<'a> {
    model: &'a ModelFile,
    hash: &'a str,
    /// Keys of the base in the jobs file.
    base: &'a Map,
}

impl On<'_> {
    /// Refuses the base of a file that is added where it is another one.
    fn check(&self, added: &Map) -> Result<()> {
        let hint = "start another run for it, or leave it out: all jobs of a run share one base";
        let of_run = |key: &str| self.base.get(key).map_or_else(|| "not given".to_owned(), Value::to_string);
        // Two paths may lead to the same weights.
        if let Some(path) = first_text(added, "model").filter(|_| added.get("model") != self.base.get("model"))
            && pollster::block_on(open_model(Path::new(&path), None)?.content_hash())? != self.hash
        {
            let problem = format!("{path} has other weights than the base of the run, {}", of_run("model"));
            return Err(Error::config("model", problem, hint));
        }
        match ["tokenizer", "quantize"].into_iter().find(|key| added.get(*key) != self.base.get(*key)) {
            None => Ok(()),
            Some(key) => Err(Error::config(key, format!("is {} here, in the run {}", added[key], of_run(key)), hint)),
        }
    }
}

/// Plans a new run. A job with something wrong fails alone.
fn begin(file: JobsFile, on: On<'_>, existing: Existing, device: &mut Device, output: &mut Output) -> Result<(FleetPlan, RunFolder)> {
    let free = |out: &str| if existing == Existing::Overwrite { Ok(()) } else { OutFolder::check_free(Path::new(out)) };
    free(&file.out)?;
    let outs: BTreeMap<String, String> =
        file.jobs.iter().filter_map(|job| Some((job.name.clone(), first_text(&job.settings, "out")?))).collect();
    let (mut entries, mut failed) = (Vec::new(), Vec::new());
    for job in file.jobs {
        let name = job.name.clone();
        match entry(job, on).and_then(|(entry, warnings)| free(&entry.config.out).map(|()| (entry, warnings))) {
            Ok((entry, warnings)) => {
                for message in warnings {
                    output.event(&Event::Warning { job: Some(name.clone()), message });
                }
                entries.push(entry);
            }
            Err(error) => failed.push((name, error)),
        }
    }
    let mut founders = Founders::new(on.model, on.hash, entries);
    failed.append(&mut founders.refused);
    let as_failed = |(job, error): (String, Error)| FailedJob { out: outs.get(&job).cloned(), job, reason: error.to_string() };
    let mut failed: Vec<FailedJob> = failed.into_iter().map(as_failed).collect();
    let mut tell = |failed: &[FailedJob]| {
        for FailedJob { job, reason, .. } in failed {
            output.event(&Event::JobFailed { job: job.clone(), reason: reason.clone() });
        }
    };
    tell(&failed);
    if founders.is_empty() {
        let all = failed.len();
        let hint = "that is all of them, before the run began; mend what is said above and start it again".to_owned();
        return Err(Error::JobsFailed { failed: all, all, hint });
    }
    let limits = device.gpu.plan_limits();
    let mut plan = FleetPlan::of(on.model, None, founders, file.options, limits, &mut device.tuner)?;
    let too_large: Vec<FailedJob> = std::mem::take(&mut plan.refused).into_iter().map(as_failed).collect();
    tell(&too_large);
    failed.extend(too_large);
    Ok((plan, RunFolder::create(Path::new(&file.out), failed)?))
}

/// Plans a run that goes on. A job whose rows or checkpoint are gone fails alone.
fn resume(file: &JobsFile, on: On<'_>, device: &mut Device, output: &mut Output) -> Result<(FleetPlan, RunFolder)> {
    let (folder, state) = RunFolder::resume(Path::new(&file.out))?;
    state.check_options(&file.options)?;
    for job in &file.jobs {
        let saved = state.members.iter().find(|member| member.config.get("name").and_then(|name| name.as_str()) == Some(&job.name));
        match saved {
            // What an adapter brought along is in what was saved, not in the file.
            Some(saved) if !job.settings.contains_key("init-adapter") => check_same(job, &saved.config)?,
            Some(_) => {}
            None => {
                let failed = folder.failed().list().into_iter().find(|failed| failed.job == job.name);
                let why = failed.map(|failed| format!(" (it failed before: {})", failed.reason)).unwrap_or_default();
                let message = format!("job {} is not in the run that goes on{why}: take it in with `weblora jobs add`", job.name);
                output.event(&Event::Warning { job: Some(job.name.clone()), message });
            }
        }
    }
    let mut found = Vec::with_capacity(state.members.len());
    for member in &state.members {
        found.push(member.file.as_ref().map(|file| {
            let (file, bytes) = folder.job_state(file)?;
            let (data, _) = data::read(&mut TrainConfig::from_map(&member.config)?, on.model, true)?;
            Ok(Found { data, file, bytes })
        }));
    }
    let limits = device.gpu.plan_limits();
    let plan = FleetPlan::resume(on.model, on.hash, None, state, found, limits, &mut device.tuner)?;
    // Locks and halves of files that the killed process left in folders to which nobody will write again.
    for out in plan.jobs().filter(|(_, job)| job.status.state.is_over()).map(|(member, _)| Path::new(&member.run.config.out)) {
        if out.is_dir() {
            OutFolder::open(out, Existing::Continue).ok(); // another run may have it by now
        }
    }
    for (_, job) in plan.jobs().filter(|(_, job)| job.status.state == State::Failed) {
        let message = format!("it failed before, and its settings are not looked at again: {}", job.status.reason);
        output.event(&Event::Warning { job: Some(job.spec.name.clone()), message });
    }
    for (member, job) in plan.jobs().filter(|(_, job)| !job.status.state.is_over()) {
        let (step, steps, state) = (member.run.done, member.run.total, job.status.state.name().to_owned());
        output.event(&Event::Resumed { job: job.spec.name.clone(), step, steps, state });
    }
    Ok((plan, folder))
}

/// Refuses settings of a job other than those that it was begun with.
fn check_same(job: &JobEntry, saved: &Map) -> Result<()> {
    let mut now = TrainConfig::from_map(&job.settings)?;
    // The day is the run's own unless the file says it.
    if now.date.is_none() {
        now.date = TrainConfig::from_map(saved)?.date;
    }
    // So is the template, whatever has become of its file.
    let saved_config = TrainConfig::from_map(saved)?;
    now.chat_template.clone_from(&saved_config.chat_template);
    // Each job goes on with what is saved, so that nothing else may be said of it; its folder may be written in another way.
    let (now, saved) = (now.to_map(), saved_config.to_map());
    let key = now.keys().chain(saved.keys()).find(|key| key.as_str() != "out" && now.get(*key) != saved.get(*key));
    key.map_or(Ok(()), |key| {
        let text = |map: &Map| map.get(key).map_or_else(|| "not set".to_owned(), Value::to_string);
        let problem = format!("is {} here and {} in the run that goes on, whose jobs keep their settings", text(&now), text(&saved));
        let hint = "put it back; or go on with one job alone by `weblora train --resume`, or take in another by `weblora jobs add`";
        Err(Error::config(format!("job {}: {key}", job.name), problem, hint))
    })
}

fn first_text(map: &Map, key: &str) -> Option<String> {
    map.get(key).and_then(|value| value.as_str()).map(str::to_owned)
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
            let taken_up = match ask.of_one_job() {
                Some(what) => fleet.request(&name, what),
                None => take_in(fleet, gpu, on, Path::new(&name), keeper),
            };
            if let Err(error) = taken_up {
                keeper.tell(Event::Warning { job: None, message: error.to_string() })?;
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
    let file = read_added(path, keeper.run.path(), on.base)?;
    let wrong_base = on.check(&file.base).err().map(|error| error.to_string());
    for job in file.jobs {
        // It is no failure of the job that has the name.
        if let Some(there) = fleet.scheduler().by_name(&job.name) {
            let message = format!("job {} was not added: there is one called {} already; give it another name", job.name, there.spec.name);
            keeper.tell(Event::Warning { job: None, message })?;
            continue;
        }
        let (name, out) = (job.name.clone(), first_text(&job.settings, "out"));
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
    OutFolder::check_free(Path::new(&entry.config.out))?;
    fleet.add(entry)?;
    keeper.run.failed().forget(&name);
    let out = fleet.members().last().map(|member| member.run.config.out.clone()).unwrap_or_default();
    keeper.lock(fleet, &out);
    let started = fleet.members().last().map(|member| member.start_events(gpu.facts().name.clone())).unwrap_or_default();
    let warnings = warnings.into_iter().map(|message| Event::Warning { job: Some(name.clone()), message });
    warnings.chain(started).try_for_each(|event| keeper.tell(event))
}

/// Every job's own folder, locked to the end of the run, and the terminal.
struct Folders<'o> {
    output: &'o mut Output,
    existing: Existing,
    /// Where checkpoints are while jobs run.
    run: &'o RunFolder,
    open: BTreeMap<String, OutFolder>,
}

impl Folders<'_> {
    /// Takes a job's folder, so that nobody else writes there. A job whose folder cannot be had fails.
    fn lock(&mut self, fleet: &mut Fleet, out: &str) {
        if let Err(error) = self.folder(out) {
            let job = fleet.members().iter().find(|member| member.run.config.out == out).map(|member| member.run.config.name.clone());
            fleet.fail(&job.unwrap_or_default(), error.to_string());
        }
    }

    fn folder(&mut self, out: &str) -> Result<&OutFolder> {
        if !self.open.contains_key(out) {
            self.open.insert(out.to_owned(), OutFolder::open(Path::new(out), self.existing)?);
        }
        Ok(&self.open[out])
    }
}

impl Keeper for Folders<'_> {
    fn tell(&mut self, event: Event) -> Result<()> {
        if let Event::JobFailed { job, reason } = &event {
            self.run.failed().note(FailedJob { job: job.clone(), out: None, reason: reason.clone() });
        }
        self.output.event(&event);
        Ok(())
    }
    fn best(&mut self, out: &str, files: &[File]) -> Result<()> {
        self.folder(out)?.write_best(files)
    }
    fn finish(&mut self, out: &str, files: &[File]) -> Result<()> {
        self.folder(out)?.write_adapter(files)
    }
    /// It becomes the checkpoint of the job's own folder, where it can go on by itself.
    fn leave(&mut self, config: &TrainConfig, file: &str, diverged: bool) -> Result<String> {
        let (_, bytes) = self.run.job_state(file)?;
        let out = self.folder(&config.out)?;
        out.save(&bytes)?;
        out.drop_earlier()?;
        Ok(if diverged { last_sound(config, out) } else { once_mended(out) })
    }
}
