//! The GPU side of training and evaluation: recordings against a resident base, a pool of adapters, micro-batches and updates. Nothing is
//! recorded, compiled or allocated once it stands; jobs join and leave by writing tables.

mod plan;

use std::ops::Range;

pub use plan::{Planned, Shape};

use crate::adapters::pool::RouterStats;
use crate::adapters::{AdapterLayout, AdapterPool, Capacity};
use crate::gpu::plan::Footprint;
use crate::gpu::timing::Timing;
use crate::gpu::{Executable, Gpu, Store, Tensor};
use crate::kernels::lowrank::{Segment, SiteRow};
use crate::kernels::optimizer;
use crate::model::check::check_tokens;
use crate::model::inputs::HostBatch;
use crate::model::{Base, Inputs, Llama, head};
use crate::train::kernels::KernelChoices;
use crate::{Error, Result};

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
    /// Largest gradient norm, 0 for no clipping.
    pub clip: f64,
    /// 1-based step, for the bias correction.
    pub step: u64,
}

impl From<Hyper> for optimizer::Hyper {
    fn from(h: Hyper) -> Self {
        Self::new(h.lr, h.betas, h.eps, h.weight_decay, h.clip, h.step)
    }
}

/// What is recorded for one number of rows.
struct Recorded {
    inputs: Inputs,
    micro: Executable,
    eval: Executable,
}

/// Jobs on a device.
pub struct Session {
    store: Store,
    model: Llama,
    adapters: AdapterPool,
    base: Base,
    /// By rows, descending.
    sizes: Vec<Recorded>,
    update: Executable,
    footprint: Footprint,
    /// Bytes of arenas and uniform parameters.
    beside: u64,
    kernels: KernelChoices,
}

impl Session {
    /// Persistent buffers, for what is built beside the session (a decoder).
    pub fn parts(&mut self) -> (&mut Store, &Llama, &AdapterPool) {
        (&mut self.store, &self.model, &self.adapters)
    }

    /// The resident base, to be shared.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The store, read-only.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Jobs that the session has room for.
    pub fn jobs(&self) -> usize {
        self.adapters.job_count()
    }

    /// What jobs the recordings are made for.
    pub fn capacity(&self) -> &Capacity {
        self.adapters.capacity()
    }

    /// Whether a job that needs this can be on the device, beside nobody at least.
    pub fn holds(&self, need: &Capacity) -> bool {
        self.adapters.holds(need)
    }

    /// The jobs' adapters.
    pub fn adapters(&self) -> &AdapterPool {
        &self.adapters
    }

    /// Rows of the largest micro-batch.
    pub fn rows(&self) -> usize {
        self.sizes[0].inputs.rows
    }

    /// Submits of the next largest micro-batch and of the next update.
    pub fn submits(&self) -> (usize, usize) {
        (self.sizes[0].micro.submits(), self.update.submits())
    }

    /// Kernel choices that its bits depend on.
    pub fn kernels(&self) -> &KernelChoices {
        &self.kernels
    }

    /// What was planned.
    pub fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// Bytes that were then allocated, the base included.
    pub fn allocated_bytes(&self) -> u64 {
        self.store.allocated_bytes() + self.beside
    }

    /// Bytes that were allocated beside the base.
    pub fn own_bytes(&self) -> u64 {
        self.store.own_bytes() + self.beside
    }

    /// Takes a job in: its number, its parameters `values`, no gradients, no moments.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where it does not fit beside the others; [`Error::Gpu`] if the buffers were not allocated.
    pub fn add_job(&mut self, gpu: &Gpu, layout: &AdapterLayout, values: &[f32]) -> Result<usize> {
        let job = self.adapters.add(layout)?;
        self.adapters.upload(gpu, &self.store)?;
        let zeros = vec![0.0; self.adapters.allocation(job).grads];
        self.write_values(gpu, job, values)?;
        self.clear_grads(gpu, job)?;
        self.write_moments(gpu, job, &zeros, &zeros)?;
        Ok(job)
    }

    /// Gives the oldest `links` links of a job's chain a number that rows can have as their job, without training anything.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where every place is taken; [`Error::Gpu`] if the buffers were not allocated.
    pub fn add_reference(&mut self, gpu: &Gpu, job: usize, layout: &AdapterLayout, links: usize) -> Result<usize> {
        let number = self.adapters.add_reference(job, layout, links)?;
        self.adapters.upload(gpu, &self.store)?;
        Ok(number)
    }

