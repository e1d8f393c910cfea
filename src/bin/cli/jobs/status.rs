//! Where the jobs of a run stand, as a file that other processes read, as a table, and as results.

use std::time::Duration;

use indicatif::FormattedDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weblora::jobs::state::State;
use weblora::settings::Map;
use weblora::train::TrainConfig;
use weblora::train::fleet::{Fleet, Member};

use super::failed::FailedJob;

/// One job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its name.
    pub job: String,
    /// `waiting`, `running`, `paused`, `done`, `stopped`, `failed`.
    pub state: String,
    /// Why, in one sentence.
    pub reason: String,
    /// Optimizer steps done.
    pub step: u64,
    /// Optimizer steps in all.
    pub steps: u64,
    /// Loss of the last step.
    pub loss: Option<f64>,
    /// Lowest held-out loss.
    pub best_eval: Option<f64>,
    /// Seconds to go, as far as one can know.
    pub seconds_left: Option<f64>,
    /// Whether no other job has a lower held-out loss of the same kind on the same rows.
    pub best: bool,
    /// Its folder.
    pub out: String,
    /// Its settings that are not those of every job: what a sweep set, above all.
    #[serde(default)]
    pub settings: Map,
}

/// All jobs, in the order of their arrival.
pub fn of(fleet: &Fleet) -> Vec<JobStatus> {
    let scheduler = fleet.scheduler();
    let settings = own_settings(fleet.members().iter().map(|member| member.run.config.to_map()).collect());
    let one = |(member, settings): (&Member, Map)| {
        let run = &member.run;
        let job = scheduler.by_name(&run.config.name);
        JobStatus {
            job: run.config.name.clone(),
            state: job.map_or("waiting", |job| job.status.state.name()).to_owned(),
            reason: job.map_or_else(String::new, |job| job.status.reason.clone()),
            step: run.done,
            steps: run.total,
            loss: run.last_loss().filter(|loss| loss.is_finite()),
            // Rungs measure held-out losses that the run itself does not ask for.
            best_eval: job.and_then(|job| job.curve.best()).map(|best| best.loss).or(run.progress.best.map(|best| best.loss)),
            seconds_left: job.and_then(|job| scheduler.seconds_left(job.id)),
            best: job.is_some_and(|job| scheduler.best(&job.spec.judged_on).is_some_and(|best| best.job == job.id)),
            out: run.config.out.clone(),
            settings,
        }
    };
    fleet.members().iter().zip(settings).map(one).collect()
}

/// What is left of each job's settings without those that all have alike, without what only some methods have and is as it would be anyway, and
/// without name and folder.
fn own_settings(mut all: Vec<Map>) -> Vec<Map> {
    let mut shared = all.first().cloned().unwrap_or_default();
    shared.retain(|key, value| ["name", "out"].contains(&key.as_str()) || all.iter().all(|map| map.get(key) == Some(value)));
    let everywhere: Vec<String> =
        all.first().map(|map| map.keys().filter(|key| all.iter().all(|map| map.contains_key(*key))).cloned().collect()).unwrap_or_default();
    for map in &mut all {
        let method: Map = map.get("method").map(|method| ("method".to_owned(), method.clone())).into_iter().collect();
        let usual = TrainConfig::from_map(&method).map(|config| config.to_map()).unwrap_or_default();
        map.retain(|key, value| !shared.contains_key(key) && (everywhere.contains(key) || usual.get(key) != Some(value)));
    }
    all
}

/// The same with what was told of jobs that failed: one that has no place among `jobs` gets one at their end.
pub fn with_failed(mut jobs: Vec<JobStatus>, failed: &[FailedJob]) -> Vec<JobStatus> {
    for FailedJob { job: name, out, reason } in failed {
        match jobs.iter_mut().find(|job| job.job == *name) {
            Some(job) => (job.state, job.reason, job.best) = (State::Failed.name().to_owned(), reason.clone(), false),
            None => jobs.push(JobStatus {
                job: name.clone(),
                state: State::Failed.name().to_owned(),
                reason: reason.clone(),
                step: 0,
                steps: 0,
                loss: None,
                best_eval: None,
                seconds_left: None,
                best: false,
                out: out.clone().unwrap_or_default(),
                settings: Map::new(),
            }),
        }
    }
    jobs
}

/// Whether a job has something to do yet.
pub fn unfinished(jobs: &[JobStatus]) -> bool {
    let over = [State::Done, State::Stopped, State::Failed].map(State::name);
    jobs.iter().any(|job| !over.contains(&job.state.as_str()))
}

