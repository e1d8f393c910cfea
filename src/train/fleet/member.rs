//! A job of a fleet: where its parameters are, how its run is getting on, and what is saved of it.

use std::time::Duration;

use super::sizes::bytes;
use super::state::MemberState;
use crate::Result;
use crate::adapters::{Capacity, norms};
use crate::gpu::{Gpu, clock};
use crate::jobs::curve::Curve;
use crate::jobs::{JobId, JobSpec, MicroBatch, Scheduler};
use crate::train::checkpoint::Buffers;
use crate::train::events::Event;
use crate::train::job::Job;
use crate::train::kernels::KernelChoices;
use crate::train::seat::Seat;
use crate::train::session::Session;
use crate::train::{Run, embeddings};

/// A job and where it is.
pub struct Member {
    /// How its run is getting on; its settings.
    pub run: Run,
    /// The job; none where nothing more is asked of it.
    job: Option<Job>,
    /// It has ended.
    over: bool,
    /// Its name among the scheduler's jobs.
    pub(super) id: Option<JobId>,
    /// Rows of its largest micro-batch.
    pub(super) rows: usize,
    pub(super) need: Capacity,
    /// Parameters and moments while it is not on the device.
    held: Option<Buffers>,
    /// Its norms are still to be the base's.
    needs_norms: bool,
    /// When it came onto the device first, by the device's clock.
    pub(super) begun: Option<Duration>,
    pub(super) on_disk: OnDisk,
    /// Its losses before it came here; the scheduler's once it is known there.
    curve: Curve,
    priority: i64,
    group: Option<String>,
    /// Early stopping goes by held-out losses, and it has none on the way.
    unjudged: bool,
}

/// What is saved of a job.
#[derive(Debug, Default)]
pub(super) struct OnDisk {
    /// Its checkpoint's file; `None` while nothing is saved.
    pub file: Option<String>,
    /// Steps done in that file.
    pub step: u64,
    /// The job is as that file has it.
    pub is_present: bool,
    /// The file before that one, until a loss has spoken for the newer.
    pub earlier: Option<String>,
}

impl OnDisk {
    /// A newer file, of `step`. `sound` is the last step whose loss spoke for the parameters that it was computed with.
    pub fn replace(&mut self, file: String, step: u64, sound: u64) {
        self.prove(sound);
        let before = self.file.replace(file);
        self.earlier = self.earlier.take().or(before);
        (self.step, self.is_present) = (step, true);
    }

    /// The file to go on from after a divergence.
    pub fn sound(&mut self, sound: u64) -> Option<String> {
        self.prove(sound);
        self.earlier.as_ref().or(self.file.as_ref()).cloned()
    }

    fn prove(&mut self, sound: u64) {
        if sound > self.step {
            self.earlier = None;
        }
    }
}

impl Member {
    pub(super) fn new(
        job: Job,
        rows: usize,
        need: Capacity,
        buffers: Buffers,
        has_norms: bool,
        curve: Curve,
        priority: i64,
        group: Option<String>,
    ) -> Self {
        let run = Run::new(job.config.clone(), job.total_steps(), job.step, job.progress, job.has_held_out());
        let needs_norms = !job.layout.norms.is_empty() && !has_norms;
        let held = Some(buffers);
        Self {
            job: Some(job),
            run,
            over: false,
            id: None,
            rows,
            need,
            held,
            needs_norms,
            begun: None,
            on_disk: OnDisk::default(),
            curve,
            priority,
            group,
            unjudged: false,
        }
    }

    /// Begins with the base's norms where it trains its own and has none yet.
    pub(super) fn take_norms(&mut self, base: &[Vec<f32>]) {
        if let (true, Some(job), Some(held)) = (std::mem::take(&mut self.needs_norms), &self.job, &mut self.held) {
            norms::fill(&job.layout, base, &mut held.values);
        }
    }

    /// Makes it known to the scheduler.
    pub(super) fn join(&mut self, scheduler: &mut Scheduler) -> Result<()> {
        let early_stop = &scheduler.options().early_stop;
        self.run.keeps_best |= early_stop.has_rungs();
        let on_the_way = self.run.held_out && (early_stop.has_rungs() || self.run.config.eval_every > 0);
        self.unjudged = early_stop.needs_held_out() && !on_the_way;
        let curve = std::mem::take(&mut self.curve);
        let (step, tokens) = (self.job_mut().step, self.job_mut().tokens());
        self.id = Some(scheduler.add_saved(self.spec(), step, tokens, curve)?);
        Ok(())
    }

    /// One that has ended, or cannot go on: only its run is left, and the file of its checkpoint if there is one.
    pub(super) fn ended(run: Run, need: Capacity, file: Option<String>) -> Self {
        let on_disk = OnDisk { file, is_present: true, ..OnDisk::default() };
        Self {
            job: None,
            run,
            over: true,
            id: None,
            rows: 0,
            need,
            held: None,
            needs_norms: false,
            begun: None,
            on_disk,
            curve: Curve::default(),
            priority: 0,
            group: None,
            unjudged: false,
        }
    }

    /// One that goes on as it was saved, in host memory.
    pub(super) fn restored(mut self, run: Run, held: Buffers, saved: &MemberState, begun: bool) -> Self {
        self.on_disk = OnDisk { file: saved.file.clone(), step: run.done, is_present: true, earlier: saved.earlier.clone() };
        (self.run, self.held, self.begun, self.needs_norms) = (run, Some(held), begun.then(clock::now), false);
        self
    }

    /// The job; `None` of one that had ended before the run was resumed, and of one that failed.
    pub fn job(&self) -> Option<&Job> {
        self.job.as_ref()
    }

