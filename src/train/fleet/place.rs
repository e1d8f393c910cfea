//! What is recorded for the jobs of a fleet: how many rows, what is computed again, how large a pool, within limits and memory.

use super::member::Member;
use super::sizes::{Sizes, bytes, pool_bytes};
use crate::adapters::Capacity;
use crate::config::ModelConfig;
use crate::formats::ModelFile;
use crate::gpu::Tuner;
use crate::gpu::device::PlanLimits;
use crate::jobs::Options;
use crate::model::{Base, Recompute};
use crate::quant;
use crate::train::recompute::{RecomputeChoice, check_memory, fits, unasked};
use crate::train::session::{Planned, Shape};
use crate::{Error, Result};

/// Where a fleet is planned.
pub(super) struct Place<'a> {
    pub file: &'a ModelFile,
    /// The model's shape, its angles stretched as the jobs want it.
    pub model: &'a ModelConfig,
    pub resident: Option<&'a Base>,
    pub limits: PlanLimits,
    pub tuner: &'a Tuner,
    /// The scheduler's settings.
    pub options: &'a Options,
    /// Format that float weights are quantised to.
    pub quantize: &'a str,
}

impl Place<'_> {
    /// Plans recordings of these sizes: the bytes of everything but the pool, and whether the pool is as large as wanted. Within
    /// `options.memory` where that is possible; without it a pool of more than one binding stays within what a device has at least.
    pub fn plan(&self, needs: &[Capacity], sizes: &Sizes) -> Result<Recorded> {
        let options = self.options;
        let shape = Shape {
            rows: sizes.rows,
            positions: sizes.positions,
            recompute: sizes.recompute,
            quantize: quant::by_name(self.quantize),
            training: true,
        };
        let base = Base::suiting(self.resident, self.file, self.limits, shape.quantize, shape.rows)?.with_config(self.model.clone());
        let plan = |capacity: Capacity| Planned::within(base.clone(), capacity, shape, &sizes.smaller(), self.limits, self.tuner);
        let needs = &needs[..sizes.founders.min(needs.len())];
        let all = capacity(needs, options);
        let planned = plan(all.clone())?;
        let fixed = planned.footprint().total() - pool_bytes(&planned.adapters);
        let binding = (self.limits.max_binding.min(self.limits.max_buffer) / 4) as usize;
        let most = || unasked(self.limits).max(fixed + bytes(binding, binding));
        let budget = options.memory.or_else(|| (planned.adapters.pages().len() > 1).then(most));
        match budget {
            Some(memory) if planned.footprint().total() > memory => {
                let planned = plan(shrunk(&all, needs, memory.saturating_sub(fixed)))?;
                Ok(Recorded { planned, fixed, is_whole: false })
            }
            _ => Ok(Recorded { planned, fixed, is_whole: true }),
        }
    }

    /// Plans for `members`: rows are as many as fit into a step of `step-tokens` of all of them, or half of that and so on where not even the
    /// smallest way to `recompute` is within what is allowed.
    fn choose(&self, members: &[Member], recompute: RecomputeChoice) -> Result<Chosen> {
        let rows: Vec<usize> = members.iter().map(|member| member.rows).collect();
        let longest = members.iter().map(Member::longest).max().unwrap_or(1);
        let needs: Vec<Capacity> = members.iter().map(|member| member.need.clone()).collect();
        let mut step_tokens = self.options.step_tokens;
        loop {
            let sizes = Sizes::new(&rows, longest, &Options { step_tokens, ..self.options.clone() }, self.model);
            let made = recompute.choose(
                |recompute| self.plan(&needs, &Sizes { recompute, ..sizes.clone() }),
                // A smaller pool makes jobs wait for each other, which costs less than computing inputs twice.
                |recorded, mode| {
                    let whole = recorded.is_whole || mode == Recompute::Blocks;
                    whole && fits(recorded.planned.footprint().total(), mode, self.options.memory, self.limits)
                },
            );
            let made = made.map(|(recorded, recompute)| Chosen { recorded, sizes: Sizes { recompute, ..sizes.clone() } });
            let can_shrink = rows.iter().all(|rows| rows.next_multiple_of(8) < sizes.rows);
            if !can_shrink || !self.is_too_large(&made) {
                return made;
            }
            step_tokens = sizes.rows as u64 / 2;
        }
    }

    /// Whether a plan is beyond the device's limits or the memory that is allowed.
    fn is_too_large(&self, made: &Result<Chosen>) -> bool {
        match made {
            Ok(chosen) => check_memory(&chosen.recorded.planned, self.options.memory).is_err(),
            Err(error) => matches!(error, Error::Limit { .. }),
        }
    }

    /// Plans for as many of `members` as there is room for, and takes the others out, with the reason: those that have none even alone, and those
    /// that have none in recordings with the jobs before them. `None` where nobody is left.
    pub fn choose_fitting(&self, members: &mut Vec<Member>, recompute: RecomputeChoice) -> Result<(Option<Chosen>, Refused)> {
        let mut refused = Vec::new();
        let made = self.choose(members, recompute);
        if !self.is_too_large(&made) {
            return Ok((Some(made?), refused));
        }
        let name = |member: &Member| member.run.config.name.clone();
        members.retain(|member| match self.choose_allowed(std::slice::from_ref(member), recompute) {
            Ok(_) => true,
            Err(error) => {
                refused.push((name(member), error));
                false
            }
        });
        if members.is_empty() {
            return Ok((None, refused));
        }
        if let Ok(chosen) = self.choose_allowed(members, recompute) {
            return Ok((Some(chosen), refused));
        }
        let mut last = None;
        let mut fitting = Vec::with_capacity(members.len());
        for member in members.drain(..) {
            let name = name(&member);
            fitting.push(member);
            match self.choose_allowed(&fitting, recompute) {
                Ok(chosen) => last = Some(chosen),
                Err(error) => {
                    fitting.pop();
                    let problem = format!("there is no room for it in recordings with those before it: {error}");
                    refused.push((name, Error::config("job", problem, "train it in a run of its own")));
                }
            }
        }
        *members = fitting;
        Ok((last, refused))
    }

    /// [`Self::choose`], or why that is too large.
    fn choose_allowed(&self, members: &[Member], recompute: RecomputeChoice) -> Result<Chosen> {
        let chosen = self.choose(members, recompute)?;
        check_memory(&chosen.recorded.planned, self.options.memory)?;
        Ok(chosen)
    }
}

