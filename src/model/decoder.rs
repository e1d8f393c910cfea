//! Generation: the forward pass of a few new tokens against a key/value cache, recorded once for all positions.

use super::block::{LayerCache, Stream};
use super::check::check_tokens;
use super::{Inputs, Llama, head, rope};
use crate::adapters::AdapterPool;
use crate::config::ModelConfig;
use crate::gpu::device::PlanLimits;
use crate::gpu::executable::Arenas;
use crate::gpu::{Class, Executable, Gpu, Plan, Recorder, Store, Tensor, Tuner};
use crate::kernels::lowrank::Segment;
use crate::kernels::{matmul, norm, rows};
use crate::{Error, Result};

/// The most prompt tokens that go through the model together.
pub const PREFILL: usize = 64;
/// Tokens that go through the model together, the most first. Whatever is left of a prompt goes one by one.
const PIECES: [usize; 3] = [PREFILL, 8, 1];
/// A recording is made where sequences have room for so many of its pieces: it costs its kernels' compilation.
const LEAST_PIECES: usize = 4;

/// Buffers of the cache, shared by all recordings.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Longest sequence.
    pub max_len: usize,
    /// `[1]` u32: rows in the cache, the new ones included.
    pub state: Tensor,
    /// `[max_len, head_dim / 2]` (cos, sin): a run's own table ends where its rows do.
    pub rope: Tensor,
    /// Per block.
    pub layers: Vec<LayerCache>,
}

/// One recording: `rows` new tokens.
struct Stage {
    inputs: Inputs,
    /// Tables of jobs: where, and how many.
    jobs: Option<(Tensor, usize)>,
    executable: Executable,
}

/// Generates with a model and, if there is one, an adapter.
pub struct Decoder {
    cache: Cache,
    /// By falling size; the last takes one token.
    stages: Vec<Stage>,
    logits: Tensor,
    config: ModelConfig,
    /// Tokens in the cache.
    len: usize,
    /// The length whose angles are in the rotary table.
    context: usize,
}

impl Decoder {
    /// Declares, plans, allocates and compiles; with `measure` kernels that `tuner` does not know are measured first. The weights and adapter values must already be on the device.
    ///
    /// # Errors
    /// [`Error::Limit`] or [`Error::OutOfMemory`] if `max_len` positions do not fit.
    pub async fn new(
        gpu: &Gpu,
        store: &mut Store,
        model: &Llama,
        adapters: Option<&AdapterPool>,
        max_len: usize,
        tuner: &mut Tuner,
        measure: bool,
    ) -> Result<Decoder> {
        let width = model.config.kv_width();
        // All recordings run on one cache, so that it holds a whole piece of a prompt, however short the sequences are.
        let max_len = max_len.max(LEAST_PIECES * PIECES[1]);
        let state = store.declare("cache.state", Class::Io, 1)?;
        let mut layers = Vec::new();
        for layer in 0..model.config.num_hidden_layers {
            let k = store.declare(format!("cache.{layer}.k"), Class::Cache, max_len * width)?;
            layers.push(LayerCache { k, v: store.declare(format!("cache.{layer}.v"), Class::Cache, max_len * width)? });
        }
        let rope = store.declare("cache.rope", Class::Cache, max_len * model.config.head_dim)?;
        let cache = Cache { max_len, state, rope, layers };
        let logits = store.declare("logits", Class::Io, model.config.vocab_size)?;
        let mut stages = Vec::new();
        for count in PIECES.into_iter().filter(|piece| LEAST_PIECES * piece <= max_len) {
            let inputs = Inputs::declare(store, count, false)?;
            let adapters = adapters.map(|a| a.for_inference(store, inputs.row_job)).transpose()?;
            stages.push((inputs, adapters));
        }
        store.allocate(gpu).await?;
        store.write(gpu, rope, &rope::table(&model.config, max_len, max_len))?;
        let limits: PlanLimits = gpu.plan_limits();
        let mut plans = Vec::new();
        for (inputs, adapters) in &stages {
            let mut recorder = Recorder::new(tuner);
            record(&mut recorder, model, adapters.as_ref(), inputs, &cache, logits);
            let untuned = recorder.untuned().to_vec();
            if measure && !untuned.is_empty() {
                tuner.measure(gpu, &untuned).await?;
                recorder = Recorder::new(tuner);
                record(&mut recorder, model, adapters.as_ref(), inputs, &cache, logits);
            }
            plans.push(Plan::new(recorder, limits)?);
        }
        let arenas = Arenas::allocate(gpu, &plans.iter().collect::<Vec<_>>()).await?;
        let mut made = Vec::new();
        for (plan, (inputs, adapters)) in plans.into_iter().zip(stages) {
            let executable = Executable::new(gpu, store, &arenas, plan).await?;
            made.push(Stage { inputs, jobs: adapters.map(|a| (a.jobs, a.job_count())), executable });
        }
        Ok(Decoder { cache, stages: made, logits, config: model.config.clone(), len: 0, context: max_len })
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.len = 0;
    }

