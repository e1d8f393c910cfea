//! The rows of a run: one file, or several that are tasks of their own.

use std::ops::Range;

use super::batch::Packer;
use super::config::TrainConfig;
use super::mixture::{Mixture, ranges};
use crate::Result;
use crate::config::ModelConfig;
use crate::model::check::check_tokens;
use crate::rng::{FNV_OFFSET, fnv1a_bytes};
use crate::text::{Example, Labelled};

/// The rows of a run, tokenised.
#[derive(Debug, Clone, Default)]
pub struct TrainData {
    /// Rows to train on, file after file.
    pub train: Vec<Example>,
    /// Rows that are only evaluated, file after file.
    pub held_out: Vec<Example>,
    /// The files, in the order of their rows. Empty stands for one nameless file.
    pub tasks: Vec<Task>,
}

/// One data file among several: what its rows are called and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Task {
    /// Name in events.
    pub name: String,
    /// Rows to train on.
    pub train: usize,
    /// Rows held out.
    pub held_out: usize,
    /// Those of the held-out rows that have `choices`, for the accuracy.
    pub labelled: Vec<Labelled>,
}

/// The rows of one file.
#[derive(Debug, Clone, Default)]
pub struct TaskRows {
    /// Name in events.
    pub name: String,
    /// Rows to train on.
    pub train: Vec<Example>,
    /// Rows held out.
    pub held_out: Vec<Example>,
    /// Held-out rows with `choices`.
    pub labelled: Vec<Labelled>,
}

impl FromIterator<TaskRows> for TrainData {
    fn from_iter<I: IntoIterator<Item = TaskRows>>(files: I) -> Self {
        let mut data = Self::default();
        for file in files {
            let TaskRows { name, train, held_out, labelled } = file;
            data.tasks.push(Task { name, train: train.len(), held_out: held_out.len(), labelled });
            data.train.extend(train);
            data.held_out.extend(held_out);
        }
        data
    }
}

impl TrainData {
    /// Refuses rows with tokens that the model has no embedding for, before anything is made for the run.
    ///
    /// # Errors
    /// Names the token.
    pub fn check_tokens(&self, model: &ModelConfig) -> Result<()> {
        let labelled = self.tasks.iter().flat_map(|task| &task.labelled).flat_map(|row| &row.candidates);
        let rows = self.train.iter().chain(&self.held_out).chain(labelled).flat_map(Example::documents);
        rows.map(|row| row.tokens.as_slice()).try_for_each(|tokens| check_tokens(tokens, model))
    }

    /// The tokens of the rows to train on, each as often as it occurs.
    pub fn tokens(&self) -> impl Iterator<Item = u32> {
        self.train.iter().flat_map(Example::documents).flat_map(|row| row.tokens.iter().copied())
    }

    /// Whether there is more than one task to tell apart.
    pub fn is_mixture(&self) -> bool {
        self.tasks.len() > 1
    }

    /// Where each task's rows lie in `train`.
    pub fn train_ranges(&self) -> Vec<Range<usize>> {
        ranges(self.tasks.iter().map(|task| task.train))
    }

    /// Where each task's rows lie in `held_out`.
    pub fn held_out_ranges(&self) -> Vec<Range<usize>> {
        ranges(self.tasks.iter().map(|task| task.held_out))
    }

    /// Tokens of the longest document that is only evaluated.
    pub fn longest_held_out(&self) -> usize {
        self.evaluated().map(Example::longest).max().unwrap_or(0)
    }

    /// Rows of a batch that the largest row takes which is only evaluated.
    pub fn largest_held_out(&self) -> usize {
        self.evaluated().map(Example::rows).max().unwrap_or(0)
    }

    fn evaluated(&self) -> impl Iterator<Item = &Example> {
        let candidates = self.tasks.iter().flat_map(|task| &task.labelled).flat_map(|row| &row.candidates);
        self.held_out.iter().chain(candidates)
    }

    /// What deals the training rows out in steps of `rows` tokens: in the settings' shares, else every row once an epoch.
    ///
    /// # Errors
    /// As [`Packer::new`] and [`Mixture::new`].
    pub fn packer(&self, config: &TrainConfig, rows: usize) -> Result<Packer> {
        let packer = Packer::new(&self.train, rows, config.seed, config.shuffle)?.at_most(config.batch_rows.unwrap_or(usize::MAX));
        let Some(shares) = config.shares() else { return Ok(packer) };
        let mut files: Vec<&Task> = self.tasks.iter().filter(|task| task.train > 0).collect();
        let nameless = Task { name: "data".into(), train: self.train.len(), ..Task::default() };
        if files.is_empty() {
            files.push(&nameless);
        }
        let names: Vec<&str> = files.iter().map(|task| task.name.as_str()).collect();
        let sizes: Vec<usize> = files.iter().map(|task| task.train).collect();
        Ok(packer.mixed(Mixture::new(&names, &sizes, &shares)?))
    }

    /// Identity of the training rows and of how they are cut into files.
    pub fn hash(&self) -> String {
        let hash = data_hash(&self.train);
        if !self.is_mixture() {
            return hash;
        }
        let cut = self.tasks.iter().fold(FNV_OFFSET, |hash, task| fnv1a_bytes(hash, &(task.train as u64).to_le_bytes()));
        format!("{hash}-{cut:016x}")
    }
}

/// Identity of a data set as the model sees it: FNV-1a 64 over every example's length, tokens and targets, as hex digits.
pub fn data_hash(examples: &[Example]) -> String {
    let mut hash = FNV_OFFSET;
    for example in examples.iter().flat_map(Example::documents) {
        hash = fnv1a_bytes(hash, &(example.tokens.len() as u64).to_le_bytes());
        for (token, &target) in example.tokens.iter().zip(&example.targets) {
            hash = fnv1a_bytes(fnv1a_bytes(hash, &token.to_le_bytes()), &[u8::from(target)]);
        }
    }
    format!("{hash:016x}")
}
