//! The manifest of a saved fleet: all of its state but the jobs' checkpoints.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sizes::Sizes;
use crate::jobs::{self, Options, Scheduler, exact};
use crate::settings::Map;
use crate::train::batch::MAX_ROWS;
use crate::train::progress::Progress;
use crate::{Error, Result};

/// Version of the manifest; another one is refused.
pub(super) const VERSION: u32 = 1;

/// All of a fleet's state but the jobs' checkpoints.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetState {
    pub(super) version: u32,
    pub(super) weblora: String,
    pub(super) base_hash: String,
    /// The scheduler's settings as they were given.
    pub(super) asked: Options,
    pub(super) sizes: Sizes,
    pub(super) scheduler: Scheduler,
    pub(super) told: Vec<jobs::Event>,
    pub(super) generation: u64,
    /// The jobs, in the order of their arrival.
    pub members: Vec<MemberState>,
}

/// A job as the manifest has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberState {
    /// Its settings.
    pub config: Map,
    /// Steps it takes in all.
    pub total: u64,
    /// Steps done.
    pub done: u64,
    /// Loss of the last step.
    #[serde(with = "exact::optional")]
    pub last: Option<f64>,
    /// Best held-out loss so far.
    pub progress: Progress,
    /// Its checkpoint's file; `None` once it has ended.
    pub file: Option<String>,
    /// The checkpoint before that one, until a loss has spoken for the newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<String>,
}

impl MemberState {
    /// Files that are needed.
    pub fn files(&self) -> impl Iterator<Item = &String> {
        self.file.iter().chain(&self.earlier)
    }
}

impl FleetState {
    /// Refuses what no run can have written: later code relies on it.
    ///
    /// # Errors
    /// Says what cannot be; `file` names the manifest.
    pub fn check(&self, file: &str) -> Result<()> {
        let refused = |problem: String| Error::format(file, problem, "use a state that weblora wrote, or start anew with --overwrite");
        if self.version != VERSION {
            return Err(refused(format!("its version is {}, {VERSION} was expected", self.version)));
        }
        let count = self.members.len();
        if self.scheduler.jobs().len() != count || !self.scheduler.is_sound() || !self.asked.is_sound() {
            return Err(refused(format!("{count} jobs do not fit its scheduler")));
        }
        if !(1..=count).contains(&self.sizes.founders) {
            return Err(refused(format!("the run of {count} jobs did not begin with {}", self.sizes.founders)));
        }
        let (rows, positions) = (self.sizes.rows, self.sizes.positions);
        if !(1..=MAX_ROWS).contains(&rows) || !(1..=MAX_ROWS).contains(&positions) {
            return Err(refused(format!("steps of {rows} tokens, in rows of up to {positions}")));
        }
        if let Some(id) = self.told.iter().flat_map(jobs::Event::jobs).find(|id| id.0 as usize >= count) {
            return Err(refused(format!("something happened to job {} of {count}", id.0)));
        }
        if let Some(event) = self.told.iter().find(|event| !event.is_sound()) {
            return Err(refused(format!("this cannot have happened: {event:?}")));
        }
        for (member, job) in self.members.iter().zip(self.scheduler.jobs()) {
            let name = member.config.get("name").and_then(Value::as_str);
            if name != Some(job.spec.name.as_str()) || member.done > member.total {
                return Err(refused(format!("job {} is not as its scheduler has it", job.spec.name)));
            }
            if member.files().any(|file| file.contains(['/', '\\']) || file.starts_with('.')) {
                return Err(refused(format!("job {} has its state elsewhere", job.spec.name)));
            }
        }
        Ok(())
    }

    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        self.told.is_empty() && self.scheduler.is_over()
    }

    /// Refuses to go on with other settings of the scheduler: its decisions would be those of neither run.
    ///
    /// # Errors
    /// Names the first key that differs.
    pub fn check_options(&self, asked: &Options) -> Result<()> {
        let map = |options: &Options| serde_json::to_value(options).ok().and_then(|value| value.as_object().cloned()).unwrap_or_default();
        let (now, saved) = (map(asked), map(&self.asked));
        match now.iter().find(|(key, value)| saved.get(*key) != Some(value)) {
            None => Ok(()),
            Some((key, value)) => {
                let problem = format!("is {value} but the run was begun with {}", saved.get(key).unwrap_or(&Value::Null));
                Err(Error::config(key.replace('_', "-"), problem, "write what it was, or start anew with --overwrite"))
            }
        }
    }
}
