//! What the scheduler knows of a job: no method, no tensors, only sizes, counts and losses.

use serde::{Deserialize, Serialize};

use super::curve::Curve;
use super::limits::MANY;
use super::state::Status;

/// A job, by its place in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u32);

/// A micro-batch that is not taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MicroBatch {
    /// Tokens in it, which are rows of the fused batch.
    pub rows: u64,
    /// Documents they belong to.
    pub documents: u64,
    /// Tokens of the longest of them.
    pub longest: u64,
}

/// Most of anything in a micro-batch: the most rows that settings allow.
const MOST: u64 = 1 << 24;

impl MicroBatch {
    /// Whether one that was read can be.
    pub(super) fn is_sound(&self) -> bool {
        [self.rows, self.documents, self.longest].into_iter().all(|count| count <= MOST)
    }
}

/// A job as it arrives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Its name, which no other job has.
    pub name: String,
    /// Higher goes first.
    pub priority: i64,
    /// Jobs that early stopping may compare with it: those of one sweep.
    pub group: Option<String>,
    /// Micro-batches to go; with accumulation several make an optimizer step.
    pub left: u64,
    /// Rows of the largest micro-batch it may take.
    pub max_rows: u64,
    /// Rows below which a micro-batch cannot be cut: its longest row.
    pub min_rows: u64,
    /// The first micro-batch.
    pub next: MicroBatch,
    /// Whether it has rows to be evaluated on.
    pub evaluates: bool,
    /// What its held-out loss is of: the loss and the rows. Only losses of the same can be compared.
    #[serde(default)]
    pub judged_on: String,
}

/// A job and how it is getting on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its place in the order of arrival.
    pub id: JobId,
    /// What it is now: sizes and counts change on the way.
    pub spec: JobSpec,
    /// Its state, and why.
    pub status: Status,
    /// Whether it has been on the device.
    pub started: bool,
    /// Step boundary at which it arrived.
    pub arrived: u64,
    /// Step boundary at which it was last in a fused step, or came onto the device.
    pub last_taken: u64,
    /// Rows it has been given; moved up when it comes onto the device, so that a newcomer cannot ask for what others had before.
    pub served: u64,
    /// Micro-batches done.
    pub passes: u64,
    /// Step boundaries that it has spent on the device.
    pub resident: u64,
    /// Optimizer steps done.
    pub steps: u64,
    /// Tokens trained.
    pub tokens: u64,
    /// Whether it waits for its held-out loss at a rung.
    pub awaited: bool,
    /// A rung that it passed, at which it is still to be evaluated.
    #[serde(default)]
    pub owed_rung: Option<u64>,
    /// Its losses.
    pub curve: Curve,
}

impl Job {
    pub(super) fn new(id: JobId, spec: JobSpec, arrived: u64) -> Self {
        Self {
            id,
            spec,
            status: Status::new(),
            started: false,
            arrived,
            last_taken: arrived,
            served: 0,
            passes: 0,
            resident: 0,
            steps: 0,
            tokens: 0,
            awaited: false,
            owed_rung: None,
            curve: Curve::default(),
        }
    }

    /// Whether one that was read can be at this step boundary.
    pub(super) fn is_before(&self, boundary: u64) -> bool {
        let counts =
            [self.served, self.passes, self.resident, self.steps, self.tokens, self.spec.left, self.spec.max_rows, self.curve.steps()];
        self.arrived <= boundary && self.last_taken <= boundary && counts.into_iter().all(|count| count < MANY) && self.spec.next.is_sound()
    }

    /// Rows to go, as far as one can know: micro-batches to go, of the mean size so far.
    pub fn rows_left(&self) -> u64 {
        let mean = self.tokens.checked_div(self.passes).unwrap_or(self.spec.next.rows);
        self.spec.left.saturating_mul(mean)
    }

    /// Halves the micro-batch, where it can be cut.
    pub(super) fn shrink(&mut self) -> bool {
        let rows = self.spec.max_rows.div_ceil(2);
        if rows >= self.spec.max_rows || rows < self.spec.min_rows {
            return false;
        }
        self.spec.max_rows = rows;
        self.spec.left = self.spec.left.saturating_mul(2);
        self.spec.next.rows = self.spec.next.rows.min(rows);
        true
    }
}
