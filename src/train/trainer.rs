//! One job from rows to adapter: the loop's body, its state, and how it is saved. The caller drives it and tells the world.

use super::batch::{Batch, Packer};
use super::chain::{ChainRun, Rounding, largest_change, link_ends, unrounded_losses};
use super::checkpoint::{self, Buffers, Checkpoint, State, VERSION};
use super::config::TrainConfig;
use super::data::Task;
pub use super::data::TrainData;
use super::events::StepReport;
use super::progress::Progress;
use super::schedule::Schedule;
use super::score::{self, HeldOut, Score};
use super::session::{Hyper, Planned, Session, Shape};
use super::start::Start;
use crate::adapters::{AdapterLayout, initial_buffer};
use crate::config::ModelConfig;
use crate::export::chain::Chain;
use crate::export::peft::{File, Note, PeftAdapter};
use crate::formats::ModelFile;
use crate::gpu::device::PlanLimits;
use crate::gpu::{Gpu, Tuner, clock};
use crate::kernels::lowrank::JobRow;
use crate::model::inputs::HostBatch;
use crate::model::llama::Recompute;
use crate::quant;
use crate::{Error, Result, rng};

/// What a run will be, known before a device is opened.
pub struct TrainPlan {
    /// Declared buffers and planned recordings.
    pub planned: Planned,
    /// The adapter's parameters.
    pub layout: AdapterLayout,
    /// Rows of a micro-batch.
    pub rows: usize,
}

/// Rows of a micro-batch: `batch · seq`, or fewer where all the data together is shorter. A multiple of 8.
fn micro_rows(config: &TrainConfig, data: Option<&TrainData>) -> usize {
    let asked = config.batch * config.seq;
    let all = data.map_or(asked, |d| d.train.iter().map(|e| e.tokens.len()).sum::<usize>().max(1));
    // A held-out row has to fit, too.
    asked.min(all.next_multiple_of(8)).max(data.map_or(0, TrainData::longest_held_out))
}

/// Optimizer steps of a run over the packed rows.
fn total_steps(config: &TrainConfig, packer: &Packer) -> u64 {
    let micro = config.epochs.map_or(0, |epochs| packer.steps_in(epochs));
    config.steps.unwrap_or_else(|| micro.div_ceil(config.grad_accum as u64)).max(1)
}

impl TrainPlan {
    /// Optimizer steps that the run will take over `data`.
    ///
    /// # Errors
    /// Rows that cannot be packed.
    pub fn steps(&self, config: &TrainConfig, data: &TrainData) -> Result<u64> {
        Ok(total_steps(config, &Packer::new(&data.train, self.rows, config.seed, config.shuffle)?))
    }

    /// Plans a run of `config` on the model in `file` within `limits`. Without data the full `batch · seq` is planned.
    ///
    /// # Errors
    /// Whatever makes the run impossible, named by its setting.
    pub fn new(file: &ModelFile, config: &TrainConfig, data: Option<&TrainData>, limits: PlanLimits, tuner: &Tuner) -> Result<TrainPlan> {
        let context = file.config.max_position_embeddings;
        if config.seq > context {
            let problem = format!("rows of {} tokens exceed the model's context of {context}", config.seq);
            return Err(Error::config("seq", problem, format!("use --seq {context} or less")));
        }
        let layout = config.adapter.layout(&file.config)?;
        let rows = micro_rows(config, data);
        if let Some(data) = data {
            let packer = data.packer(config, rows)?;
            if let Some(chain) = config.adapter.chain()? {
                link_ends(&chain, total_steps(config, &packer), &packer, config.grad_accum as u64)?;
            }
        }
        let shape = Shape {
            rows,
            positions: data.map_or(0, TrainData::longest_held_out).max(config.seq),
            recompute: if config.recompute { Recompute::Blocks } else { Recompute::Off },
            clip: config.clip as f32,
            quantize: quant::by_name(&config.quantize),
            training: true,
        };
        let planned = Planned::new(file, &[&layout], shape, limits, tuner)?;
        Ok(TrainPlan { planned, layout, rows })
    }
}

