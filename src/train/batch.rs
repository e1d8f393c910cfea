//! Packing without padding: documents laid end to end in the `batch * seq` rows of a step, never crossing it.
//!
//! A step has a static number of rows T = batch * seq, so that it is recorded and planned once. Every epoch visits the
//! documents in its own shuffled order. The next [`LOOK_AHEAD`] documents of that order wait in a window; each step takes from it, oldest
//! first, whatever still fits, so the oldest one is always taken and every document is trained exactly once per epoch (several files can
//! have other shares: [`super::mixture`]). Where a step is to have few documents, it takes no more than those. A step never mixes two epochs: the
//! rows left over at the end of one carry no target.
//!
//! Attention must not look across documents: `doc_start` gives every row the first row of its own document. A row left over is a
//! document of its own, one row long, so it costs attention nothing.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::mixture::Mixture;
use crate::rng;
use crate::text::Example;
use crate::{Error, Result};

/// How many documents may wait for a better fit.
pub const LOOK_AHEAD: usize = 64;

/// Most documents that are packed only to be counted: some seconds.
const MOST_COUNTED: u64 = 1 << 25;

/// Rows of a micro-batch are numbered in 32 bits, with room for products.
pub(super) const MAX_ROWS: usize = 1 << 24;

/// The rows of one step. All vectors have T = batch * seq elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Token id of each row; 0 in rows left over.
    pub tokens: Vec<u32>,
    /// The id that row i must predict, or -1 where there is no loss.
    pub targets: Vec<i32>,
    /// First row of the row's own document.
    pub doc_start: Vec<u32>,
    /// Place of the row in its document, from 0: the position that RoPE turns by.
    pub position: Vec<u32>,
    /// Rows with a target; never 0.
    pub n_targets: usize,
    /// Rows that hold a token of a document.
    pub n_tokens: usize,
    /// Targets of the chosen and of the rejected answer of each pair. All pairs lie one after the other, and then once more, for the reference.
    pub pairs: Vec<[usize; 2]>,
    /// The examples, as indices into the data set, in the order of their rows.
    pub examples: Vec<u32>,
}

/// Where a run is in its data: all that a checkpoint needs to go on with the same next batch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Epoch being read, from 0.
    pub epoch: u64,
    /// Documents of this epoch's order that have entered the window.
    pub next: usize,
    /// Documents in the window: entered, not yet trained; oldest first.
    pub waiting: Vec<u32>,
}

/// Deals a data set out in batches, epoch after epoch, without end.
#[derive(Debug, Clone)]
pub struct Packer {
    lengths: Vec<u32>,
    rows: usize,
    most: usize,
    seed: u64,
    shuffle: bool,
    mixture: Option<Mixture>,
    order: Vec<u32>,
    cursor: Cursor,
}

impl Packer {
    /// A packer at the start of epoch 0, for steps of `rows` = batch * seq rows.
    ///
    /// Epoch e follows the order of [`rng::shuffled`] with the key `"{seed}/shuffle/{e}"`, or the file's order without `shuffle`.
    ///
    /// # Errors
    /// When there is no example, or when one is longer than a step.
    pub fn new(examples: &[Example], rows: usize, seed: u64, shuffle: bool) -> Result<Self> {
        if examples.is_empty() {
            return Err(Error::config("data", "there is no row to train on", "give a file with at least one row that has a target token"));
        }
        if let Some(long) = examples.iter().find(|e| e.rows() > rows) {
            let whose = if long.rejected.is_some() { " (of two answers, each read by the adapter and by the reference)" } else { "" };
            let problem = format!("row {} has {} tokens{whose} but a step has only {rows} rows (batch x seq)", long.row, long.rows());
            return Err(Error::config("seq", problem, "raise --seq or --batch, or let longer rows be truncated"));
        }
        let lengths = examples.iter().map(|e| e.rows() as u32).collect();
        let mut packer =
            Self { lengths, rows, most: usize::MAX, seed, shuffle, mixture: None, order: Vec::new(), cursor: Cursor::default() };
        packer.order = packer.epoch_order(0);
        Ok(packer)
    }

    /// Puts at most `documents` into a step.
    ///
    /// # Panics
    /// If that is none.
    pub fn at_most(mut self, documents: usize) -> Self {
        assert!(documents > 0, "a step of no document");
        self.most = documents;
        self
    }

    /// Deals the examples out in the shares of `mixture`, whose files they are one after the other, from the start of epoch 0.
    ///
    /// # Panics
    /// If the mixture is of other examples.
    pub fn mixed(mut self, mixture: Mixture) -> Self {
        assert_eq!(mixture.quotas().iter().sum::<usize>(), self.lengths.len(), "a mixture of the packer's examples");
        self.mixture = Some(mixture);
        self.order = self.epoch_order(0);
        self.cursor = Cursor::default();
        self
    }

