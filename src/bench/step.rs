//! A whole optimizer step, as a run makes it, of synthetic models and of real ones.

use std::sync::Arc;

use super::peers::{MEDIUM, Peer, SMALL};
use super::probe::Rounds;
use super::profile;
use super::record::{Record, StepRecord};
use super::setup::Bench;
use crate::adapters::{AdapterConfig, AdapterLayout, Method, Patterns, Projection, initial_buffer};
use crate::config::ModelConfig;
use crate::formats::ModelFile;
use crate::gpu::{Gpu, clock};
use crate::kernels::lowrank::Segment;
use crate::model::Recompute;
use crate::model::inputs::HostBatch;
use crate::model::stretch::stretched;
use crate::train::session::{Hyper, Planned, Session, Shape};
use crate::{Error, Result};

/// Steps before the first timed one.
const WARM_UP: usize = 2;
/// A loss that other stacks print with five decimals, after a few steps of another order of additions.
const LOSS_TOLERANCE: f64 = 2e-4;
/// Timing goes on for about this long, within the bounds of [`step_count`].
const SECONDS: f64 = 6.0;

/// What is trained: a model, and the shape of a batch.
pub struct Workload {
    name: String,
    file: ModelFile,
    batch: usize,
    seq: usize,
    recompute: Recompute,
    peer: Option<Peer>,
}

impl Workload {
    /// `batch` rows of `seq` tokens on a model.
    pub fn new(name: impl Into<String>, file: ModelFile, batch: usize, seq: usize) -> Self {
        Self { name: name.into(), file, batch, seq, recompute: Recompute::Off, peer: None }
    }

    /// The same with the blocks' activations computed again in the backward pass.
    #[must_use]
    pub fn recomputing(self) -> Self {
        Self { recompute: Recompute::Blocks, ..self }
    }

    /// "step-s": 2 layers of width 256 in f32, 1 × 128 tokens, which other stacks run too; losses are checked against theirs.
    ///
    /// # Errors
    /// None in a whole build.
    pub async fn small() -> Result<Self> {
        Self::of_peer(SMALL).await
    }

    /// "step-m": the same at about the size of SmolLM2-135M, 30 layers of width 576.
    ///
    /// # Errors
    /// None in a whole build.
    pub async fn medium() -> Result<Self> {
        Self::of_peer(MEDIUM).await
    }

