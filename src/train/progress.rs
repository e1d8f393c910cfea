//! When a run evaluates, saves and ends. Pure decisions: the caller does what they say.

use serde::{Deserialize, Serialize};

use super::config::TrainConfig;

/// What is to be done after a step, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// Measure the held-out loss.
    pub evaluate: bool,
    /// Save the whole state.
    pub checkpoint: bool,
    /// That was the last step.
    pub finished: bool,
}

/// What a held-out loss means for the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// It is the lowest so far.
    pub best: bool,
    /// Why the run should end now.
    pub stop: Option<String>,
}

/// The lowest held-out loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After this step.
    pub step: u64,
    /// Mean loss in nats.
    pub loss: f64,
}

/// How a run is getting on; part of its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Lowest held-out loss so far.
    pub best: Option<Best>,
    /// Evaluations since then.
    pub stale: u64,
    /// Where the training loss is going; `None` before the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trend: Option<Trend>,
}

/// The training loss over the last steps, beside the lowest that it was: what tells a run that diverges from one that trains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trend {
    /// Steps looked at.
    pub steps: u64,
    /// Mean of the loss, in which each step counts 0.9 of the one after it. In f32, which survives JSON bit for bit.
    pub mean: f32,
    /// The lowest that the mean was after the first steps.
    pub lowest: f32,
}

/// Weight of a new loss in the mean.
const NEW: f32 = 0.1;
/// Steps until the mean says something, unless one loss alone lifts it by [`RISE`]: what an update at a far too high rate does.
const FIRST: u64 = 10;
/// Nats above the lowest mean from which a run diverges: far more than the noise of small batches, and on the way to the loss of guessing.
const RISE: f32 = 1.0;

impl Trend {
    /// Takes note of a step's loss.
    fn after(before: Option<Self>, loss: f32) -> Self {
        let before = before.unwrap_or(Self { steps: 0, mean: loss, lowest: loss });
        let mean = before.mean + NEW * (loss - before.mean);
        let steps = before.steps.saturating_add(1);
        let settling = steps <= FIRST && mean <= before.mean + RISE && !before.diverges();
        Self { steps, mean, lowest: if settling { mean } else { before.lowest.min(mean) } }
    }

    /// Whether the loss has risen so far that the run is better taken up from before that.
    pub fn diverges(&self) -> bool {
        self.mean > self.lowest + RISE
    }
}

impl Progress {
    /// What is due after `step` of `total` steps. `held_out` says whether there is anything to evaluate on.
    pub fn due(config: &TrainConfig, step: u64, total: u64, held_out: bool) -> Due {
        let every = |n: u64| n > 0 && step.is_multiple_of(n);
        let finished = step >= total;
        Due { evaluate: held_out && (finished || every(config.eval_every)), checkpoint: finished || every(config.save_every), finished }
    }

    /// Takes note of a training step's loss. True where it speaks for the parameters that it was computed with: what an update did shows in the very
    /// next loss, long before the mean has risen.
    pub fn stepped(&mut self, loss: f64) -> bool {
        let before = self.trend.replace(Trend::after(self.trend, loss as f32));
        !self.diverges() && before.is_none_or(|before| loss as f32 <= before.mean + RISE)
    }

    /// Whether the training loss has risen so far that the run is better taken up from before that.
    pub fn diverges(&self) -> bool {
        self.trend.is_some_and(|trend| trend.diverges())
    }

    /// Takes note of a held-out loss that something else asked for, which does not count as one without progress. True for the lowest so far.
    pub fn looked_at(&mut self, step: u64, loss: f64) -> bool {
        let best = loss.is_finite() && self.best.is_none_or(|best| loss < best.loss);
        if best {
            (self.best, self.stale) = (Some(Best { step, loss }), 0);
        }
        best
    }