/// A running job.
pub struct Trainer {
    pub(super) config: TrainConfig,
    pub(super) model: ModelConfig,
    pub(super) layout: AdapterLayout,
    pub(super) session: Session,
    pub(super) chain: Option<ChainRun>,
    rounding: Rounding,
    data: TrainData,
    packer: Packer,
    schedule: Schedule,
    pub(super) step: u64,
    tokens: u64,
    /// Best held-out loss and how long ago it was.
    pub progress: Progress,
    base_hash: String,
    base_name: String,
    data_hash: String,
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
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Trainer> {
        let packer = data.packer(&config, plan.rows)?;
        let total = total_steps(&config, &packer);
        let mut chain = Trainer::begin_chain(&config, &packer, &data.train, total)?;
        if measure {
            plan.planned.tune(gpu, tuner).await?;
        }
        let base_hash = file.content_hash().await?;
        let Start { values, links, unrounded } = start.unwrap_or_else(|| initial_buffer(&plan.layout.params, config.seed).into());
        let exact = match (&unrounded, &chain) {
            (Some(links), Some(chain)) => {
                Some(unrounded_losses(gpu, file, &plan.planned, links, &chain.batch, tuner, &mut progress).await?)
            }
            _ => None,
        };
        let session = plan.planned.realize(gpu, file, progress).await?;
        session.write_values(gpu, 0, &values)?;
        if let Some(chain) = chain.as_mut().filter(|_| !links.is_empty()) {
            chain.inherit(links)?;
        }
        let mut trainer = Trainer {
            schedule: config.schedule(total),
            layout: plan.layout,
            model: file.config.clone(),
            session,
            chain,
            rounding: Rounding::Exact,
            packer,
            step: 0,
            tokens: 0,
            progress: Progress::default(),
            base_hash,
            base_name: file.name().to_string(),
            data_hash: data.hash(),
            data,
            config,
        };
        if let Some(exact) = exact {
            let rounded = trainer.fixed_losses(gpu).await?;
            trainer.rounding = exact.map_or(Rounding::Unknown, |exact| Rounding::Jump(largest_change(&exact, &rounded)));
        }
        trainer.begin_link(gpu, &values).await?;
        Ok(trainer)
    }

    /// Optimizer steps done.
    pub fn step_number(&self) -> u64 {
        self.step
    }