    /// Forgets the sequence; the next one will have at most `length` tokens. Where the model's angles depend on that length, the same text is
    /// continued in the same way however large the cache is.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffers were not allocated.
    pub fn begin(&mut self, gpu: &Gpu, store: &Store, length: usize) -> Result<()> {
        self.reset();
        let length = length.min(self.cache.max_len);
        if rope::frequencies(&self.config, length) != rope::frequencies(&self.config, self.context) {
            store.write(gpu, self.cache.rope, &rope::table(&self.config, self.cache.max_len, length))?;
        }
        self.context = length;
        Ok(())
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True before the first token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Longest sequence.
    pub fn max_len(&self) -> usize {
        self.cache.max_len
    }

    /// Appends `tokens` and returns the logits that predict what follows the last one, `[vocab]`. `job` chooses the adapter,
    /// `None` the base alone; one sequence keeps to one choice.
    ///
    /// # Errors
    /// [`Error::Config`] if the sequence would outgrow the cache or a token is past the vocabulary.
    pub async fn push(&mut self, gpu: &Gpu, store: &Store, tokens: &[u32], job: Option<usize>) -> Result<Vec<f32>> {
        if tokens.is_empty() || self.len + tokens.len() > self.cache.max_len {
            let problem = format!("{} tokens after {} do not fit in {}", tokens.len(), self.len, self.cache.max_len);
            return Err(Error::config("max-tokens", problem, "generate fewer tokens or shorten the prompt"));
        }
        check_tokens(tokens, &self.config)?;
        let mut rest = tokens;
        while !rest.is_empty() {
            let Some(stage) = self.stages.iter_mut().find(|stage| stage.inputs.rows <= rest.len()) else {
                return Err(Error::Gpu { what: "generation".into(), message: "no recording takes one token".into() });
            };
            let count = stage.inputs.rows;
            let (now, later) = rest.split_at(count);
            let positions: Vec<u32> = (self.len..self.len + count).map(|p| p as u32).collect();
            store.write(gpu, stage.inputs.tokens, now)?;
            store.write(gpu, stage.inputs.positions, &positions)?;
            store.write(gpu, stage.inputs.row_job, &vec![job.map_or(u32::MAX, |j| j as u32); count])?;
            store.write(gpu, stage.inputs.loss_rows, &[(count - 1) as u32])?;
            store.write(gpu, stage.inputs.loss_jobs, &[job.map_or(u32::MAX, |j| j as u32)])?;
            if let Some((table, jobs)) = stage.jobs {
                store.write(gpu, table, &vec![Segment::new(0..count); jobs])?;
            }
            self.len += count;
            store.write(gpu, self.cache.state, &[self.len as u32])?;
            // Only the last piece of a prompt needs the head.
            stage.executable.set_groups(u32::from(later.is_empty()));
            stage.executable.run(gpu).await?;
            rest = later;
        }
        gpu.read(store, self.logits).await
    }
}

fn record(rec: &mut Recorder, model: &Llama, adapters: Option<&AdapterPool>, inputs: &Inputs, cache: &Cache, logits: Tensor) {
    let d = model.config.hidden_size;
    if let Some(adapters) = adapters {
        adapters.record_derived(rec);
    }
    let mut x = Stream::from(model.embed(rec, adapters, inputs));
    for layer in 0..model.config.num_hidden_layers {
        let block = model.block_turned_by(cache.rope, layer, adapters, inputs);
        x = rec.scoped(format!("layers.{layer}"), |rec| block.decode(rec, x, cache.layers[layer], cache.max_len, cache.state));
    }
    rec.optional(0, |rec| {
        let (picked, n, rstd) = (rec.transient("picked", d), rec.transient("norm", d), rec.transient("norm.rstd", 1));
        let (list, ids) = (inputs.loss_rows.slice(0..1), inputs.targets.slice(0..1));
        rows::gather(rec, "gather", list, ids, x.x, picked);
        let w = head::final_norm(&model.weights, adapters, Some(inputs.loss_jobs.slice(0..1)));
        norm::forward(rec, "norm", picked, w, n, rstd, model.config.rms_norm_eps);
        matmul::forward(rec, "lm_head.matmul", n, 1, &model.weights.lm_head, logits, false);
    });
}
