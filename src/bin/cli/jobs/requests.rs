//! What other processes ask of a run: files in its folder, taken up between steps in the order in which they were written.

use serde::{Deserialize, Serialize};
use weblora::jobs::event;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Move to host memory.
    Pause,
    /// Go on.
    Resume,
    /// End, saving the adapter.
    Stop,
    /// Take in the jobs of a jobs file.
    Add,
}

impl Ask {
    /// What the scheduler is asked, where it is about a job that is there.
    pub fn of_one_job(self) -> Option<event::Request> {
        match self {
            Self::Pause => Some(event::Request::Pause),
            Self::Resume => Some(event::Request::Resume),
            Self::Stop => Some(event::Request::Stop),
            Self::Add => None,
        }
    }
}

/// A request as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What.
    pub ask: Ask,
    /// Of these jobs; of `add`, paths of jobs files.
    pub names: Vec<String>,
}
