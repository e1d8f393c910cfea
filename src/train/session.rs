//! The GPU side of a run: everything declared and planned from a header, then made real, then stepped without allocating.

use std::ops::Range;

use crate::adapters::AdapterLayout;
use crate::adapters::tables::AdapterTables;
use crate::formats::ModelFile;
use crate::gpu::device::PlanLimits;
use crate::gpu::executable::Arenas;
use crate::gpu::plan::Footprint;
use crate::gpu::recorder::Untuned;
use crate::gpu::timing::Timing;
use crate::gpu::{Executable, Gpu, Plan, Recorder, Store, Tuner};
use crate::kernels::lowrank::{JobRow, SiteRow};
use crate::kernels::optimizer;
use crate::model::inputs::HostBatch;
use crate::model::llama::{Recompute, check_tokens};
use crate::model::{Inputs, Llama, head};
use crate::quant::QuantFormat;
use crate::{Error, Result};

/// What a session is recorded for.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows T of a micro-batch.
    pub rows: usize,
    /// Longest position plus one.
    pub positions: usize,
    /// What the forward pass keeps.
    pub recompute: Recompute,
    /// Largest gradient norm, 0 for no clipping.
    pub clip: f32,
    /// Re-encode float projections at load.
    pub quantize: Option<&'static QuantFormat>,
    /// Record gradients and updates; without, the session only evaluates and neither is planned nor allocated.
    pub training: bool,
}

/// Everything a run needs, declared and planned; no device yet.
pub struct Planned {
    /// Persistent buffers.
    pub store: Store,
    /// The model.
    pub model: Llama,
    /// All jobs' adapters.
    pub adapters: AdapterTables,
    inputs: Inputs,
    shape: Shape,
    limits: PlanLimits,
    jobs: usize,
    plans: Plans,
}

/// The recordings of a session.
struct Plans {
    /// Forward and backward of one micro-batch.
    micro: Plan,
    /// Norm, clipping, AdamW, zeroed gradients.
    update: Plan,
    /// Forward and loss.
    eval: Plan,
    untuned: Vec<Untuned>,
}

impl Planned {
    /// Declares and plans a run of one job per layout on the model in `file`. Exact bytes are in [`Planned::footprint`].
    ///
    /// # Errors
    /// What the model, the adapters or the device's limits make impossible.
    pub fn new(file: &ModelFile, layouts: &[&AdapterLayout], shape: Shape, limits: PlanLimits, tuner: &Tuner) -> Result<Planned> {
        let mut store = Store::new();
        let model = Llama::declare(file, &mut store, limits, shape.quantize, shape.rows, shape.positions)?;
        let inputs = Inputs::declare(&mut store, shape.rows)?;
        let adapters = AdapterTables::declare(layouts, &file.config, &mut store, inputs.row_job)?;
        if let Some(entry) = store.entries().iter().find(|e| e.bytes > limits.max_binding) {
            return Err(Error::Limit {
                what: format!("buffer {}", entry.label),
                needed: format!("{} bytes in one binding", entry.bytes),
                allowed: format!("{} bytes", limits.max_binding),
                hint: "use a smaller --rank or fewer --targets",
            });
        }
        let plans = Plans::record(&model, &adapters, &inputs, shape, limits, tuner)?;
        Ok(Planned { store, model, adapters, inputs, shape, limits, jobs: layouts.len(), plans })
    }

    /// The same rows of the same model with another adapter, for evaluation only.
    ///
    /// # Errors
    /// As [`Planned::new`].
    pub fn evaluating(&self, file: &ModelFile, layout: &AdapterLayout, tuner: &Tuner) -> Result<Planned> {
        let mut layout = layout.clone();
        layout.freeze();
        Planned::new(file, &[&layout], Shape { training: false, ..self.shape }, self.limits, tuner)
    }

