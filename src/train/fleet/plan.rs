//! A fleet before it is on a device: how many jobs fit at once, in how many rows, in exactly how many bytes.

use super::{Entry, Fleet, Member, Saved};
use crate::adapters::{AdapterLayout, Capacity, initial_buffer};
use crate::formats::ModelFile;
use crate::gpu::device::PlanLimits;
use crate::gpu::{Gpu, Tuner};
use crate::jobs::curve::Curve;
use crate::jobs::{Options, Scheduler};
use crate::model::Base;
use crate::model::llama::Recompute;
use crate::quant;
use crate::train::checkpoint::Buffers;
use crate::train::job::{BaseIdentity, Job};
use crate::train::plan::{check_length, micro_rows};
use crate::train::session::{Planned, Shape};
use crate::train::start::Start;
use crate::{Error, Result};

/// Smaller fused batches that are recorded beside the largest, each half of the one before.
const SMALLER: usize = 2;
/// Rows below which no smaller recording is worth its kernels.
const LEAST_ROWS: usize = 64;

/// Jobs that share one base, declared and recorded.
pub struct FleetPlan {
    /// Declared buffers and planned recordings.
    pub planned: Planned,
    members: Vec<Member>,
    scheduler: Scheduler,
    fixed: u64,
    positions: usize,
    base: BaseIdentity,
}

/// Bytes of the pool for this capacity: parameters, gradients, two moments.
fn pool_bytes(capacity: &Capacity) -> u64 {
    4 * capacity.values as u64 + 12 * capacity.grads as u64
}

impl FleetPlan {
    /// Plans `entries` on the model in `file`, whose `ModelFile::content_hash` is `hash`, on `resident` where that suits. Without a budget
    /// all jobs are on the device at once as far as the device binds their parameters.
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
        tuner: &Tuner,
    ) -> Result<FleetPlan> {
        let Some(first) = entries.first() else { return Err(Error::config("job", "there is none", "give at least one")) };
        let shared = (first.config.quantize.clone(), first.config.recompute);
        if entries.iter().any(|entry| (&entry.config.quantize, entry.config.recompute) != (&shared.0, shared.1)) {
            return Err(Error::config("quantize", "differs between jobs", "all jobs share one base and its recordings: write it once"));
        }
        let mut identity = BaseIdentity::new(file, file.identity_of(hash.to_owned()));
        identity.model = first.config.context.stretch(&file.config)?;
        let mut members = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = entry.config.name.clone();
            members.push(member(entry, &identity).map_err(|error| of_job(&name, error))?);
        }
        let most = members.iter().map(|member| member.rows).max().unwrap_or(1);
        let all: usize = members.iter().map(|member| member.rows).sum();
        let rows = all.min(options.step_tokens as usize).max(most).next_multiple_of(8);
        let smaller: Vec<usize> = (1..=SMALLER).map(|i| (rows >> i).next_multiple_of(8)).filter(|rows| *rows >= LEAST_ROWS).collect();
        let shape = Shape {
            rows,
            positions: members.iter().map(Member::longest).max().unwrap_or(1),
            recompute: if shared.1 { Recompute::Blocks } else { Recompute::Off },
            quantize: quant::by_name(&shared.0),
            training: true,
        };
        let base = Base::suiting(resident, file, limits, shape.quantize, rows)?.with_config(identity.model.clone());
        let plan = |capacity: Capacity| Planned::within(base.clone(), capacity, shape, &smaller, limits, tuner);
        let mut capacity = capacity(&members, &options, limits);
        let mut planned = plan(capacity.clone())?;
        let fixed = planned.footprint().total() - pool_bytes(&capacity);
        if let Some(memory) = options.memory.filter(|memory| planned.footprint().total() > *memory) {
            capacity = shrunk(&capacity, &members, memory.saturating_sub(fixed));
            planned = plan(capacity)?;
        }
        // What is allocated is what jobs can have.
        let memory = options.memory.unwrap_or(u64::MAX).min(planned.footprint().total());
        let mut scheduler = Scheduler::new(Options { memory: Some(memory), step_tokens: rows as u64, ..options });
        for member in &mut members {
            member.join(&mut scheduler)?;
        }
        Ok(FleetPlan { planned, members, scheduler, fixed, positions: shape.positions, base: identity })
    }

    /// Measures kernels that `tuner` does not know (unless `measure` is false), allocates and streams the weights. `progress` gets bytes done and in
    /// all.
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
        let FleetPlan { planned, mut members, scheduler, fixed, positions, base } = self;
        let session = planned.realize(gpu, file, progress).await?;
        let norms = if session.capacity().norms > 0 { session.base_norms(gpu).await? } else { Vec::new() };
        members.iter_mut().for_each(|member| member.take_norms(&norms));
        Ok(Fleet { session, norms, members, scheduler, fixed, positions, base, told: Vec::new() })
    }
}