    /// Continues from a saved cursor, with the same examples, rows, seed and shuffling as when it was saved.
    ///
    /// # Errors
    /// When the cursor cannot belong to this data set.
    pub fn resume(mut self, cursor: Cursor) -> Result<Self> {
        let n = self.lengths.len();
        let order = self.epoch_order(cursor.epoch);
        // Documents wait in the order in which they entered, each of them once.
        let mut entered = order.iter().take(cursor.next);
        let waits = cursor.waiting.iter().all(|id| entered.any(|other| other == id));
        // The end of an epoch is the beginning of the next.
        let ended = cursor.next == n && cursor.waiting.is_empty();
        if cursor.next > n || cursor.waiting.len() > LOOK_AHEAD || ended || !waits {
            let problem = format!(
                "the checkpoint stopped at row {} of its data, with {} rows waiting, which does not fit this data set of {n} rows",
                cursor.next,
                cursor.waiting.len()
            );
            return Err(Error::config("resume", problem, "resume with the data file that the run was started with"));
        }
        (self.order, self.cursor) = (order, cursor);
        Ok(self)
    }

    /// Goes back to a cursor that it gave itself.
    pub(super) fn rewind(&mut self, cursor: Cursor) {
        if cursor.epoch != self.cursor.epoch {
            self.order = self.epoch_order(cursor.epoch);
        }
        self.cursor = cursor;
    }

    /// Rows of a step.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Documents trained up to `cursor`, or `None` where it says what cannot be.
    pub fn dealt(&self, cursor: &Cursor) -> Option<u128> {
        let in_epoch = cursor.next.checked_sub(cursor.waiting.len())?;
        Some(u128::from(cursor.epoch) * self.lengths.len() as u128 + in_epoch as u128)
    }

    /// Where the packer is: what the next call of [`Self::next_batch`] starts from.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whole epochs done so far, plus the part of the present one, counted in documents.
    pub fn epochs_done(&self) -> f64 {
        let trained = self.cursor.next - self.cursor.waiting.len();
        self.cursor.epoch as f64 + trained as f64 / self.lengths.len() as f64
    }

    /// Documents of an epoch.
    pub fn documents(&self) -> usize {
        self.lengths.len()
    }

    /// Tokens of the first epoch.
    pub fn tokens(&self) -> u64 {
        self.epoch_order(0).into_iter().map(|id| u64::from(self.lengths[id as usize])).sum()
    }

    /// Steps that the first `epochs` epochs take: where every epoch takes as many by a product, else by packing the lengths alone.
    ///
    /// # Errors
    /// When there are too many to count.
    pub fn steps_in(&self, epochs: u64) -> Result<u64> {
        let n = self.lengths.len() as u64;
        let alike = !self.shuffle && self.mixture.is_none();
        let (counted, times) = if alike { (epochs.min(1), epochs) } else { (epochs, 1) };
        let steps = if self.any_fit() {
            n.div_ceil(self.most as u64).checked_mul(epochs)
        } else if counted.checked_mul(n).is_none_or(|documents| documents > MOST_COUNTED) {
            None
        } else {
            self.count(counted).checked_mul(times)
        };
        steps.ok_or_else(|| {
            let problem = format!("{epochs} passes over {n} rows are too many to count their steps before the run");
            Error::config("epochs", problem, "give fewer epochs, or the number of --steps")
        })
    }

    /// Whether any documents that may share a step fit into it, so that the order changes no count.
    fn any_fit(&self) -> bool {
        fullest(&self.lengths, self.most, self.mixture.is_some()) <= self.rows as u64
    }

    fn count(&self, epochs: u64) -> u64 {
        let mut dry = Self { cursor: Cursor::default(), order: self.epoch_order(0), ..self.clone() };
        let mut steps = 0;
        while dry.cursor.epoch < epochs {
            dry.take();
            steps += 1;
        }
        steps
    }

    /// The next step's rows. `examples` are those the packer was made with.
    pub fn next_batch(&mut self, examples: &[Example]) -> Batch {
        assert_eq!(examples.len(), self.lengths.len(), "a packer deals out the examples it was made with");
        let chosen = self.take();
        Batch::pack(chosen, examples, self.rows)
    }

    /// Chooses the documents of the next step and moves the cursor past them.
    fn take(&mut self) -> Vec<u32> {
        let mut waiting: VecDeque<u32> = std::mem::take(&mut self.cursor.waiting).into();
        let mut chosen = Vec::new();
        let mut free = self.rows;
        // Documents before `at` were tried and are too long; `free` only shrinks, so they stay too long for this step.
        let mut at = 0;
        while chosen.len() < self.most {
            while waiting.len() < LOOK_AHEAD && self.cursor.next < self.order.len() {
                waiting.push_back(self.order[self.cursor.next]);
                self.cursor.next += 1;
            }
            let Some(&id) = waiting.get(at) else { break };
            let length = self.lengths[id as usize] as usize;
            if length <= free {
                free -= length;
                chosen.push(id);
                waiting.remove(at);
            } else {
                at += 1;
            }
        }
        self.cursor.waiting = waiting.into();
        if self.cursor.waiting.is_empty() && self.cursor.next == self.order.len() {
            let epoch = self.cursor.epoch + 1;
            self.order = self.epoch_order(epoch);
            self.cursor = Cursor { epoch, ..Cursor::default() };
        }
        chosen
    }

