//! Many jobs over the loaded base: begun, stepped, asked, saved. The loop and the scheduler are the library's (`train::fleet`, `jobs`).

use serde::Serialize;
use serde_json::{Value, json};

use super::convert::{field, settings_from_js};
use super::options::row_files;
use super::options::{AdapterFiles, Callback, Rows, adapter_from_js, bytes_from_js};
use super::run::ADAPTER;
use super::state::{Base, State, loaded};
use crate::export::folder::{File, Folder};
use crate::jobs::curve::Curve;
use crate::jobs::event::Request;
use crate::jobs::{Options, options};
use crate::settings::{Map, Settings, unknown};
use crate::train::fleet::{Entry, Fleet, FleetPlan, Founders, Keeper, Member, Saved};
use crate::train::start::{fill_in, from_adapter};
use crate::train::trainer::TrainData;
use crate::train::{Checkpoint, Event, TrainConfig};
use crate::{Error, Result};

/// A job as a page gives it.
pub struct JobOptions {
    name: String,
    settings: Map,
    rows: Vec<Rows>,
    held_out: Vec<Rows>,
    init_adapter: Option<AdapterFiles>,
    priority: i64,
    group: Option<String>,
    saved: Option<Saved>,
}

impl JobOptions {
    /// Reads `JobOptions` of the package.
    pub fn read(object: &wasm_bindgen::JsValue) -> Result<Self> {
        let get = |key: &str| field(object, key);
        let checkpoint = get("checkpoint")?;
        let saved = match checkpoint.is_falsy() {
            true => None,
            false => Some(Saved { checkpoint: bytes_from_js(&checkpoint, "checkpoint")?, curve: read_curve(get("curve")?.as_string())? }),
        };
        Ok(Self {
            name: get("name")?.as_string().ok_or_else(|| Error::config("name", "is missing", "give every job a name"))?,
            settings: settings_from_js(get("settings")?)?.unwrap_or_default(),
            rows: Rows::read_all(get("rows")?, "rows")?,
            held_out: Rows::read_all(get("heldOut")?, "heldOut")?,
            init_adapter: adapter_from_js(&get("initAdapter")?)?,
            priority: get("priority")?.as_f64().unwrap_or_default() as i64,
            group: get("group")?.as_string(),
            saved,
        })
    }

    /// With its rows read; and what should be known of them.
    fn open(self, base: &Base) -> Result<(Entry, Vec<String>)> {
        let Self { name, mut settings, rows, held_out, init_adapter, priority, group, saved } = self;
        crate::jobs::names::check(&name)?;
        Rows::settle_all(&rows, &mut settings)?;
        settings.insert("quantize".into(), base.quantize.as_str().into());
        // What a job leaves behind is known by its name.
        settings.extend(["name", "out"].map(|key| (key.to_owned(), Value::from(name.as_str()))));
        if let Some(saved) = &saved {
            fill_in(&mut settings, &Checkpoint::read(&name, &saved.checkpoint)?.state.config);
        }
        let (mut config, start) = match &init_adapter {
            None => (TrainConfig::from_map(&settings)?, None),
            Some(files) => {
                let (config, start) = from_adapter(settings, Folder::of(ADAPTER, files)?, &base.file.config, &base.id)?;
                (config, Some(start))
            }
        };
        if saved.is_none() {
            config.begin_today(&base.tokenizer);
        }
        let (data, mut warnings) = TrainData::read(&config, &base.tokenizer, &row_files(&rows)?, &row_files(&held_out)?)?;
        crate::train::Run::check_held_out(&config, !data.held_out.is_empty())?;
        warnings.extend(start.as_ref().and_then(|start| start.warning.clone()));
        Ok((Entry { config, data, start, priority, group, saved }, warnings))
    }
}

fn read_curve(text: Option<String>) -> Result<Curve> {
    let Some(text) = text else { return Ok(Curve::default()) };
    serde_json::from_str(&text).map_err(|e| Error::config("curve", format!("cannot be read: {e}"), "pass it as saveJob gave it"))
}

/// The scheduler's settings.
fn read_options(map: &Map) -> Result<Options> {
    if let Some(key) = map.keys().find(|key| !options::KEYS.contains(&key.as_str())) {
        return Err(unknown(key, options::KEYS.iter().copied()));
    }
    Options::read(&mut Settings::new(map))
}

/// An adapter that a job leaves behind: its `kind` is "best" or "end".
pub struct KeptAdapter {
    /// The job.
    pub job: String,
    /// When.
    pub kind: &'static str,
    /// The files.
    pub files: Vec<File>,
}

