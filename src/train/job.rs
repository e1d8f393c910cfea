//! One job on the CPU: settings, rows, schedule, chain and progress. It knows its number in a session and nothing else of the device.

use std::time::Duration;

use super::batch::{Batch, Cursor, Packer};
use super::chain::{ChainRun, Rounding};
use super::checkpoint::{self, Buffers, Checkpoint, LrChange, Partial, State, VERSION};
use super::config::TrainConfig;
use super::context::Positions;
use super::data::{Task, TrainData, data_hash};
use super::events::StepReport;
use super::kernels::KernelChoices;
use super::passes::Passes;
use super::pose;
use super::preference::PreferenceSums;
use super::progress::Progress;
use super::resume::{self, Present};
use super::routing::RouterSums;
use super::schedule::Schedule;
use super::score::{self, Score};
use super::session::Hyper;
use crate::adapters::AdapterLayout;
use crate::adapters::pool::RouterStats;
use crate::config::ModelConfig;
use crate::export::chain::{Chain, Link};
use crate::export::folder::File;
use crate::export::mixlora::MixLoraAdapter;
use crate::export::mixlora::write::Container;
use crate::export::peft::{Note, PeftAdapter};
use crate::formats::{BaseId, ModelFile};
use crate::gpu::clock;
use crate::model::stretch;
use crate::{Error, Result, rng};

/// What a job is begun on.
#[derive(Debug, Clone)]
pub struct BaseIdentity {
    /// Shape of the model.
    pub model: ModelConfig,
    /// The same as its file has it, before its angles are stretched.
    pub trained: ModelConfig,
    /// What the adapter remembers of it.
    pub id: BaseId,
}

impl BaseIdentity {
    /// Of the model in `file`.
    pub fn new(file: &ModelFile, id: BaseId) -> Self {
        Self { model: file.config.clone(), trained: file.config.clone(), id }
    }
}

/// A job.
pub struct Job {
    /// Its settings.
    pub config: TrainConfig,
    /// Its parameters.
    pub layout: AdapterLayout,
    /// Its chain, if the method is one.
    pub chain: Option<ChainRun>,
    /// Best held-out loss and how long ago it was.
    pub progress: Progress,
    /// Its number in the session.
    pub slot: usize,
    /// Optimizer steps done.
    pub step: u64,
    /// How it goes through its rows.
    pub passes: Passes,
    pub(super) model: ModelConfig,
    pub(super) rounding: Rounding,
    data: TrainData,
    packer: Packer,
    schedule: Schedule,
    tokens: u64,
    base: BaseIdentity,
    data_hash: String,
    lr_changes: Vec<LrChange>,
    resumed_kernels: Option<KernelChoices>,
    accumulating: Option<Accumulating>,
    /// Rows of a group of shifted sparse attention.
    group: Option<u32>,
    /// What the reference's rows have as their job: nobody, or the number of the chain's first links.
    pub(super) reference: u32,
}

/// A step that is not complete: its micro-batches, and where the job would be without it.
struct Accumulating {
    batches: Vec<Batch>,
    next: usize,
    /// What its loss is the mean of: targets, or pairs.
    losses: usize,
    sum: f64,
    by_task: Vec<Score>,
    /// Where the job has routers.
    routing: Option<RouterSums>,
    /// Where the job trains on pairs.
    preference: Option<PreferenceSums>,
    before: Cursor,
    /// By the device's clock.
    began: Duration,
}

/// The dropout of a micro-batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropout {
    pub p: f32,
    pub seed: u32,
    pub counter: u32,
    /// Micro-batches of the step.
    pub accumulated: usize,
}

impl Job {
    /// A job at its first step, with micro-batches of at most `rows` rows.
    ///
    /// # Errors
    /// Unusable data; a chain that does not fit the run's length.
    pub fn new(mut config: TrainConfig, data: TrainData, layout: AdapterLayout, rows: usize, base: BaseIdentity) -> Result<Job> {
        config.adapter.tokens = layout.embeddings.as_ref().map(|own| own.tokens.clone()).unwrap_or_default();
        let packer = data.packer(&config, rows)?;
        let passes = Passes::new(&config, &packer)?;
        let total = passes.steps;
        let chain = ChainRun::begin(&config, &packer, &data.train, total)?;
        Ok(Job {
            group: config.context.group(config.seq)?,
            reference: u32::MAX,
            passes,
            schedule: config.schedule(total),
            layout,
            chain,
            progress: Progress::default(),
            slot: 0,
            step: 0,
            model: base.model.clone(),
            rounding: Rounding::Exact,
            data_hash: data.hash(),
            data,
            packer,
            tokens: 0,
            base,
            config,
            lr_changes: Vec::new(),
            resumed_kernels: None,
            accumulating: None,
        })
    }

