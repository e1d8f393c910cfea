//! The scheduler's own settings.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::early_stop::EarlyStop;
use super::policy::{Numbers, POLICIES, Policy, by_name};
use crate::settings::Settings;
use crate::{Error, Result};

/// What the scheduler goes by. Part of its serialised state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    /// Who goes first.
    #[serde(with = "by_name")]
    pub policy: &'static Policy,
    /// Most bytes that the jobs on the device may need together, base and all; `None` leaves it to the driver.
    pub memory: Option<u64>,
    /// Most rows of a fused step.
    pub step_tokens: u64,
    /// Most jobs of a fused step.
    pub step_jobs: usize,
    /// Places that the pool keeps for jobs that are added later, each for one as large as the largest there is; `None` keeps one where the
    /// recordings have a place left.
    pub spare_jobs: Option<usize>,
    /// Step boundaries after which a waiting job counts one priority higher.
    pub ageing: u64,
    /// Fused steps that a job on the device may be left out of before it goes first.
    pub gap: u64,
    /// Which jobs end early.
    pub early_stop: EarlyStop,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            policy: &POLICIES[0],
            memory: None,
            step_tokens: 4096,
            step_jobs: 64,
            spare_jobs: None,
            ageing: 100,
            gap: 8,
            early_stop: EarlyStop::default(),
        }
    }
}

const STEP_TOKENS: RangeInclusive<u64> = 1..=1 << 24;
const STEP_JOBS: RangeInclusive<usize> = 1..=1 << 16;
const SPARE_JOBS: RangeInclusive<u64> = 0..=1 << 16;
const AGEING: RangeInclusive<u64> = 1..=1 << 40;
const GAP: RangeInclusive<u64> = 0..=1 << 40;

/// Keys of a jobs file that [`Options::read`] reads.
pub const KEYS: &[&str] = &["policy", "memory", "step-tokens", "step-jobs", "spare-jobs", "ageing", "gap", "early-stop"];

impl Options {
    /// Reads them among the top-level keys of a jobs file.
    ///
    /// # Errors
    /// Names the key that is of the wrong type or out of bounds.
    pub fn read(s: &mut Settings<'_>) -> Result<Self> {
        let default = Self::default();
        let policy = s.text("policy")?.map_or(Ok(default.policy), |name| Policy::by_name(&name))?;
        let early_stop = match s.value("early-stop") {
            None => default.early_stop,
            Some(Value::Object(map)) => EarlyStop::read(map)?,
            Some(_) => return Err(Error::config("early-stop", "is no table", "write [early-stop] and rules = [\"median\"]")),
        };
        Ok(Self {
            policy,
            memory: s.bytes("memory")?,
            step_tokens: s.count("step-tokens", default.step_tokens, STEP_TOKENS)?,
            step_jobs: s.size("step-jobs", default.step_jobs, STEP_JOBS)?,
            spare_jobs: s.count_or_none("spare-jobs", SPARE_JOBS)?.map(|n| n as usize),
            ageing: s.count("ageing", default.ageing, AGEING)?,
            gap: s.count("gap", default.gap, GAP)?,
            early_stop,
        })
    }

    /// What policies go by.
    pub(super) fn numbers(&self) -> Numbers {
        Numbers { step_tokens: self.step_tokens, step_jobs: self.step_jobs, ageing: self.ageing, gap: self.gap }
    }

    /// Whether what was read as state can have been written.
    pub(crate) fn is_sound(&self) -> bool {
        let counts = STEP_TOKENS.contains(&self.step_tokens) && AGEING.contains(&self.ageing) && GAP.contains(&self.gap);
        let spare = self.spare_jobs.is_none_or(|jobs| SPARE_JOBS.contains(&(jobs as u64)));
        counts && spare && STEP_JOBS.contains(&self.step_jobs) && self.early_stop.is_sound()
    }
}
