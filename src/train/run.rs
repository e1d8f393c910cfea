//! The loop of a run, one step at a time: what happens after a step, in which order, and when it is over. The caller keeps what is to
//! be kept and tells the events on: the binary to files and a terminal, the web API to a page.

use super::chain::KnotReport;
use super::config::TrainConfig;
use super::embeddings;
use super::events::{Event, StepReport};
use super::progress::Progress;
use super::routing::CollapseWatch;
use super::score::HeldOut;
use super::seat::Seat;
use super::trainer::Trainer;
use crate::gpu::Gpu;
use crate::{Error, Result};

/// What the loop needs of a trainer.
pub trait Engine: AfterStep {
    /// One optimizer step.
    fn step(&mut self) -> impl Future<Output = Result<StepReport>>;
}

/// What may fall due after a step.
pub trait AfterStep {
    /// How the held-out rows do, or `None` when nothing is held out.
    fn evaluate(&mut self) -> impl Future<Output = Result<Option<HeldOut>>>;
    /// Whether the model answers with the adapter as it does without.
    fn changes_nothing(&mut self) -> impl Future<Output = Result<bool>>;
    /// Ends the link of a chain if that is due; `progress` is the run's, and what it is after a knot.
    fn knot(&mut self, progress: &mut Progress) -> impl Future<Output = Result<Option<KnotReport>>>;
}

/// A trainer with the device it runs on.
pub struct OnDevice<'d> {
    /// The trainer.
    pub trainer: &'d mut Trainer,
    /// Its device.
    pub gpu: &'d Gpu,
}

impl Engine for OnDevice<'_> {
    async fn step(&mut self) -> Result<StepReport> {
        self.trainer.step(self.gpu).await
    }
}

impl AfterStep for Seat<'_> {
    async fn evaluate(&mut self) -> Result<Option<HeldOut>> {
        Seat::evaluate(self).await
    }
    async fn changes_nothing(&mut self) -> Result<bool> {
        Seat::changes_nothing(self).await
    }
    async fn knot(&mut self, progress: &mut Progress) -> Result<Option<KnotReport>> {
        self.job.progress = *progress;
        let knot = self.tie_if_due().await?;
        *progress = self.job.progress;
        Ok(knot)
    }
}

impl AfterStep for OnDevice<'_> {
    async fn evaluate(&mut self) -> Result<Option<HeldOut>> {
        self.trainer.evaluate(self.gpu).await
    }
    async fn changes_nothing(&mut self) -> Result<bool> {
        self.trainer.changes_nothing(self.gpu).await
    }
    async fn knot(&mut self, progress: &mut Progress) -> Result<Option<KnotReport>> {
        self.trainer.seat(self.gpu).knot(progress).await
    }
}

/// A run and where it stands.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its settings.
    pub config: TrainConfig,
    /// Steps it takes in all.
    pub total: u64,
    /// Steps done.
    pub done: u64,
    /// The last step whose loss spoke for the parameters that it was computed with; 0 until then.
    pub sound: u64,
    /// Best held-out loss so far.
    pub progress: Progress,
    /// Whether there is anything to evaluate on.
    pub held_out: bool,
    /// Whether the adapter with the lowest held-out loss is kept: where there are losses before the last.
    pub(super) keeps_best: bool,
    ended: bool,
    last: Option<f64>,
    collapse: CollapseWatch,
}

/// What is to be kept after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct After {
    /// The whole state.
    pub save: bool,
    /// The adapter, as the best so far.
    pub best: bool,
    /// The training loss has risen far: what was saved before that is worth more than what is saved now.
    pub diverges: bool,
    /// The step's loss speaks for what was saved before it.
    pub sound: bool,
}

impl Run {
    /// A run of `total` steps of which `done` are done.
    pub fn new(config: TrainConfig, total: u64, done: u64, progress: Progress, held_out: bool) -> Self {
        let keeps_best = config.eval_every > 0;
        Self { config, total, done, sound: 0, progress, held_out, keeps_best, ended: false, last: None, collapse: CollapseWatch::default() }
    }

    /// The same with the loss of its last step.
    pub(super) fn with_last(self, last: Option<f64>) -> Self {
        Self { last, ..self }
    }

    /// The run of a trainer, fresh or resumed.
    pub fn of(trainer: &Trainer) -> Self {
        Self::new(trainer.config().clone(), trainer.total_steps(), trainer.step_number(), trainer.job().progress, trainer.has_held_out())
    }

    /// Loss of the last step; `None` before the first.
    pub fn last_loss(&self) -> Option<f64> {
        self.last
    }

    /// No step is left, or the run has ended early.
    pub fn is_over(&self) -> bool {
        self.ended || self.done >= self.total
    }

    /// One step and what falls due after it. `tell` gets its events in order.
    ///
    /// # Errors
    /// Those of the engine and of `tell`. The run can go on from its last checkpoint.
    pub async fn advance(&mut self, engine: &mut impl Engine, tell: impl FnMut(Event) -> Result<()>) -> Result<After> {
        let report = engine.step().await?;
        self.stepped(report, engine, tell).await
    }

