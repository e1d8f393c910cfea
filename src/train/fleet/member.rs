//! A job of a fleet: where its parameters are, and how its run is getting on.

use std::time::Duration;

use crate::Result;
use crate::adapters::{Capacity, norms};
use crate::gpu::{Gpu, clock};
use crate::jobs::curve::Curve;
use crate::jobs::{JobId, JobSpec, MicroBatch, Scheduler};
use crate::train::Run;
use crate::train::checkpoint::Buffers;
use crate::train::job::{Job, Seat};
use crate::train::session::Session;

/// A job and where it is.
pub struct Member {
    /// The job.
    pub job: Job,
    /// How its run is getting on.
    pub run: Run,
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
    begun: Option<Duration>,
    /// Its losses before it came here; the scheduler's once it is known there.
    curve: Curve,
    priority: i64,
    group: Option<String>,
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
        Self { job, run, id: None, rows, need, held: Some(buffers), needs_norms, begun: None, curve, priority, group }
    }

    /// Begins with the base's norms where it trains its own and has none yet.
    pub(super) fn take_norms(&mut self, base: &[Vec<f32>]) {
        if let (true, Some(held)) = (std::mem::take(&mut self.needs_norms), &mut self.held) {
            norms::fill(&self.job.layout, base, &mut held.values);
        }
    }

    /// Makes it known to the scheduler.
    pub(super) fn join(&mut self, scheduler: &mut Scheduler) -> Result<()> {
        let curve = std::mem::take(&mut self.curve);
        self.id = Some(scheduler.add_saved(self.spec(), self.job.step, self.job.tokens(), curve)?);
        Ok(())
    }

    /// Tokens of its longest row, held-out rows included.
    pub(super) fn longest(&self) -> usize {
        let config = &self.job.config;
        self.job.data().longest_held_out().max(config.context.reach(config.seq))
    }

    /// Whether its parameters are on the device.
    pub fn is_on_device(&self) -> bool {
        self.held.is_none()
    }

    /// Seconds since it came onto the device first.
    pub(super) fn seconds(&self) -> f64 {
        self.begun.map_or(0.0, |begun| (clock::now() - begun).as_secs_f64())
    }

    /// Its next micro-batch.
    pub(super) fn next(&mut self) -> MicroBatch {
        let (rows, documents, longest) = self.job.peek_micro();
        MicroBatch { rows: rows as u64, documents: documents as u64, longest: longest as u64 }
    }

    /// What the scheduler knows of it.
    pub(super) fn spec(&mut self) -> JobSpec {
        let next = self.next();
        JobSpec {
            name: self.job.config.name.clone(),
            priority: self.priority,
            group: self.group.clone(),
            left: self.job.micro_batches_left(),
            max_rows: self.rows as u64,
            min_rows: self.job.data().train.iter().map(|row| row.tokens.len() as u64).max().unwrap_or(1),
            next,
            evaluates: self.job.has_held_out(),
        }
    }

    /// The job with its device.
    pub(super) fn seat<'a>(&'a mut self, session: &'a mut Session, gpu: &'a Gpu) -> Seat<'a> {
        Seat { job: &mut self.job, session, gpu }
    }

    /// Puts it on the device, as it was when it left.
    pub(super) async fn enter(&mut self, session: &mut Session, gpu: &Gpu) -> Result<()> {
        let Some(held) = &self.held else { return Ok(()) };
        self.job.slot = session.add_job(gpu, &self.job.layout, &held.values)?;
        let held = self.held.take();
        let first = self.begun.is_none();
        self.begun.get_or_insert_with(clock::now);
        let Some(held) = held else { return Ok(()) };
        let mut seat = self.seat(session, gpu);
        seat.write_buffers(&held)?;
        if first && seat.job.step == 0 {
            seat.begin_link(&held.values).await?;
        }
        Ok(())
    }

    /// Moves it to host memory and frees its place.
    pub(super) async fn leave(&mut self, session: &mut Session, gpu: &Gpu) -> Result<()> {
        if self.held.is_none() {
            let buffers = self.seat(session, gpu).read_buffers().await?;
            session.remove_job(gpu, self.job.slot)?;
            self.held = Some(buffers);
        }
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
