//! The jobs file as settings: the base and the scheduler's keys at the top, `[[job]]` tables, `[sweep]`.
//!
//! ```toml
//! model = "model.gguf"        # the base, which all jobs share
//! memory = "2 GiB"            # the scheduler's own keys: see `Options`
//! data = "rows.jsonl"         # any key of `train` is the default of every job
//! out = "runs"                # a job's folder is runs/NAME unless it has `out`
//!
//! [early-stop]
//! rules = ["median", "plateau"]
//!
//! [[job]]
//! name = "small"
//! priority = 1
//! rank = 4
//!
//! [sweep.keys]
//! lr = [1e-4, 1e-3]
//! ```

use std::collections::HashMap;

use serde_json::Value;

use super::folders;
use super::limits::{MAX_JOBS, priority};
use super::names;
use super::options::{self, Options};
use super::sweep::Sweep;
use crate::settings::{Map, Settings, unknown};
use crate::{Error, Result};

/// Keys of the base: for all jobs alike.
pub const BASE_KEYS: &[&str] = &["model", "tokenizer", "quantize"];

/// Keys at the top that are neither the scheduler's nor `train`'s.
const OWN: &[&str] = &["job", "sweep"];

/// Keys of `[[job]]` beside those of `train`.
const JOB_KEYS: &[&str] = &["priority", STOP_GROUP];

/// Jobs that early stopping compares with each other. (`group` is LongLoRA's.)
const STOP_GROUP: &str = "early-stop-group";

/// Keys that no trial of a sweep may set: those of the base and of the scheduler, and of what it knows a job by.
pub fn shared_keys() -> Vec<&'static str> {
    [BASE_KEYS, options::KEYS, JOB_KEYS].concat()
}

/// Folder of the run when `out` is not given.
const OUT: &str = "jobs";

/// A jobs file that has been read: every job has a name, a folder and settings of its own.
#[derive(Debug, Clone)]
pub struct JobsFile {
    /// `model`, `quantize`.
    pub base: Map,
    /// Folder of the whole run.
    pub out: String,
    /// The scheduler's settings.
    pub options: Options,
    /// The jobs, in order: those of `[[job]]`, then those of the sweep.
    pub jobs: Vec<JobEntry>,
}

/// What a jobs file may say of jobs: the settings of `train`.
#[derive(Debug, Clone, Copy)]
pub struct TrainKeys<'a> {
    /// All keys, of any method.
    pub all: &'a [&'a str],
    /// Keys that say the same in two ways: one that is given for a job replaces the other among the defaults.
    pub exclusive: &'a [[&'a str; 2]],
}

/// One job of a jobs file.
#[derive(Debug, Clone, PartialEq)]
pub struct JobEntry {
    /// Its name.
    pub name: String,
    /// Higher goes first.
    pub priority: i64,
    /// Jobs that early stopping compares it with.
    pub group: Option<String>,
    /// Settings for `TrainConfig::from_map`: defaults, the base's, its own, `name` and `out`.
    pub settings: Map,
}

impl JobsFile {
    /// Reads the settings of a jobs file, whose relative folders are seen from `here`, an absolute path (a browser has none). What a value of `train`'s
    /// keys may be, the settings of `train` say when a job is made.
    ///
    /// # Errors
    /// Names the key that is unknown or wrong; two jobs of one name or folder; a job of another base; no job at all, or too many.
    pub fn read(map: &Map, train: TrainKeys<'_>, here: &str) -> Result<Self> {
        let mut settings = Settings::new(map);
        let s = &mut settings;
        let options = Options::read(s)?;
        let out = s.text("out")?.unwrap_or_else(|| OUT.to_owned());
        if let Some(key) = ["name", "priority", STOP_GROUP].iter().find(|key| map.contains_key(**key)) {
            return Err(Error::config(*key, "it is a key of a job, not of the whole file", "write it below [[job]]"));
        }
        let known = || OWN.iter().chain(options::KEYS).chain(train.all).copied();
        if let Some(key) = map.keys().find(|key| !known().any(|k| k == key.as_str())) {
            return Err(unknown(key, known()));
        }
        let is_default = |key: &str| train.all.contains(&key) && key != "out" && !options::KEYS.contains(&key);
        let defaults: Map = map.iter().filter(|(key, _)| is_default(key)).map(|(key, value)| (key.clone(), value.clone())).collect();
        let base = BASE_KEYS.iter().filter_map(|key| Some(((*key).to_owned(), map.get(*key)?.clone()))).collect();
        let mut file = Self { base, out, options, jobs: Vec::new() };
        for (i, table) in tables(s.value("job"))?.into_iter().enumerate() {
            let entry = file.entry(table, &defaults, train).map_err(|error| inside(error, &format!("job {}", i + 1)))?;
            file.jobs.push(entry);
        }
        if let Some(value) = s.value("sweep") {
            let table = value.as_object().ok_or_else(|| Error::config("sweep", "is no table", "write [sweep] and [sweep.keys]"))?;
            file.add_sweep(table, &defaults, train)?;
        }
        file.check(here)?;
        Ok(file)
    }