/// Room for as many of the jobs at once as a fused step may hold and the device binds.
fn capacity(members: &[Member], options: &Options, limits: PlanLimits) -> Capacity {
    let all = Capacity::exact(members.iter().map(|member| &member.job.layout));
    let jobs = members.len().min(options.step_jobs).max(1);
    let largest = |of: fn(&Capacity) -> usize| members.iter().map(|member| of(&member.need)).max().unwrap_or(0);
    let bound = (limits.max_binding.min(limits.max_buffer) / 4) as usize / 64 * 64;
    let values = all.values.min(bound).max(largest(|need| need.values));
    let grads = all.grads.min(bound).max(largest(|need| need.grads));
    Capacity { jobs, values, grads, ..all }.rounded()
}

/// The same with at most `bytes` for the pool, but always room for the largest job alone.
fn shrunk(capacity: &Capacity, members: &[Member], bytes: u64) -> Capacity {
    let share = bytes as f64 / pool_bytes(capacity).max(1) as f64;
    let part = |all: usize, least: usize| ((all as f64 * share) as usize / 64 * 64).clamp(least, all.max(least));
    let largest = |of: fn(&Capacity) -> usize| members.iter().map(|member| of(&member.need)).max().unwrap_or(0);
    Capacity {
        values: part(capacity.values, largest(|need| need.values)),
        grads: part(capacity.grads, largest(|need| need.grads)),
        ..capacity.clone()
    }
}

/// Bytes of one job in the pool.
pub(super) fn job_bytes(layout: &AdapterLayout) -> u64 {
    pool_bytes(&Capacity::of(layout))
}

pub(super) fn member(entry: Entry, base: &BaseIdentity) -> Result<Member> {
    let Entry { config, data, start, priority, group, saved } = entry;
    // All jobs share one table of angles.
    if config.context.stretch(&base.trained)? != base.model {
        let hint = "give all jobs one --context and one --rope-scaling, or train them one after the other";
        return Err(Error::config("context", "stretches the model's angles in another way than the first job's", hint));
    }
    check_length(&config, &base.model)?;
    let layout = config.adapter.layout(&base.model)?;
    let (rows, need) = (micro_rows(&config, Some(&data)), Capacity::of(&layout));
    let mut job = Job::new(config, data, layout, rows, base.clone())?;
    let Start { values, links, has_norms, .. } = start.unwrap_or_else(|| initial_buffer(&job.layout.params, job.config.seed).into());
    if let Some(chain) = job.chain.as_mut().filter(|_| !links.is_empty()) {
        chain.inherit(links)?;
    }
    let has_norms = has_norms || saved.is_some();
    let (_, moments) = job.layout.params.gradient_offsets();
    let new = Buffers { values, m: vec![0.0; moments], v: vec![0.0; moments] };
    let (buffers, curve) = match saved {
        Some(Saved { checkpoint, curve }) => (job.restore(&job.config.name.clone(), &checkpoint)?, curve),
        None => (new, Curve::default()),
    };
    Ok(Member::new(job, rows, need, buffers, has_norms, curve, priority, group))
}

/// Names the job in what is wrong with its settings.
fn of_job(name: &str, error: Error) -> Error {
    match error {
        Error::Config { key, problem, hint } => Error::Config { key: format!("job {name}: {key}"), problem, hint },
        other => other,
    }
}