    /// Takes note of a step that was made, and does what falls due after it.
    ///
    /// # Errors
    /// Those of the engine and of `tell`.
    pub async fn stepped(
        &mut self,
        report: StepReport,
        engine: &mut impl AfterStep,
        mut tell: impl FnMut(Event) -> Result<()>,
    ) -> Result<After> {
        let report_loss = report.loss;
        (self.done, self.last) = (report.step, Some(report_loss));
        let collapsed = report.router.as_ref().and_then(|router| self.collapse.step(router));
        tell(Event::Step(report))?;
        if let Some(message) = collapsed {
            tell(Event::Warning { job: Some(self.config.name.clone()), message })?;
        }
        let diverged = self.progress.diverges();
        let sound = self.progress.stepped(report_loss);
        if sound {
            self.sound = self.done;
        }
        let diverges = self.progress.diverges();
        if diverges && !diverged {
            tell(self.diverging_event())?;
        }
        let due = Progress::due(&self.config, self.done, self.total, self.held_out);
        let mut after = After { save: due.checkpoint, best: false, diverges, sound };
        let mut stop = None;
        if due.evaluate
            && let Some(found) = engine.evaluate().await?
        {
            let verdict = self.progress.evaluated(&self.config, self.done, found.loss);
            tell(self.eval_event(found, verdict.best))?;
            after.best = verdict.best && self.keeps_best;
            stop = verdict.stop.filter(|_| self.done < self.total);
        }
        if let Some(knot) = engine.knot(&mut self.progress).await? {
            // The chain goes on with another link where a run would end.
            stop = None;
            tell(Event::Knot(knot))?;
        }
        if let Some(reason) = stop {
            tell(Event::EarlyStop { job: self.config.name.clone(), step: self.done, reason })?;
            (self.ended, after.save) = (true, true);
        }
        if self.is_over() && engine.changes_nothing().await? {
            let message = format!(
                "THE ADAPTER CHANGES NOTHING: after {} steps every product B A is zero, so that the model answers with it as it does without; \
                 train on more rows with a target, for more steps, or at a higher learning rate",
                self.done
            );
            tell(Event::Warning { job: Some(self.config.name.clone()), message })?;
        }
        Ok(after)
    }

    /// The events with which a run begins or goes on, with `warnings` of what was read for it.
    pub fn start_events(&self, trainer: &mut Trainer, gpu: &Gpu, warnings: Vec<String>) -> Vec<Event> {
        let start = Event::Start {
            job: self.config.name.clone(),
            config: self.config.to_map(),
            trainable_parameters: trainer.layout().params.trainable() as u64,
            planned_bytes: trainer.session().footprint().total(),
            adapter: gpu.facts().name.clone(),
            steps: self.total,
            passes: trainer.passes(),
            resumed_at: self.done,
            logit_jump: trainer.rounding().jump(),
        };
        let slower = trainer.job().lr_changes().last().filter(|change| change.step == self.done);
        let slower = slower.map(|change| format!("the learning rate is {} from here on, it was {}", change.to, change.from));
        let kernels = trainer.job().resumed_kernels().cloned().and_then(|saved| trainer.session().kernels().difference(&saved));
        let embeddings = embeddings::warning(trainer.layout(), &trainer.job().model);
        let own = trainer.passes().warnings().into_iter().chain(self.config.warnings(self.total)).chain(embeddings);
        let warnings = warnings.into_iter().chain(own).chain(trainer.rounding().warning().map(str::to_owned)).chain(slower).chain(kernels);
        let warning = |message| Event::Warning { job: Some(self.config.name.clone()), message };
        std::iter::once(start).chain(warnings.map(warning)).collect()
    }

    /// The event of held-out losses after the last step.
    pub(super) fn eval_event(&self, found: HeldOut, best: bool) -> Event {
        let worst = found.worst().map(|task| task.name.clone());
        let HeldOut { loss, targets, grouped_loss, accuracy, tasks } = found;
        Event::Eval { job: self.config.name.clone(), step: self.done, loss, tokens: targets, grouped_loss, accuracy, best, tasks, worst }
    }

    fn diverging_event(&self) -> Event {
        let (low, now) = self.progress.trend.map_or((f32::NAN, f32::NAN), |trend| (trend.lowest, trend.mean));
        let message = format!(
            "step {}: the training loss has risen to {now:.2} from {low:.2}; what was saved before that is kept, to resume from with a smaller --lr",
            self.done
        );
        Event::Warning { job: Some(self.config.name.clone()), message }
    }

    /// The event with which it ends after `seconds`, its adapter being in `out`.
    pub fn done_event(&self, seconds: f64, out: String) -> Event {
        let (job, best_eval) = (self.config.name.clone(), self.progress.best.map(|best| best.loss));
        Event::Done { job, step: self.done, loss: self.last, best_eval, seconds, out }
    }

    /// Refuses settings that wait for evaluations when there is nothing to evaluate on.
    ///
    /// # Errors
    /// Names the setting.
    pub fn check_held_out(config: &TrainConfig, held_out: bool) -> Result<()> {
        if config.eval_every > 0 && !held_out {
            return Err(Error::config("eval-every", "there is nothing to evaluate on", "give --eval-data or --eval-split"));
        }
        Ok(())
    }
}