    /// A job from its table.
    fn entry(&self, table: &Map, defaults: &Map, train: TrainKeys<'_>) -> Result<JobEntry> {
        let known = || JOB_KEYS.iter().chain(train.all).copied();
        if let Some(key) = table.keys().find(|key| !known().any(|k| k == key.as_str())) {
            return Err(unknown(key, known()));
        }
        if let Some(key) = options::KEYS.iter().find(|key| table.contains_key(**key)) {
            return Err(Error::config(*key, "is said for the whole run, not for a job", "write it at the top"));
        }
        let mut settings = Settings::new(table);
        let s = &mut settings;
        let name = s.text("name")?.ok_or_else(|| Error::config("name", "is missing", "give every [[job]] a name"))?;
        names::check(&name)?;
        let (priority, group) = (priority(s)?, s.text(STOP_GROUP)?);
        for key in BASE_KEYS {
            if table.get(*key).is_some_and(|value| Some(value) != self.base.get(*key)) {
                let problem =
                    format!("is {} here, and the base of the run is {}", table[*key], self.base.get(*key).unwrap_or(&Value::Null));
                return Err(Error::config(*key, problem, "all jobs of a run share one base: write it at the top, or start another run"));
            }
        }
        let own: Map = table.iter().filter(|(key, _)| !JOB_KEYS.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
        let settings = self.settings(&name, defaults, &own, train.exclusive);
        Ok(JobEntry { name, priority, group, settings })
    }

    fn add_sweep(&mut self, table: &Map, defaults: &Map, train: TrainKeys<'_>) -> Result<()> {
        let sweep = Sweep::read(table, &shared_keys())?;
        for trial in sweep.expand()? {
            if let Some(key) = trial.assigned.keys().find(|key| !train.all.contains(&key.as_str())) {
                return Err(inside(unknown(key, train.all.iter().copied()), "sweep"));
            }
            let settings = self.settings(&trial.name, defaults, &trial.assigned, train.exclusive);
            let (priority, group) = (sweep.priority, Some(sweep.name.clone()));
            self.jobs.push(JobEntry { name: trial.name, priority, group, settings });
        }
        Ok(())
    }

    /// Defaults, own settings over them, name and folder.
    fn settings(&self, name: &str, defaults: &Map, own: &Map, exclusive: &[[&str; 2]]) -> Map {
        let mut all = defaults.clone();
        for pair in exclusive.iter().filter(|pair| pair.iter().any(|key| own.contains_key(*key))) {
            pair.iter().for_each(|key| drop(all.shift_remove(*key)));
        }
        all.extend(own.clone());
        all.insert("name".to_owned(), name.into());
        if !own.contains_key("out") {
            all.insert("out".to_owned(), format!("{}/{name}", self.out.trim_end_matches('/')).into());
        }
        all
    }

    /// No two of one name or folder, at least one, and not too many.
    fn check(&self, here: &str) -> Result<()> {
        if self.jobs.is_empty() {
            return Err(Error::config("job", "the file has no job", "add a [[job]] with a name, or a [sweep]"));
        }
        if self.jobs.len() > MAX_JOBS {
            return Err(Error::config("job", format!("the file has {} jobs, more than {MAX_JOBS}", self.jobs.len()), "split it"));
        }
        let mut by_name = HashMap::new();
        for job in &self.jobs {
            if let Some(other) = by_name.insert(names::folded(&job.name), job.name.as_str()) {
                let problem = format!("two jobs are called {other} and {}, which is one folder on some systems", job.name);
                let problem = if *other == job.name { format!("two jobs are called {other}") } else { problem };
                return Err(Error::config("name", problem, "give every job a name of its own"));
            }
        }
        let out = |job: &JobEntry| job.settings.get("out").and_then(Value::as_str).map(str::to_owned).unwrap_or_default();
        let folders: Vec<(&str, String)> = self.jobs.iter().map(|job| (job.name.as_str(), out(job))).collect();
        folders::check(&folders, &self.out, here)
    }
}

/// The tables of `[[job]]`.
fn tables(value: Option<&Value>) -> Result<Vec<&Map>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let tables = value.as_array().and_then(|items| items.iter().map(Value::as_object).collect::<Option<Vec<&Map>>>());
    tables.ok_or_else(|| Error::config("job", "is no list of tables", "write [[job]], with two brackets, before the keys of every job"))
}

/// Names the table that the key is in.
fn inside(error: Error, table: &str) -> Error {
    match error {
        Error::Config { key, problem, hint } => Error::Config { key: format!("{table}: {key}"), problem, hint },
        other => other,
    }
}