    /// Exact bytes on the GPU, by purpose.
    pub fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::of(&self.store, &self.plans.micro);
        let arenas = |p: &Plan| p.arenas.clone();
        let all = [arenas(&self.plans.micro), arenas(&self.plans.update), arenas(&self.plans.eval)];
        let count = all.iter().map(Vec::len).max().unwrap_or(0);
        footprint.arenas = (0..count).map(|i| all.iter().filter_map(|a| a.get(i)).max().copied().unwrap_or(0)).sum();
        footprint.params = self.plans.micro.params_bytes + self.plans.update.params_bytes + self.plans.eval.params_bytes;
        footprint
    }

    /// Kernel launches of one micro-batch and of one update.
    pub fn dispatches(&self) -> (usize, usize) {
        (self.plans.micro.dispatches(), self.plans.update.dispatches())
    }

    /// Model operations per token of a training step as papers count them: 2 N forward and 2 N for input gradients.
    pub fn model_flops_per_token(&self) -> u64 {
        4 * self.model.weights.matmul_parameters()
    }

    /// Measures kernels that `tuner` does not know on this device and records again with the winners.
    ///
    /// # Errors
    /// Errors of the device.
    pub async fn tune(&mut self, gpu: &Gpu, tuner: &mut Tuner) -> Result<usize> {
        let untuned = std::mem::take(&mut self.plans.untuned);
        if untuned.is_empty() {
            return Ok(0);
        }
        tuner.measure(gpu, &untuned).await?;
        self.plans = Plans::record(&self.model, &self.adapters, &self.inputs, self.shape, self.limits, tuner)?;
        Ok(untuned.len())
    }

    /// Compiles what the session will need, so that [`Planned::realize`] finds it. `progress` gets pipelines done and in all.
    ///
    /// # Errors
    /// A refused shader, a lost device.
    pub async fn prewarm(&self, gpu: &Gpu, progress: impl FnMut(usize, usize)) -> Result<()> {
        gpu.prewarm(&[&self.plans.micro, &self.plans.update, &self.plans.eval], progress).await
    }

    /// Allocates, streams the weights, compiles. `progress` gets (bytes done, bytes in all) of the weights.
    ///
    /// # Errors
    /// Out of memory, unreadable weights, a lost device.
    pub async fn realize(mut self, gpu: &Gpu, file: &ModelFile, progress: impl FnMut(u64, u64)) -> Result<Session> {
        let footprint = self.footprint();
        self.store.allocate(gpu).await?;
        let Plans { micro, update, eval, .. } = self.plans;
        let arenas = Arenas::allocate(gpu, &[&micro, &update, &eval]).await?;
        self.model.upload(gpu, &self.store, file, progress).await?;
        self.adapters.upload(gpu, &self.store)?;
        let micro = Executable::new(gpu, &self.store, &arenas, micro).await?;
        let update = Executable::new(gpu, &self.store, &arenas, update).await?;
        let eval = Executable::new(gpu, &self.store, &arenas, eval).await?;
        let params: u64 = [&micro, &update, &eval].iter().map(|e| e.params_bytes()).sum();
        let allocated = self.store.allocated_bytes() + arenas.bytes() + params;
        Ok(Session {
            store: self.store,
            model: self.model,
            adapters: self.adapters,
            inputs: self.inputs,
            micro,
            update,
            eval,
            jobs: self.jobs,
            footprint,
            allocated,
        })
    }
}

impl Plans {
    fn record(model: &Llama, adapters: &AdapterTables, inputs: &Inputs, shape: Shape, limits: PlanLimits, tuner: &Tuner) -> Result<Plans> {
        let mut untuned: Vec<Untuned> = Vec::new();
        let mut plan = |body: &dyn Fn(&mut Recorder)| -> Result<Plan> {
            let mut recorder = Recorder::new(tuner);
            body(&mut recorder);
            for case in recorder.untuned() {
                if !untuned.iter().any(|u| u.key == case.key) {
                    untuned.push(case.clone());
                }
            }
            Plan::new(recorder, limits)
        };
        let micro = plan(&|rec| {
            if shape.training {
                adapters.record_derived(rec);
                model.record_train(rec, adapters, inputs, shape.recompute);
            }
        })?;
        let eval = plan(&|rec| {
            adapters.record_derived(rec);
            model.record_eval(rec, Some(adapters), inputs);
        })?;
        let update = plan(&|rec| {
            if !shape.training {
                return;
            }
            adapters.record_gradients(rec);
            for (job, span) in adapters.spans.iter().enumerate() {
                optimizer::step(rec, &format!("jobs.{job}"), adapters.state, job, span.grads.clone(), shape.clip, &span.groups);
            }
            rec.clear(adapters.state.grads);
        })?;
        Ok(Plans { micro, update, eval, untuned })
    }
}

