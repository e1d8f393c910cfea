//! The life of a job, and which steps in it are legal.
//!
//! ```text
//! waiting ──▶ running ──▶ done
//!    │         │   ▲
//!    │         ▼   │
//!    ├──────▶ paused          and from each of the three: stopped, failed
//! ```

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has not been on the device yet.
    Waiting,
    /// Its adapter and moments are on the device.
    Running,
    /// Its adapter and moments are in host memory.
    Paused(Pause),
    /// It has taken its last step.
    Done,
    /// It ended before its last step, by request or early stopping; its adapter is what it was then.
    Stopped,
    /// It cannot go on.
    Failed,
}

/// Why a job is paused, and so what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// Others have the memory; it goes on by itself.
    Memory,
    /// It was asked for; it goes on when that is asked for.
    User,
    /// It is at a rung of successive halving and waits for the others of its group.
    Rung,
}

impl State {
    /// Whether nothing can follow.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Stopped | Self::Failed)
    }

    /// Whether it wants memory: it may be chosen at the next step boundary.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Waiting | Self::Running | Self::Paused(Pause::Memory))
    }

    /// The word of tables and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Paused(_) => "paused",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Whether `to` may follow.
    pub fn may_become(self, to: Self) -> bool {
        use Pause::{Memory, Rung, User};
        use State::{Done, Failed, Paused, Running, Stopped, Waiting};
        match (self, to) {
            (Done | Stopped | Failed, _) => false,
            (_, Stopped | Failed) => true,
            (Waiting | Paused(Memory), Running | Paused(User)) => true,
            (Running, Paused(_) | Done) => true,
            // Asked to go on, or past the rung: it joins the queue again, unless its rung holds it. A job that had not begun waits as before.
            (Paused(User), Waiting | Paused(Memory)) | (Paused(Memory), Paused(Rung)) | (Paused(Rung), Paused(Memory | User)) => true,
            _ => false,
        }
    }
}

/// A state with the reason for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The state.
    pub state: State,
    /// Why, in one sentence.
    pub reason: String,
}

impl Status {
    /// A job that has just arrived.
    pub(super) fn new() -> Self {
        Self { state: State::Waiting, reason: "it has just been added".to_owned() }
    }

    /// Goes on to `to`.
    ///
    /// # Errors
    /// When `to` cannot follow; nothing has changed then.
    pub fn change(&mut self, job: &str, to: State, reason: impl Into<String>) -> Result<()> {
        if !self.state.may_become(to) {
            let problem = format!("job {job} is {} and cannot become {}", self.state.name(), to.name());
            return Err(Error::config("job", problem, "look at its state first"));
        }
        *self = Self { state: to, reason: reason.into() };
        Ok(())
    }
}