/// Names of jobs, and why each cannot be planned.
type Refused = Vec<(String, Error)>;

/// Planned recordings.
pub(super) struct Recorded {
    pub planned: Planned,
    /// Bytes of everything but the pool.
    pub fixed: u64,
    /// The pool has all the room that is wanted.
    pub is_whole: bool,
}

/// What was recorded, and in which sizes.
pub(super) struct Chosen {
    pub recorded: Recorded,
    pub sizes: Sizes,
}

/// Room for as many of the jobs at once as a fused step may hold, and for some that come later.
fn capacity(needs: &[Capacity], options: &Options) -> Capacity {
    let all = needs.iter().cloned().fold(Capacity::default(), Capacity::and);
    let jobs = all.jobs.min(options.step_jobs).max(needs.iter().map(|need| need.jobs).max().unwrap_or(0));
    let places = Capacity { jobs: jobs.max(2), ..Capacity::default() }.rounded().jobs;
    let spare = options.spare_jobs.unwrap_or_else(|| (places - jobs).min(1));
    Capacity { jobs, ..all }.with_spare(spare, needs).rounded()
}

/// The same with at most `most` bytes for the pool, but always room for the largest job alone.
fn shrunk(capacity: &Capacity, needs: &[Capacity], most: u64) -> Capacity {
    let share = most as f64 / bytes(capacity.values, capacity.grads).max(1) as f64;
    let part = |all: usize, least: usize| ((all as f64 * share) as usize / 64 * 64).clamp(least, all.max(least));
    let largest = |of: fn(&Capacity) -> usize| needs.iter().map(of).max().unwrap_or(0);
    Capacity {
        values: part(capacity.values, largest(|need| need.values)),
        grads: part(capacity.grads, largest(|need| need.grads)),
        ..capacity.clone()
    }
}