    async fn of_peer(peer: Peer) -> Result<Self> {
        Ok(Self { name: peer.name.into(), file: peer.open().await?, batch: 1, seq: 128, recompute: Recompute::Off, peer: Some(peer) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn model(&self) -> &ModelConfig {
        &self.file.config
    }

    pub(super) fn file(&self) -> &ModelFile {
        &self.file
    }

    pub(super) fn seq(&self) -> usize {
        self.seq
    }

    pub(super) fn rows(&self) -> usize {
        self.batch * self.seq
    }

    /// Token i is `37 i` modulo the vocabulary, and every row predicts the next one; rows of the batch are documents of their own.
    fn tokens(&self) -> HostBatch {
        let (rows, vocab) = (self.rows(), self.file.config.vocab_size);
        let token = |i: usize| (i * 37 % vocab) as u32;
        let tokens: Vec<u32> = (0..rows).map(token).collect();
        let targets: Vec<i32> = (1..=rows).map(|i| token(i) as i32).collect();
        let starts: Vec<u32> = (0..rows).map(|i| (i / self.seq * self.seq) as u32).collect();
        let positions: Vec<u32> = (0..rows).map(|i| (i % self.seq) as u32).collect();
        HostBatch::new(&tokens, &targets, &starts, &positions, 1.0 / rows as f32)
    }

    /// From now on one row of so many tokens, with recompute and the model's angles stretched where it is longer than the context.
    pub(super) fn take_one_row(&mut self, tokens: usize) -> Result<()> {
        (self.batch, self.seq, self.recompute) = (1, tokens, Recompute::Blocks);
        if tokens > self.file.config.context_length() {
            self.file.config = stretched(&self.file.config, tokens, None)?;
        }
        Ok(())
    }

    pub(super) fn values(&self, layout: &AdapterLayout) -> Vec<f32> {
        self.peer.map_or_else(|| initial_buffer(&layout.params, 0), |peer| peer.adapter(layout))
    }

    /// Compares the first losses with those of other stacks; `false` where there are none.
    fn check(&self, losses: &[f64]) -> Result<bool> {
        let expected = self.peer.as_ref().map_or(&[][..], |peer| &peer.losses[..]);
        for (step, (got, wanted)) in losses.iter().zip(expected).enumerate() {
            if (got - wanted).abs().partial_cmp(&LOSS_TOLERANCE).is_none_or(|o| o.is_gt()) {
                let message = format!("the loss before step {step} is {got} where {wanted} was expected");
                return Err(Error::Gpu { what: format!("the training steps of {}", self.name), message });
            }
        }
        Ok(!expected.is_empty())
    }
}

/// LoRA of this rank, alpha 16, all seven projections, no dropout.
pub(super) fn layout(model: &ModelConfig, rank: usize) -> Result<AdapterLayout> {
    let method = "lora".to_owned();
    let options = Method::by_name(&method)?.options(std::iter::empty(), &[])?;
    let targets = Projection::ALL.map(|p| p.short_name().to_owned()).to_vec();
    let (rank_pattern, alpha_pattern) = (Patterns::default(), Patterns::default());
    let (train_norms, train_embeddings, tokens) = (false, false, Arc::default());
    let (alpha, dropout) = (16.0, 0.0);
    AdapterConfig { method, rank, alpha, targets, rank_pattern, alpha_pattern, dropout, train_norms, train_embeddings, tokens, options }
        .layout(model)
}

/// Timed steps, given the time of one.
fn step_count(quick: bool, seconds: f64) -> usize {
    let least = if quick { 3 } else { 5 };
    ((SECONDS / seconds.max(1e-6)) as usize).clamp(least, if quick { 10 } else { 25 })
}

/// A workload on the device.
pub(super) struct Running {
    pub(super) session: Session,
    batch: HostBatch,
    job: Segment,
    done: u64,
}

/// What is known once a workload is on the device.
pub(super) struct Opened {
    dispatches: (usize, usize),
    model_flops: u64,
    tune_s: f64,
    load_s: f64,
}

impl Running {
    /// Plans, tunes, loads; the adapter's values are still to be written.
    pub(super) async fn open(bench: &mut Bench<'_>, workload: &Workload, layout: &AdapterLayout) -> Result<(Self, Opened)> {
        let gpu = bench.gpu;
        let (rows, positions) = (workload.rows(), workload.seq);
        let shape = Shape { rows, positions, recompute: workload.recompute, quantize: None, training: true };
        let began = clock::now();
        let mut planned = Planned::new(&workload.file, &[layout], shape, gpu.plan_limits(), bench.tuner)?;
        if bench.options.tune {
            planned.tune(gpu, bench.tuner).await?;
        }
        let tuned = clock::now();
        let (dispatches, model_flops) = (planned.dispatches(), planned.model_flops_per_token() * rows as u64);
        let session = planned.realize(gpu, &workload.file, |_, _| ()).await?;
        gpu.flush().await?;
        let (tune_s, load_s) = ((tuned - began).as_secs_f64(), (clock::now() - tuned).as_secs_f64());
        let running = Self { session, batch: workload.tokens(), job: Segment::new(0..rows), done: 0 };
        Ok((running, Opened { dispatches, model_flops, tune_s, load_s }))
    }

    /// From now on attention is full, or in shifted groups of so many rows.
    pub(super) fn group_by(&mut self, rows: Option<usize>) {
        self.batch.documents.iter_mut().for_each(|document| document.group = rows.map(|rows| rows as u32));
    }

    /// One optimizer step; returns its time in seconds and the loss before it.
    pub(super) async fn step(&mut self, gpu: &Gpu) -> Result<(f64, f64)> {
        let began = clock::now();
        let losses = self.session.accumulate(gpu, &self.batch, &[self.job]).await?;
        self.done += 1;
        let hyper = Hyper { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01, clip: 0.0, step: self.done };
        self.session.update(gpu, &[(0, hyper)]).await?;
        let loss = losses.iter().map(|l| f64::from(*l)).sum::<f64>() / losses.len().max(1) as f64;
        Ok(((clock::now() - began).as_secs_f64(), loss))
    }
}

pub(super) async fn run(bench: &mut Bench<'_>, workload: Workload) -> Result<()> {
    let layout = layout(&workload.file.config, 8)?;
    let (mut running, opened) = Running::open(bench, &workload, &layout).await?;
    running.session.write_values(bench.gpu, 0, &workload.values(&layout))?;
    let Opened { dispatches: (dispatches, update_dispatches), model_flops, tune_s, load_s } = opened;
    let (first_step_s, mut losses, rounds) = rounds(bench, &mut running).await?;
    losses.truncate(4);
    let losses_checked = workload.check(&losses)?;
    let measured = Rounds::of(&rounds, model_flops);
    let (micro, update) = running.session.submits();
    (bench.report)(&Record::Step(StepRecord {
        config: workload.name.clone(),
        tokens: workload.rows(),
        ms: measured.seconds * 1e3,
        min_ms: measured.min * 1e3,
        max_ms: measured.max * 1e3,
        steps: rounds.len(),
        tokens_per_s: workload.rows() as f64 / measured.seconds,
        model_gflop: model_flops as f64 / 1e9,
        of_peak: measured.of_peak,
        peak_gflops: measured.peak / 1e9,
        dispatches,
        update_dispatches,
        submits: micro + update,
        planned_bytes: running.session.footprint().total(),
        allocated_bytes: running.session.allocated_bytes(),
        tune_s,
        load_s,
        first_step_s,
        losses,
        losses_checked,
    }))?;
    if bench.options.profile {
        let timings = running.session.profile(bench.gpu).await?;
        profile::tell(bench, &workload.name, &timings)?;
    }
    Ok(())
}

/// The first step's seconds, all losses, and (seconds, peak rate) of every timed step.
async fn rounds(bench: &mut Bench<'_>, running: &mut Running) -> Result<(f64, Vec<f64>, Vec<(f64, f64)>)> {
    let (first, loss) = running.step(bench.gpu).await?;
    let mut losses = vec![loss];
    let mut last = first;
    for _ in 1..WARM_UP {
        let (seconds, loss) = running.step(bench.gpu).await?;
        losses.push(loss);
        last = seconds;
    }
    let mut rounds = Vec::new();
    for _ in 0..step_count(bench.options.quick, last) {
        let rate = bench.peak.rate(bench.gpu).await?;
        let (seconds, loss) = running.step(bench.gpu).await?;
        losses.push(loss);
        rounds.push((seconds, rate));
    }
    Ok((first, losses, rounds))
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn wrong_losses_are_noticed() {
        let workload = pollster::block_on(Workload::small()).expect("made");
        assert!(workload.check(&SMALL.losses).expect("right"));
        for (step, wrong) in [(0, 6.9300), (3, f64::NAN)] {
            let mut losses = SMALL.losses;
            losses[step] = wrong;
            let error = workload.check(&losses).expect_err("wrong").to_string();
            assert!(error.contains(&format!("before step {step}")), "{error}");
        }
    }
}