/// What one call of `stepJobs` brought.
#[derive(Default)]
pub struct Brought {
    /// In order.
    pub events: Vec<Event>,
    /// In order.
    pub kept: Vec<KeptAdapter>,
    /// False where nobody can train until something is asked for.
    pub went_on: bool,
    /// No job can go on.
    pub over: bool,
}

impl Keeper for Brought {
    fn tell(&mut self, event: Event) -> Result<()> {
        self.events.push(event);
        Ok(())
    }
    fn best(&mut self, out: &str, files: &[File]) -> Result<()> {
        self.kept.push(KeptAdapter { job: out.to_owned(), kind: "best", files: files.to_vec() });
        Ok(())
    }
    fn finish(&mut self, out: &str, files: &[File]) -> Result<()> {
        self.kept.push(KeptAdapter { job: out.to_owned(), kind: "end", files: files.to_vec() });
        Ok(())
    }
    /// Jobs are saved by the page (`saveJob`), which knows what it has.
    fn leave(&mut self, _: &TrainConfig, file: &str, _: bool) -> Result<String> {
        Ok(format!("{file} is kept"))
    }
}

/// `JobStatus` of the package.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    job: String,
    state: &'static str,
    reason: String,
    step: u64,
    steps: u64,
    loss: Option<f64>,
    best_eval: Option<f64>,
    best_step: Option<u64>,
    seconds_left: Option<f64>,
    best: bool,
    sound_step: u64,
    judged_on: String,
}

/// Where the jobs stand, in the order of their arrival.
pub fn status(fleet: &Fleet) -> Vec<JobStatus> {
    let scheduler = fleet.scheduler();
    let one = |member: &Member| {
        let job = scheduler.by_name(&member.run.config.name);
        JobStatus {
            job: member.run.config.name.clone(),
            state: job.map_or("waiting", |job| job.status.state.name()),
            reason: job.map_or_else(String::new, |job| job.status.reason.clone()),
            step: member.run.done,
            steps: member.run.total,
            loss: member.run.last_loss().filter(|loss| loss.is_finite()),
            best_eval: member.run.progress.best.map(|best| best.loss),
            best_step: member.run.progress.best.map(|best| best.step),
            seconds_left: job.and_then(|job| scheduler.seconds_left(job.id)),
            best: job.is_some_and(|job| scheduler.best(&job.spec.judged_on).is_some_and(|best| best.job == job.id)),
            sound_step: member.run.sound,
            judged_on: job.map_or_else(String::new, |job| job.spec.judged_on.clone()),
        }
    };
    fleet.members().iter().map(one).collect()
}

/// The jobs that have to be there.
pub fn fleet(fleet: &mut Option<Fleet>) -> Result<&mut Fleet> {
    fleet.as_mut().ok_or_else(|| Error::config("job", "no jobs have been started", "call startJobs first"))
}

/// Entries of the jobs whose settings and rows are sound; a sentence for each of the others.
type Opened = (Vec<Entry>, Vec<Event>, Option<Error>);

fn open_all(jobs: Vec<JobOptions>, base: &Base) -> Opened {
    let (mut entries, mut events, mut first) = (Vec::new(), Vec::new(), None);
    for job in jobs {
        let name = job.name.clone();
        match job.open(base) {
            Ok((entry, warnings)) => {
                events.extend(warnings.into_iter().map(|message| Event::Warning { job: Some(name.clone()), message }));
                entries.push(entry);
            }
            Err(error) => {
                events.push(Event::JobFailed { job: name, reason: error.to_string() });
                first.get_or_insert(error);
            }
        }
    }
    (entries, events, first)
}

