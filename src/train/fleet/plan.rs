//! A fleet before it is on a device: how many jobs fit at once, in how many rows, in exactly how many bytes.

use super::Fleet;
use super::angles::check_angles;
use super::entry::Entry;
use super::founders::Founders;
use super::member::Member;
use super::sizes::{Sizes, bytes, pool_bytes};
use crate::adapters::Capacity;
use crate::config::ModelConfig;
use crate::formats::ModelFile;
use crate::gpu::device::PlanLimits;
use crate::gpu::{Gpu, Tuner};
use crate::jobs::{self, Options, Scheduler};
use crate::model::Base;
use crate::model::Recompute;
use crate::quant;
use crate::train::job::BaseIdentity;
use crate::train::kernels::KernelChoices;
use crate::train::recompute::{fits, unasked};
use crate::train::session::{Planned, Shape};
use crate::{Error, Result};

/// Jobs that share one base, declared and recorded.
pub struct FleetPlan {
    /// Declared buffers and planned recordings.
    pub planned: Planned,
    pub(super) members: Vec<Member>,
    pub(super) scheduler: Scheduler,
    pub(super) asked: Options,
    pub(super) fixed: u64,
    pub(super) sizes: Sizes,
    pub(super) base: BaseIdentity,
    pub(super) told: Vec<jobs::Event>,
    pub(super) generation: u64,
}

/// Where a fleet is planned.
pub(super) struct Place<'a> {
    pub file: &'a ModelFile,
    /// The model's shape, its angles stretched as the jobs want it.
    pub model: &'a ModelConfig,
    pub resident: Option<&'a Base>,
    pub limits: PlanLimits,
    pub tuner: &'a Tuner,
}

impl Place<'_> {
    /// Plans recordings of these sizes: the bytes of everything but the pool, and whether the pool is as large as wanted. Within
    /// `options.memory` where that is possible; without it a pool of more than one binding stays within what a device has at least.
    pub fn plan(&self, needs: &[Capacity], options: &Options, sizes: &Sizes, quantize: &str) -> Result<Recorded> {
        let shape = Shape {
            rows: sizes.rows,
            positions: sizes.positions,
            recompute: sizes.recompute,
            quantize: quant::by_name(quantize),
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
}

/// Planned recordings.
pub(super) struct Recorded {
    pub planned: Planned,
    /// Bytes of everything but the pool.
    pub fixed: u64,
    /// The pool has all the room that is wanted.
    pub is_whole: bool,
}

impl FleetPlan {
    /// Plans `entries` on the model in `file`, whose `ModelFile::content_hash` is `hash`, on `resident` where that suits. Without a budget
    /// all jobs are on the device at once as far as one binding holds their parameters, or 2 GiB all there is. `tuner` sums in the orders of jobs that go on from now on.
    ///
    /// # Errors
    /// No entry, a setting that cannot work (with the job's name), jobs that quantise the base differently, what the device's limits
    /// make impossible.
    pub fn new(
        file: &ModelFile,
        hash: &str,
        resident: Option<&Base>,
        entries: Vec<Entry>,
        options: Options,
        limits: PlanLimits,
        tuner: &mut Tuner,
    ) -> Result<FleetPlan> {
        let mut founders = Founders::new(file, hash, entries);
        if !founders.refused.is_empty() {
            return Err(founders.refused.swap_remove(0).1);
        }
        Self::of(file, resident, founders, options, limits, tuner)
    }

    /// The same of jobs that are ready, without those that were refused.
    ///
    /// # Errors
    /// No job; what the device's limits make impossible.
    pub fn of(
        file: &ModelFile,
        resident: Option<&Base>,
        founders: Founders,
        options: Options,
        limits: PlanLimits,
        tuner: &mut Tuner,
    ) -> Result<FleetPlan> {
        let Founders { mut members, base, shared, .. } = founders;
        let Some(shared) = shared else { return Err(Error::config("job", "there is none", "give at least one")) };
        KernelChoices::repeat(members.iter().filter_map(Member::resumed_kernels), tuner);
        let rows: Vec<usize> = members.iter().map(|member| member.rows).collect();
        let longest = members.iter().map(Member::longest).max().unwrap_or(1);
        check_angles(&members, longest, &base.model)?;
        let mut sizes = Sizes::new(&rows, longest, &options, &base.model);
        let needs: Vec<Capacity> = members.iter().map(|member| member.need.clone()).collect();
        let place = Place { file, model: &base.model, resident, limits, tuner };
        let sized = |recompute| Sizes { recompute, ..sizes.clone() };
        let (Recorded { planned, fixed, .. }, recompute) = shared.1.choose(
            |recompute| place.plan(&needs, &options, &sized(recompute), &shared.0),
            // A smaller pool makes jobs wait for each other, which costs less than computing inputs twice.
            |recorded, mode| {
                let whole = recorded.is_whole || mode == Recompute::Blocks;
                whole && fits(recorded.planned.footprint().total(), mode, options.memory, limits)
            },
        )?;
        sizes = sized(recompute);
        // What is allocated is what jobs can have.
        let memory = options.memory.unwrap_or(u64::MAX).min(planned.footprint().total());
        let mut scheduler = Scheduler::new(Options { memory: Some(memory), step_tokens: sizes.rows as u64, ..options.clone() });
        for member in &mut members {
            member.join(&mut scheduler)?;
        }
        Ok(FleetPlan { planned, members, scheduler, asked: options, fixed, sizes, base, told: Vec::new(), generation: 0 })
    }

    /// Places for jobs at once, and bytes of parameters, gradients and moments that the jobs there are do not need.
    pub fn room(&self) -> (usize, u64) {
        let pool = &self.planned.adapters;
        let needs = self.members.iter().filter(|member| !member.is_over()).map(|member| &member.need);
        let taken: u64 = needs.map(|need| bytes(need.values, need.grads)).sum();
        (pool.job_count(), pool_bytes(pool).saturating_sub(taken))
    }

    /// The jobs as the scheduler has them, beside their runs.
    pub fn jobs(&self) -> impl Iterator<Item = (&Member, &jobs::Job)> {
        self.members.iter().zip(self.scheduler.jobs())
    }

    /// Measures kernels that `tuner` does not know (unless `measure` is false), allocates and streams the weights. `progress` gets bytes done and in
    /// all. Jobs that were on the device when a run was saved are there again.
    ///
    /// # Errors
    /// Damaged weights, a device that is too small or lost.
    pub async fn open(
        mut self,
        gpu: &Gpu,
        file: &ModelFile,
        tuner: &mut Tuner,
        measure: bool,
        progress: impl FnMut(u64, u64),
    ) -> Result<Fleet> {
        if measure {
            self.planned.tune(gpu, tuner).await?;
        }
        let FleetPlan { planned, mut members, scheduler, asked, fixed, mut sizes, base, told, generation } = self;
        sizes.kernels = planned.kernels().clone();
        let session = planned.realize(gpu, file, progress).await?;
        tuner.unpin();
        let norms = if session.capacity().norms > 0 { session.base_norms(gpu).await? } else { Vec::new() };
        members.iter_mut().for_each(|member| member.take_norms(&norms));
        let kernels = members.iter().filter_map(Member::resumed_kernels).find_map(|saved| sizes.kernels.difference(saved));
        let mut fleet = Fleet { session, norms, members, scheduler, asked, fixed, sizes, base, told, generation, kernels };
        fleet.take_places(gpu).await?;
        Ok(fleet)
    }
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
