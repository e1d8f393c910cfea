//! A fleet before it is on a device: how many jobs fit at once, in how many rows, in exactly how many bytes.

use super::Fleet;
use super::angles::check_angles;
use super::entry::Entry;
use super::founders::Founders;
use super::member::Member;
use super::place::{Chosen, Place, Recorded};
use super::sizes::{Sizes, bytes, pool_bytes};
use crate::formats::ModelFile;
use crate::gpu::device::PlanLimits;
use crate::gpu::{Gpu, Tuner};
use crate::jobs::{self, Options, Scheduler};
use crate::model::Base;
use crate::train::job::BaseIdentity;
use crate::train::kernels::KernelChoices;
use crate::train::session::Planned;
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
        let plan = Self::of(file, resident, &mut founders, options, limits, tuner)?;
        match (plan, founders.refused.pop()) {
            (Some(plan), None) => Ok(plan),
            (_, Some((_, error))) => Err(error),
            (None, None) => Err(Error::config("job", "there is none", "give at least one")),
        }
    }

    /// The same of the founders that are ready. Those for which there is no room are refused then; `None` where nobody is left.
    ///
    /// # Errors
    /// Angles that would depend on a neighbour's rows; what cannot be recorded.
    pub fn of(
        file: &ModelFile,
        resident: Option<&Base>,
        founders: &mut Founders,
        options: Options,
        limits: PlanLimits,
        tuner: &mut Tuner,
    ) -> Result<Option<FleetPlan>> {
        let (mut members, base) = (std::mem::take(&mut founders.members), founders.base.clone());
        let Some(shared) = &founders.shared else { return Ok(None) };
        KernelChoices::repeat(members.iter().filter_map(Member::resumed_kernels), tuner);
        let longest = members.iter().map(Member::longest).max().unwrap_or(1);
        check_angles(&members, longest, &base.model)?;
        let place = Place { file, model: &base.model, resident, limits, tuner, options: &options, quantize: &shared.0 };
        let (chosen, refused) = place.choose_fitting(&mut members, shared.1)?;
        founders.refused.extend(refused);
        let Some(Chosen { recorded: Recorded { planned, fixed, .. }, sizes }) = chosen else { return Ok(None) };
        // What is allocated is what jobs can have.
        let memory = options.memory.unwrap_or(u64::MAX).min(planned.footprint().total());
        let mut scheduler = Scheduler::new(Options { memory: Some(memory), step_tokens: sizes.rows as u64, ..options.clone() });
        for member in &mut members {
            member.join(&mut scheduler)?;
        }
        Ok(Some(FleetPlan { planned, members, scheduler, asked: options, fixed, sizes, base, told: Vec::new(), generation: 0 }))
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
