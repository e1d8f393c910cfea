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
}

impl Progress {
    /// What is due after `step` of `total` steps. `held_out` says whether there is anything to evaluate on.
    pub fn due(config: &TrainConfig, step: u64, total: u64, held_out: bool) -> Due {
        let every = |n: u64| n > 0 && step.is_multiple_of(n);
        let finished = step >= total;
        Due { evaluate: held_out && (finished || every(config.eval_every)), checkpoint: finished || every(config.save_every), finished }
    }

    /// Takes note of a held-out loss. A loss that is not finite is never the best one.
    pub fn evaluated(&mut self, config: &TrainConfig, step: u64, loss: f64) -> Verdict {
        let best = loss.is_finite() && self.best.is_none_or(|best| loss < best.loss);
        if best {
            *self = Self { best: Some(Best { step, loss }), stale: 0 };
            return Verdict { best, stop: None };
        }
        self.stale += 1;
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
