//! The scheduler on a workload, with a model of the device in its place: `seconds = step + row · rows`, bytes as a sum.
//!
//! `padded` counts the rows as a trainer without packing computes them: every document of a fused step padded to the longest, rounded up to a
//! multiple of eight, as in ASPEN's code.

use serde::{Deserialize, Serialize};

use super::event::{Action, Boundary, Event, Pass};
use super::job::{Job, JobId, JobSpec, MicroBatch};
use super::options::Options;
use super::scheduler::Scheduler;
use super::state::State;
use super::workload::SimulatedJob;
use crate::Result;

/// What things cost: measure them on the device in question.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Seconds of a fused step whatever its size: dispatches and submits.
    pub step: f64,
    /// Seconds a row.
    pub row: f64,
    /// Seconds to move a job to host memory or back.
    pub swap: f64,
    /// Rows of one evaluation.
    pub eval_rows: f64,
    /// Bytes of the base and what does not depend on jobs.
    pub base_bytes: u64,
    /// Bytes of activations a row.
    pub row_bytes: u64,
    /// Whether documents are padded to the longest of the step.
    pub padded: bool,
}

/// How one job fared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobOutcome {
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: i64,
    /// When it arrived, in seconds.
    pub arrived: f64,
    /// When it first was on the device.
    pub started: Option<f64>,
    /// When it was over.
    pub ended: Option<f64>,
    /// How.
    pub state: State,
    /// Why.
    pub reason: String,
    /// Micro-batches it was given.
    pub passes: u64,
    /// Times it was moved off the device.
    pub pauses: u64,
    /// Most fused steps in a row that it was on the device and left out.
    pub longest_gap: u64,
    /// Lowest held-out loss.
    pub best: Option<f64>,
}

/// How a workload fared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The policy.
    pub policy: &'static str,
    /// Seconds until the last job was over.
    pub makespan: f64,
    /// Mean seconds from arrival to end.
    pub turnaround: f64,
    /// The same over the jobs of the highest priority.
    pub urgent_turnaround: f64,
    /// Mean seconds from arrival to the first step.
    pub waiting: f64,
    /// The longest of those.
    pub longest_wait: f64,
    /// Most bytes planned at once.
    pub peak_bytes: u64,
    /// Share of the makespan in which rows of documents were computed: neither launch costs, nor pads, nor swaps, nor idle time.
    pub utilisation: f64,
    /// Rows of documents a second.
    pub tokens_per_s: f64,
    /// Share of the computed rows that were padding.
    pub padding: f64,
    /// Fused steps.
    pub steps: u64,
    /// Moves to host memory and back.
    pub swaps: u64,
    /// Every job.
    #[serde(skip)]
    pub jobs: Vec<JobOutcome>,
}

/// The device that there is not.
struct Device<'a> {
    workload: &'a [SimulatedJob],
    costs: Costs,
    options: Options,
    clock: f64,
    rows: u64,
    computed: u64,
    steps: u64,
    swaps: u64,
    peak: u64,
    jobs: Vec<JobOutcome>,
    gaps: Vec<u64>,
}

/// Runs a workload to its end.
///
/// # Errors
/// When two jobs have one name, or a name cannot be one.
pub fn simulate(options: &Options, costs: Costs, workload: &[SimulatedJob]) -> Result<Outcome> {
    run(options, costs, workload, &mut |_, _, _| {})
}

