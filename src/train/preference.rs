//! Preference training: direct preference optimisation (DPO, Rafailov et al. 2023) over rows with a chosen and a rejected answer. The adapter's rows
//! and those of the reference are one fused batch: the reference's are nobody's, or those of the links that the chain began with, so nothing of them trains.

use serde::{Deserialize, Serialize};

use super::batch::Batch;
use crate::adapters::AdapterConfig;
use crate::kernels::preference::{Pair, loss_twin};
use crate::settings::Settings;
use crate::text::Example;
use crate::{Error, Result};

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// The loss of the trained tokens.
    CrossEntropy,
    /// DPO's loss of pairs.
    Dpo,
}

/// Names of losses, the default first.
const LOSSES: &[(&str, Loss)] = &[("cross-entropy", Loss::CrossEntropy), ("dpo", Loss::Dpo)];

/// What an answer's likelihood is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferenceModel {
    /// The base without any adapter.
    Base,
    /// The base with the links that the chain goes on from.
    Start,
}

const REFERENCES: &[(&str, ReferenceModel)] = &[("base", ReferenceModel::Base), ("start", ReferenceModel::Start)];

/// The settings of DPO. Serialises with the keys of run files.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Dpo {
    loss: Loss,
    /// How much an answer's likelihood may move away from the reference's: β. Default 0.1.
    #[serde(rename = "dpo-beta")]
    pub beta: f64,
    /// Share of pairs whose answers are taken to be the wrong way round: conservative DPO's ε. Default 0.
    #[serde(rename = "dpo-label-smoothing")]
    pub smoothing: f64,
    /// What answers are held to. Default the base.
    #[serde(rename = "dpo-reference")]
    pub reference: ReferenceModel,
}

impl Dpo {
    /// Reads the settings; `None` for the loss of tokens.
    ///
    /// # Errors
    /// An unknown loss, a β that is not positive, settings of DPO without it.
    pub fn read(s: &mut Settings<'_>) -> Result<Option<Self>> {
        let loss = s.choice("loss", Loss::CrossEntropy, LOSSES)?;
        let given = ["dpo-beta", "dpo-label-smoothing", "dpo-reference"].into_iter().find(|key| s.peek(key).is_some());
        let beta = s.number("dpo-beta", 0.1, "a positive number, such as 0.1", |x| x > 0.0)?;
        let smoothing = s.number("dpo-label-smoothing", 0.0, "a share below 0.5", |x| (0.0..0.5).contains(&x))?;
        let reference = s.choice("dpo-reference", ReferenceModel::Base, REFERENCES)?;
        match (loss, given) {
            (Loss::CrossEntropy, Some(key)) => Err(Error::config(key, "given without DPO", "give --loss dpo, too, or leave it out")),
            (Loss::CrossEntropy, None) => Ok(None),
            (Loss::Dpo, _) => Ok(Some(Self { loss, beta, smoothing, reference })),
        }
    }

    /// How many links of the chain of `config` the reference has.
    ///
    /// # Errors
    /// When the run is to be held to an adapter that it does not keep apart.
    pub fn reference_links(&self, config: &AdapterConfig) -> Result<usize> {
        if self.reference == ReferenceModel::Base {
            return Ok(0);
        }
        let wrong = |problem: &str, hint: &'static str| Err(Error::config("dpo-reference", problem.to_owned(), hint));
        let links = config.chain()?.map_or(0, |chain| chain.inherited.len());
        match (links, config.train_norms || config.train_embeddings) {
            (0, _) => wrong(
                "is start, but the run goes on from no links",
                "give --method cola --init-adapter DIR: DIR stays frozen, a new link trains",
            ),
            (_, true) => wrong("is start, but norms or embeddings train in place", "leave those out, or hold the run to the base"),
            (links, false) => Ok(links),
        }
    }

