//! Where the jobs of a run stand, as a file that other processes read, as a table, and as results.

use serde::{Deserialize, Serialize};
use weblora::jobs::state::State;
use weblora::train::fleet::Fleet;

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
}

/// All jobs, in the order of their arrival.
pub fn of(fleet: &Fleet) -> Vec<JobStatus> {
    let scheduler = fleet.scheduler();
    let one = |member: &weblora::train::fleet::Member| {
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
        }
    };
    fleet.members().iter().map(one).collect()
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
            }),
        }
    }
    jobs
}

/// How many of the jobs failed.
pub fn failures(jobs: &[JobStatus]) -> usize {
    jobs.iter().filter(|job| job.state == State::Failed.name()).count()
}

/// A table for people.
pub fn table(jobs: &[JobStatus]) -> String {
    let width = jobs.iter().map(|job| job.job.chars().count()).max().unwrap_or(3).max(3);
    let mut lines = vec![format!("  {:width$}  {:8}  {:>11}  {:>8}  {:>8}  reason", "job", "state", "step", "loss", "held-out")];
    let number = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.4}"));
    for job in jobs {
        let mark = if job.best { '*' } else { ' ' };
        let steps = format!("{}/{}", job.step, job.steps);
        lines.push(format!(
            "{mark} {:width$}  {:8}  {steps:>11}  {:>8}  {:>8}  {}",
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

/// Comma-separated values with a header.
pub fn csv(jobs: &[JobStatus]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let number = |x: Option<f64>| x.map_or_else(String::new, |x| x.to_string());
    let mut text = "job,state,step,steps,loss,best_eval,best,out,reason\n".to_owned();
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
        text += &(columns.join(",") + "\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_mark_the_best_and_quote_what_needs_it() {
        let job = |name: &str, best: bool| JobStatus {
            job: name.into(),
            state: "done".into(),
            reason: "it has \"taken\" its last step, all".into(),
            step: 3,
            steps: 3,
            loss: Some(0.5),
            best_eval: best.then_some(0.25),
            seconds_left: None,
            best,
            out: "jobs/a".into(),
        };
        let jobs = [job("a", false), job("longer", true)];
        let shown = table(&jobs);
        assert!(shown.lines().nth(2).is_some_and(|line| line.starts_with("* longer")), "{shown}");
        let text = csv(&jobs);
        assert!(
            text.lines().nth(1).is_some_and(|line| line.contains("\"\"taken\"\"") && line.starts_with("\"a\",done,3,3,0.5,,false")),
            "{text}"
        );
    }
}
