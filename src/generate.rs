//! Text from a model: sampling, stopping, several adapters over one base.

use serde::Serialize;

use crate::adapters::{AdapterLayout, AdapterPool};
use crate::formats::ModelFile;
use crate::gpu::{Class, Gpu, Store, Tuner};
use crate::model::decoder::{Decoder, PREFILL};
use crate::model::{Base, Llama};
use crate::quant::QuantFormat;
use crate::{Error, Result, rng};

/// How the next token is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token; 1 draws from the model's distribution.
    pub temperature: f32,
    /// Only the k likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability; 1 for all.
    pub top_p: f32,
    /// Divides positive and multiplies negative logits of tokens already there (CTRL); 1 for none.
    pub repetition_penalty: f32,
    /// Seed of the draws.
    pub seed: u64,
    /// Stop after this many tokens.
    pub max_tokens: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0, max_tokens: 128 }
    }
}

impl Sampling {
    /// Draws token number `index` of a sequence from `logits`, given the tokens so far.
    pub fn draw(&self, logits: &[f32], history: &[u32], index: u64) -> u32 {
        let mut logits = logits.to_vec();
        if self.repetition_penalty != 1.0 {
            for token in history {
                if let Some(z) = logits.get_mut(*token as usize) {
                    *z = if *z > 0.0 { *z / self.repetition_penalty } else { *z * self.repetition_penalty };
                }
            }
        }
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        // Ties go to the lower id, so that greedy decoding is deterministic.
        let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if self.temperature <= 0.0 {
            return order.into_iter().min_by(by_logit).unwrap_or(0);
        }
        order.sort_unstable_by(by_logit);
        if self.top_k > 0 {
            order.truncate(self.top_k);
        }
        let high = order.first().map_or(0.0, |t| f64::from(logits[*t as usize]));
        let weight = |t: &u32| ((f64::from(logits[*t as usize]) - high) / f64::from(self.temperature)).exp();
        let total: f64 = order.iter().map(weight).sum();
        let mut kept = 0.0;
        let mut count = 0;
        for token in &order {
            kept += weight(token);
            count += 1;
            if kept >= f64::from(self.top_p) * total {
                break;
            }
        }
        let unit = (f64::from(rng::uniform(&format!("{}/sample", self.seed), index + 1, 1.0)) + 1.0) / 2.0;
        let mut left = unit * kept;
        for token in &order[..count] {
            left -= weight(token);
            if left <= 0.0 {
                return *token;
            }
        }
        order.first().copied().unwrap_or(0)
    }
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// The model ended it, with a token of `stop`.
    End,
    /// It is as long as was asked for.
    Length,
    /// Whoever reads it had enough.
    Reader,
}

/// What a model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The new tokens, without the one that ended them.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub ended: Ended,
}

/// Refuses a prompt of no token: there is nothing to continue.
///
/// # Errors
/// [`Error::Config`].
pub fn check_prompt(prompt: &[u32]) -> Result<()> {
    if prompt.is_empty() {
        let hint = "write at least a word: this model has no token that begins a text";
        return Err(Error::config("prompt", "is empty", hint));
    }
    Ok(())
}

/// Continues `prompt` with a decoder whose weights are in `store`, until a token of `stop`, `sampling.max_tokens`, or `each` returning false.
/// `adapter` chooses one of the decoder's adapters, `None` the base alone.
///
/// # Errors
/// [`Error::Config`] for an empty prompt or one longer than the cache; a lost device.
pub async fn generate(
    gpu: &Gpu,
    store: &Store,
    decoder: &mut Decoder,
    prompt: &[u32],
    sampling: &Sampling,
    stop: &[u32],
    adapter: Option<usize>,
    mut each: impl FnMut(u32) -> bool,
) -> Result<Written> {
    check_prompt(prompt)?;
    decoder.begin(gpu, store, prompt.len() + sampling.max_tokens)?;
    let mut history = prompt.to_vec();
    let (mut tokens, mut ended) = (Vec::new(), Ended::Length);
    let mut logits = decoder.push(gpu, store, prompt, adapter).await?;
    for index in 0..sampling.max_tokens as u64 {
        let token = sampling.draw(&logits, &history, index);
        if stop.contains(&token) {
            ended = Ended::End;
            break;
        }
        tokens.push(token);
        history.push(token);
        if !each(token) {
            ended = Ended::Reader;
            break;
        }
        if decoder.len() >= decoder.max_len() {
            break;
        }
        logits = decoder.push(gpu, store, &[token], adapter).await?;
    }
    Ok(Written { tokens, ended })
}