    /// Optimizer steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.schedule.total
    }

    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The adapter's parameters.
    pub fn layout(&self) -> &AdapterLayout {
        &self.layout
    }

    /// What storing the links that the run goes on from did to the model, as this run began.
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// True if there are held-out rows.
    pub fn has_held_out(&self) -> bool {
        !self.data.held_out.is_empty()
    }

    /// The device side, for what is built beside the run (a decoder).
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Goes on from a checkpoint of the same base, rows and settings.
    ///
    /// # Errors
    /// A damaged or foreign checkpoint.
    pub fn resume(&mut self, gpu: &Gpu, file: &str, bytes: &[u8]) -> Result<()> {
        let saved = Checkpoint::read(file, bytes)?;
        saved.check(&self.base_hash, &self.data_hash)?;
        self.config.check_resume(&saved.state.config)?;
        self.resume_chain(gpu, saved.state.chain.as_ref())?;
        let buffers = saved.buffers(&self.layout.params)?;
        self.packer = self.data.packer(&self.config, self.session.rows())?.resume(saved.state.cursor)?;
        self.session.write_values(gpu, 0, &buffers.values)?;
        self.session.write_moments(gpu, 0, &buffers.m, &buffers.v)?;
        (self.step, self.tokens, self.progress) = (saved.state.step, saved.state.tokens, saved.state.progress);
        self.rounding = Rounding::Exact; // of the first link, told when it began
        Ok(())
    }

    /// One optimizer step: `grad-accum` micro-batches, then the update. A NaN or infinite loss or gradient changes no parameter.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the step; a lost device.
    pub async fn step(&mut self, gpu: &Gpu) -> Result<StepReport> {
        let began = clock::now();
        let number = self.step + 1;
        let batches: Vec<Batch> = (0..self.config.grad_accum).map(|_| self.packer.next_batch(&self.data.train)).collect();
        let targets: usize = batches.iter().map(|b| b.n_targets).sum();
        let tokens: usize = batches.iter().map(|b| b.n_tokens).sum();
        let mut sum = 0.0;
        let mut by_task = vec![Score::default(); self.data.tasks.len()];
        let ranges = self.data.train_ranges();
        for (micro, batch) in batches.iter().enumerate() {
            let host = host_batch(batch, 1.0 / targets.max(1) as f32);
            let counter = (self.step * self.config.grad_accum as u64 + micro as u64) as u32;
            let job = JobRow::new(0..self.session.rows()).with_dropout(self.layout.dropout, job_seed(self.config.seed), counter);
            let losses = self.session.accumulate(gpu, &host, &[job]).await?;
            sum += losses.iter().map(|l| f64::from(*l)).sum::<f64>();
            let mut losses = losses.into_iter();
            for id in &batch.examples {
                let count = self.data.train[*id as usize].n_targets();
                let nll: f64 = losses.by_ref().take(count).map(f64::from).sum();
                if let Some(task) = ranges.iter().position(|range| range.contains(&(*id as usize))) {
                    by_task[task] = Score { nll: by_task[task].nll + nll, targets: by_task[task].targets + count };
                }
            }
        }
        let loss = sum / targets.max(1) as f64;
        let (lr, optimizer_step) = match &self.chain {
            Some(chain) => (chain.lr(&self.config, &self.schedule, self.step), chain.optimizer_step(number)),
            None => (self.schedule.lr(self.step), number),
        };
        let hyper = Hyper {
            lr,
            betas: (self.config.beta1, self.config.beta2),
            eps: self.config.eps,
            weight_decay: self.config.weight_decay,
            step: optimizer_step,
        };
        if !loss.is_finite() {
            return Err(self.not_finite("loss", loss as f32, number));
        }
        let norm = self.session.update(gpu, &[hyper]).await?[0];
        if !norm.is_finite() {
            return Err(self.not_finite("gradient norm", norm, number));
        }
        self.step = number;
        self.tokens += tokens as u64;
        let seconds = (clock::now() - began).as_secs_f64();
        Ok(StepReport {
            job: self.config.name.clone(),
            step: number,
            loss,
            lr,
            grad_norm: f64::from(norm),
            tokens: tokens as u64,
            tokens_per_s: tokens as f64 / seconds.max(1e-9),
            tasks: self.task_losses(&by_task),
        })
    }

    /// Mean losses of the tasks that had a target, where there is more than one task.
    fn task_losses(&self, scores: &[Score]) -> Vec<(String, f64)> {
        if !self.data.is_mixture() {
            return Vec::new();
        }
        let of = |(task, score): (&Task, &Score)| (score.targets > 0).then(|| (task.name.clone(), score.nll / score.targets as f64));
        self.data.tasks.iter().zip(scores).filter_map(of).collect()
    }

    fn not_finite(&self, what: &'static str, value: f32, step: u64) -> Error {
        Error::NotFinite { what, value, step, job: self.config.name.clone() }
    }

    /// Loss and accuracy of the held-out rows, by task where there are several; `None` without any.
    ///
    /// # Errors
    /// A lost device.
    pub async fn evaluate(&mut self, gpu: &Gpu) -> Result<Option<HeldOut>> {
        let found = score::held_out(&mut self.session, gpu, &self.data, Some(0)).await?;
        if let (Some(chain), Some(found)) = (&mut self.chain, &found) {
            chain.evaluated(found.loss);
        }
        Ok(found)
    }

    /// The bytes of a checkpoint: all that [`Trainer::resume`] needs.
    ///
    /// # Errors
    /// A lost device.
    pub async fn checkpoint(&self, gpu: &Gpu) -> Result<Vec<u8>> {
        let (m, v) = self.session.read_moments(gpu, 0).await?;
        let buffers = Buffers { values: self.session.read_values(gpu, 0).await?, m, v };
        let state = State {
            version: VERSION,
            weblora: env!("CARGO_PKG_VERSION").into(),
            base_hash: self.base_hash.clone(),
            data_hash: self.data_hash.clone(),
            config: self.config.to_map(),
            step: self.step,
            tokens: self.tokens,
            cursor: self.packer.cursor().clone(),
            progress: self.progress,
            chain: self.chain.as_ref().map(|chain| chain.state.clone()),
        };
        checkpoint::write(&state, &self.layout.params, &buffers)
    }

    /// The files of the adapter in PEFT layout.
    ///
    /// # Errors
    /// A lost device; a parameter that is not finite.
    pub async fn export(&self, gpu: &Gpu) -> Result<Vec<File>> {
        let values = self.session.read_values(gpu, 0).await?;
        let note = Note {
            weblora: env!("CARGO_PKG_VERSION").into(),
            base_hash: self.base_hash.clone(),
            steps: self.step,
            config: self.config.to_map(),
        };
        let base_name = Some(self.base_name.clone());
        if self.chain.is_some() {
            return Chain::from_layout(&self.layout, &values, &self.links(), base_name, Some(note)).to_files(&self.config.out);
        }
        PeftAdapter::from_layout(&self.layout, &values, base_name, Some(note)).to_files(&self.config.out)
    }
}

/// The 32-bit dropout seed of a job: documented, so that a run can be repeated anywhere.
fn job_seed(seed: u64) -> u32 {
    (rng::fnv1a(&format!("{seed}/dropout")) >> 32) as u32
}

/// A packed batch in the layout of the model's inputs; every target counts `weight`.
pub fn host_batch(batch: &Batch, weight: f32) -> HostBatch {
    HostBatch::new(&batch.tokens, &batch.targets, &batch.doc_start, &batch.position, weight)
}
