//! A single run on a device: a session with one job. The caller drives it and tells the world.

use super::chain::{KnotReport, Rounding, largest_change, unrounded_losses};
use super::config::TrainConfig;
pub use super::data::TrainData;
use super::events::StepReport;
use super::fuse::micro_step;
use super::job::{BaseIdentity, Job};
use super::passes::Passes;
pub use super::plan::TrainPlan;
use super::score::HeldOut;
use super::seat::Seat;
use super::session::Session;
use super::start::Start;
use crate::adapters::{AdapterLayout, embeddings, initial_buffer, norms};
use crate::export::folder::File;
use crate::formats::ModelFile;
use crate::gpu::{Gpu, Tuner};
use crate::{Error, Result};

/// A running job.
pub struct Trainer {
    job: Job,
    session: Session,
}

impl Trainer {
    /// Makes `plan` real: measures kernels that `tuner` does not know (unless `measure` is false), allocates, streams the weights
    /// (`progress` gets bytes done and in all) and initialises the adapter, from `start` if given.
    ///
    /// # Errors
    /// Unusable data, damaged weights, a device that is too small or lost.
    pub async fn new(
        gpu: &Gpu,
        file: &ModelFile,
        config: TrainConfig,
        data: TrainData,
        mut plan: TrainPlan,
        start: Option<Start>,
        tuner: &mut Tuner,
        measure: bool,
        progress: impl FnMut(u64, u64),
    ) -> Result<Trainer> {
        let base = BaseIdentity::new(file, file.identity().await?);
        let mut job = Job::new(config, data, plan.layout, plan.rows, base)?;
        if measure {
            plan.planned.tune(gpu, tuner).await?;
        }
        let Start { values, links, unrounded, has_norms, tokens, .. } =
            start.unwrap_or_else(|| initial_buffer(&job.layout.params, job.config.seed).into());
        let mut values = embeddings::widen(values, &tokens, &job.layout)?;
        plan.planned.load_base(gpu, file, progress).await?;
        let exact = match (&unrounded, &job.chain) {
            (Some(links), Some(chain)) => Some(unrounded_losses(gpu, file, &plan.planned, links, &chain.batch, tuner).await?),
            _ => None,
        };
        let session = plan.planned.realize(gpu, file, |_, _| {}).await?;
        tuner.unpin();
        if !job.layout.norms.is_empty() && !has_norms {
            norms::fill(&job.layout, &session.base_norms(gpu).await?, &mut values);
        }
        session.write_values(gpu, job.slot, &values)?;
        if let Some(chain) = job.chain.as_mut().filter(|_| !links.is_empty()) {
            chain.inherit(links)?;
        }
        let mut trainer = Trainer { job, session };
        let mut seat = trainer.seat(gpu);
        seat.open_reference()?;
        if let Some(exact) = exact {
            let rounded = seat.fixed_losses().await?;
            seat.job.rounding = exact.map_or(Rounding::Unknown, |exact| Rounding::Jump(largest_change(&exact, &rounded)));
        }
        seat.begin_link(&values).await?;
        Ok(trainer)
    }

    /// The job with its device.
    pub fn seat<'a>(&'a mut self, gpu: &'a Gpu) -> Seat<'a> {
        Seat { job: &mut self.job, session: &mut self.session, gpu }
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The job, to be changed: its progress belongs to whoever drives it.
    pub fn job_mut(&mut self) -> &mut Job {
        &mut self.job
    }

    /// Optimizer steps done.
    pub fn step_number(&self) -> u64 {
        self.job.step
    }

    /// Optimizer steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.job.total_steps()
    }

    /// How the run goes through its rows.
    pub fn passes(&self) -> Passes {
        self.job.passes
    }

    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.job.config
    }

    /// The adapter's parameters.
    pub fn layout(&self) -> &AdapterLayout {
        &self.job.layout
    }

    /// What storing the links that the run goes on from did to the model, as this run began.
    pub fn rounding(&self) -> Rounding {
        self.job.rounding
    }

    /// True if there are held-out rows.
    pub fn has_held_out(&self) -> bool {
        self.job.has_held_out()
    }

    /// The device side, for what is built beside the run (a decoder).
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Goes on from a checkpoint of the same base, rows and settings; the learning rate may be smaller.
    ///
    /// # Errors
    /// A damaged, foreign or forged checkpoint: the run is as it was then.
    pub fn resume(&mut self, gpu: &Gpu, file: &str, bytes: &[u8]) -> Result<()> {
        self.seat(gpu).resume(file, bytes)
    }

    /// One optimizer step: `grad-accum` micro-batches, then the update. A NaN or infinite loss or gradient changes nothing: the run is where
    /// it was before the step.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the step; a lost device.
    pub async fn step(&mut self, gpu: &Gpu) -> Result<StepReport> {
        loop {
            let mut outcomes = micro_step(&mut self.session, gpu, &mut [&mut self.job]).await?;
            let outcome = outcomes.pop().ok_or_else(|| Error::Gpu { what: "a step".into(), message: "it has no outcome".into() })?;
            if let Some(report) = outcome? {
                return Ok(report);
            }
        }
    }

    /// Loss and accuracy of the held-out rows, by task where there are several; `None` without any.
    ///
    /// # Errors
    /// A lost device.
    pub async fn evaluate(&mut self, gpu: &Gpu) -> Result<Option<HeldOut>> {
        self.seat(gpu).evaluate().await
    }

    /// Ends a chain's link if that is due; see [`Seat::tie_if_due`].
    ///
    /// # Errors
    /// As [`Seat::merge_link`].
    pub async fn tie_if_due(&mut self, gpu: &Gpu) -> Result<Option<KnotReport>> {
        self.seat(gpu).tie_if_due().await
    }

    /// Ends a chain's link now; see [`Seat::merge_link`].
    ///
    /// # Errors
    /// As [`Seat::merge_link`].
    pub async fn merge_link(&mut self, gpu: &Gpu) -> Result<KnotReport> {
        self.seat(gpu).merge_link().await
    }

    /// Whether the model answers with the adapter as it does without; see [`Seat::changes_nothing`].
    ///
    /// # Errors
    /// A lost device.
    pub async fn changes_nothing(&mut self, gpu: &Gpu) -> Result<bool> {
        self.seat(gpu).changes_nothing().await
    }

    /// The bytes of a checkpoint: all that [`Trainer::resume`] needs.
    ///
    /// # Errors
    /// A lost device.
    pub async fn checkpoint(&mut self, gpu: &Gpu) -> Result<Vec<u8>> {
        let buffers = self.seat(gpu).read_buffers().await?;
        self.job.checkpoint(&buffers, self.session.kernels())
    }

    /// The files of the adapter in PEFT layout.
    ///
    /// # Errors
    /// A lost device; a parameter that is not finite.
    pub async fn export(&self, gpu: &Gpu) -> Result<Vec<File>> {
        self.job.export(&self.session.read_values(gpu, self.job.slot).await?)
    }
}