/// As [`simulate`]; `watch` sees the scheduler after each decision, with the decision and the clock.
///
/// # Errors
/// As [`simulate`].
pub fn run(
    options: &Options,
    costs: Costs,
    workload: &[SimulatedJob],
    watch: &mut dyn FnMut(&mut Scheduler, &Boundary, f64),
) -> Result<Outcome> {
    let mut arriving: Vec<SimulatedJob> = workload.to_vec();
    arriving.sort_by(|a, b| a.arrives.total_cmp(&b.arrives));
    let mut scheduler = Scheduler::new(options.clone());
    let mut device = Device {
        workload: &arriving,
        costs,
        options: options.clone(),
        clock: 0.0,
        rows: 0,
        computed: 0,
        steps: 0,
        swaps: 0,
        peak: 0,
        jobs: Vec::new(),
        gaps: Vec::new(),
    };
    let planned = |jobs: &[&Job]| planned(&costs, options, &arriving, jobs);
    let mut events = Vec::new();
    loop {
        while let Some(job) = arriving.get(device.jobs.len()).filter(|job| job.arrives <= device.clock) {
            scheduler.add(spec(job))?;
            device.arrive(job);
        }
        let boundary = scheduler.decide(&std::mem::take(&mut events), &planned);
        watch(&mut scheduler, &boundary, device.clock);
        device.peak =
            device.peak.max(planned(&scheduler.jobs().iter().filter(|job| job.status.state == State::Running).collect::<Vec<_>>()));
        events = device.follow(&boundary, &scheduler);
        if boundary.batch.is_empty() && events.is_empty() && boundary.decisions.is_empty() {
            match arriving.get(device.jobs.len()) {
                Some(next) => device.clock = next.arrives,
                None => return Ok(device.outcome(&scheduler)),
            }
        }
    }
}

fn spec(job: &SimulatedJob) -> JobSpec {
    JobSpec {
        name: job.name.clone(),
        priority: job.priority,
        group: job.group.clone(),
        left: job.passes,
        max_rows: job.batches.iter().map(|batch| batch.rows).max().unwrap_or(0),
        min_rows: job.batches.iter().map(|batch| batch.longest).max().unwrap_or(0),
        next: job.batches[0],
        evaluates: job.curve.is_some(),
        judged_on: String::new(),
    }
}

/// Base, activations of the fullest step that these jobs can have, and what each of them keeps.
fn planned(costs: &Costs, options: &Options, workload: &[SimulatedJob], jobs: &[&Job]) -> u64 {
    let rows = jobs.iter().map(|job| job.spec.max_rows).sum::<u64>().min(options.step_tokens);
    let own: u64 = jobs.iter().map(|job| workload[job.id.0 as usize].bytes).sum();
    costs.base_bytes + costs.row_bytes * rows + own
}