impl State {
    /// Begins jobs: the first events. A job whose settings or rows are wrong fails alone, unless there is no other.
    pub async fn start_jobs(&mut self, jobs: Vec<JobOptions>, options: &Map, tune: bool, progress: &Callback) -> Result<Vec<Event>> {
        let base = loaded(&self.base)?;
        let mut options = read_options(options)?;
        options.memory = options.memory.into_iter().chain(self.max_bytes).min();
        let (entries, mut events, first) = open_all(jobs, base);
        if let (true, Some(error)) = (entries.is_empty(), first) {
            return Err(error);
        }
        let mut founders = Founders::new(&base.file, &base.id.hash, entries);
        let limits = self.gpu.plan_limits();
        let plan = FleetPlan::of(&base.file, base.resident.as_ref(), &mut founders, options, limits, &mut self.tuner)?;
        let mut refused = std::mem::take(&mut founders.refused);
        let Some(mut plan) = plan else {
            let none = || Error::config("jobs", "there is none", "pass at least one");
            return Err(refused.pop().map_or_else(none, |(_, error)| error));
        };
        events.extend(refused.into_iter().map(|(job, error)| Event::JobFailed { job, reason: error.to_string() }));
        let planned_bytes = plan.planned.footprint().total();
        let (places, spare_bytes) = plan.room();
        self.check_size(planned_bytes)?;
        // Everything that can be wrong with the settings has been found: what ran before makes room.
        (self.job, self.fleet, self.writer) = (None, None, None);
        if tune {
            plan.planned.tune(&self.gpu, &mut self.tuner).await?;
        }
        let count = |phase: &'static str| move |done: u64, total: u64| progress.progress(phase, done, total);
        let pipelines = count("pipelines");
        plan.planned.prewarm(&self.gpu, |done, total| pipelines(done as u64, total as u64)).await?;
        let mut fleet = plan.open(&self.gpu, &base.file, &mut self.tuner, false, count("weights")).await?;
        let (resident, rows) = (fleet.session().base().clone(), fleet.session().rows() as u64);
        if let Some(base) = &mut self.base {
            base.resident = Some(resident);
        }
        let adapter = self.gpu.facts().name.clone();
        let (jobs, places) = (fleet.members().len() as u64, places as u64);
        events.insert(0, Event::Jobs { jobs, rows, planned_bytes, places, spare_bytes, adapter: adapter.clone() });
        events.extend(fleet.members().iter().flat_map(|member| member.start_events(adapter.clone())));
        events.extend(fleet.kernel_warning().map(|message| Event::Warning { job: None, message: message.to_owned() }));
        self.fleet = Some(fleet);
        Ok(events)
    }

    /// Takes in a job while others train; its first events.
    pub fn add_job(&mut self, job: JobOptions) -> Result<Vec<Event>> {
        let (entry, warnings) = job.open(loaded(&self.base)?)?;
        let name = entry.config.name.clone();
        let fleet = fleet(&mut self.fleet)?;
        fleet.add(entry)?;
        let started = fleet.members().last().map(|member| member.start_events(self.gpu.facts().name.clone()));
        let warnings = warnings.into_iter().map(|message| Event::Warning { job: Some(name.clone()), message });
        Ok(warnings.chain(started.into_iter().flatten()).collect())
    }

    /// A step boundary and the fused step after it.
    pub async fn step_jobs(&mut self) -> Result<Brought> {
        let fleet = fleet(&mut self.fleet)?;
        let mut brought = Brought::default();
        brought.went_on = fleet.advance(&self.gpu, &mut brought).await?;
        brought.over = fleet.is_over();
        Ok(brought)
    }

    /// Asks for something, which is done at the next step boundary.
    pub fn ask_job(&mut self, name: &str, what: &str) -> Result<()> {
        let request = match what {
            "pause" => Request::Pause,
            "resume" => Request::Resume,
            "stop" => Request::Stop,
            _ => return Err(Error::config("what", format!("is \"{what}\""), "ask for pause, resume or stop")),
        };
        fleet(&mut self.fleet)?.request(name, request)
    }

    /// All that a job needs to go on, here or elsewhere; the losses as a text.
    pub async fn save_job(&mut self, name: &str) -> Result<(Vec<u8>, String)> {
        let Saved { checkpoint, curve } = fleet(&mut self.fleet)?.save(&self.gpu, name).await?;
        let curve = serde_json::to_string(&curve).map_err(|e| Error::format(name, format!("cannot be saved: {e}"), "report this"))?;
        Ok((checkpoint, curve))
    }

    /// The files of a job's adapter as it is now.
    pub async fn export_job(&mut self, name: &str) -> Result<Vec<File>> {
        fleet(&mut self.fleet)?.export(&self.gpu, name).await
    }
}

/// What a form of jobs offers: policies, rules of early stopping, ways to search.
pub fn tables() -> Value {
    let rows = |list: Vec<(&str, &str, &[&str])>| -> Vec<Value> {
        list.into_iter().map(|(name, help, keys)| json!({ "name": name, "help": help, "keys": keys })).collect()
    };
    json!({
        "policies": rows(crate::jobs::policy::POLICIES.iter().map(|row| (row.name, row.help, &[] as &[&str])).collect()),
        "rules": rows(crate::jobs::early_stop::RULES.iter().map(|row| (row.name, row.help, row.keys)).collect()),
        "searches": rows(crate::jobs::sweep::SEARCHES.iter().map(|row| (row.name, row.help, row.keys)).collect()),
    })
}

/// The jobs that a `[sweep]` table makes: names, and what each sets.
pub fn sweep(map: &Map) -> Result<Value> {
    let trials = crate::jobs::sweep::Sweep::read(map, &crate::jobs::jobs_file::shared_keys())?.expand()?;
    Ok(trials.into_iter().map(|trial| json!({ "name": trial.name, "assigned": trial.assigned })).collect())
}