    /// Rows of a group of shifted sparse attention in its training; `None` is full attention.
    pub fn group(&self) -> Option<u32> {
        self.group
    }

    /// Optimizer steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.schedule.total
    }

    /// Where the run went on with a smaller learning rate, in order.
    pub fn lr_changes(&self) -> &[LrChange] {
        &self.lr_changes
    }

    /// Kernel choices of the checkpoint that it was resumed from.
    pub fn resumed_kernels(&self) -> Option<&KernelChoices> {
        self.resumed_kernels.as_ref()
    }

    /// Tokens that went through the model so far.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// True if there are held-out rows.
    pub fn has_held_out(&self) -> bool {
        !self.data.held_out.is_empty()
    }

    /// What its held-out loss is of: the loss and the rows.
    pub(super) fn judged_on(&self) -> String {
        let loss = self.config.dpo.map_or_else(|| "cross-entropy".to_owned(), |dpo| format!("dpo {} {}", dpo.beta, dpo.smoothing));
        format!("{loss}, {}", data_hash(&self.data.held_out))
    }

    /// Its rows.
    pub fn data(&self) -> &TrainData {
        &self.data
    }

    /// Micro-batches left: of the step that is not complete, and of those after it.
    pub fn micro_batches_left(&self) -> u64 {
        let done = self.accumulating.as_ref().map_or(0, |step| step.next as u64);
        self.total_steps().saturating_sub(self.step).saturating_mul(self.config.grad_accum as u64).saturating_sub(done)
    }

    /// The micro-batch that comes next: rows with a token, documents, and the longest of them.
    pub fn peek_micro(&mut self) -> (usize, usize, usize) {
        let (batch, _) = self.next_micro();
        let (rows, documents, ids) = (batch.n_tokens, batch.examples.len(), batch.examples.clone());
        let longest = ids.iter().map(|id| self.data.train[*id as usize].longest()).max().unwrap_or(0);
        (rows, documents, longest)
    }

    /// The next micro-batch and what each of its targets, or pairs, counts in the loss. A step's micro-batches are drawn when it begins.
    pub(super) fn next_micro(&mut self) -> (&Batch, f32) {
        let accum = self.config.grad_accum;
        let (packer, data, config) = (&mut self.packer, &self.data, &self.config);
        let first = self.step.wrapping_mul(accum as u64);
        let step = self.accumulating.get_or_insert_with(|| {
            let before = packer.cursor().clone();
            let mut batches: Vec<Batch> = (0..accum).map(|_| packer.next_batch(&data.train)).collect();
            if let (Positions::Pose, Some(context)) = (config.context.positions, config.context.context) {
                for (number, batch) in (first..).zip(&mut batches) {
                    let lengths: Vec<usize> = batch.examples.iter().map(|id| data.train[*id as usize].tokens.len()).collect();
                    pose::spread(batch, &lengths, config.seed, number, context);
                }
            }
            let losses = batches.iter().map(Batch::n_losses).sum();
            let by_task = vec![Score::default(); data.tasks.len()];
            let preference = config.dpo.map(|_| PreferenceSums::default());
            Accumulating { batches, next: 0, losses, sum: 0.0, by_task, routing: None, preference, before, began: clock::now() }
        });
        (&step.batches[step.next], 1.0 / step.losses.max(1) as f32)
    }

    /// Targets of the micro-batch that [`Self::next_micro`] gave.
    pub(super) fn micro_targets(&self) -> usize {
        self.accumulating.as_ref().map_or(0, |step| step.batches[step.next].n_targets)
    }

    /// The dropout of the next micro-batch.
    pub(super) fn dropout(&self) -> Dropout {
        let next = self.accumulating.as_ref().map_or(0, |step| step.next) as u64;
        // Only its lower half is used.
        let counter = self.step.wrapping_mul(self.config.grad_accum as u64).wrapping_add(next) as u32;
        Dropout { p: self.layout.dropout, seed: job_seed(self.config.seed), counter, accumulated: self.config.grad_accum }
    }

    /// Takes the losses of the micro-batch's targets; true if the step is complete.
    pub(super) fn add_losses(&mut self, losses: &[f32]) -> bool {
        let Some(step) = &mut self.accumulating else { return false };
        let batch = &step.batches[step.next];
        let scores: Vec<Score> = match &self.config.dpo {
            Some(dpo) => {
                let pairs = dpo.scores(batch, losses);
                pairs.iter().for_each(|pair| step.preference.iter_mut().for_each(|sums| sums.add(pair)));
                pairs.iter().map(|pair| Score { nll: pair.loss, targets: 1 }).collect()
            }
            None => score::by_example(batch, &self.data.train, losses),
        };
        let ranges = self.data.train_ranges();
        for (id, own) in batch.examples.iter().zip(scores) {
            step.sum += own.nll;
            if let Some(task) = ranges.iter().position(|range| range.contains(&(*id as usize))) {
                let score = &mut step.by_task[task];
                *score = Score { nll: score.nll + own.nll, targets: score.targets + own.targets };
            }
        }
        step.next += 1;
        step.next == step.batches.len()
    }

    /// Takes what its routers did in the micro-batch.
    pub(super) fn add_routing(&mut self, stats: RouterStats) {
        if let (Some(step), Some(experts)) = (&mut self.accumulating, &self.layout.experts) {
            step.routing.get_or_insert_default().add(&experts.routing, stats);
        }
    }

    /// Mean loss of the step so far, and what is minimised beside it.
    pub(super) fn step_loss(&self) -> f64 {
        self.accumulating.as_ref().map_or(f64::NAN, |step| step.sum / step.losses.max(1) as f64 + self.router_loss(step))
    }

    fn router_loss(&self, step: &Accumulating) -> f64 {
        step.routing.as_ref().zip(self.layout.experts.as_ref()).map_or(0.0, |(sums, experts)| sums.loss(&experts.routing))
    }

    /// What the update of the present step needs.
    pub(super) fn hyper(&self) -> Hyper {
        let number = self.step + 1;
        let (lr, step) = match &self.chain {
            Some(chain) => (chain.lr(&self.config, &self.schedule, self.step), chain.optimizer_step(number)),
            None => (self.schedule.lr(self.step), number),
        };
        let TrainConfig { beta1, beta2, eps, weight_decay, clip, .. } = self.config;
        Hyper { lr, betas: (beta1, beta2), eps, weight_decay, clip, step }
    }

    /// The step is done.
    pub(super) fn finish_step(&mut self, norm: f32, router_norm: Option<f32>) -> StepReport {
        let (loss, lr) = (self.step_loss(), self.hyper().lr);
        let mut step = self.accumulating.take();
        let routing = step.as_mut().and_then(|step| step.routing.take());
        let tokens: u64 = step.iter().flat_map(|step| &step.batches).map(|batch| batch.n_tokens as u64).sum();
        let seconds = step.as_ref().map_or(0.0, |step| (clock::now() - step.began).as_secs_f64());
        self.step += 1;
        self.tokens += tokens;
        StepReport {
            job: self.config.name.clone(),
            step: self.step,
            loss,
            ce: routing.as_ref().and(step.as_ref()).map(|step| step.sum / step.losses.max(1) as f64),
            balance_loss: routing.as_ref().map(RouterSums::balance),
            preference: step.as_ref().and_then(|step| step.preference).map(|sums| sums.report()),
            router: routing.map(|sums| sums.report(f64::from(router_norm.unwrap_or(f32::NAN)))),
            lr,
            grad_norm: f64::from(norm),
            tokens,
            tokens_per_s: tokens as f64 / seconds.max(1e-9),
            tasks: step.map_or(Vec::new(), |step| self.task_losses(&step.by_task)),
        }
    }

    /// Puts the job back to where it was before the step that is not complete.
    pub(super) fn abandon_step(&mut self) {
        if let Some(step) = self.accumulating.take() {
            self.packer.rewind(step.before);
        }
    }

    /// Mean losses of the tasks that had a target, where there is more than one task.
    fn task_losses(&self, scores: &[Score]) -> Vec<(String, f64)> {
        if !self.data.is_mixture() {
            return Vec::new();
        }
        let of = |(task, score): (&Task, &Score)| (score.targets > 0).then(|| (task.name.clone(), score.nll / score.targets as f64));
        self.data.tasks.iter().zip(scores).filter_map(of).collect()
    }

    /// All links of its chain that there are now, oldest first: the frozen ones and the one that trains.
    pub fn links(&self) -> Vec<Link> {
        self.chain.as_ref().map_or_else(Vec::new, |chain| chain.links(self.step))
    }

    /// The layout of a chain's stage.
    pub(super) fn stage_layout(&self, stage: usize) -> Result<AdapterLayout> {
        let chain = self.chain.as_ref().map(|chain| &chain.config);
        let chain = chain.ok_or_else(|| Error::config("method", "is no chain", "train with --method cola"))?;
        chain.layout(&self.config.adapter, &self.model, stage)
    }

    /// Whether some micro-batches of a step are done, so that gradients are worth keeping.
    pub fn is_mid_step(&self) -> bool {
        self.accumulating.as_ref().is_some_and(|step| step.next > 0)
    }

    /// The bytes of a checkpoint with these tensors, which come from a session with `kernels`: all that [`super::seat::Seat::resume`] needs.
    ///
    /// # Errors
    /// A progress that JSON cannot hold.
    pub fn checkpoint(&self, buffers: &Buffers, kernels: &KernelChoices) -> Result<Vec<u8>> {
        let cursor = self.accumulating.as_ref().map_or(self.packer.cursor(), |step| &step.before);
        let state = State {
            version: VERSION,
            weblora: env!("CARGO_PKG_VERSION").into(),
            base_hash: self.base.id.hash.clone(),
            data_hash: self.data_hash.clone(),
            config: self.config.to_map(),
            step: self.step,
            tokens: self.tokens,
            cursor: cursor.clone(),
            progress: self.progress,
            chain: self.chain.as_ref().map(|chain| chain.state.clone()),
            lr_changes: self.lr_changes.clone(),
            partial: self.accumulating.as_ref().filter(|step| step.next > 0).map(|step| Partial {
                micro_batches: step.next,
                sum: step.sum,
                by_task: step.by_task.clone(),
            }),
            kernels: Some(kernels.clone()),
            embedding_tokens: self.config.adapter.tokens.to_vec(),
        };
        checkpoint::write(&state, &self.layout.params, buffers)
    }

    /// Puts the job where a checkpoint of the same base, rows and settings left it (the learning rate may be smaller): its parameters and moments, for
    /// a device.
    ///
    /// # Errors
    /// A damaged, foreign or forged checkpoint: the job is as it was then.
    pub fn restore(&mut self, file: &str, bytes: &[u8]) -> Result<Buffers> {
        let saved = Checkpoint::read(file, bytes)?;
        saved.check(&self.base.id.hash, &self.data_hash)?;
        self.config.check_resume(&saved.state.config)?;
        let packer = self.data.packer(&self.config, self.packer.rows())?;
        let chain = self.chain.as_ref().map(|chain| &chain.config);
        let (total, tasks) = (self.total_steps(), self.data.tasks.len());
        let present = Present { config: &self.config, total, tasks, chain, layout: &self.layout, packer: &packer };
        resume::check(file, &saved.state, &present)?;
        let packer = packer.resume(saved.state.cursor.clone())?;
        let layout = match &saved.state.chain {
            Some(chain) => self.stage_layout(chain.stage)?,
            None => self.layout.clone(),
        };
        let buffers = saved.buffers(&layout.params)?;
        // Nothing of the job has changed so far; from here on nothing can fail.
        let State { step, tokens, progress, chain, lr_changes, partial, kernels, config, .. } = saved.state;
        if let (Some(run), Some(saved)) = (&mut self.chain, chain) {
            run.state = saved;
        }
        (self.layout, self.packer, self.accumulating) = (layout, packer, None);
        (self.step, self.tokens, self.progress) = (step, tokens, progress);
        self.rounding = Rounding::Exact; // of the first link, told when it began
        self.resumed_kernels = kernels;
        let changed = self.config.smaller_lr(&config);
        self.lr_changes = lr_changes;
        self.lr_changes.extend(changed.map(|from| LrChange { step, from, to: self.config.lr }));
        if let Some(Partial { micro_batches, sum, by_task }) = partial {
            self.next_micro();
            if let Some(step) = &mut self.accumulating {
                (step.next, step.sum, step.by_task) = (micro_batches, sum, by_task);
            }
        }
        Ok(buffers)
    }

    /// The files of the adapter in PEFT layout, or as MixLoRA's authors have them where it has routed experts.
    ///
    /// # Errors
    /// A parameter that is not finite.
    pub fn export(&self, values: &[f32]) -> Result<Vec<File>> {
        let note = Note {
            weblora: env!("CARGO_PKG_VERSION").into(),
            base_hash: self.base.id.hash.clone(),
            base_format: self.base.id.format.clone(),
            rows: Some(self.data.train.len() as u64),
            steps: self.step,
            angles: self.config.context.stretch(&self.base.trained).ok().and_then(|model| stretch::in_words(&self.base.trained, &model)),
            config: self.config.to_map(),
        };
        let base_name = Some(self.base.id.name.clone());
        if self.chain.is_some() {
            return Chain::from_layout(&self.layout, values, &self.links(), base_name, Some(note)).to_files(&self.config.out);
        }
        match MixLoraAdapter::from_layout(&self.layout, values, base_name.clone(), Some(note.clone())) {
            Some(routed) => routed.to_files(&self.config.out, Container::Safetensors),
            None => PeftAdapter::from_layout(&self.layout, values, base_name, Some(note)).to_files(&self.config.out),
        }
    }
}

/// The 32-bit dropout seed of a job: documented, so that a run can be repeated anywhere.
fn job_seed(seed: u64) -> u32 {
    (rng::fnv1a(&format!("{seed}/dropout")) >> 32) as u32
}
