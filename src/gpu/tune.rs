//! Kernel choice by measurement: which candidate of each tunable case runs, per adapter and shape.
//!
//! The table is text that the caller keeps where it likes (a file natively, OPFS on the web). Its key holds the adapter, the driver and
//! the crate version, so that a new driver or new kernels are measured again. A choice that was made while the machine was busy, and between
//! candidates that the noise did not tell apart, is measured again in the next sessions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::device::{Facts, Gpu};
use super::dispatch::Candidate;

/// Runs that differ by less than this part of their time are as good as equal.
const QUIET: f64 = 0.1;
/// After so many sessions a choice stands, however noisy: candidates that keep changing places are equally good.
const SESSIONS: u32 = 3;
/// What was chosen before stays unless another one is this much faster.
const WORTH_CHANGING: f64 = 0.9;

/// Choices made so far.
#[derive(Debug, Clone, Default)]
pub struct Tuner {
    facts: Option<Facts>,
    /// By tunable case.
    choices: BTreeMap<String, Choice>,
    /// Choices that a run must repeat, by tunable case: the candidate's key.
    pinned: BTreeMap<String, String>,
}

/// One remembered choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Choice {
    /// The candidate's own key.
    candidate: String,
    /// Median time of one run.
    seconds: f64,
    /// Distance of the median from the fastest run, as a part of the median.
    noise: f64,
    /// Sessions in which it was measured.
    sessions: u32,
    /// Not to be measured again.
    settled: bool,
    /// Median times of all candidates when it was made; tables of before do not have them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    times: BTreeMap<String, f64>,
    /// Measured in this session.
    #[serde(skip)]
    fresh: bool,
}

/// What is remembered of one tunable case, for people to read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Remembered {
    /// The case: operation, shapes, formats.
    pub case: String,
    /// The kernel variant that was chosen.
    pub candidate: String,
    /// Median time of one run in seconds.
    pub seconds: f64,
    /// Distance of the median from the fastest run, as a part of the median.
    pub noise: f64,
    /// Sessions in which it was measured.
    pub sessions: u32,
    /// Whether it stands; otherwise the next session measures it again.
    pub settled: bool,
    /// Median seconds of all candidates, fastest first; empty where the table was written before those were kept.
    pub times: Vec<(String, f64)>,
}

/// Timed runs of one candidate.
#[derive(Debug, Clone)]
pub(super) struct Timed {
    pub candidate: String,
    pub seconds: Vec<f64>,
}

impl Timed {
    pub(super) fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
    }

    pub(super) fn fastest(&self) -> f64 {
        self.seconds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn noise(&self) -> f64 {
        1.0 - self.fastest() / self.median()
    }
}

/// Whether the fastest candidate is told apart from the others: even their best runs are slower than its median.
pub(super) fn is_clear(all: &[Timed]) -> bool {
    let Some(best) = all.iter().min_by(|a, b| a.median().total_cmp(&b.median())) else { return true };
    all.iter().filter(|other| other.candidate != best.candidate).all(|other| other.fastest() > best.median())
}

/// The choice that follows from `all`, given what was chosen in sessions before.
fn judge(all: &[Timed], before: Option<&Choice>) -> Option<Choice> {
    let mut best = all.iter().min_by(|a, b| a.median().total_cmp(&b.median()))?;
    if let Some(kept) = before.and_then(|b| all.iter().find(|t| t.candidate == b.candidate))
        && best.median() > kept.median() * WORTH_CHANGING
    {
        best = kept;
    }
    let sessions = before.map_or(0, |b| b.sessions) + 1;
    let quiet = all.iter().all(|t| t.noise() < QUIET || t.fastest() > best.median());
    Some(Choice {
        candidate: best.candidate.clone(),
        seconds: best.median(),
        noise: best.noise(),
        sessions,
        settled: is_clear(all) || quiet || sessions >= SESSIONS,
        // JSON has no infinity: a candidate that never ran has no time.
        times: all.iter().map(|t| (t.candidate.clone(), t.median())).filter(|(_, seconds)| seconds.is_finite()).collect(),
        fresh: true,
    })
}

impl Tuner {
    /// No device: the first candidate everywhere. What `plan` uses from a header alone.
    pub fn none() -> Self {
        Self::default()
    }

    /// Choices for this device, none measured yet.
    pub fn for_device(gpu: &Gpu) -> Self {
        Self::assuming(gpu.facts().clone())
    }

    /// Choices for a device that is only described, to list what would be offered to it.
    pub fn assuming(facts: Facts) -> Self {
        Self { facts: Some(facts), ..Self::default() }
    }

