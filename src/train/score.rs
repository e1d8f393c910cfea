//! Losses of rows under a session's present parameters: held-out loss, perplexity of text, choices by likelihood.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::batch::{Batch, Packer};
use super::data::TrainData;
use super::events::TaskReport;
use super::host_batch::host_batch;
use super::preference::{Dpo, PairScore};
use super::session::Session;
use crate::Result;
use crate::gpu::Gpu;
use crate::kernels::lowrank::Segment;
use crate::model::inputs::HostBatch;
use crate::text::{Example, Labelled};

/// A mean loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean loss in nats over all targets.
    pub loss: f64,
    /// Number of targets.
    pub targets: u64,
}

/// How the held-out rows of a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    /// Mean loss in nats over all targets.
    pub loss: f64,
    /// Number of targets.
    pub targets: u64,
    /// Mean loss under the run's shifted sparse attention, where that was asked for.
    pub grouped_loss: Option<f64>,
    /// Share of all labelled rows answered right, where there are any.
    pub accuracy: Option<f64>,
    /// The same by task, where there is more than one.
    pub tasks: Vec<TaskReport>,
}

impl HeldOut {
    /// The task that does worst: of the lowest accuracy where every task has one, else of the highest loss. Of equals the first.
    pub fn worst(&self) -> Option<&TaskReport> {
        let labelled = self.tasks.iter().all(|task| task.accuracy.is_some());
        let badness = |task: &TaskReport| if labelled { -task.accuracy.unwrap_or_default() } else { task.loss };
        self.tasks.iter().rev().max_by(|a, b| badness(a).total_cmp(&badness(b)))
    }
}

/// What one row scored.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Sum of the losses of its targets in nats: minus its log-likelihood.
    pub nll: f64,
    /// Number of targets.
    pub targets: usize,
}

/// How labelled rows were answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accuracy {
    /// Rows whose right choice was the likeliest.
    pub right: u64,
    /// Rows.
    pub rows: u64,
}

impl Accuracy {
    /// Rows answered right over all rows; `None` without any.
    pub fn share(self) -> Option<f64> {
        (self.rows > 0).then(|| self.right as f64 / self.rows as f64)
    }
}

/// Scores every example, in order, with the adapter of `job`, or with the base alone.
///
/// # Errors
/// An example longer than a micro-batch; a lost device.
pub async fn score(session: &mut Session, gpu: &Gpu, examples: &[Example], job: Option<usize>) -> Result<Vec<Score>> {
    score_in_groups(session, gpu, examples, job, None).await
}

/// As [`score`], with shifted sparse attention in groups of `group` rows where that is given.
///
/// # Errors
/// As [`score`].
pub async fn score_in_groups(
    session: &mut Session,
    gpu: &Gpu,
    examples: &[Example],
    job: Option<usize>,
    group: Option<u32>,
) -> Result<Vec<Score>> {
    let rows = session.rows();
    let mut packer = Packer::new(examples, rows, 0, false)?;
    let mut scores = vec![Score::default(); examples.len()];
    for _ in 0..packer.steps_in(1)? {
        let batch = packer.next_batch(examples);
        let losses = losses(session, gpu, host_batch(&batch, 0.0).grouped(group), job, (rows, u32::MAX)).await?;
        for (id, score) in batch.examples.iter().zip(by_example(&batch, examples, &losses)) {
            scores[*id as usize] = score;
        }
    }
    Ok(scores)
}

/// Losses of a batch whose first rows have the adapter of `job`, and those from `policy` on that of `reference`.
async fn losses(
    session: &mut Session,
    gpu: &Gpu,
    mut host: HostBatch,
    job: Option<usize>,
    (policy, reference): (usize, u32),
) -> Result<Vec<f32>> {
    let rows = session.rows();
    host.row_job = vec![job.map_or(u32::MAX, |j| j as u32); rows];
    host.row_job[policy..].fill(reference);
    let mut owners = vec![Segment::new(0..0); session.jobs()];
    for (number, own) in [(job, 0..policy), (Some(reference as usize), policy..rows)] {
        if let Some(owner) = number.and_then(|number| owners.get_mut(number)) {
            *owner = Segment::new(own);
        }
    }
    session.evaluate(gpu, &host, &owners).await
}

