//! A run of many jobs as it begins or goes on: what each job is made of, and which of them fail before it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use weblora::formats::ModelFile;
use weblora::jobs::state::State;
use weblora::jobs::{JobEntry, JobsFile};
use weblora::settings::Map;
use weblora::train::fleet::{Entry, FleetPlan, Found, Founders};
use weblora::train::start::from_adapter;
use weblora::train::{Event, TrainConfig};
use weblora::{Error, Result};

use super::failed::FailedJob;
use super::folder::RunFolder;
use crate::cli::base::open_model;
use crate::cli::data;
use crate::cli::device::Device;
use crate::cli::files::{AdapterFiles, Existing, OutFolder};
use crate::cli::output::Output;
use crate::cli::rows;

/// What jobs train on.
#[derive(Clone, Copy)]
pub struct On<'a> {
    /// The base.
    pub model: &'a ModelFile,
    /// Of its content.
    pub hash: &'a str,
    /// Keys of the base in the jobs file.
    pub base: &'a Map,
}

impl On<'_> {
    /// Refuses the base of a file that is added where it is another one.
    ///
    /// # Errors
    /// Names the key that differs.
    pub fn check(&self, added: &Map) -> Result<()> {
        let hint = "start another run for it, or leave it out: all jobs of a run share one base";
        let of_run = |key: &str| self.base.get(key).map_or_else(|| "not given".to_owned(), Value::to_string);
        // Two paths may lead to the same weights.
        if let Some(path) = text_of(added, "model").filter(|_| added.get("model") != self.base.get("model"))
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
///
/// # Errors
/// A folder that is there already; no job that can train.
pub fn begin(file: JobsFile, on: On<'_>, existing: Existing, device: &mut Device, output: &mut Output) -> Result<(FleetPlan, RunFolder)> {
    let free = |out: &str| if existing == Existing::Overwrite { Ok(()) } else { OutFolder::check_free(Path::new(out)) };
    if existing != Existing::Overwrite {
        RunFolder::check_free(Path::new(&file.out))?;
    }
    if let Some(message) = uncompared(&file) {
        output.event(&Event::Warning { job: None, message });
    }
    let outs: BTreeMap<String, String> =
        file.jobs.iter().filter_map(|job| Some((job.name.clone(), text_of(&job.settings, "out")?))).collect();
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
    let limits = device.gpu.plan_limits();
    let plan = FleetPlan::of(on.model, None, &mut founders, file.options, limits, &mut device.tuner)?;
    failed.append(&mut founders.refused);
    let as_failed = |(job, error): (String, Error)| FailedJob { out: outs.get(&job).cloned(), job, reason: error.to_string() };
    let failed: Vec<FailedJob> = failed.into_iter().map(as_failed).collect();
    for FailedJob { job, reason, .. } in &failed {
        output.event(&Event::JobFailed { job: job.clone(), reason: reason.clone() });
    }
    let Some(plan) = plan else {
        let all = failed.len();
        let hint = "that is all of them, before the run began; mend what is said above and start it again".to_owned();
        return Err(Error::JobsFailed { failed: all, all, hint });
    };
    Ok((plan, RunFolder::create(Path::new(&file.out), failed)?))
}

/// A warning where rules compare jobs, and no two jobs are compared.
fn uncompared(file: &JobsFile) -> Option<String> {
    let rules = file.options.early_stop.comparing();
    let alone = |job: &JobEntry| job.group.is_none() || file.jobs.iter().filter(|other| other.group == job.group).count() < 2;
    (!rules.is_empty() && file.jobs.iter().all(alone)).then(|| {
        format!(
            "the early-stop rules {} compare jobs of one group, and no two jobs are in one: give them the same early-stop-group",
            rules.join(", ")
        )
    })
}

/// Plans a run that goes on. A job whose rows or checkpoint are gone fails alone.
///
/// # Errors
/// Nothing that was saved; settings other than those of the run.
pub fn resume(file: &JobsFile, on: On<'_>, device: &mut Device, output: &mut Output) -> Result<(FleetPlan, RunFolder)> {
    let (folder, state) = RunFolder::resume(Path::new(&file.out))?;
    state.check_options(&file.options)?;
    for job in &file.jobs {
        let saved = state.members.iter().find(|member| member.config.get("name").and_then(|name| name.as_str()) == Some(&job.name));
        match saved {
            // It has taken the place of one that failed before the run began.
            Some(_) if folder.was_added(&job.name) => {}
            // What an adapter brought along is in what was saved, not in the file.
            Some(saved) if !job.settings.contains_key("init-adapter") => check_same(job, &saved.config)?,
            Some(_) => {}
            None => {
                let failed = folder.failed().list().into_iter().find(|failed| failed.job == job.name);
                let why = failed.map(|failed| format!(" (it failed before: {})", failed.reason)).unwrap_or_default();
                let message = format!(
                    "job {} is not in the run that goes on{why}: take it in with `weblora jobs add` while others train, or start another run",
                    job.name
                );
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

/// A job with its rows, and what should be known of them.
///
/// # Errors
/// What is wrong with its settings, its template, its rows or the adapter that it starts from.
pub fn entry(job: JobEntry, on: On<'_>) -> Result<(Entry, Vec<String>)> {
    let On { model, hash, .. } = on;
    let JobEntry { priority, group, mut settings, .. } = job;
    if let Some(Value::String(template)) = settings.get_mut("chat-template") {
        *template = rows::template(template)?;
    }
    let (mut config, start) = match text_of(&settings, "init-adapter") {
        None => (TrainConfig::from_map(&settings)?, None),
        Some(path) => {
            let adapter = AdapterFiles::read(Path::new(&path))?;
            let (config, start) = from_adapter(settings, adapter.folder(), &model.config, &model.identity_of(hash.to_owned()))?;
            (config, Some(start))
        }
    };
    let (data, warnings) = data::read(&mut config, model, false)?;
    Ok((Entry { config, data, start, priority, group, saved: None }, warnings))
}

/// A setting that is a text.
pub fn text_of(map: &Map, key: &str) -> Option<String> {
    map.get(key).and_then(|value| value.as_str()).map(str::to_owned)
}