    /// What the adapter can do, if there is one.
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// Identifies the table: adapter, driver, whether subgroups are in use, crate version.
    pub fn cache_key(&self) -> String {
        let plain = |f: &Facts| if f.subgroups { "" } else { " | no subgroups" };
        let mixed = |f: &Facts| if f.mixed { " | mixed" } else { "" };
        let device =
            self.facts.as_ref().map_or(String::new(), |f| format!("{} | {} | {}{}{}", f.name, f.driver, f.backend, plain(f), mixed(f)));
        format!("{device} | weblora {}", env!("CARGO_PKG_VERSION"))
    }

    /// The table as JSON.
    pub fn to_json(&self) -> String {
        serde_json::json!({ "key": self.cache_key(), "choices": self.choices }).to_string()
    }

    /// Takes over a table written by [`Tuner::to_json`]; a table of another device or version, or damaged text, is ignored.
    pub fn absorb_json(&mut self, text: &str) {
        #[derive(Deserialize)]
        struct Table {
            key: String,
            choices: BTreeMap<String, Choice>,
        }
        match serde_json::from_str::<Table>(text) {
            Ok(table) if table.key == self.cache_key() => self.choices.extend(table.choices),
            Ok(_) => tracing::debug!("kernel choices of another adapter, driver or version: measured again"),
            Err(error) => tracing::debug!("kernel choices unreadable ({error}): measured again"),
        }
    }

    /// The choices of the table, by case.
    pub fn remembered(&self) -> Vec<Remembered> {
        let readable = |(case, choice): (&String, &Choice)| {
            let mut times: Vec<(String, f64)> = choice.times.iter().map(|(candidate, seconds)| (candidate.clone(), *seconds)).collect();
            times.sort_by(|a, b| a.1.total_cmp(&b.1));
            Remembered {
                case: case.clone(),
                candidate: choice.candidate.clone(),
                seconds: choice.seconds,
                noise: choice.noise,
                sessions: choice.sessions,
                settled: choice.settled,
                times,
            }
        };
        self.choices.iter().map(readable).collect()
    }

    /// Index of the pinned or remembered choice among `candidates`.
    pub fn choice(&self, key: &str, candidates: &[Candidate]) -> Option<usize> {
        let place = |wanted: &String| candidates.iter().position(|c| c.key() == *wanted);
        let pinned = self.pinned.get(key).and_then(place);
        pinned.or_else(|| self.choices.get(key).and_then(|choice| place(&choice.candidate)))
    }

    /// Whether a remembered choice was made under noise and should be measured once more in this session.
    pub fn wants_again(&self, key: &str) -> bool {
        !self.pinned.contains_key(key) && self.choices.get(key).is_some_and(|choice| !choice.settled && !choice.fresh)
    }

    /// Takes the choices that another run's bits depend on, as its [`Plan::order_choices`](super::Plan::order_choices) says, whatever was
    /// measured: recordings made from now on sum in the same orders. A choice that this adapter is not offered has no effect, which the new
    /// plan's `order_choices` show. Pinned choices are not written by [`Tuner::to_json`].
    pub fn pin(&mut self, choices: &BTreeMap<String, String>) {
        self.pinned.extend(choices.iter().map(|(key, candidate)| (key.clone(), candidate.clone())));
    }

    /// What is pinned.
    pub fn pinned(&self) -> &BTreeMap<String, String> {
        &self.pinned
    }

    /// Forgets what was pinned.
    pub fn unpin(&mut self) {
        self.pinned.clear();
    }

    /// Forces a choice; for tests and benchmarks that run every candidate.
    pub fn force(&mut self, key: &str, candidate: &Candidate) {
        let choice = Choice {
            candidate: candidate.key(),
            seconds: 0.0,
            noise: 0.0,
            sessions: SESSIONS,
            settled: true,
            times: BTreeMap::new(),
            fresh: true,
        };
        self.choices.insert(key.into(), choice);
    }