    /// The score of a pair from minus the log-likelihoods of its answers, `[chosen, rejected]`.
    pub fn score(&self, policy: [f64; 2], reference: [f64; 2]) -> PairScore {
        let (loss, _) = loss_twin(self.beta, self.smoothing, policy, reference);
        PairScore { loss, chosen: self.beta * (reference[0] - policy[0]), rejected: self.beta * (reference[1] - policy[1]) }
    }

    /// The table of a batch's pairs, whose first target has the number `first`; each counts `share`.
    pub(super) fn table(&self, batch: &Batch, first: usize, share: f32) -> impl Iterator<Item = Pair> {
        let (beta, smoothing) = (self.beta as f32, self.smoothing as f32);
        let (mut chosen, reference) = (first as u32, (batch.n_targets / 2) as u32);
        batch.pairs.iter().map(move |[of_chosen, of_rejected]| {
            let rejected = chosen + *of_chosen as u32;
            let pair = Pair { chosen, rejected, end: rejected + *of_rejected as u32, reference, beta, smoothing, share, unused: 0 };
            chosen = pair.end;
            pair
        })
    }

    /// The scores of a batch's pairs from the losses of its targets, in order.
    pub(super) fn scores(&self, batch: &Batch, losses: &[f32]) -> Vec<PairScore> {
        let sum = |first: usize, count: usize| losses.iter().skip(first).take(count).map(|loss| f64::from(*loss)).sum::<f64>();
        let (mut first, reference) = (0, batch.n_targets / 2);
        let mut scores = Vec::with_capacity(batch.pairs.len());
        for [chosen, rejected] in &batch.pairs {
            let both = |at: usize| [sum(at, *chosen), sum(at + chosen, *rejected)];
            scores.push(self.score(both(first), both(first + reference)));
            first += chosen + rejected;
        }
        scores
    }
}

/// What one pair scored.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PairScore {
    /// Its loss.
    pub loss: f64,
    /// The chosen answer's reward: β times what its log-likelihood gained on the reference's.
    pub chosen: f64,
    /// The same of the rejected answer.
    pub rejected: f64,
}

/// How pairs did, with the names of TRL's `rewards/…`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PreferenceReport {
    /// Share of pairs whose chosen answer has the higher reward.
    pub accuracy: f64,
    /// Mean of the chosen answer's reward minus the rejected one's.
    pub margin: f64,
    /// Mean reward of chosen answers.
    pub chosen: f64,
    /// Mean reward of rejected answers.
    pub rejected: f64,
}

/// Sums over pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PreferenceSums {
    pairs: usize,
    right: usize,
    chosen: f64,
    rejected: f64,
}

impl PreferenceSums {
    /// Adds a pair.
    pub fn add(&mut self, score: &PairScore) {
        self.pairs += 1;
        self.right += usize::from(score.chosen > score.rejected);
        self.chosen += score.chosen;
        self.rejected += score.rejected;
    }

    /// The means.
    pub fn report(&self) -> PreferenceReport {
        let mean = |sum: f64| sum / self.pairs.max(1) as f64;
        let (chosen, rejected) = (mean(self.chosen), mean(self.rejected));
        PreferenceReport { accuracy: mean(self.right as f64), margin: chosen - rejected, chosen, rejected }
    }
}