    /// Lets a job go; its number may be given again.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffers were not allocated.
    pub fn remove_job(&mut self, gpu: &Gpu, job: usize) -> Result<()> {
        self.adapters.remove(job);
        self.adapters.upload(gpu, &self.store)
    }

    /// Writes a job's parameters.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffers were not allocated.
    pub fn write_values(&self, gpu: &Gpu, job: usize, values: &[f32]) -> Result<()> {
        self.write_slices(gpu, self.adapters.value_slices(job), values)
    }

    fn write_slices(&self, gpu: &Gpu, slices: Vec<(Range<usize>, Tensor)>, words: &[f32]) -> Result<()> {
        slices.into_iter().try_for_each(|(range, tensor)| self.store.write(gpu, tensor, &words[range]))
    }

    async fn read_slices(&self, gpu: &Gpu, slices: Vec<(Range<usize>, Tensor)>) -> Result<Vec<f32>> {
        let mut words = Vec::new();
        for (_, tensor) in slices {
            words.append(&mut gpu.read(&self.store, tensor).await?);
        }
        Ok(words)
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
        self.write_grads(gpu, job, &vec![0.0; self.adapters.allocation(job).grads])
    }

    /// Writes a job's accumulated gradients.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffers were not allocated.
    pub fn write_grads(&self, gpu: &Gpu, job: usize, grads: &[f32]) -> Result<()> {
        self.write_slices(gpu, self.adapters.grad_slices(job, |page| page.grads), grads)
    }

    /// Writes a job's moments.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffers were not allocated.
    pub fn write_moments(&self, gpu: &Gpu, job: usize, m: &[f32], v: &[f32]) -> Result<()> {
        self.write_slices(gpu, self.adapters.grad_slices(job, |page| page.m), m)?;
        self.write_slices(gpu, self.adapters.grad_slices(job, |page| page.v), v)
    }

    /// The base's weights of every norm, in the model's order.
    ///
    /// # Errors
    /// A lost device.
    pub async fn base_norms(&self, gpu: &Gpu) -> Result<Vec<Vec<f32>>> {
        let weights = &self.model.weights;
        let of_blocks = weights.layers.iter().flat_map(|layer| [layer.input_layernorm, layer.post_attention_layernorm]);
        let mut all = Vec::new();
        for norm in of_blocks.chain([weights.norm]) {
            all.push(gpu.read(&self.store, norm).await?);
        }
        Ok(all)
    }

    /// Reads a job's parameters.
    ///
    /// # Errors
    /// A lost device.
    pub async fn read_values(&self, gpu: &Gpu, job: usize) -> Result<Vec<f32>> {
        self.read_slices(gpu, self.adapters.value_slices(job)).await
    }

    /// Reads some words of a job's parameters.
    ///
    /// # Errors
    /// A lost device.
    ///
    /// # Panics
    /// When the job has fewer.
    pub async fn read_some_values(&self, gpu: &Gpu, job: usize, words: Range<usize>) -> Result<Vec<f32>> {
        assert!(words.end <= self.adapters.allocation(job).values, "words of job {job}");
        let part = |(own, tensor): (Range<usize>, Tensor)| {
            let wanted = words.start.max(own.start)..words.end.min(own.end);
            (!wanted.is_empty()).then(|| (wanted.clone(), tensor.slice(wanted.start - own.start..wanted.end - own.start)))
        };
        self.read_slices(gpu, self.adapters.value_slices(job).into_iter().filter_map(part).collect()).await
    }

    /// Reads a job's gradients: what micro-batches added up since the last update.
    ///
    /// # Errors
    /// A lost device.
    pub async fn read_grads(&self, gpu: &Gpu, job: usize) -> Result<Vec<f32>> {
        self.read_slices(gpu, self.adapters.grad_slices(job, |page| page.grads)).await
    }

    /// Reads a job's moments (first, second).
    ///
    /// # Errors
    /// A lost device.
    pub async fn read_moments(&self, gpu: &Gpu, job: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let m = self.read_slices(gpu, self.adapters.grad_slices(job, |page| page.m)).await?;
        Ok((m, self.read_slices(gpu, self.adapters.grad_slices(job, |page| page.v)).await?))
    }

