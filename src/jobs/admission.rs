//! Which jobs are on the device: greedily in the policy's order, as long as the planned bytes of all of them stay within the budget.
//!
//! The bytes are the plan's, exact and known before anything is allocated, where mLoRA (VLDB 2025, equation 5) fits a model of them to
//! measurements and needs a margin. The choice is made anew at every step boundary from all jobs, so a job that comes first always finds
//! its memory where the policy preempts; the others keep what fits beside it.

use super::job::Job;
use super::options::Options;
use super::state::State;

/// Jobs that may be tried behind one that does not fit: bounds the work of a step boundary.
const TRIED: usize = 64;

/// Bytes that these jobs need on the device together, base and recordings included. More jobs never need less.
pub type PlannedBytes<'a> = dyn Fn(&[&Job]) -> u64 + 'a;

/// Who is to be on the device, and who never can be.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Places in the list of jobs.
    pub(super) resident: Vec<usize>,
    /// Places of jobs that do not fit alone, with the bytes they would need.
    pub(super) too_large: Vec<(usize, u64)>,
}

/// Chooses among the jobs that are ready. `budget` is what may be used now.
pub(super) fn choose(options: &Options, jobs: &[Job], budget: u64, planned: &PlannedBytes<'_>) -> Admission {
    let mut order: Vec<usize> = (0..jobs.len()).filter(|i| jobs[*i].status.state.is_ready()).collect();
    let numbers = options.numbers();
    let running = |i: usize| jobs[i].status.state == State::Running;
    order.sort_by(|a, b| {
        // Where nobody is preempted, those on the device come first.
        let kept = if options.policy.preempts { std::cmp::Ordering::Equal } else { running(*b).cmp(&running(*a)) };
        kept.then_with(|| (options.policy.order)(&numbers, &jobs[*a], &jobs[*b]))
    });
    let mut found = Admission::default();
    let mut set: Vec<&Job> = Vec::new();
    let mut tried = 0;
    for i in order {
        set.push(&jobs[i]);
        if planned(&set) <= budget {
            found.resident.push(i);
            continue;
        }
        set.pop();
        let alone = planned(&[&jobs[i]]);
        if alone > budget {
            found.too_large.push((i, alone));
            continue; // it stands in nobody's way
        }
        tried += 1;
        if tried >= TRIED || !options.policy.overtakes {
            break;
        }
    }
    found
}
