//! Kernel choice by measurement: each tunable dispatch is timed once per adapter and shape, and the winner is remembered.
//!
//! The table is text that the caller keeps where it likes (a file natively, OPFS on the web). Its key holds the adapter, the driver and
//! the crate version, so that a new driver or new kernels are measured again.

use std::collections::BTreeMap;

use super::clock;
use super::device::{Facts, Gpu};
use super::executable::{Arenas, Executable};
use super::plan::Plan;
use super::recorder::{Candidate, Command, Recorder, Untuned};
use super::store::{Class, Store, Tensor};
use crate::Result;

/// Timed runs of each candidate after its warm-up; the fastest counts, since noise only adds.
const RUNS: usize = 3;
/// A candidate this much slower than the best at its first timed run is not timed again.
const HOPELESS: f64 = 1.5;

/// Choices made so far.
#[derive(Debug, Clone, Default)]
pub struct Tuner {
    facts: Option<Facts>,
    /// Tunable key to the chosen candidate's own key.
    choices: BTreeMap<String, String>,
}

impl Tuner {
    /// No device: the first candidate everywhere. What `plan` uses from a header alone.
    pub fn none() -> Self {
        Self::default()
    }

    /// Choices for this device, none measured yet.
    pub fn for_device(gpu: &Gpu) -> Self {
        Self { facts: Some(gpu.facts().clone()), choices: BTreeMap::new() }
    }

    /// Choices for a device that is only described, to list what would be offered to it.
    pub fn assuming(facts: Facts) -> Self {
        Self { facts: Some(facts), choices: BTreeMap::new() }
    }

    /// What the adapter can do, if there is one.
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// Identifies the table: adapter, driver, whether subgroups are in use, crate version.
    pub fn cache_key(&self) -> String {
        let plain = |f: &Facts| if f.subgroups { "" } else { " | no subgroups" };
        let device = self.facts.as_ref().map_or(String::new(), |f| format!("{} | {} | {}{}", f.name, f.driver, f.backend, plain(f)));
        format!("{device} | weblora {}", env!("CARGO_PKG_VERSION"))
    }

    /// The table as JSON.
    pub fn to_json(&self) -> String {
        serde_json::json!({ "key": self.cache_key(), "choices": self.choices }).to_string()
    }

    /// Takes over a table written by [`Tuner::to_json`]; a table of another device or version, or damaged text, is ignored.
    pub fn absorb_json(&mut self, text: &str) {
        #[derive(serde::Deserialize)]
        struct Table {
            key: String,
            choices: BTreeMap<String, String>,
        }
        match serde_json::from_str::<Table>(text) {
            Ok(table) if table.key == self.cache_key() => self.choices.extend(table.choices),
            Ok(_) => tracing::debug!("kernel choices of another adapter, driver or version: measured again"),
            Err(error) => tracing::debug!("kernel choices unreadable ({error}): measured again"),
        }
    }

    /// Index of the remembered choice among `candidates`.
    pub fn choice(&self, key: &str, candidates: &[Candidate]) -> Option<usize> {
        let chosen = self.choices.get(key)?;
        candidates.iter().position(|c| candidate_key(c) == *chosen)
    }

    /// Forces a choice; for tests and benchmarks that run every candidate.
    pub fn force(&mut self, key: &str, candidate: &Candidate) {
        self.choices.insert(key.into(), candidate_key(candidate));
    }

    /// Measures every candidate of `untuned` on scratch buffers (zero but for [`Dispatch::sample`](super::Dispatch::sample)) and remembers the fastest.
    ///
    /// # Errors
    /// Errors of the device; out of memory here means that the step itself would not fit.
    pub async fn measure(&mut self, gpu: &Gpu, untuned: &[Untuned]) -> Result<()> {
        for case in untuned {
            let mut best: Option<(f64, usize)> = None;
            for (i, candidate) in case.candidates.iter().enumerate() {
                let limit = best.map(|(t, _)| t);
                let seconds = time_candidate(gpu, candidate, case, limit).await?;
                if best.is_none_or(|(t, _)| seconds < t) {
                    best = Some((seconds, i));
                }
            }
            if let Some((seconds, i)) = best {
                let chosen = candidate_key(&case.candidates[i]);
                tracing::debug!("{}: {chosen} in {:.3} ms", case.key, seconds * 1e3);
                self.choices.insert(case.key.clone(), chosen);
            }
        }
        Ok(())
    }
}

/// A candidate's identity within its case.
pub fn candidate_key(candidate: &Candidate) -> String {
    format!("{} {}", candidate.spec.name, candidate.variant.key())
}

/// Best time in seconds of one candidate on zeroed scratch buffers of the case's sizes.
async fn time_candidate(gpu: &Gpu, candidate: &Candidate, case: &Untuned, limit: Option<f64>) -> Result<f64> {
    let mut store = Store::new();
    let mut what = case.what.clone();
    let scratch: Vec<Tensor> = what.bind.iter().map(|t| store.declare("scratch", Class::Io, t.len as usize)).collect::<Result<_>>()?;
    what.bind = scratch;
    store.allocate(gpu).await?;
    for (binding, at, bytes) in &what.samples {
        let tensor = what.bind[*binding];
        store.write(gpu, tensor.slice(at / 4..tensor.len as usize), bytes)?;
    }
    let none = Tuner::none();
    let mut recorder = Recorder::new(&none);
    recorder.commands.push(Command::Dispatch { run: candidate.clone(), what, group: None });
    let plan = Plan::new(recorder, gpu.plan_limits())?;
    let arenas = Arenas::allocate(gpu, &[&plan]).await?;
    let mut executable = Executable::new(gpu, &store, &arenas, plan).await?;
    executable.run(gpu).await?;
    gpu.finish().await?;
    let mut best = f64::MAX;
    for _ in 0..RUNS {
        let began = clock::now();
        executable.run(gpu).await?;
        gpu.finish().await?;
        best = best.min((clock::now() - began).as_secs_f64());
        if limit.is_some_and(|l| best > l * HOPELESS) {
            break;
        }
    }
    Ok(best)
}
