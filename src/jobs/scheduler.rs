//! The decision at every step boundary: events in, decisions out, each with its reason.
//!
//! A decision is a function of the state and the events, and the state serialises, so a run that was killed goes on with the decisions it would
//! have made. Measured seconds are used for estimates only: two machines of different speed decide alike.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::admission::PlannedBytes;
use super::curve::{Curve, Evaluation};
use super::early_stop;
use super::estimate::{Measured, StepTime};
use super::event::{Action, Boundary, Decision, Event, Pass, Request};
use super::job::{Job, JobId, JobSpec};
use super::limits::MANY;
use super::names;
use super::options::Options;
use super::state::{Pause, State};
use crate::{Error, Result};

/// All jobs of a run and where they stand. See the example in [`crate::jobs`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scheduler {
    pub(super) options: Options,
    pub(super) jobs: Vec<Job>,
    names: BTreeMap<String, JobId>,
    /// Step boundaries so far.
    pub(super) boundary: u64,
    /// Bytes that were too many for the device, less one.
    pub(super) usable: Option<u64>,
    /// Groups in which something changed since they were last looked at.
    pub(super) changed: BTreeSet<String>,
    measured: Measured,
}

/// What comes together at one step boundary.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) decisions: Vec<Decision>,
    /// Jobs that made an optimizer step.
    pub(super) stepped: BTreeSet<usize>,
    /// Jobs with a new held-out loss.
    pub(super) evaluated: BTreeSet<usize>,
    /// Jobs that passed a rung, and which.
    pub(super) passed: BTreeMap<usize, u64>,
}

/// A job's lowest held-out loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// The job.
    pub job: JobId,
    /// Where on its curve.
    pub at: Evaluation,
}