impl Device<'_> {
    fn arrive(&mut self, job: &SimulatedJob) {
        self.gaps.push(0);
        self.jobs.push(JobOutcome {
            name: job.name.clone(),
            priority: job.priority,
            arrived: job.arrives,
            started: None,
            ended: None,
            state: State::Waiting,
            reason: String::new(),
            passes: 0,
            pauses: 0,
            longest_gap: 0,
            best: None,
        });
    }

    /// Does what was decided, takes the step, and tells what happened.
    fn follow(&mut self, boundary: &Boundary, scheduler: &Scheduler) -> Vec<Event> {
        let mut events = Vec::new();
        for decision in &boundary.decisions {
            let i = decision.job.0 as usize;
            match decision.action {
                Action::Done | Action::Stop | Action::Fail => self.jobs[i].ended = Some(self.clock),
                Action::Pause => {
                    self.jobs[i].pauses += 1;
                    self.swap();
                }
                Action::Resume => self.swap(),
                Action::Admit => self.jobs[i].started = Some(self.clock),
                Action::Evaluate => events.extend(self.evaluate(decision.job, scheduler)),
                Action::Refuse | Action::Note | Action::Shrink { .. } => {}
            }
        }
        if !boundary.batch.is_empty() {
            self.step(boundary, scheduler, &mut events);
        }
        events
    }

    fn swap(&mut self) {
        self.swaps += 1;
        self.clock += self.costs.swap;
    }

    fn evaluate(&mut self, id: JobId, scheduler: &Scheduler) -> Option<Event> {
        let job = scheduler.job(id)?;
        let source = &self.workload[id.0 as usize];
        let loss = source.curve?.at(job.steps, &format!("{}/held-out", source.name));
        self.clock += self.costs.row * self.costs.eval_rows;
        Some(Event::Evaluated { job: id, loss })
    }

    fn step(&mut self, boundary: &Boundary, scheduler: &Scheduler, events: &mut Vec<Event>) {
        let before = self.clock;
        let taken: Vec<&Job> = boundary.batch.iter().filter_map(|id| scheduler.job(*id)).collect();
        let rows: u64 = taken.iter().map(|job| job.spec.next.rows).sum();
        let computed = if self.costs.padded { padded(taken.iter().map(|job| job.spec.next)) } else { rows };
        self.clock += self.costs.step + self.costs.row * computed as f64;
        (self.steps, self.rows, self.computed) = (self.steps + 1, self.rows + rows, self.computed + computed);
        let mut passes = Vec::new();
        let mut due = Vec::new();
        for job in taken {
            let source = &self.workload[job.id.0 as usize];
            let done = job.passes + 1;
            let next = source.batches[(done % source.batches.len() as u64) as usize];
            let loss = source.curve.map_or(1.0, |curve| curve.at(job.steps, &source.name));
            passes.push(Pass { job: job.id, rows: job.spec.next.rows, loss, stepped: true, left: job.spec.left - 1, next });
            if source.eval_every > 0 && done.is_multiple_of(source.eval_every) {
                due.push((job.id, done));
            }
        }
        for job in scheduler.jobs() {
            let i = job.id.0 as usize;
            let left_out = job.status.state == State::Running && !job.awaited && !boundary.batch.contains(&job.id);
            self.gaps[i] = if left_out { self.gaps[i] + 1 } else { 0 };
            self.jobs[i].longest_gap = self.jobs[i].longest_gap.max(self.gaps[i]);
        }
        events.push(Event::Stepped { seconds: self.clock - before, passes });
        for (job, step) in due {
            let source = &self.workload[job.0 as usize];
            let Some(curve) = source.curve else { continue };
            self.clock += self.costs.row * self.costs.eval_rows;
            events.push(Event::Evaluated { job, loss: curve.at(step, &format!("{}/held-out", source.name)) });
        }
    }

    fn outcome(mut self, scheduler: &Scheduler) -> Outcome {
        for (seen, job) in self.jobs.iter_mut().zip(scheduler.jobs()) {
            (seen.state, seen.reason, seen.passes) = (job.status.state, job.status.reason.clone(), job.passes);
            seen.best = job.curve.best().map(|best| best.loss);
        }
        let highest = self.jobs.iter().map(|job| job.priority).max().unwrap_or(0);
        let mean = |of: &dyn Fn(&JobOutcome) -> Option<f64>| {
            let all: Vec<f64> = self.jobs.iter().filter_map(of).collect();
            all.iter().sum::<f64>() / all.len().max(1) as f64
        };
        let turnaround = |job: &JobOutcome| Some(job.ended? - job.arrived);
        let waiting = |job: &JobOutcome| Some(job.started? - job.arrived);
        let useful = self.costs.row * self.rows as f64;
        Outcome {
            policy: self.options.policy.name,
            makespan: self.clock,
            turnaround: mean(&turnaround),
            urgent_turnaround: mean(&|job| turnaround(job).filter(|_| job.priority == highest)),
            waiting: mean(&waiting),
            longest_wait: self.jobs.iter().filter_map(waiting).fold(0.0, f64::max),
            peak_bytes: self.peak,
            utilisation: if self.clock > 0.0 { useful / self.clock } else { 0.0 },
            tokens_per_s: if self.clock > 0.0 { self.rows as f64 / self.clock } else { 0.0 },
            padding: 1.0 - self.rows as f64 / self.computed.max(1) as f64,
            steps: self.steps,
            swaps: self.swaps,
            jobs: self.jobs,
        }
    }
}

/// Rows of a step whose documents all get the length of the longest, a multiple of eight.
fn padded(batches: impl Iterator<Item = MicroBatch> + Clone) -> u64 {
    let longest = batches.clone().map(|batch| batch.longest).max().unwrap_or(0);
    longest.next_multiple_of(8) * batches.map(|batch| batch.documents).sum::<u64>()
}