/// What the losses of a batch's targets come to by example, in the batch's order.
pub(super) fn by_example(batch: &Batch, examples: &[Example], losses: &[f32]) -> Vec<Score> {
    let mut losses = losses.iter().map(|loss| f64::from(*loss));
    let mut of = |id: &u32| {
        let targets = examples[*id as usize].n_targets();
        Score { nll: losses.by_ref().take(targets).sum(), targets }
    };
    batch.examples.iter().map(&mut of).collect()
}

/// Scores every pair of answers, in order, with the adapter of `job` against that of `reference`, or of nobody.
///
/// # Errors
/// As [`score`].
pub async fn pairs(
    session: &mut Session,
    gpu: &Gpu,
    examples: &[Example],
    job: Option<usize>,
    (dpo, reference): (&Dpo, u32),
) -> Result<Vec<PairScore>> {
    let mut packer = Packer::new(examples, session.rows(), 0, false)?;
    let mut scores = vec![PairScore::default(); examples.len()];
    for _ in 0..packer.steps_in(1)? {
        let batch = packer.next_batch(examples);
        let losses = losses(session, gpu, host_batch(&batch, 0.0), job, (batch.policy_rows(), reference)).await?;
        for (id, score) in batch.examples.iter().zip(dpo.scores(&batch, &losses)) {
            scores[*id as usize] = score;
        }
    }
    Ok(scores)
}

/// The loss of every target of one example, in order, with the adapter of `job`, or with the base alone.
///
/// # Errors
/// As [`score`].
pub async fn by_token(session: &mut Session, gpu: &Gpu, example: &Example, job: Option<usize>) -> Result<Vec<f32>> {
    let rows = session.rows();
    let mut packer = Packer::new(std::slice::from_ref(example), rows, 0, false)?;
    let host = host_batch(&packer.next_batch(std::slice::from_ref(example)), 0.0);
    let mut losses = losses(session, gpu, host, job, (rows, u32::MAX)).await?;
    losses.truncate(example.n_targets());
    Ok(losses)
}

/// Mean loss of `examples`; `None` without any.
///
/// # Errors
/// As [`score`].
pub async fn mean(session: &mut Session, gpu: &Gpu, examples: &[Example], job: Option<usize>) -> Result<Option<Evaluation>> {
    mean_in_groups(session, gpu, examples, job, None).await
}

/// As [`mean`], with shifted sparse attention in groups of `group` rows where that is given.
///
/// # Errors
/// As [`score`].
pub async fn mean_in_groups(
    session: &mut Session,
    gpu: &Gpu,
    examples: &[Example],
    job: Option<usize>,
    group: Option<u32>,
) -> Result<Option<Evaluation>> {
    if examples.is_empty() {
        return Ok(None);
    }
    Ok(Some(Evaluation::of(&score_in_groups(session, gpu, examples, job, group).await?)))
}

impl Evaluation {
    fn of(scores: &[Score]) -> Self {
        let targets: u64 = scores.iter().map(|s| s.targets as u64).sum();
        Self { loss: scores.iter().map(|s| s.nll).sum::<f64>() / targets.max(1) as f64, targets }
    }
}

/// Mean loss and accuracy of a run's held-out rows, together and by task; `None` without any. Of pairs, the loss is that of `dpo`, and those are
/// right whose chosen answer gained more on the base than the rejected one.
///
/// # Errors
/// As [`score`].
pub async fn held_out(
    session: &mut Session,
    gpu: &Gpu,
    data: &TrainData,
    job: Option<usize>,
    dpo: Option<(&Dpo, u32)>,
) -> Result<Option<HeldOut>> {
    if data.held_out.is_empty() {
        return Ok(None);
    }
    let pairs = match dpo {
        Some(dpo) => pairs(session, gpu, &data.held_out, job, dpo).await?,
        None => Vec::new(),
    };
    let scores = match dpo {
        Some(_) => pairs.iter().map(|pair| Score { nll: pair.loss, targets: 1 }).collect(),
        None => score(session, gpu, &data.held_out, job).await?,
    };
    let right = |range: Range<usize>| {
        let own = &pairs[range];
        Accuracy { right: own.iter().filter(|pair| pair.chosen > pair.rejected).count() as u64, rows: own.len() as u64 }
    };
    let Evaluation { loss, targets } = Evaluation::of(&scores);
    let mut tasks = Vec::new();
    let mut all = Accuracy::default();
    for (task, range) in data.tasks.iter().zip(data.held_out_ranges()) {
        let own = match dpo {
            Some(_) => right(range.clone()),
            None => accuracy(session, gpu, &task.labelled, job).await?,
        };
        all = Accuracy { right: all.right + own.right, rows: all.rows + own.rows };
        if !range.is_empty() {
            let Evaluation { loss, targets } = Evaluation::of(&scores[range]);
            tasks.push(TaskReport { name: task.name.clone(), loss, tokens: targets, accuracy: own.share() });
        }
    }
    if dpo.is_some() {
        all = right(0..pairs.len());
    }
    if !data.is_mixture() {
        tasks.clear();
    }
    Ok(Some(HeldOut { loss, targets, grouped_loss: None, accuracy: all.share(), tasks }))
}

