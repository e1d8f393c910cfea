//! Where a chain stands, when its next knot is due, and the learning rate of every step.

use serde::{Deserialize, Serialize};

use super::length::link_ends;
use crate::adapters::ChainConfig;
use crate::adapters::chain::{KnotOptimizer, LinkSchedule};
use crate::export::chain::Link;
use crate::model::inputs::HostBatch;
use crate::text::Example;
use crate::train::batch::Packer;
use crate::train::config::TrainConfig;
use crate::train::host_batch::host_batch;
use crate::train::schedule::{Schedule, risen};
use crate::{Error, Result};

/// What a checkpoint holds of a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainState {
    /// Which of the chain's own links trains, from 0.
    pub stage: usize,
    /// The run's step after which it began.
    pub begun: u64,
    /// The run's step after which each link ends at the latest.
    pub ends: Vec<u64>,
    /// The gap of the first measurement.
    pub first_gap: Option<f64>,
    /// Lowest held-out loss of this link.
    pub best: Option<f64>,
    /// Evaluations since then.
    pub stale: u64,
    /// The frozen links, oldest first: inherited ones, then the chain's own.
    pub links: Vec<Link>,
}

/// A chain in training.
pub struct ChainRun {
    /// What it is made of.
    pub config: ChainConfig,
    /// Where it stands.
    pub state: ChainState,
    /// The batch on which knots are measured: the first of the run.
    pub batch: HostBatch,
}

impl ChainRun {
    /// Begins a chain's first link, where the run of `total` steps that `config` describes is one.
    ///
    /// # Errors
    /// A chain that does not fit the run's length.
    pub(in crate::train) fn begin(config: &TrainConfig, packer: &Packer, data: &[Example], total: u64) -> Result<Option<Self>> {
        let Some(chain) = config.adapter.chain()? else { return Ok(None) };
        let batch = packer.clone().next_batch(data);
        let ends = link_ends(&chain, total, packer, config.grad_accum as u64)?;
        // Until somebody says more, inherited links are known by their ranks only.
        let unknown = |&rank: &usize| Link { rank, ranks: Default::default(), alpha: 2.0 * rank as f64, rslora: false, steps: 0 };
        let links = chain.inherited.iter().map(unknown).collect();
        let state = ChainState { stage: 0, begun: 0, ends, first_gap: None, best: None, stale: 0, links };
        let host = host_batch(&batch, 1.0 / batch.n_targets.max(1) as f32).grouped(config.context.group(config.seq)?);
        Ok(Some(Self { config: chain, state, batch: host }))
    }

    /// All links that there are after `step`, oldest first: the frozen ones and the one that trains.
    pub fn links(&self, step: u64) -> Vec<Link> {
        self.state.links.iter().cloned().chain([self.present_link(step)]).collect()
    }

    /// The link that trains, as `chain.json` has it after `step`.
    pub(super) fn present_link(&self, step: u64) -> Link {
        let stage = if self.config.restart_only { 0 } else { self.state.stage };
        let begun = if self.config.restart_only { 0 } else { self.state.begun };
        let link = self.config.links[stage];
        Link { rank: link.rank, ranks: Default::default(), alpha: link.alpha, rslora: self.config.rslora, steps: step - begun }
    }

    /// Says what the frozen links are that a new run goes on from, oldest first.
    ///
    /// # Errors
    /// When the run's `inherited-ranks` are of other links.
    pub fn inherit(&mut self, links: Vec<Link>) -> Result<()> {
        if links.len() != self.config.inherited.len() {
            let problem = format!("has room for {} links, {} were brought along", self.config.inherited.len(), links.len());
            return Err(Error::config("inherited-ranks", problem, "leave it out: --init-adapter sets it"));
        }
        self.state.links = links;
        Ok(())
    }

    /// Whether a link comes after the one that trains.
    pub fn has_next(&self) -> bool {
        self.state.stage + 1 < self.config.links.len()
    }

    /// Why the link should end after `step`, from what is known without measuring.
    pub fn due(&self, step: u64) -> Option<String> {
        let state = &self.state;
        if !self.has_next() || step <= state.begun {
            return None;
        }
        let end = state.ends[state.stage];
        if step >= end {
            return Some(format!("step {end} was its last"));
        }
        let patience = self.config.patience;
        (patience > 0 && state.stale >= patience)
            .then(|| format!("the held-out loss has not fallen below {:.4} in {} evaluations", state.best.unwrap_or(f64::NAN), state.stale))
    }

    /// Takes note of a held-out loss.
    pub fn evaluated(&mut self, loss: f64) {
        if loss.is_finite() && self.state.best.is_none_or(|best| loss < best) {
            (self.state.best, self.state.stale) = (Some(loss), 0);
        } else {
            self.state.stale = self.state.stale.saturating_add(1);
        }
    }

    /// AdamW's step, from 1, at the run's step `number`, from 1.
    pub fn optimizer_step(&self, number: u64) -> u64 {
        if self.config.optimizer == KnotOptimizer::Reset { number - self.state.begun } else { number }
    }

    /// The learning rate of the run's step `step`, from 0. `schedule` is that of the whole run.
    pub fn lr(&self, config: &TrainConfig, schedule: &Schedule, step: u64) -> f64 {
        let state = &self.state;
        let lr = self.config.links[state.stage].lr.unwrap_or(config.lr);
        let whole = Schedule { lr, ..*schedule };
        let since = step - state.begun;
        match self.config.schedule {
            LinkSchedule::Global => whole.lr(step),
            LinkSchedule::Jagged { warmup } if state.stage > 0 && since < warmup => {
                whole.lr(state.begun.saturating_add(warmup)) * risen(since, warmup)
            }
            LinkSchedule::Jagged { .. } => whole.lr(step),
            LinkSchedule::Link => {
                let end = if self.has_next() { state.ends[state.stage] } else { schedule.total };
                let total = end.saturating_sub(state.begun);
                Schedule { lr, warmup: config.warmup.steps(total), total, ..*schedule }.lr(since)
            }
        }
    }
}
