//! Jobs that failed, as it was told: those that never joined the run are in no fleet, and one whose adapter could not be kept is done there.

use std::cell::RefCell;

use serde::{Deserialize, Serialize};

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedJob {
    /// Its name.
    pub job: String,
    /// The folder that it would have had; of a job that is in the fleet, the fleet knows.
    pub out: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
}

/// All of them, the latest reason of each.
#[derive(Debug, Default)]
pub struct FailedJobs(RefCell<Vec<FailedJob>>);

impl FailedJobs {
    /// Those that are known already.
    pub fn new(known: Vec<FailedJob>) -> Self {
        Self(RefCell::new(known))
    }

    /// One more, or another reason of one.
    pub fn note(&self, failed: FailedJob) {
        self.forget(&failed.job);
        self.0.borrow_mut().push(failed);
    }

    /// A job of that name has joined after all.
    pub fn forget(&self, job: &str) {
        self.0.borrow_mut().retain(|failed| failed.job != job);
    }

    /// As they are now.
    pub fn list(&self) -> Vec<FailedJob> {
        self.0.borrow().clone()
    }
}