    /// Uploads a batch and the rows of its jobs; the number of the smallest recording that holds it, and the chunks of the head that it needs.
    fn prepare(&self, gpu: &Gpu, batch: &HostBatch, jobs: &[Segment]) -> Result<(usize, u32)> {
        assert!(jobs.len() <= self.jobs(), "a row for each job at most");
        check_tokens(&batch.tokens, &self.model.config)?;
        let size = self.sizes.iter().rposition(|size| size.inputs.rows >= batch.tokens.len());
        let Some(size) = size else {
            let problem = format!("a micro-batch of {} rows", batch.tokens.len());
            return Err(Error::config("batch", problem, format!("give at most {} rows", self.rows())));
        };
        let inputs = &self.sizes[size].inputs;
        inputs.upload(gpu, &self.store, batch)?;
        let mut table = jobs.to_vec();
        table.resize(self.jobs(), Segment::new(0..0));
        self.store.write(gpu, self.adapters.jobs, &table)?;
        Ok((size, head::active_chunks(self.model.weights.lm_head.rows, inputs.rows, batch.targets.len())))
    }

    /// Runs forward and backward of one micro-batch, adds to the gradients, and returns the loss of each of the batch's targets in nats.
    /// `jobs` has the rows of jobs 0, 1, …; those that are left out have none.
    ///
    /// # Errors
    /// A token past the vocabulary; more rows than were recorded; a lost device.
    pub async fn accumulate(&mut self, gpu: &Gpu, batch: &HostBatch, jobs: &[Segment]) -> Result<Vec<f32>> {
        let (size, chunks) = self.prepare(gpu, batch, jobs)?;
        let micro = &mut self.sizes[size].micro;
        micro.set_groups(chunks);
        micro.run(gpu).await?;
        self.losses(gpu, batch).await
    }

    /// Loss of each of the batch's targets, without gradients.
    ///
    /// # Errors
    /// As [`Session::accumulate`].
    pub async fn evaluate(&mut self, gpu: &Gpu, batch: &HostBatch, jobs: &[Segment]) -> Result<Vec<f32>> {
        let (size, chunks) = self.prepare(gpu, batch, jobs)?;
        let eval = &mut self.sizes[size].eval;
        eval.set_groups(chunks);
        eval.run(gpu).await?;
        self.losses(gpu, batch).await
    }

    async fn losses(&self, gpu: &Gpu, batch: &HostBatch) -> Result<Vec<f32>> {
        let mut losses: Vec<f32> = gpu.read(&self.store, self.sizes[0].inputs.losses).await?;
        losses.truncate(batch.targets.len());
        Ok(losses)
    }

    /// Clips and applies the accumulated gradients of these jobs, clears them, and returns each one's gradient norm before clipping. A
    /// job whose norm is not finite keeps its parameters. Other jobs go on accumulating.
    ///
    /// # Errors
    /// A lost device.
    pub async fn update(&mut self, gpu: &Gpu, steps: &[(usize, Hyper)]) -> Result<Vec<f32>> {
        let rows: Vec<(usize, optimizer::Hyper)> = steps.iter().map(|(job, hyper)| (*job, (*hyper).into())).collect();
        self.store.write(gpu, self.adapters.state.hyper, &self.adapters.hyper(&rows))?;
        self.update.run(gpu).await?;
        let norms: Vec<f32> = gpu.read(&self.store, self.adapters.state.norms).await?;
        Ok(steps.iter().map(|(job, _)| norms[2 * job]).collect())
    }

    /// Statistics of the routers of the last micro-batch that was accumulated; `None` where no job can have a router.
    ///
    /// # Errors
    /// A lost device.
    pub async fn read_routers(&self, gpu: &Gpu) -> Result<Option<Vec<f32>>> {
        match self.adapters.router_outputs() {
            Some((stats, _)) => Ok(Some(gpu.read(&self.store, stats).await?)),
            None => Ok(None),
        }
    }

    /// Norms of the routers' gradients at the last update.
    ///
    /// # Errors
    /// A lost device.
    pub async fn read_router_norms(&self, gpu: &Gpu) -> Result<Option<Vec<f32>>> {
        match self.adapters.router_outputs() {
            Some((_, norms)) => Ok(Some(gpu.read(&self.store, norms).await?)),
            None => Ok(None),
        }
    }

    /// A job's part of [`Self::read_routers`].
    pub fn router_stats(&self, job: usize, stats: &[f32]) -> Option<RouterStats> {
        self.adapters.router_stats(job, stats)
    }

    /// A job's part of [`Self::read_router_norms`].
    pub fn router_norm(&self, job: usize, norms: &[f32]) -> Option<f32> {
        self.adapters.router_norm(job, norms)
    }

    /// GPU time of every dispatch of one largest micro-batch.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the adapter has no timestamps.
    pub async fn profile(&self, gpu: &Gpu) -> Result<Vec<Timing>> {
        self.sizes[0].micro.profile(gpu).await
    }
}
