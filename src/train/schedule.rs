//! Learning-rate schedules: those of Hugging Face's `get_{constant,linear,cosine}_schedule_with_warmup`, but for the first step.
//!
//! With s the optimizer step from 0, w the warm-up and n all steps, the rate is lr times `(s + 1) / (w + 1)` while `s < w`, then 1 (constant),
//! `(n - s) / (n - w)` (linear) or `(1 + cos(pi (s - w) / (n - w))) / 2` (cosine). Hugging Face's rises by `s / w`, whose first step trains
//! nothing: of a run of few steps that is much, of a run of one it is all. With a warm-up ours is theirs for w + 1 and n + 1, one step on.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::adapters::patterns::json_number;
use crate::{Error, Result};

/// What the rate does after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It stays.
    Constant,
    /// It falls on a line to zero at the end.
    #[default]
    Linear,
    /// It falls on half a cosine to zero at the end.
    Cosine,
}

impl Decay {
    /// The names of run files.
    pub const TABLE: &[(&str, Decay)] = &[("constant", Self::Constant), ("linear", Self::Linear), ("cosine", Self::Cosine)];
}

/// Length of the warm-up: a share of all steps when below 1, else whole steps. Serialises as that number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warmup(f64);

impl Warmup {
    /// Reads `0.1` or `20`.
    ///
    /// # Errors
    /// When the value is negative, not finite, or 1 or more and not whole.
    pub fn from_json(value: &Value) -> Result<Self> {
        match value.as_f64() {
            Some(x) if (0.0..1.0).contains(&x) || ((1.0..1e15).contains(&x) && x.fract() == 0.0) => Ok(Self(x)),
            _ => Err(Error::config("warmup", format!("is {value}"), "give a number of steps, or a share of all steps below 1")),
        }
    }

    /// Steps of warm-up in a run of `total` steps; a share is rounded up.
    pub fn steps(self, total: u64) -> u64 {
        if self.0 < 1.0 { (self.0 * total as f64).ceil() as u64 } else { self.0 as u64 }
    }
}

impl Default for Warmup {
    /// Three steps in a hundred.
    fn default() -> Self {
        Self(0.03)
    }
}

impl Serialize for Warmup {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        json_number(self.0).serialize(serializer)
    }
}

/// The share of the rate at step `step`, from 0, of `warmup` steps of warm-up: never 0, and 1 at the step after them.
pub(super) fn risen(step: u64, warmup: u64) -> f64 {
    (step as f64 + 1.0) / (warmup as f64 + 1.0)
}

/// The learning rate of every step of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Peak rate.
    pub lr: f64,
    /// What comes after the warm-up.
    pub decay: Decay,
    /// Steps of warm-up.
    pub warmup: u64,
    /// All steps.
    pub total: u64,
}

impl Schedule {
    /// The rate of optimizer step `step`, from 0; past the end it is what it was at the end.
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.lr * risen(step, self.warmup);
        }
        let rest = self.total.saturating_sub(self.warmup).max(1) as f64;
        self.lr
            * match self.decay {
                Decay::Constant => 1.0,
                Decay::Linear => self.total.saturating_sub(step) as f64 / rest,
                Decay::Cosine => {
                    let done = ((step - self.warmup) as f64 / rest).min(1.0);
                    0.5 * (1.0 + (std::f64::consts::PI * done).cos())
                }
            }
    }
}