/// A model ready to write, with any number of adapters over one base.
pub struct Generator {
    store: Store,
    decoder: Decoder,
    adapters: usize,
}

impl Generator {
    /// Loads the base and `adapters` (layout and values each) for sequences of at most `max_len` tokens. `progress` gets bytes of weights
    /// done and in all.
    ///
    /// # Errors
    /// Damaged weights; a device that is too small or lost.
    pub async fn open(
        gpu: &Gpu,
        file: &ModelFile,
        adapters: &[(AdapterLayout, Vec<f32>)],
        quantize: Option<&'static QuantFormat>,
        max_len: usize,
        tuner: &mut Tuner,
        measure: bool,
        progress: impl FnMut(u64, u64),
    ) -> Result<Generator> {
        let base = Base::declare(file, gpu.plan_limits(), quantize, PREFILL)?.load(gpu, file, progress).await?;
        Self::on(gpu, &base, adapters, max_len, tuner, measure).await
    }

    /// As [`Generator::open`] on a base that is resident.
    ///
    /// # Errors
    /// A device that is too small or lost.
    pub async fn on(
        gpu: &Gpu,
        base: &Base,
        adapters: &[(AdapterLayout, Vec<f32>)],
        max_len: usize,
        tuner: &mut Tuner,
        measure: bool,
    ) -> Result<Generator> {
        let mut store = base.store();
        let model = Llama::on(base, &mut store, PREFILL)?;
        let mut layouts: Vec<AdapterLayout> = adapters.iter().map(|(layout, _)| layout.clone()).collect();
        layouts.iter_mut().for_each(AdapterLayout::freeze);
        let row_job = store.declare("row_job", Class::Io, 1)?;
        let tables = AdapterPool::of(&layouts.iter().collect::<Vec<_>>(), &base.config, &mut store, row_job, gpu.plan_limits())?;
        store.allocate(gpu).await?;
        model.upload(gpu, &store)?;
        tables.upload(gpu, &store)?;
        for (job, (_, values)) in adapters.iter().enumerate() {
            tables.value_slices(job).into_iter().try_for_each(|(words, tensor)| store.write(gpu, tensor, &values[words]))?;
        }
        let used = (!adapters.is_empty()).then_some(&tables);
        let decoder = Decoder::new(gpu, &mut store, &model, used, max_len, tuner, measure).await?;
        Ok(Generator { store, decoder, adapters: adapters.len() })
    }

    /// Continues `prompt` until a token of `stop`, `sampling.max_tokens`, or `each` returning false. `adapter` chooses one of the opened adapters,
    /// `None` the base alone.
    ///
    /// # Errors
    /// [`Error::Config`] for an adapter that was not opened, an empty prompt or one longer than the cache.
    pub async fn generate(
        &mut self,
        gpu: &Gpu,
        prompt: &[u32],
        sampling: &Sampling,
        stop: &[u32],
        adapter: Option<usize>,
        each: impl FnMut(u32) -> bool,
    ) -> Result<Written> {
        if adapter.is_some_and(|a| a >= self.adapters) {
            return Err(Error::config("adapter", format!("there are only {}", self.adapters), "open the adapter first"));
        }
        generate(gpu, &self.store, &mut self.decoder, prompt, sampling, stop, adapter, each).await
    }

    /// Longest sequence.
    pub fn max_len(&self) -> usize {
        self.decoder.max_len()
    }

    /// Logits after `tokens`, `[vocab]`: what interoperability checks compare.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    pub async fn logits(&mut self, gpu: &Gpu, tokens: &[u32], adapter: Option<usize>) -> Result<Vec<f32>> {
        self.decoder.begin(gpu, &self.store, tokens.len())?;
        self.decoder.push(gpu, &self.store, tokens, adapter).await
    }
}