    /// Kernel choices of the checkpoint that it goes on from.
    pub(super) fn resumed_kernels(&self) -> Option<&KernelChoices> {
        self.job.as_ref()?.resumed_kernels()
    }

    pub(super) fn job_mut(&mut self) -> &mut Job {
        self.job.as_mut().expect("a job that has not ended")
    }

    /// The job and its run.
    pub(super) fn parts(&mut self) -> Option<(&mut Job, &mut Run)> {
        Some((self.job.as_mut()?, &mut self.run))
    }

    /// Whether its job has ended.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Tokens of its longest row, held-out rows included.
    pub(super) fn longest(&self) -> usize {
        let config = &self.run.config;
        self.job.as_ref().map_or(0, |job| job.data().longest_held_out()).max(config.context.reach(config.seq))
    }

    /// The events with which it begins or goes on, on the GPU called `adapter`.
    pub fn start_events(&self, adapter: String) -> Vec<Event> {
        let (Some(job), run) = (&self.job, &self.run) else { return Vec::new() };
        let start = Event::Start {
            job: run.config.name.clone(),
            config: run.config.to_map(),
            trainable_parameters: job.layout.params.trainable() as u64,
            planned_bytes: bytes(self.need.values, self.need.grads),
            adapter,
            steps: run.total,
            passes: job.passes,
            resumed_at: run.done,
            logit_jump: None,
        };
        let own = embeddings::warning(&job.layout, &job.model);
        let unjudged = "early stopping goes by held-out losses and never ends this job: give it eval-data or eval-split, and eval-every where no rule has rungs";
        let own = own.into_iter().chain(self.unjudged.then(|| unjudged.to_owned()));
        let warnings = job.passes.warnings().into_iter().chain(run.config.warnings(run.total)).chain(own);
        let warning = |message| Event::Warning { job: Some(run.config.name.clone()), message };
        std::iter::once(start).chain(warnings.map(warning)).collect()
    }

    /// Whether its parameters are on the device.
    pub fn is_on_device(&self) -> bool {
        !self.over && self.held.is_none()
    }

    /// Seconds since it came onto the device first.
    pub(super) fn seconds(&self) -> f64 {
        self.begun.map_or(0.0, |begun| (clock::now() - begun).as_secs_f64())
    }

    /// Its next micro-batch.
    pub(super) fn next(&mut self) -> MicroBatch {
        let (rows, documents, longest) = self.job_mut().peek_micro();
        MicroBatch { rows: rows as u64, documents: documents as u64, longest: longest as u64 }
    }

    /// What the scheduler knows of it.
    pub(super) fn spec(&mut self) -> JobSpec {
        let (next, max_rows) = (self.next(), self.rows as u64);
        let (priority, group) = (self.priority, self.group.clone());
        let job = self.job_mut();
        JobSpec {
            name: job.config.name.clone(),
            priority,
            group,
            left: job.micro_batches_left(),
            max_rows,
            min_rows: job.data().train.iter().map(|row| row.rows() as u64).max().unwrap_or(1),
            next,
            evaluates: job.has_held_out(),
            judged_on: job.judged_on(),
        }
    }

    /// Takes note of a held-out loss that the scheduler asked for. True for the lowest so far.
    pub(super) fn looked_at(&mut self, loss: f64) -> bool {
        let best = self.run.progress.looked_at(self.run.done, loss);
        if let Some(job) = &mut self.job {
            job.progress = self.run.progress;
        }
        best
    }

    /// The job with its device.
    pub(super) fn seat<'a>(&'a mut self, session: &'a mut Session, gpu: &'a Gpu) -> Seat<'a> {
        Seat { job: self.job_mut(), session, gpu }
    }

    /// Puts it on the device, as it was when it left.
    pub(super) async fn enter(&mut self, session: &mut Session, gpu: &Gpu) -> Result<()> {
        let (Some(job), Some(held)) = (&mut self.job, &self.held) else { return Ok(()) };
        job.slot = session.add_job(gpu, &job.layout, &held.values)?;
        Seat { job: &mut *job, session: &mut *session, gpu }.open_reference()?;
        let held = self.held.take();
        let first = self.begun.is_none();
        self.begun.get_or_insert_with(clock::now);
        let Some(held) = held else { return Ok(()) };
        let mut seat = self.seat(session, gpu);
        seat.write_buffers(&held)?;
        if first && seat.job.step == 0 {
            seat.begin_link(&held.values).await?;
            self.on_disk.is_present = false;
        }
        Ok(())
    }

    /// Moves it to host memory and frees its place.
    pub(super) async fn leave(&mut self, session: &mut Session, gpu: &Gpu) -> Result<()> {
        if self.is_on_device() {
            let seat = self.seat(session, gpu);
            let buffers = seat.read_buffers().await?;
            seat.session.remove_job(gpu, seat.job.slot)?;
            self.held = Some(buffers);
        }
        Ok(())
    }

    /// Ends it: its place is free, and its adapter is at hand. One that failed has none.
    pub(super) async fn end(&mut self, session: &mut Session, gpu: &Gpu, failed: bool) -> Result<()> {
        self.leave(session, gpu).await?;
        if failed {
            (self.job, self.held) = (None, None);
        }
        if let Some(held) = &mut self.held {
            (held.m, held.v, held.grads) = (Vec::new(), Vec::new(), None);
        }
        (self.over, self.on_disk) = (true, OnDisk { is_present: true, ..OnDisk::default() });
        Ok(())
    }

    /// Its parameters and moments, wherever they are.
    pub(super) async fn buffers(&mut self, session: &mut Session, gpu: &Gpu) -> Result<Buffers> {
        match &self.held {
            Some(held) => Ok(held.clone()),
            None => self.seat(session, gpu).read_buffers().await,
        }
    }
}
