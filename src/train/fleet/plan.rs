//! A fleet before it is on a device: how many jobs fit at once, in how many rows, in exactly how many bytes.

use serde::{Deserialize, Serialize};

use super::{Entry, Fleet, Member, Saved};
use crate::adapters::{Capacity, ModuleCapacity, embeddings, initial_buffer};
use crate::config::ModelConfig;
use crate::formats::ModelFile;
use crate::gpu::device::PlanLimits;
use crate::gpu::{Gpu, Tuner};
use crate::jobs::curve::Curve;
use crate::jobs::{self, Options, Scheduler};
use crate::model::Base;
use crate::model::llama::Recompute;
use crate::quant;
use crate::train::checkpoint::{Buffers, Checkpoint};
use crate::train::job::{BaseIdentity, Job};
use crate::train::kernels::KernelChoices;
use crate::train::plan::{check_length, micro_rows};
use crate::train::recompute::allowed;
use crate::train::session::{Planned, Shape};
use crate::train::start::Start;
use crate::{Error, Result};

/// Smaller fused batches that are recorded beside the largest, each half of the one before.
const SMALLER: usize = 2;
/// Rows below which no smaller recording is worth its kernels.
const LEAST_ROWS: usize = 64;

/// What a fleet's recordings are made for. It is saved: a run that goes on has recordings of the same sizes, and so the same bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sizes {
    /// How many jobs the run began with: the pool is made for them, and has room for more.
    pub founders: usize,
    /// Rows of the largest fused batch.
    pub rows: usize,
    /// Longest document that the rotary table reaches.
    pub positions: usize,
    /// Recompute blocks in the backward pass.
    pub recompute: bool,
    /// Kernels that sum in an order of their own.
    pub kernels: KernelChoices,
}

impl Sizes {
    fn new(members: &[Member], options: &Options, base: &BaseIdentity) -> Self {
        let most = members.iter().map(|member| member.rows).max().unwrap_or(1);
        let all: usize = members.iter().map(|member| member.rows).sum();
        let rows = all.min(options.step_tokens as usize).max(most).next_multiple_of(8);
        let longest = members.iter().map(Member::longest).max().unwrap_or(1);
        // Jobs that are added later may have any row that fits into a fused batch.
        let positions = rows.min(base.model.max_position_embeddings).max(longest);
        Self { founders: members.len(), rows, positions, recompute: false, kernels: KernelChoices::default() }
    }

    /// Smaller fused batches that are recorded, too.
    fn smaller(&self) -> Vec<usize> {
        (1..=SMALLER).map(|i| (self.rows >> i).next_multiple_of(8)).filter(|rows| *rows >= LEAST_ROWS).collect()
    }
}

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