/// What one job's update needs from the host.
#[derive(Debug, Clone, Copy)]
pub struct Hyper {
    /// Learning rate of this step.
    pub lr: f64,
    /// AdamW's decays of the moments.
    pub betas: (f64, f64),
    /// AdamW's epsilon.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// 1-based step, for the bias correction.
    pub step: u64,
}

/// A run on the device.
pub struct Session {
    store: Store,
    model: Llama,
    adapters: AdapterTables,
    inputs: Inputs,
    micro: Executable,
    update: Executable,
    eval: Executable,
    jobs: usize,
    footprint: Footprint,
    allocated: u64,
}

impl Session {
    /// Persistent buffers, for what is built beside the session (a decoder).
    pub fn parts(&mut self) -> (&mut Store, &Llama, &AdapterTables) {
        (&mut self.store, &self.model, &self.adapters)
    }

    /// The store, read-only.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Adapters in the session.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// Rows of a micro-batch.
    pub fn rows(&self) -> usize {
        self.inputs.rows
    }

    /// Submits of the next micro-batch and of the next update.
    pub fn submits(&self) -> (usize, usize) {
        (self.micro.submits(), self.update.submits())
    }

    /// What was planned.
    pub fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// Bytes that were then allocated.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated
    }

    /// Writes a job's parameters.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffers were not allocated.
    pub fn write_values(&self, gpu: &Gpu, job: usize, values: &[f32]) -> Result<()> {
        self.store.write(gpu, self.adapters.state.values.slice(self.adapters.spans[job].values.clone()), values)
    }

    /// Takes another stage of a job's chain: the tables change, nothing is recorded anew.
    ///
    /// # Errors
    /// A layout that cannot be described; [`Error::Gpu`] if the buffers were not allocated.
    pub fn relayout(&mut self, gpu: &Gpu, job: usize, layout: &AdapterLayout) -> Result<()> {
        self.adapters.relayout(job, layout)?;
        self.adapters.upload(gpu, &self.store)
    }

    /// A job's rows of the sites table.
    pub fn site_rows(&self, job: usize) -> Vec<SiteRow> {
        self.adapters.rows(job)
    }

    /// Replaces a job's rows of the sites table.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffers were not allocated.
    pub fn set_site_rows(&mut self, gpu: &Gpu, job: usize, rows: &[SiteRow]) -> Result<()> {
        self.adapters.set_rows(job, rows);
        self.adapters.upload(gpu, &self.store)
    }

    /// Forgets a job's accumulated gradients.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffers were not allocated.
    pub fn clear_grads(&self, gpu: &Gpu, job: usize) -> Result<()> {
        let range = self.adapters.spans[job].grads.clone();
        self.store.write(gpu, self.adapters.state.grads.slice(range.clone()), &vec![0.0f32; range.len()])
    }

    /// Writes a job's moments.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffers were not allocated.
    pub fn write_moments(&self, gpu: &Gpu, job: usize, m: &[f32], v: &[f32]) -> Result<()> {
        let range = self.adapters.spans[job].grads.clone();
        self.store.write(gpu, self.adapters.state.m.slice(range.clone()), m)?;
        self.store.write(gpu, self.adapters.state.v.slice(range), v)
    }

    /// Reads a job's parameters.
    ///
    /// # Errors
    /// A lost device.
    pub async fn read_values(&self, gpu: &Gpu, job: usize) -> Result<Vec<f32>> {
        gpu.read(&self.store, self.adapters.state.values.slice(self.adapters.spans[job].values.clone())).await
    }

    /// Reads some words of a job's parameters.
    ///
    /// # Errors
    /// A lost device.
    ///
    /// # Panics
    /// When the job has fewer.
    pub async fn read_some_values(&self, gpu: &Gpu, job: usize, words: Range<usize>) -> Result<Vec<f32>> {
        let all = &self.adapters.spans[job].values;
        assert!(words.end <= all.len(), "words of job {job}");
        gpu.read(&self.store, self.adapters.state.values.slice(all.start + words.start..all.start + words.end)).await
    }

    /// Reads a job's gradients: what micro-batches added up since the last update.
    ///
    /// # Errors
    /// A lost device.
    pub async fn read_grads(&self, gpu: &Gpu, job: usize) -> Result<Vec<f32>> {
        gpu.read(&self.store, self.adapters.state.grads.slice(self.adapters.spans[job].grads.clone())).await
    }

    /// Reads a job's moments (first, second).
    ///
    /// # Errors
    /// A lost device.
    pub async fn read_moments(&self, gpu: &Gpu, job: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let range = self.adapters.spans[job].grads.clone();
        let m = gpu.read(&self.store, self.adapters.state.m.slice(range.clone())).await?;
        Ok((m, gpu.read(&self.store, self.adapters.state.v.slice(range)).await?))
    }

    fn prepare(&self, gpu: &Gpu, batch: &HostBatch, jobs: &[JobRow]) -> Result<u32> {
        assert_eq!(jobs.len(), self.jobs, "one row per job");
        check_tokens(&batch.tokens, &self.model.config)?;
        self.inputs.upload(gpu, &self.store, batch)?;
        self.store.write(gpu, self.adapters.jobs, jobs)?;
        Ok(head::active_chunks(self.model.weights.lm_head.rows, self.inputs.rows, batch.targets.len()))
    }

    /// Runs forward and backward of one micro-batch, adds to the gradients, and returns the loss of each of the batch's targets in nats.
    ///
    /// # Errors
    /// A token past the vocabulary; a lost device.
    pub async fn accumulate(&mut self, gpu: &Gpu, batch: &HostBatch, jobs: &[JobRow]) -> Result<Vec<f32>> {
        let chunks = self.prepare(gpu, batch, jobs)?;
        self.micro.set_groups(chunks);
        self.micro.run(gpu).await?;
        self.losses(gpu, batch).await
    }

    /// Loss of each of the batch's targets, without gradients.
    ///
    /// # Errors
    /// A token past the vocabulary; a lost device.
    pub async fn evaluate(&mut self, gpu: &Gpu, batch: &HostBatch, jobs: &[JobRow]) -> Result<Vec<f32>> {
        let chunks = self.prepare(gpu, batch, jobs)?;
        self.eval.set_groups(chunks);
        self.eval.run(gpu).await?;
        self.losses(gpu, batch).await
    }

    async fn losses(&self, gpu: &Gpu, batch: &HostBatch) -> Result<Vec<f32>> {
        let mut losses: Vec<f32> = gpu.read(&self.store, self.inputs.losses).await?;
        losses.truncate(batch.targets.len());
        Ok(losses)
    }

    /// Clips and applies the accumulated gradients of every job, clears them, and returns each job's gradient norm before clipping. A
    /// job whose norm is not finite keeps its parameters.
    ///
    /// # Errors
    /// A lost device.
    pub async fn update(&mut self, gpu: &Gpu, hyper: &[Hyper]) -> Result<Vec<f32>> {
        assert_eq!(hyper.len(), self.jobs, "one set per job");
        let words: Vec<f32> = hyper.iter().flat_map(|h| optimizer::hyper(h.lr, h.betas, h.eps, h.weight_decay, h.step)).collect();
        self.store.write(gpu, self.adapters.state.hyper, &words)?;
        self.update.run(gpu).await?;
        let norms: Vec<f32> = gpu.read(&self.store, self.adapters.state.norms).await?;
        Ok(norms.chunks_exact(2).map(|pair| pair[0]).collect())
    }

    /// GPU time of every dispatch of one micro-batch.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the adapter has no timestamps.
    pub async fn profile(&self, gpu: &Gpu) -> Result<Vec<Timing>> {
        self.micro.profile(gpu).await
    }
}
