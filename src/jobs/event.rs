//! What the scheduler is told, and what it says.

use serde::{Deserialize, Serialize};

use super::exact;
use super::job::{JobId, MicroBatch};
use super::limits::MANY;

/// A job's part of a fused step that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// The job.
    pub job: JobId,
    /// Rows it had in the step.
    pub rows: u64,
    /// Its mean loss.
    #[serde(with = "exact::number")]
    pub loss: f64,
    /// Whether its optimizer made a step, which with accumulation is every few passes.
    pub stepped: bool,
    /// Micro-batches it has left.
    pub left: u64,
    /// The next one; that of the last pass when none is left.
    pub next: MicroBatch,
}

/// What happened since the last step boundary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A fused step was taken.
    Stepped {
        /// How long it took.
        #[serde(with = "exact::number")]
        seconds: f64,
        /// Who took part.
        passes: Vec<Pass>,
    },
    /// A held-out loss was measured, after all steps told before.
    Evaluated {
        /// The job.
        job: JobId,
        /// Mean loss in nats.
        #[serde(with = "exact::number")]
        loss: f64,
    },
    /// A job's sizes changed: because it was told to shrink, or its settings changed.
    Resized {
        /// The job.
        job: JobId,
        /// Micro-batches it has left.
        left: u64,
        /// Rows of the largest.
        max_rows: u64,
        /// The next one.
        next: MicroBatch,
    },
    /// A job cannot go on: its rows, its folder, its loss.
    Failed {
        /// The job.
        job: JobId,
        /// Why, in one sentence.
        reason: String,
    },
    /// The device had less memory than was planned; the step was not taken.
    OutOfMemory,
    /// Somebody asks for something.
    Request {
        /// Of this job.
        job: JobId,
        /// What.
        what: Request,
    },
}

impl Event {
    /// Whether one that was read can have happened.
    pub(crate) fn is_sound(&self) -> bool {
        let possible = |next: &MicroBatch, counts: &[u64]| next.is_sound() && counts.iter().all(|count| *count < MANY);
        match self {
            Self::Stepped { passes, .. } => {
                let rows = passes.iter().try_fold(0u64, |sum, pass| sum.checked_add(pass.rows));
                rows.is_some_and(|rows| rows < MANY) && passes.iter().all(|pass| possible(&pass.next, &[pass.rows, pass.left]))
            }
            Self::Resized { left, max_rows, next, .. } => possible(next, &[*left, *max_rows]),
            Self::Evaluated { .. } | Self::Failed { .. } | Self::OutOfMemory | Self::Request { .. } => true,
        }
    }

    /// The jobs whose loss is not finite any more.
    pub(crate) fn diverged(&self) -> Vec<JobId> {
        match self {
            Self::Stepped { passes, .. } => passes.iter().filter(|pass| !pass.loss.is_finite()).map(|pass| pass.job).collect(),
            Self::Evaluated { job, loss } if !loss.is_finite() => vec![*job],
            _ => Vec::new(),
        }
    }

    /// The jobs that it is about.
    pub(crate) fn jobs(&self) -> Vec<JobId> {
        match self {
            Self::Stepped { passes, .. } => passes.iter().map(|pass| pass.job).collect(),
            Self::Evaluated { job, .. } | Self::Resized { job, .. } | Self::Failed { job, .. } | Self::Request { job, .. } => vec![*job],
            Self::OutOfMemory => Vec::new(),
        }
    }
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Take it off the device until further notice.
    Pause,
    /// Let it go on.
    Resume,
    /// End it; its adapter stays as it is.
    Stop,
    /// Give it another priority.
    Priority(i64),
}

/// What is to be done with a job. A driver does them in order: what frees memory comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It has taken its last step: evaluate, save and drop it.
    Done,
    /// End it early: save and drop it.
    Stop,
    /// It cannot go on: drop it.
    Fail,
    /// Move its adapter and moments to host memory.
    Pause,
    /// A request that cannot be met; nothing changes.
    Refuse,
    /// A request was met without anything to do on the device.
    Note,
    /// Take micro-batches of at most `max_rows` and more of them; answer with [`Event::Resized`].
    Shrink {
        /// Most rows of a micro-batch.
        max_rows: u64,
    },
    /// Put it on the device for the first time.
    Admit,
    /// Move its adapter and moments back.
    Resume,
    /// Measure its held-out loss before the next step; answer with [`Event::Evaluated`].
    Evaluate,
}

impl Action {
    /// The word of events: `admit`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Stop => "stop",
            Self::Fail => "fail",
            Self::Pause => "pause",
            Self::Refuse => "refuse",
            Self::Note => "note",
            Self::Shrink { .. } => "shrink",
            Self::Admit => "admit",
            Self::Resume => "resume",
            Self::Evaluate => "evaluate",
        }
    }

    /// Place in a step boundary's list.
    pub(super) fn phase(self) -> u8 {
        match self {
            // Together: a job that is paused and stopped at one boundary leaves in that order.
            Self::Done | Self::Stop | Self::Fail | Self::Pause => 0,
            Self::Refuse | Self::Note => 1,
            Self::Shrink { .. } => 2,
            Self::Admit | Self::Resume => 3,
            Self::Evaluate => 4,
        }
    }
}

/// A decision and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The job.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// What is to be done.
    pub action: Action,
    /// Why, in one sentence.
    pub reason: String,
}

/// All that is to be done at a step boundary, in order, and who is in the fused step after it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Boundary {
    /// What is to be done first.
    pub decisions: Vec<Decision>,
    /// Whose next micro-batches the step holds, by arrival. Empty when nobody can train now: where something was decided or measured, ask again;
    /// else nobody can until a request or a new job comes.
    pub batch: Vec<JobId>,
}