/// How many of the jobs failed.
pub fn failures(jobs: &[JobStatus]) -> usize {
    jobs.iter().filter(|job| job.state == State::Failed.name()).count()
}

/// A table for people.
pub fn table(jobs: &[JobStatus]) -> String {
    let width = jobs.iter().map(|job| job.job.chars().count()).max().unwrap_or(3).max(3);
    let mut lines =
        vec![format!("  {:width$}  {:8}  {:>11}  {:>8}  {:>8}  {:>8}  reason", "job", "state", "step", "left", "loss", "held-out")];
    let number = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.4}"));
    for job in jobs {
        let mark = if job.best { '*' } else { ' ' };
        let steps = format!("{}/{}", job.step, job.steps);
        let left = job.seconds_left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let left = left.map_or_else(|| "-".to_owned(), |left| FormattedDuration(left).to_string());
        lines.push(format!(
            "{mark} {:width$}  {:8}  {steps:>11}  {left:>8}  {:>8}  {:>8}  {}",
            job.job,
            job.state,
            number(job.loss),
            number(job.best_eval),
            job.reason
        ));
    }
    if jobs.iter().any(|job| job.best) {
        lines.push("* the lowest held-out loss of the jobs with the same held-out rows".to_owned());
    }
    lines.join("\n")
}

/// Comma-separated values with a header; settings that are not those of every job have columns of their own, at the end.
pub fn csv(jobs: &[JobStatus]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let number = |x: Option<f64>| x.map_or_else(String::new, |x| x.to_string());
    let columns = ["job", "state", "step", "steps", "loss", "best_eval", "best", "out", "reason"];
    let mut keys: Vec<&str> = jobs.iter().flat_map(|job| job.settings.keys()).map(String::as_str).collect();
    // `steps` is there, also of jobs that count epochs.
    keys.retain(|key| !columns.contains(key));
    keys.sort_unstable();
    keys.dedup();
    let mut text = [&columns[..], &keys].concat().join(",") + "\n";
    for job in jobs {
        let columns = [
            quoted(&job.job),
            job.state.clone(),
            job.step.to_string(),
            job.steps.to_string(),
            number(job.loss),
            number(job.best_eval),
            job.best.to_string(),
            quoted(&job.out),
            quoted(&job.reason),
        ];
        let own = keys.iter().map(|key| match job.settings.get(*key) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => quoted(text),
            Some(value) if value.is_array() || value.is_object() => quoted(&value.to_string()),
            Some(value) => value.to_string(),
        });
        text += &(columns.into_iter().chain(own).collect::<Vec<_>>().join(",") + "\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ended(name: &str) -> JobStatus {
        JobStatus {
            job: name.into(),
            state: "done".into(),
            reason: "it has \"taken\" its last step, all".into(),
            step: 3,
            steps: 3,
            loss: Some(0.5),
            best_eval: None,
            seconds_left: None,
            best: false,
            out: "jobs/a".into(),
            settings: Map::new(),
        }
    }

    #[test]
    fn tables_mark_the_best_and_quote_what_needs_it() {
        let best = JobStatus { best_eval: Some(0.25), seconds_left: Some(3723.4), best: true, ..ended("longer") };
        let jobs = [ended("a"), best];
        let shown = table(&jobs);
        assert!(shown.lines().nth(2).is_some_and(|line| line.starts_with("* longer") && line.contains("01:02:03")), "{shown}");
        let text = csv(&jobs);
        assert!(
            text.lines().nth(1).is_some_and(|line| line.contains("\"\"taken\"\"") && line.starts_with("\"a\",done,3,3,0.5,,false")),
            "{text}"
        );
    }

    #[test]
    fn settings_that_differ_are_columns() {
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        let all = vec![
            map(json!({"name": "a", "out": "a", "lr": 1e-3, "seq": 32, "targets": ["q", "v"]})),
            map(json!({"name": "b", "out": "b", "lr": 1e-2, "seq": 32, "targets": ["q"], "steps": 4, "batch": 2})),
        ];
        let own = own_settings(all);
        assert_eq!(own[0], map(json!({"lr": 1e-3, "targets": ["q", "v"]})));
        let job = |settings: &Map| JobStatus { settings: settings.clone(), ..ended("a") };
        let text = csv(&[job(&own[0]), job(&own[1])]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with(",reason,batch,lr,targets"), "{text}");
        assert!(lines[1].ends_with(",,0.001,\"[\"\"q\"\",\"\"v\"\"]\"") && lines[2].ends_with(",2,0.01,\"[\"\"q\"\"]\""), "{text}");
    }
}