impl Scheduler {
    /// A run without jobs.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            jobs: Vec::new(),
            names: BTreeMap::new(),
            boundary: 0,
            usable: None,
            changed: BTreeSet::new(),
            measured: Measured::default(),
        }
    }

    /// A new job, which waits from now on.
    ///
    /// # Errors
    /// When its name cannot be one or is taken, or when it has nothing to train.
    pub fn add(&mut self, spec: JobSpec) -> Result<JobId> {
        names::check(&spec.name)?;
        let id = JobId(u32::try_from(self.jobs.len()).map_err(|_| Error::config("job", "there are 2^32 jobs", "start another run"))?);
        let folded = names::folded(&spec.name);
        if let Some(other) = self.names.get(&folded) {
            let problem = format!("there is a job called {} already", self.jobs[other.0 as usize].spec.name);
            return Err(Error::config("name", problem, "give the new one another name"));
        }
        if spec.left == 0 || spec.next.rows == 0 {
            return Err(Error::config("steps", format!("job {} has nothing to train", spec.name), "give it steps and rows"));
        }
        self.names.insert(folded, id);
        self.jobs.push(Job::new(id, spec, self.boundary));
        Ok(id)
    }

    /// A job that trained before, in another run of jobs: steps and tokens of it, and its losses.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_saved(&mut self, spec: JobSpec, steps: u64, tokens: u64, curve: Curve) -> Result<JobId> {
        let id = self.add(spec)?;
        if let Some(job) = self.jobs.get_mut(id.0 as usize) {
            (job.steps, job.tokens, job.curve) = (steps, tokens, curve);
        }
        Ok(id)
    }

    /// Whether what was read can have been written: places and names are those of the jobs, and no count is near the end of its type.
    pub(crate) fn is_sound(&self) -> bool {
        let in_order = self.jobs.iter().enumerate().all(|(i, job)| job.id.0 as usize == i);
        let named = |job: &Job| names::check(&job.spec.name).is_ok() && self.names.get(&names::folded(&job.spec.name)) == Some(&job.id);
        let named = in_order && self.names.len() == self.jobs.len() && self.jobs.iter().all(named);
        named && self.options.is_sound() && self.boundary < MANY && self.jobs.iter().all(|job| job.is_before(self.boundary))
    }

    /// The settings.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// All jobs, by arrival.
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(id.0 as usize)
    }

    /// The job of that name.
    pub fn by_name(&self, name: &str) -> Option<&Job> {
        self.job(*self.names.get(&names::folded(name))?)
    }

    /// Whether no job can go on by itself or by request.
    pub fn is_over(&self) -> bool {
        self.jobs.iter().all(|job| job.status.state.is_over())
    }

    /// Of the jobs with the same held-out loss and rows ([`JobSpec::judged_on`]) the one with the lowest, of equal ones the first. Failed jobs have
    /// no adapter to be best.
    pub fn best(&self, judged_on: &str) -> Option<Best> {
        let member = |job: &&Job| job.status.state != State::Failed && job.spec.judged_on == judged_on;
        let found = self.jobs.iter().filter(member).filter_map(|job| Some(Best { job: job.id, at: job.curve.best()? }));
        found.reduce(|best, next| if next.at.loss < best.at.loss { next } else { best })
    }

    /// Seconds of a fused step by its rows, once one was measured.
    pub fn step_time(&self) -> Option<StepTime> {
        self.measured.fit()
    }

    /// Seconds until a job on the device is done, if it goes on being taken as often as so far.
    pub fn seconds_left(&self, id: JobId) -> Option<f64> {
        let job = self.job(id).filter(|job| job.passes > 0 && !job.status.state.is_over())?;
        let period = job.resident.max(job.passes) as f64 / job.passes as f64;
        Some(job.spec.left as f64 * period * self.step_time()?.seconds(self.measured.mean_rows()?))
    }

    /// Seconds until all jobs are done, if steps stay as full as they were.
    pub fn seconds_left_all(&self) -> Option<f64> {
        let (time, rows) = (self.step_time()?, self.measured.mean_rows()?);
        let left: u64 = self.jobs.iter().filter(|job| !job.status.state.is_over()).map(Job::rows_left).sum();
        Some((left as f64 / rows).ceil() * time.seconds(rows))
    }

    /// A step boundary: takes note of what happened since the last one and says what is to be done, and who is in the next fused step.
    ///
    /// `events` in the order in which they happened. `planned` gives the bytes that jobs need on the device together; see [`PlannedBytes`].
    pub fn decide(&mut self, events: &[Event], planned: &PlannedBytes<'_>) -> Boundary {
        let mut round = Round::default();
        for event in events {
            self.record(event, planned, &mut round);
        }
        self.boundary += 1;
        self.judge(&mut round);
        self.admit(planned, &mut round);
        self.evaluate_rungs(&mut round);
        let batch = self.pick();
        round.decisions.sort_by_key(|decision| decision.action.phase());
        Boundary { decisions: round.decisions, batch }
    }

    fn record(&mut self, event: &Event, planned: &PlannedBytes<'_>, round: &mut Round) {
        match event {
            Event::Stepped { seconds, passes } => {
                self.measured.note(passes.iter().map(|pass| pass.rows).sum(), *seconds);
                self.jobs.iter_mut().filter(|job| job.status.state == State::Running).for_each(|job| job.resident += 1);
                passes.iter().for_each(|pass| self.passed(pass, round));
            }
            Event::Evaluated { job, loss } => self.evaluated(*job, *loss, round),
            Event::Resized { job, left, max_rows, next } => {
                if let Some(job) = self.jobs.get_mut(job.0 as usize) {
                    (job.spec.left, job.spec.max_rows, job.spec.next) = (*left, *max_rows, *next);
                }
            }
            Event::Failed { job, reason } => self.end(job.0 as usize, State::Failed, reason.clone(), round),
            Event::OutOfMemory => {
                let running: Vec<&Job> = self.jobs.iter().filter(|job| job.status.state == State::Running).collect();
                if !running.is_empty() {
                    let bytes = planned(&running).saturating_sub(1);
                    self.usable = Some(self.usable.map_or(bytes, |usable| usable.min(bytes)));
                }
            }
            Event::Request { job, what } => self.request(job.0 as usize, *what, round),
        }
    }

    /// A job's part of a fused step.
    fn passed(&mut self, pass: &Pass, round: &mut Round) {
        let (i, unit) = (pass.job.0 as usize, self.options.early_stop.unit);
        let keep = self.options.early_stop.training_losses();
        let Some(job) = self.jobs.get_mut(i).filter(|job| job.status.state == State::Running) else { return };
        if !pass.loss.is_finite() {
            let reason = format!("its loss became {} at step {}: lower lr, raise warmup, or set clip", pass.loss, job.steps + 1);
            return self.end(i, State::Failed, reason, round);
        }
        let spent = |job: &Job| Evaluation { step: job.steps, tokens: job.tokens, loss: 0.0 }.spent(unit);
        let before = spent(job);
        (job.spec.left, job.spec.next) = (pass.left, pass.next);
        (job.passes, job.tokens, job.served) = (job.passes + 1, job.tokens + pass.rows, job.served + pass.rows);
        job.last_taken = self.boundary;
        if pass.stepped {
            job.steps += 1;
            job.curve.stepped(pass.loss, keep);
            round.stepped.insert(i);
        }
        let rung = early_stop::passed(&self.options.early_stop, before, spent(job));
        if job.spec.left == 0 {
            self.end(i, State::Done, "it has taken its last step".to_owned(), round);
        } else if let Some(rung) = rung.filter(|_| job.spec.evaluates && self.options.early_stop.has_rungs()) {
            round.passed.insert(i, rung);
        }
    }

    fn evaluated(&mut self, id: JobId, loss: f64, round: &mut Round) {
        let i = id.0 as usize;
        let Some(job) = self.jobs.get_mut(i).filter(|job| job.status.state != State::Failed) else { return };
        job.awaited = false;
        if loss.is_finite() {
            job.curve.evaluated(Evaluation { step: job.steps, tokens: job.tokens, loss });
            self.changed.extend(job.spec.group.clone());
            round.evaluated.insert(i);
        } else if !job.status.state.is_over() {
            let reason = format!("its held-out loss became {loss} after step {}: lower lr, raise warmup, or set clip", job.steps);
            self.end(i, State::Failed, reason, round);
        }
    }

    fn request(&mut self, i: usize, what: Request, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(i) else { return };
        let state = job.status.state;
        if state.is_over() {
            let reason = format!("it is {} already", state.name());
            return self.tell(i, Action::Refuse, reason, round);
        }
        match what {
            Request::Stop => self.end(i, State::Stopped, "stopped by request".to_owned(), round),
            Request::Priority(priority) => {
                job.spec.priority = priority;
                self.tell(i, Action::Note, format!("its priority is {priority} now"), round);
            }
            Request::Pause if state == State::Paused(Pause::User) => self.tell(i, Action::Refuse, "it is paused already".to_owned(), round),
            Request::Pause => {
                let action = if state == State::Running { Action::Pause } else { Action::Note };
                self.change(i, State::Paused(Pause::User), action, "paused by request".to_owned(), round);
            }
            Request::Resume if state == State::Paused(Pause::User) => {
                let to = if job.started { State::Paused(Pause::Memory) } else { State::Waiting };
                // It may have been at a rung.
                round.evaluated.extend((!job.curve.evaluations().is_empty()).then_some(i));
                self.change(i, to, Action::Note, "it goes on when it fits, by request".to_owned(), round);
            }
            Request::Resume => {
                let reason = format!("it is {} and was not paused by request", state.name());
                self.tell(i, Action::Refuse, reason, round);
            }
        }
    }

    /// A decision that changes no state.
    pub(super) fn tell(&self, i: usize, action: Action, reason: String, round: &mut Round) {
        let job = &self.jobs[i];
        round.decisions.push(Decision { job: job.id, name: job.spec.name.clone(), action, reason });
    }

    /// A decision that changes a job's state; one that is not legal is not made.
    pub(super) fn change(&mut self, i: usize, to: State, action: Action, reason: String, round: &mut Round) {
        let Some(job) = self.jobs.get_mut(i) else { return };
        if job.status.change(&job.spec.name, to, reason.clone()).is_ok() {
            if to.is_over() {
                job.awaited = false;
                self.changed.extend(job.spec.group.clone());
            }
            self.tell(i, action, reason, round);
        }
    }

    /// A job is over.
    pub(super) fn end(&mut self, i: usize, to: State, reason: String, round: &mut Round) {
        let action = match to {
            State::Done => Action::Done,
            State::Stopped => Action::Stop,
            _ => Action::Fail,
        };
        self.change(i, to, action, reason, round);
    }
}