/// Bytes of the pool for this capacity: parameters, gradients, two moments.
pub(super) fn pool_bytes(capacity: &Capacity) -> u64 {
    4 * capacity.values as u64 + 12 * capacity.grads as u64
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
    /// `options.memory` where that is possible.
    pub fn plan(&self, needs: &[Capacity], options: &Options, sizes: &Sizes, quantize: &str) -> Result<Recorded> {
        let shape = Shape {
            rows: sizes.rows,
            positions: sizes.positions,
            recompute: if sizes.recompute { Recompute::Blocks } else { Recompute::Off },
            quantize: quant::by_name(quantize),
            training: true,
        };
        let base = Base::suiting(self.resident, self.file, self.limits, shape.quantize, shape.rows)?.with_config(self.model.clone());
        let plan = |capacity: Capacity| Planned::within(base.clone(), capacity, shape, &sizes.smaller(), self.limits, self.tuner);
        let needs = &needs[..sizes.founders.min(needs.len())];
        let all = capacity(needs, options, self.limits);
        let planned = plan(all.clone())?;
        let fixed = planned.footprint().total() - pool_bytes(&all);
        match options.memory {
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
    /// all jobs are on the device at once as far as the device binds their parameters. `tuner` sums in the orders of jobs that go on from now on.
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
        let Some(first) = entries.first() else { return Err(Error::config("job", "there is none", "give at least one")) };
        let shared = (first.config.quantize.clone(), first.config.recompute);
        if entries.iter().any(|entry| (&entry.config.quantize, entry.config.recompute) != (&shared.0, shared.1)) {
            return Err(Error::config("quantize", "differs between jobs", "all jobs share one base and its recordings: write it once"));
        }
        let mut base = BaseIdentity::new(file, file.identity_of(hash.to_owned()));
        base.model = first.config.context.stretch(&file.config)?;
        let mut members = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = entry.config.name.clone();
            members.push(member(entry, &base).map_err(|error| of_job(&name, error))?);
        }
        KernelChoices::repeat(members.iter().filter_map(Member::resumed_kernels), tuner);
        let mut sizes = Sizes::new(&members, &options, &base);
        let needs: Vec<Capacity> = members.iter().map(|member| member.need.clone()).collect();
        let place = Place { file, model: &base.model, resident, limits, tuner };
        let most = allowed(options.memory, limits);
        let sized = |recompute| Sizes { recompute: recompute == Recompute::Blocks, ..sizes.clone() };
        let (Recorded { planned, fixed, .. }, recompute) = shared.1.choose(
            |recompute| place.plan(&needs, &options, &sized(recompute), &shared.0),
            |recorded| recorded.is_whole && recorded.planned.footprint().total() <= most,
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
        let capacity = self.planned.adapters.capacity();
        let taken: u64 = self.members.iter().filter(|member| !member.is_over()).map(|member| pool_bytes(&member.need)).sum();
        (capacity.jobs, pool_bytes(capacity).saturating_sub(taken))
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

/// Room for as many of the jobs at once as a fused step may hold and the device binds, and for some that come later.
fn capacity(needs: &[Capacity], options: &Options, limits: PlanLimits) -> Capacity {
    let all = needs.iter().cloned().fold(Capacity::default(), Capacity::and);
    let largest = |of: fn(&Capacity) -> usize| needs.iter().map(of).max().unwrap_or(0);
    let jobs = all.jobs.min(options.step_jobs).max(largest(|need| need.jobs));
    let places = Capacity { jobs: jobs.max(2), ..Capacity::default() }.rounded().jobs;
    let spare = options.spare_jobs.unwrap_or_else(|| (places - jobs).min(1));
    let bound = (limits.max_binding.min(limits.max_buffer) / 4) as usize / 64 * 64;
    let words = |of: fn(&Capacity) -> usize| (of(&all) + spare * largest(of)).min(bound).max(largest(of));
    let modules = if spare > 0 { all.modules.and(all.modules) } else { all.modules };
    let blocks = all.blocks + spare * largest(|need| need.blocks);
    Capacity { jobs: jobs + spare, values: words(|need| need.values), grads: words(|need| need.grads), blocks, modules, ..all }.rounded()
}

/// The same with at most `bytes` for the pool, but always room for the largest job alone.
fn shrunk(capacity: &Capacity, needs: &[Capacity], bytes: u64) -> Capacity {
    let share = bytes as f64 / pool_bytes(capacity).max(1) as f64;
    let part = |all: usize, least: usize| ((all as f64 * share) as usize / 64 * 64).clamp(least, all.max(least));
    let largest = |of: fn(&Capacity) -> usize| needs.iter().map(of).max().unwrap_or(0);
    Capacity {
        values: part(capacity.values, largest(|need| need.values)),
        grads: part(capacity.grads, largest(|need| need.grads)),
        ..capacity.clone()
    }
}

/// What jobs need together, against what there is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Needed {
    jobs: usize,
    values: usize,
    grads: usize,
    blocks: usize,
    modules: ModuleCapacity,
}

impl Needed {
    pub fn and(self, need: &Capacity) -> Self {
        Self {
            jobs: self.jobs + need.jobs,
            values: self.values + need.values,
            grads: self.grads + need.grads,
            blocks: self.blocks + need.blocks,
            modules: self.modules.and(need.modules),
        }
    }

    pub fn fits(self, room: &Capacity) -> bool {
        self.jobs <= room.jobs
            && self.values <= room.values
            && self.grads <= room.grads
            && self.blocks <= room.blocks
            && room.modules.holds(self.modules)
    }

    /// Bytes in the pool.
    pub fn bytes(self) -> u64 {
        4 * self.values as u64 + 12 * self.grads as u64
    }
}

pub(super) fn member(entry: Entry, base: &BaseIdentity) -> Result<Member> {
    let Entry { mut config, data, start, priority, group, saved } = entry;
    // All jobs share one table of angles.
    if config.context.stretch(&base.trained)? != base.model {
        let hint = "give all jobs one --context and one --rope-scaling, or train them one after the other";
        return Err(Error::config("context", "stretches the model's angles in another way than the first job's", hint));
    }
    check_length(&config, &base.model)?;
    if config.adapter.train_embeddings {
        data.check_tokens(&base.model)?;
        let of_saved = saved.as_ref().map(|saved| Checkpoint::read(&config.name, &saved.checkpoint)).transpose()?;
        let of_saved = of_saved.map(|saved| saved.state.embedding_tokens).unwrap_or_default();
        config.adapter = config.adapter.with_tokens(data.tokens().chain(of_saved));
    }
    let layout = config.adapter.layout(&base.model)?;
    let (rows, need) = (micro_rows(&config, Some(&data)), config.need(&layout)?);
    let mut job = Job::new(config, data, layout, rows, base.clone())?;
    let Start { values, links, has_norms, tokens, .. } =
        start.unwrap_or_else(|| initial_buffer(&job.layout.params, job.config.seed).into());
    if let Some(chain) = job.chain.as_mut().filter(|_| !links.is_empty()) {
        chain.inherit(links)?;
    }
    let values = embeddings::widen(values, &tokens, &job.layout)?;
    let has_norms = has_norms || saved.is_some();
    let (_, moments) = job.layout.params.gradient_offsets();
    let new = Buffers { values, m: vec![0.0; moments], v: vec![0.0; moments], grads: None };
    let (buffers, curve) = match saved {
        Some(Saved { checkpoint, curve }) => (job.restore(&job.config.name.clone(), &checkpoint)?, curve),
        None => (new, Curve::default()),
    };
    Ok(Member::new(job, rows, need, buffers, has_norms, curve, priority, group))
}

/// Names the job in what is wrong with its settings.
pub(super) fn of_job(name: &str, error: Error) -> Error {
    match error {
        Error::Config { key, problem, hint } => Error::Config { key: format!("job {name}: {key}"), problem, hint },
        other => other,
    }
}
