//! Where a chain stands, when its next knot is due, and the learning rate of every step.

use serde::{Deserialize, Serialize};

use crate::adapters::ChainConfig;
use crate::adapters::chain::{Ends, KnotOptimizer, LinkSchedule};
use crate::export::chain::Link;
use crate::model::inputs::HostBatch;
use crate::train::batch::Packer;
use crate::train::config::TrainConfig;
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

/// Sets the run's length where the links' lengths give it.
///
/// # Errors
/// When both are given and differ, and when a knot is not before the last step.
pub fn check_steps(config: &mut TrainConfig, given: (bool, bool)) -> Result<()> {
    let Some(chain) = config.adapter.chain()? else { return Ok(()) };
    let (steps_given, epochs_given) = given;
    match &chain.ends {
        Ends::Steps(list) | Ends::Epochs(list) => {
            let epochs = matches!(chain.ends, Ends::Epochs(_));
            let sum = list.iter().try_fold(0u64, |sum, &n| sum.checked_add(n)).unwrap_or(u64::MAX);
            let (same, other, value) = if epochs { ("epochs", "steps", config.epochs) } else { ("steps", "epochs", config.steps) };
            let (same_given, other_given) = if epochs { (epochs_given, steps_given) } else { (steps_given, epochs_given) };
            if other_given || same_given && value != Some(sum) {
                let what = if other_given { other } else { same };
                return Err(Error::config(what, format!("`{}` adds up to {sum} {same}", chain.ends.key()), format!("leave out --{what}")));
            }
            (config.steps, config.epochs) = if epochs { (None, Some(sum)) } else { (Some(sum), None) };
        }
        Ends::Knots(list) => {
            check_knots(list)?;
            if let (Some(steps), Some(&last)) = (config.steps, list.last()) {
                check_last(last, steps)?;
            }
        }
        Ends::Equal => {}
    }
    if (chain.patience > 0 || chain.gap > 0.0) && config.eval_every == 0 {
        let key = if chain.patience > 0 { "knot-patience" } else { "knot-gap" };
        return Err(Error::config(key, "is looked at every `eval-every` steps, which is 0", "give --eval-every, too"));
    }
    Ok(())
}

fn check_knots(knots: &[u64]) -> Result<()> {
    match knots.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(Error::config("knots", format!("{} comes before {}", pair[0], pair[1]), "give steps in rising order")),
        None => Ok(()),
    }
}

fn check_last(last: u64, total: u64) -> Result<()> {
    if last < total {
        return Ok(());
    }
    let problem = format!("a knot after step {last} leaves no step for the next link: the run has {total}");
    Err(Error::config("knots", problem, "give smaller knots or more --steps"))
}

/// The run's step after which each link of `chain` ends at the latest; the last one is `total`.
///
/// # Errors
/// When a link would have no step.
pub fn link_ends(chain: &ChainConfig, total: u64, packer: &Packer, grad_accum: u64) -> Result<Vec<u64>> {
    let links = chain.links.len();
    let cumulative = |list: &[u64]| -> Vec<u64> {
        let mut sum = 0u64;
        list.iter()
            .map(|&n| {
                sum = sum.saturating_add(n);
                sum
            })
            .collect()
    };
    let ends = match &chain.ends {
        Ends::Knots(list) => {
            check_knots(list)?;
            check_last(list.last().copied().unwrap_or(0), total)?;
            list.iter().copied().chain([total]).collect()
        }
        Ends::Steps(list) => cumulative(list),
        Ends::Epochs(list) => {
            let end = |epochs| packer.steps_in(epochs).map(|steps| steps.div_ceil(grad_accum));
            cumulative(list).into_iter().map(end).collect::<Result<_>>()?
        }
        Ends::Equal => (1..=links as u128).map(|j| (u128::from(total) * j / links as u128) as u64).collect(),
    };
    let begins = std::iter::once(0).chain(ends.iter().copied());
    if let Some((begin, _)) = begins.zip(&ends).find(|(begin, end)| begin >= *end) {
        let problem = format!("{links} links in {total} steps: a link that begins after step {begin} has none");
        return Err(Error::config(chain.ends.key(), problem, "use fewer links or more steps"));
    }
    Ok(ends)
}

impl ChainRun {
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
