//! Who goes first: rows of [`POLICIES`]. A policy orders the jobs that want memory, and picks the micro-batches of the next fused step.
//!
//! - `fifo`: first come, first served, as the published dispatcher of m-LoRA does it; nobody overtakes.
//! - `priority`: the rule of mLoRA (VLDB 2025, section 3.4): by priority, inside one by arrival, greedily as long as the memory allows, anew at every
//!   step boundary. A stream of urgent jobs starves the others.
//! - `min-pad`: the rule of ASPEN as published with it: of the micro-batches sorted by length, the window of `step-jobs` neighbours with the least sum of
//!   differences from its longest. Jobs of unusual length wait until the others are done.
//! - `fair` (the default): as `priority`, but a job gains one priority for every `ageing` step boundaries since it arrived, so that only finitely many
//!   can overtake it; on the device the highest priority goes first, then who was given fewest rows, and nobody is left out of more than
//!   `gap` fused steps and one for each other job.
//! - `shortest`: as `fair`, but inside a priority the one with the fewest rows to go is first: the least mean turnaround, less evenly.
//!
//! Linear ageing keeps the order of two jobs for all time (both age alike), so nothing is moved to and fro.

use std::cmp::{Ordering, Reverse};

use serde::{Deserialize, Deserializer, Serializer};

use super::job::Job;
use crate::settings::one_of;
use crate::{Error, Result};

/// The settings that policies go by, as [`super::Options`] has them.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// Most rows of a fused step.
    pub step_tokens: u64,
    /// Most jobs of a fused step.
    pub step_jobs: usize,
    /// Step boundaries after which a waiting job counts one priority higher.
    pub ageing: u64,
    /// Fused steps that a job on the device may be left out of before it goes first.
    pub gap: u64,
}

/// One policy.
#[derive(Debug)]
pub struct Policy {
    /// As in a jobs file.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// Who of two jobs gets memory first.
    pub(super) order: fn(&Numbers, &Job, &Job) -> Ordering,
    /// Whether a job that comes first may take the memory of one that has it.
    pub(super) preempts: bool,
    /// Whether a job may overtake one that does not fit.
    pub(super) overtakes: bool,
    /// Which of the jobs on the device take part in the next fused step, at step boundary `now`.
    pub(super) pick: fn(&Numbers, &[&Job], now: u64) -> Vec<usize>,
}

/// Every policy; the first is the default.
pub static POLICIES: &[Policy] = &[
    Policy {
        name: "fair",
        help: "By priority with ageing, then whoever had least",
        order: aged,
        preempts: true,
        overtakes: true,
        pick: |numbers, jobs, now| pick_aged(numbers, jobs, now, |job| job.served),
    },
    Policy {
        name: "shortest",
        help: "By priority with ageing, then whoever is done soonest",
        order: aged,
        preempts: true,
        overtakes: true,
        pick: |numbers, jobs, now| pick_aged(numbers, jobs, now, Job::rows_left),
    },
    Policy { name: "fifo", help: "First come, first served", order: arrival, preempts: false, overtakes: false, pick: pick_in_order },
    Policy {
        name: "priority",
        help: "By priority, then by arrival; the published rule, which can starve jobs",
        order: priority,
        preempts: true,
        overtakes: true,
        pick: |numbers, jobs, _| {
            let mut order: Vec<usize> = (0..jobs.len()).collect();
            order.sort_by(|a, b| priority(numbers, jobs[*a], jobs[*b]));
            fill(numbers, jobs, order, true)
        },
    },
    Policy {
        name: "min-pad",
        help: "Micro-batches of like lengths together; the published rule, which can starve jobs",
        order: arrival,
        preempts: false,
        overtakes: false,
        pick: pick_min_pad,
    },
];

impl Policy {
    /// The policy of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn by_name(name: &str) -> Result<&'static Self> {
        POLICIES.iter().find(|policy| policy.name == name).ok_or_else(|| {
            let names: Vec<&str> = POLICIES.iter().map(|policy| policy.name).collect();
            Error::config("policy", format!("is \"{name}\""), format!("give {}", one_of(&names)))
        })
    }
}

/// A policy in serialised state is its name.
pub(super) mod by_name {
    use super::{Deserialize, Deserializer, Policy, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(policy: &&'static Policy, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(policy.name)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static Policy, D::Error> {
        let name = String::deserialize(deserializer)?;
        Policy::by_name(&name).map_err(serde::de::Error::custom)
    }
}

fn arrival(_: &Numbers, a: &Job, b: &Job) -> Ordering {
    a.id.cmp(&b.id)
}

fn priority(_: &Numbers, a: &Job, b: &Job) -> Ordering {
    b.spec.priority.cmp(&a.spec.priority).then(a.id.cmp(&b.id))
}

/// By the step boundary at which a job would have had to arrive to be as urgent with priority 0.
fn aged(numbers: &Numbers, a: &Job, b: &Job) -> Ordering {
    let key = |job: &Job| i128::from(job.arrived) - i128::from(job.spec.priority) * i128::from(numbers.ageing);
    key(a).cmp(&key(b)).then_with(|| priority(numbers, a, b))
}

/// Takes jobs in that order while they fit into a step; `overtakes` goes on behind one that does not.
fn fill(numbers: &Numbers, jobs: &[&Job], order: Vec<usize>, overtakes: bool) -> Vec<usize> {
    let (mut rows, mut taken) = (0, Vec::new());
    for i in order {
        if taken.len() >= numbers.step_jobs {
            break;
        }
        let next = jobs[i].spec.next.rows;
        if rows + next <= numbers.step_tokens {
            rows += next;
            taken.push(i);
        } else if !overtakes {
            break;
        }
    }
    taken.sort_unstable();
    taken
}

fn pick_in_order(numbers: &Numbers, jobs: &[&Job], _: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|i| jobs[*i].id);
    fill(numbers, jobs, order, false)
}

/// First those that were left out for `gap` steps, longest first; then by priority, `measure` and arrival.
fn pick_aged(numbers: &Numbers, jobs: &[&Job], now: u64, measure: fn(&Job) -> u64) -> Vec<usize> {
    let overdue = |job: &Job| now.saturating_sub(job.last_taken) > numbers.gap;
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|i| {
        let job = jobs[*i];
        match overdue(job) {
            true => (0, job.last_taken, Reverse(0), 0, job.id),
            false => (1, 0, Reverse(job.spec.priority), measure(job), job.id),
        }
    });
    fill(numbers, jobs, order, true)
}

/// ASPEN's MinPad: `cost(window) = sum |len_i - len_0|` over windows of the micro-batches sorted by length, longest first.
fn pick_min_pad(numbers: &Numbers, jobs: &[&Job], _: u64) -> Vec<usize> {
    let mut sorted: Vec<usize> = (0..jobs.len()).collect();
    sorted.sort_by_key(|i| (Reverse(jobs[*i].spec.next.longest), jobs[*i].id));
    let length = |i: &usize| jobs[*i].spec.next.longest;
    // All documents are padded to the longest.
    let padded = |window: &[usize]| window.iter().map(|i| jobs[*i].spec.next.documents).sum::<u64>().saturating_mul(length(&window[0]));
    for n in (1..=numbers.step_jobs.min(sorted.len())).rev() {
        let fitting = sorted.windows(n).filter(|window| n == 1 || padded(window) <= numbers.step_tokens);
        let cost = |window: &&[usize]| window.iter().map(|i| length(&window[0]) - length(i)).sum::<u64>();
        if let Some(window) = fitting.min_by_key(cost) {
            let mut window = window.to_vec();
            window.sort_unstable();
            return window;
        }
    }
    Vec::new()
}