/// Refuses rows that do not suit what is minimised.
///
/// # Errors
/// Pairs without DPO, DPO without pairs.
pub(super) fn check_rows<'e>(dpo: Option<&Dpo>, mut rows: impl Iterator<Item = &'e Example>) -> Result<()> {
    let wrong = rows.find(|row| row.rejected.is_some() != dpo.is_some());
    match (wrong, dpo) {
        (None, _) => Ok(()),
        (Some(row), None) => {
            let problem = format!("row {} has a chosen and a rejected answer, which the loss of tokens cannot weigh", row.row);
            Err(Error::config("loss", problem, "give --loss dpo"))
        }
        (Some(row), Some(_)) => {
            let problem = format!("is dpo but row {} has no pair of answers", row.row);
            Err(Error::config("loss", problem, "give rows with prompt, chosen and rejected, or leave out --loss"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_is_dpos_and_its_gradient_is_the_slope() {
        let dpo = Dpo { loss: Loss::Dpo, beta: 0.25, smoothing: 0.1, reference: ReferenceModel::Base };
        let (policy, reference) = ([7.0, 9.5], [8.0, 9.0]);
        let score = dpo.score(policy, reference);
        let h: f64 = 0.25 * ((8.0 - 7.0) - (9.0 - 9.5));
        let expected = -0.9 * (1.0 / (1.0 + (-h).exp())).ln() - 0.1 * (1.0 / (1.0 + h.exp())).ln();
        assert!((score.loss - expected).abs() < 1e-12, "{} is not {expected}", score.loss);
        assert_eq!((score.chosen, score.rejected), (0.25, -0.125));
        let (_, slope) = loss_twin(dpo.beta, dpo.smoothing, policy, reference);
        for (which, sign) in [(0, 1.0), (1, -1.0)] {
            let at = |step: f64| {
                let mut moved = policy;
                moved[which] += step;
                dpo.score(moved, reference).loss
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((numeric - sign * slope).abs() < 1e-9, "{numeric} is not {slope}");
            assert!((numeric + sign * slope).abs() > 1e-3, "a wrong sign would pass");
        }
        // Far away nothing overflows.
        let far = dpo.score([1e6, 0.0], [0.0, 0.0]);
        assert!(far.loss.is_finite() && far.loss > 1e4);
    }

    #[test]
    fn a_batchs_pairs_are_scored_by_their_own_targets() {
        let answer = |tokens: &[u32], row: usize| Example {
            tokens: tokens.to_vec(),
            targets: (0..tokens.len()).map(|i| i > 0).collect(),
            row,
            rejected: None,
        };
        let pair =
            |chosen: &[u32], rejected: &[u32], row| Example { rejected: Some(Box::new(answer(rejected, row))), ..answer(chosen, row) };
        let examples = [pair(&[1, 2, 3], &[1, 9], 1), pair(&[4, 5], &[4, 6, 7], 2)];
        let batch = Batch::pack(vec![0, 1], &examples, 24);
        assert_eq!((batch.n_tokens, batch.policy_rows(), batch.n_targets, batch.n_losses()), (20, 10, 12, 2));
        assert_eq!(batch.pairs, [[2, 1], [1, 2]]);
        assert_eq!(batch.tokens[..20], [1, 2, 3, 1, 9, 4, 5, 4, 6, 7, 1, 2, 3, 1, 9, 4, 5, 4, 6, 7]);
        assert_eq!(batch.doc_start[10..20], [10, 10, 10, 13, 13, 15, 15, 17, 17, 17]);
        let dpo = Dpo { loss: Loss::Dpo, beta: 1.0, smoothing: 0.0, reference: ReferenceModel::Base };
        // Losses by their number: policy 0 to 5, reference 6 to 11.
        let losses: Vec<f32> = (0..12).map(|i| (i * i) as f32).collect();
        let scores = dpo.scores(&batch, &losses);
        assert_eq!((scores[0].chosen, scores[0].rejected), (36.0 + 49.0 - 1.0, 64.0 - 4.0));
        assert_eq!((scores[1].chosen, scores[1].rejected), (81.0 - 9.0, 100.0 + 121.0 - 16.0 - 25.0));
        let table: Vec<Pair> = dpo.table(&batch, 100, 0.5).collect();
        assert_eq!(
            table.iter().map(|p| [p.chosen, p.rejected, p.end, p.reference]).collect::<Vec<_>>(),
            [[100, 102, 103, 6], [103, 104, 106, 6]]
        );
        let refused = |dpo: Option<&Dpo>, rows: &[Example]| check_rows(dpo, rows.iter()).map_err(|e| e.to_string());
        assert!(refused(None, &examples).expect_err("refused").contains("--loss dpo"));
        assert!(refused(Some(&dpo), &[answer(&[1, 2], 7)]).expect_err("refused").contains("row 7"));
        assert_eq!(refused(Some(&dpo), &examples), Ok(()));
    }
}