/// Answers labelled rows with the choice of the highest log-likelihood.
///
/// # Errors
/// As [`score`].
pub async fn accuracy(session: &mut Session, gpu: &Gpu, rows: &[Labelled], job: Option<usize>) -> Result<Accuracy> {
    if rows.is_empty() {
        return Ok(Accuracy::default());
    }
    let candidates: Vec<Example> = rows.iter().flat_map(|r| r.candidates.iter().cloned()).collect();
    let scores = score(session, gpu, &candidates, job).await?;
    let mut at = 0;
    let mut right = 0;
    for row in rows {
        let mine = &scores[at..at + row.candidates.len()];
        at += row.candidates.len();
        let best = mine.iter().enumerate().min_by(|a, b| a.1.nll.total_cmp(&b.1.nll)).map(|(i, _)| i);
        right += u64::from(best == Some(row.label));
    }
    Ok(Accuracy { right, rows: rows.len() as u64 })
}

/// Cuts a text's tokens into windows of at most `window` tokens that begin `stride` tokens apart. Every token but the first is a target once: in
/// the first window that has it, so that from the second window on it has at least `window - stride` tokens before it.
///
/// # Panics
/// When windows do not advance, or leave tokens out.
pub fn sliding(tokens: &[u32], window: usize, stride: usize) -> Vec<Example> {
    assert!(stride > 0 && stride < window, "windows of {window} tokens, {stride} apart");
    let (mut examples, mut begin, mut scored) = (Vec::new(), 0, 1);
    while scored < tokens.len() {
        let end = (begin + window).min(tokens.len());
        let targets = (begin..end).map(|i| i >= scored).collect();
        examples.push(Example { tokens: tokens[begin..end].to_vec(), targets, row: examples.len() + 1, rejected: None });
        (begin, scored) = (begin + stride, end);
    }
    examples
}

/// Cuts a text's tokens into windows of at most `window` tokens. Each token but the first of a window is a target; windows do not overlap.
pub fn windows(tokens: &[u32], window: usize) -> Vec<Example> {
    let example = |(row, chunk): (usize, &[u32])| {
        let targets = (0..chunk.len()).map(|i| i > 0).collect();
        Example { tokens: chunk.to_vec(), targets, row: row + 1, rejected: None }
    };
    tokens.chunks(window.max(2)).filter(|c| c.len() > 1).enumerate().map(example).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sliding_windows_score_every_token_but_the_first_once() {
        for (length, window, stride) in [(0, 4, 2), (1, 4, 2), (2, 4, 3), (10, 4, 2), (11, 4, 3), (11, 4, 1), (8, 8, 4), (9, 8, 4)] {
            let tokens: Vec<u32> = (0..length).collect();
            let examples = sliding(&tokens, window, stride);
            let scored: Vec<u32> = examples
                .iter()
                .flat_map(|e| e.tokens.iter().zip(&e.targets).filter(|(_, target)| **target).map(|(token, _)| *token))
                .collect();
            assert_eq!(scored, (1..length).collect::<Vec<u32>>(), "{length} tokens, {window} by {stride}");
            for (i, example) in examples.iter().enumerate() {
                let before = example.targets.iter().take_while(|target| !**target).count();
                assert!(example.tokens.len() <= window && (i == 0 || before >= window - stride), "{length} tokens, {window} by {stride}");
            }
        }
    }
}
