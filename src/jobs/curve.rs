//! What early stopping looks at: a job's held-out losses, and its training losses at the beginning and of late.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::exact;

/// Most training losses that are remembered at each end.
pub(super) const WINDOW: usize = 256;

/// A held-out loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Optimizer steps before it.
    pub step: u64,
    /// Tokens trained before it.
    pub tokens: u64,
    /// Mean loss in nats.
    #[serde(with = "exact::number")]
    pub loss: f64,
}

/// What rungs and grace periods are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Optimizer steps.
    Steps,
    /// Tokens that went through the model.
    Tokens,
}

impl Evaluation {
    pub(super) fn spent(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Steps => self.step,
            Unit::Tokens => self.tokens,
        }
    }
}

/// The losses of one job. Only finite numbers get in.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Curve {
    evaluations: Vec<Evaluation>,
    #[serde(with = "exact::list")]
    first: Vec<f64>,
    #[serde(with = "exact::list")]
    last: VecDeque<f64>,
    steps: u64,
}

impl Curve {
    /// Takes note of an optimizer step's training loss; `keep` are remembered at each end.
    pub fn stepped(&mut self, loss: f64, keep: usize) {
        self.steps += 1;
        if self.first.len() < keep {
            self.first.push(loss);
        }
        self.last.push_back(loss);
        if self.last.len() > keep {
            self.last.pop_front();
        }
    }

    /// Takes note of a held-out loss; a second one at the same step replaces the first.
    pub fn evaluated(&mut self, evaluation: Evaluation) {
        if self.evaluations.last().is_some_and(|last| last.step == evaluation.step) {
            self.evaluations.pop();
        }
        self.evaluations.push(evaluation);
    }

    /// All held-out losses.
    pub fn evaluations(&self) -> &[Evaluation] {
        &self.evaluations
    }

    /// Optimizer steps with a training loss.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// The lowest held-out loss.
    pub fn best(&self) -> Option<Evaluation> {
        self.evaluations.iter().copied().reduce(|best, next| if next.loss < best.loss { next } else { best })
    }

    /// The last training loss.
    pub fn last_loss(&self) -> Option<f64> {
        self.last.back().copied()
    }

    /// The first held-out loss at or after `at`.
    pub(super) fn at(&self, at: u64, unit: Unit) -> Option<f64> {
        self.evaluations.iter().find(|e| e.spent(unit) >= at).map(|e| e.loss)
    }

    /// The mean of the held-out losses up to `until`.
    pub(super) fn running_mean(&self, until: u64, unit: Unit) -> Option<f64> {
        let losses: Vec<f64> = self.evaluations.iter().take_while(|e| e.spent(unit) <= until).map(|e| e.loss).collect();
        (!losses.is_empty()).then(|| mean(&losses))
    }

    /// Mean training losses of the first `n` steps and of the last `n`, once there are `2 n` steps.
    pub(super) fn ends(&self, n: usize) -> Option<(f64, f64)> {
        let enough = self.steps >= 2 * n as u64 && self.first.len() >= n && self.last.len() >= n;
        let late = || self.last.iter().skip(self.last.len() - n).sum::<f64>() / n as f64;
        enough.then(|| (mean(&self.first[..n]), late()))
    }
}

fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}

/// The middle of some numbers, or the mean of the two in the middle; `None` of none.
pub(super) fn median(numbers: &mut [f64]) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let half = numbers.len() / 2;
    match numbers.len() {
        0 => None,
        n if n.is_multiple_of(2) => Some((numbers[half - 1] + numbers[half]) / 2.0),
        _ => Some(numbers[half]),
    }
}