    /// Remembers what follows from timed runs of a case's candidates.
    pub(super) fn remember(&mut self, key: &str, all: &[Timed]) {
        let Some(choice) = judge(all, self.choices.get(key)) else { return };
        tracing::debug!(
            "{key}: {} in {:.3} ms, noise {:.2}, settled {}",
            choice.candidate,
            choice.seconds * 1e3,
            choice.noise,
            choice.settled
        );
        self.choices.insert(key.into(), choice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(name: &str, seconds: &[f64]) -> Timed {
        Timed { candidate: name.into(), seconds: seconds.to_vec() }
    }

    #[test]
    fn the_median_decides_and_clear_or_quiet_results_stand() {
        // One lucky run of b and one unlucky one of a change nothing.
        let clear = judge(&[timed("a", &[1.0, 9.0, 1.1]), timed("b", &[2.0, 2.1, 2.2])], None).unwrap();
        assert_eq!((clear.candidate.as_str(), clear.settled), ("a", true));
        let equal = judge(&[timed("a", &[1.0, 1.02, 1.01]), timed("b", &[1.01, 1.0, 1.03])], None).unwrap();
        assert!(equal.settled, "as good as equal: either will do");
        let noisy = judge(&[timed("a", &[1.0, 3.0, 1.5]), timed("b", &[1.2, 4.0, 1.6])], None).unwrap();
        assert_eq!((noisy.candidate.as_str(), noisy.settled, noisy.sessions), ("a", false, 1));
    }

    #[test]
    fn noisy_choices_are_measured_again_but_not_for_ever_and_not_changed_for_little() {
        let mut tuner = Tuner::none();
        let noisy = [timed("a", &[1.0, 3.0, 1.5]), timed("b", &[1.2, 4.0, 1.6])];
        tuner.remember("case", &noisy);
        assert!(!tuner.wants_again("case"), "once a session is enough");
        // Another session, in which b is a little faster, and one in which it is much faster.
        let next = |tuner: &Tuner| {
            let mut next = Tuner::none();
            next.absorb_json(&tuner.to_json());
            next
        };
        let mut second = next(&tuner);
        assert!(second.wants_again("case"));
        second.remember("case", &[timed("a", &[1.0, 3.0, 1.5]), timed("b", &[1.0, 4.0, 1.4])]);
        assert_eq!((second.choices["case"].candidate.as_str(), second.wants_again("case")), ("a", false));
        let mut third = next(&second);
        third.remember("case", &[timed("a", &[1.0, 3.0, 1.5]), timed("b", &[0.9, 4.0, 1.0])]);
        assert_eq!(third.choices["case"].candidate, "b");
        assert!(!next(&third).wants_again("case"), "three sessions are enough");
    }

    #[test]
    fn times_of_all_candidates_are_kept_and_tables_without_them_are_read() {
        let mut tuner = Tuner::none();
        tuner.remember("case", &[timed("a", &[2.0, 2.2, 2.1]), timed("b", &[1.0, 1.2, 1.1]), timed("never ran", &[])]);
        let mut next = Tuner::none();
        next.absorb_json(&tuner.to_json());
        let read = next.remembered();
        assert_eq!((read[0].case.as_str(), read[0].candidate.as_str(), read[0].seconds, read[0].settled), ("case", "b", 1.1, true));
        assert_eq!(read[0].times, [("b".to_owned(), 1.1), ("a".to_owned(), 2.1)]);
        // What version 0.1.0 wrote before.
        let choice = r#"{"candidate": "a", "seconds": 0.5, "noise": 0.1, "sessions": 2, "settled": false}"#;
        let mut old = Tuner::none();
        old.absorb_json(&format!(r#"{{"key": "{}", "choices": {{"case": {choice}}}}}"#, old.cache_key()));
        assert_eq!((old.remembered()[0].sessions, old.remembered()[0].times.len()), (2, 0));
    }

    #[test]
    fn pinned_choices_win_are_not_measured_and_not_written() {
        let mut tuner = Tuner::none();
        tuner.remember("case", &[timed("kernel A=1", &[1.0, 3.0, 1.5]), timed("kernel A=2", &[1.2, 4.0, 1.6])]);
        let mut tuner = {
            let mut next = Tuner::none();
            next.absorb_json(&tuner.to_json());
            next
        };
        static SPEC: super::super::KernelSpec = super::super::KernelSpec { name: "kernel", source: "", bindings: &[] };
        let candidates: Vec<Candidate> =
            [1, 2].map(|a| Candidate { spec: &SPEC, variant: super::super::Variant::new().with("A", a), grid: [1, 1, 1] }).into();
        assert_eq!(tuner.choice("case", &candidates), Some(0));
        let written = tuner.to_json();
        tuner.pin(&[("case".to_owned(), "kernel A=2".to_owned()), ("other".to_owned(), "kernel A=2".to_owned())].into());
        assert_eq!((tuner.choice("case", &candidates), tuner.choice("other", &candidates)), (Some(1), Some(1)));
        assert!(!tuner.wants_again("case"));
        assert_eq!(tuner.to_json(), written);
        tuner.pin(&[("case".to_owned(), "a kernel that is not offered".to_owned())].into());
        assert_eq!(tuner.choice("case", &candidates), Some(0));
        tuner.unpin();
        assert!(tuner.wants_again("case"));
    }
}