    fn epoch_order(&self, epoch: u64) -> Vec<u32> {
        if let Some(mixture) = &self.mixture {
            return mixture.order(self.seed, epoch, self.shuffle);
        }
        let n = self.lengths.len();
        if self.shuffle { rng::shuffled(&format!("{}/shuffle/{epoch}", self.seed), n) } else { (0..n as u32).collect() }
    }
}

/// Tokens of the fullest step of at most `most` of these documents: of the longest ones together, each of them once, or where documents may
/// come `again` within an epoch of the longest alone.
pub fn fullest(lengths: &[u32], most: usize, again: bool) -> u64 {
    let most = most.min(lengths.len());
    if again {
        return most as u64 * u64::from(lengths.iter().copied().max().unwrap_or(0));
    }
    let mut lengths = lengths.to_vec();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths[..most].iter().map(|length| u64::from(*length)).sum()
}

impl Batch {
    /// Lays the chosen examples end to end in `rows` rows.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn pack(chosen: Vec<u32>, examples: &[Example], rows: usize) -> Self {
        let mut batch = Self {
            tokens: vec![0; rows],
            targets: vec![-1; rows],
            doc_start: (0..rows as u32).collect(),
            position: vec![0; rows],
            n_targets: 0,
            n_tokens: 0,
            pairs: Vec::new(),
            examples: Vec::new(),
        };
        for &id in &chosen {
            let (example, begin) = (&examples[id as usize], batch.n_targets);
            batch.lay(example);
            if let Some(rejected) = &example.rejected {
                let of_chosen = batch.n_targets - begin;
                batch.lay(rejected);
                batch.pairs.push([of_chosen, batch.n_targets - begin - of_chosen]);
            }
        }
        if !batch.pairs.is_empty() {
            batch.lay_again();
        }
        batch.examples = chosen;
        batch
    }

    /// Lays one document behind those that are there.
    fn lay(&mut self, example: &Example) {
        let start = self.n_tokens;
        for (i, &token) in example.tokens.iter().enumerate() {
            let row = start + i;
            self.tokens[row] = token;
            self.doc_start[row] = start as u32;
            self.position[row] = i as u32;
            // The row before a target token predicts it; the last row of a document predicts nothing.
            if i > 0 && example.targets[i] {
                self.targets[row - 1] = token as i32;
                self.n_targets += 1;
            }
        }
        self.n_tokens += example.tokens.len();
    }

    /// Lays all documents behind themselves once more.
    fn lay_again(&mut self) {
        let own = self.n_tokens;
        self.tokens.copy_within(..own, own);
        self.targets.copy_within(..own, own);
        self.position.copy_within(..own, own);
        for row in 0..own {
            self.doc_start[own + row] = own as u32 + self.doc_start[row];
        }
        self.n_tokens *= 2;
        self.n_targets *= 2;
    }

    /// Rows that the adapter answers for; those of the reference come after them.
    pub fn policy_rows(&self) -> usize {
        if self.pairs.is_empty() { self.n_tokens } else { self.n_tokens / 2 }
    }

    /// What its loss is a sum over: pairs, or targets.
    pub fn n_losses(&self) -> usize {
        if self.pairs.is_empty() { self.n_targets } else { self.pairs.len() }
    }
}

/// Splits `0..n` in a training and a validation part, each in the file's order.
///
/// The validation part is the first `round(n * fraction)` numbers, at least one, of [`rng::shuffled`] with the key `"{seed}/split"`.
///
/// # Errors
/// When the fraction is not in `0.0..1.0`, or when it leaves nothing to train on. A fraction of 0 splits nothing off.
pub fn split(n: usize, fraction: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    if !(0.0..1.0).contains(&fraction) {
        return Err(Error::config("eval-split", format!("{fraction} is not at least 0 and below 1"), "give a part such as 0.1"));
    }
    if fraction == 0.0 {
        return Ok(((0..n).collect(), Vec::new()));
    }
    let held = ((n as f64 * fraction).round() as usize).max(1);
    if held >= n {
        let problem = format!("{fraction} of {n} rows leaves no row to train on");
        return Err(Error::config("eval-split", problem, "use more rows or a smaller part"));
    }
    let mut is_held = vec![false; n];
    for &id in &rng::shuffled(&format!("{seed}/split"), n)[..held] {
        is_held[id as usize] = true;
    }
    Ok((0..n).partition(|&i| !is_held[i]))
}