    /// Takes note of a held-out loss. A loss that is not finite is never the best one.
    pub fn evaluated(&mut self, config: &TrainConfig, step: u64, loss: f64) -> Verdict {
        let best = self.looked_at(step, loss);
        if best {
            return Verdict { best, stop: None };
        }
        self.stale = self.stale.saturating_add(1);
        let stop = (config.patience > 0 && self.stale >= config.patience).then(|| match self.best {
            Some(best) => {
                format!("the held-out loss has not fallen below {:.4} (step {}) in {} evaluations", best.loss, best.step, self.stale)
            }
            None => format!("the held-out loss was not finite in {} evaluations", self.stale),
        });
        Verdict { best, stop }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Map;

    fn config(keys: &[(&str, u64)]) -> TrainConfig {
        let map: Map = keys.iter().map(|(key, n)| ((*key).to_owned(), (*n).into())).collect();
        TrainConfig::from_map(&map).expect("settings")
    }

    #[test]
    fn evaluations_and_checkpoints_fall_due() {
        let config = config(&[("eval-every", 2), ("save-every", 3), ("steps", 7)]);
        let due = |step| Progress::due(&config, step, 7, true);
        assert_eq!(due(1), Due::default());
        assert_eq!(due(2), Due { evaluate: true, ..Due::default() });
        assert_eq!(due(3), Due { checkpoint: true, ..Due::default() });
        assert_eq!(due(6), Due { evaluate: true, checkpoint: true, finished: false });
        assert_eq!(due(7), Due { evaluate: true, checkpoint: true, finished: true });
        assert!(!Progress::due(&config, 2, 7, false).evaluate);
    }

    #[test]
    fn a_rising_loss_is_told_from_a_noisy_one() {
        let ends = |losses: &mut dyn Iterator<Item = f64>| {
            let mut progress = Progress::default();
            losses
                .map(|loss| {
                    progress.stepped(loss);
                    progress.diverges()
                })
                .collect::<Vec<_>>()
        };
        let noisy = (0..500).map(|i| 2.0 - f64::from(i) / 400.0 + if i % 3 == 0 { 1.0 } else { -0.5 });
        assert!(!ends(&mut noisy.clone()).contains(&true));
        // From a fall to 1.6 up to the loss of guessing: seen within four steps, and over once the loss has come back.
        let found = ends(&mut noisy.take(100).chain([10.8; 20]).chain([1.6; 40]));
        assert_eq!(found.iter().position(|diverges| *diverges).map(|at| at / 4), Some(25));
        assert_eq!(found.last(), Some(&false));
        // A first update that destroys everything is seen at once, whatever comes after; rows of different difficulty are not that.
        assert_eq!(ends(&mut [1.0, 60.0, 60.0, 60.0].into_iter()), [false, true, true, true]);
        assert!(!ends(&mut [0.7, 7.8, 0.3, 6.0].into_iter().cycle().take(10)).contains(&true));
    }

    #[test]
    fn a_loss_speaks_for_the_parameters_that_it_was_computed_with() {
        let sound = |losses: &[f64]| {
            let mut progress = Progress::default();
            losses.iter().map(|loss| progress.stepped(*loss)).collect::<Vec<_>>()
        };
        // The first update destroyed the adapter, which the mean does not show yet.
        assert_eq!(sound(&[0.46, 8.74, 9.1]), [true, false, false]);
        assert_eq!(sound(&[2.0, 2.4, 1.9, f64::NAN]), [true, true, true, false]);
        // Rows of different difficulty: the easy ones speak for it.
        assert_eq!(sound(&[0.7, 7.8, 0.3, 6.0, 0.4]), [true, false, true, false, true]);
    }

    #[test]
    fn patience_counts_from_the_best() {
        let config = config(&[("patience", 2), ("eval-every", 1)]);
        let mut progress = Progress::default();
        let stops: Vec<bool> = [3.0, 2.0, 2.0, 1.9, f64::NAN, 1.9]
            .iter()
            .enumerate()
            .map(|(i, &loss)| progress.evaluated(&config, i as u64, loss).stop.is_some())
            .collect();
        assert_eq!(stops, [false, false, false, false, false, true]);
        assert_eq!(progress.best, Some(Best { step: 3, loss: 1.9 }));
    }

    #[test]
    fn without_patience_nothing_stops() {
        let config = config(&[]);
        let mut progress = Progress::default();
        assert!((0..100).all(|step| progress.evaluated(&config, step, f64::INFINITY).stop.is_none()));
    }
}
