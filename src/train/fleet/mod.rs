//! Many jobs over one resident base, stepped together: m-LoRA / ASPEN (arXiv 2312.02515, VLDB 2025) on one device.
//!
//! The scheduler ([`crate::jobs`]) says at every step boundary who is on the device and whose micro-batches the next fused step holds; the fleet
//! does it. A job's parameters and moments move between device and host bit for bit, and a job that fails does so alone.

mod angles;
mod entry;
mod founders;
mod member;
mod of_job;
mod place;
mod plan;
mod restore;
mod save;
mod saved;
mod sizes;
mod state;

pub use entry::{Entry, Saved};
pub use founders::Founders;
pub use member::Member;
pub use plan::FleetPlan;
pub use restore::Found;
pub use save::Keeping;
pub use state::{FleetState, MemberState};

use self::sizes::{Needed, Sizes};
use super::StepReport;
use super::config::TrainConfig;
use super::events::Event;
use super::fuse::micro_step;
use super::job::{BaseIdentity, Job};
use super::run::After;
use super::session::Session;
use crate::adapters::pool::{ExpertCapacity, Words};
use crate::export::folder::File;
use crate::gpu::{Gpu, clock};
use crate::jobs::event::{Pass, Request};
use crate::jobs::state::State;
use crate::jobs::{self, Action, Boundary, Decision, JobId, Options, Scheduler};
use crate::train::seat::Seat;
use crate::{Error, Result};

/// What is done with what jobs produce. An error about one job (its folder, say) ends that job alone.
pub trait Keeper {
    /// An event of a job or of the scheduler.
    ///
    /// # Errors
    /// Where it cannot be told, which ends everything.
    fn tell(&mut self, event: Event) -> Result<()>;
    /// A job's adapter with the lowest held-out loss so far; `out` is the job's folder.
    ///
    /// # Errors
    /// Where it cannot be kept.
    fn best(&mut self, out: &str, files: &[File]) -> Result<()>;
    /// A job's adapter at its end; `out` is the job's folder.
    ///
    /// # Errors
    /// Where it cannot be kept.
    fn finish(&mut self, out: &str, files: &[File]) -> Result<()>;
    /// What was saved of a job before it diverged or failed for another reason: `file` as [`Keeping::job`] got it, for the job of `config`.
    /// Says where it is and how to go on.
    ///
    /// # Errors
    /// Where it cannot be kept.
    fn leave(&mut self, config: &TrainConfig, file: &str, diverged: bool) -> Result<String>;
}

/// Jobs on a device.
pub struct Fleet {
    session: Session,
    members: Vec<Member>,
    scheduler: Scheduler,
    /// The scheduler's settings as they were given.
    asked: Options,
    /// Bytes of everything but the pool.
    fixed: u64,
    sizes: Sizes,
    base: BaseIdentity,
    /// The base's norms, where a job may train its own.
    norms: Vec<Vec<f32>>,
    /// What the scheduler has not heard of yet.
    told: Vec<jobs::Event>,
    /// How often it was saved.
    generation: u64,
    /// Why it may not have the bits of the run that it goes on from.
    kernels: Option<String>,
}

impl Fleet {
    /// Who runs, waits, is over.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// The jobs, in the order of their arrival.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The device side.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// With jobs that go on: why they may not have the bits of jobs that were not interrupted, where that is so.
    pub fn kernel_warning(&self) -> Option<&str> {
        self.kernels.as_deref()
    }

    /// Whether no job can go on.
    pub fn is_over(&self) -> bool {
        self.told.is_empty() && self.scheduler.is_over()
    }

    /// Asks for something; it is done at the next step boundary.
    ///
    /// # Errors
    /// When there is no job of that name.
    pub fn request(&mut self, name: &str, what: Request) -> Result<()> {
        let job = self.scheduler.by_name(name).map(|job| job.id);
        let job = job.ok_or_else(|| Error::config("job", format!("there is none called {name}"), "look at `weblora jobs status`"))?;
        self.told.push(jobs::Event::Request { job, what });
        Ok(())
    }

    /// A job cannot go on, for a reason outside of it; it fails alone, at the next step boundary.
    pub fn fail(&mut self, name: &str, reason: String) {
        if let Some(job) = self.scheduler.by_name(name).map(|job| job.id) {
            self.told.push(jobs::Event::Failed { job, reason });
        }
    }

    /// Takes a job in while others train: it waits until it fits.
    ///
    /// # Errors
    /// What is wrong with its settings; [`Error::NoRoom`] where it is larger than what the recordings were made for.
    pub fn add(&mut self, entry: Entry) -> Result<()> {
        let mut member = entry.member(&self.base)?;
        if let Some((needed, room)) = self.misfit(&member) {
            return Err(Error::NoRoom { job: member.run.config.name.clone(), needed, room });
        }
        angles::check_angles(std::slice::from_ref(&member), self.sizes.positions, &self.base.model)?;
        member.take_norms(&self.norms);
        member.join(&mut self.scheduler)?;
        self.members.push(member);
        Ok(())
    }

    /// Why a job can never be in this fleet, whoever leaves: what it needs, and what the recordings were made for.
    fn misfit(&self, member: &Member) -> Option<(String, String)> {
        let (room, need) = (self.session.capacity(), &member.need);
        if member.rows > self.session.rows() {
            return Some((format!("micro-batches of up to {} rows", member.rows), format!("{} rows", self.session.rows())));
        }
        if member.longest() > self.sizes.positions {
            return Some((format!("rows of {} tokens", member.longest()), format!("{} tokens", self.sizes.positions)));
        }
        for (site, ranks) in &need.sites {
            match room.sites.get(site) {
                None => return Some((format!("an adapter at {site}"), "the layers that those adapt".into())),
                Some(most) if ranks.rank > most.rank => {
                    return Some((format!("rank {} at {site}", ranks.rank), format!("rank {}", most.rank)));
                }
                Some(_) => {}
            }
        }
        let missing = [
            (need.dropout && !room.dropout, "dropout"),
            (need.norms > room.norms, "norms of its own"),
            (need.embeddings && !room.embeddings, "embeddings of its own"),
            (need.half && !room.half, "links stored as f16"),
            (need.pairs && !room.pairs, "pairs of answers"),
            (!room.modules.holds(need.modules), "learnable scales"),
            (need.experts.segments > 0 && room.experts.segments == 0, "experts"),
            (!need.experts.layers.is_subset(&room.experts.layers), "experts in those blocks"),
            (need.experts.sites.keys().any(|site| !room.experts.sites.contains_key(site)), "experts at those layers"),
            (need.experts.dropout && !room.experts.dropout, "experts that drop inputs"),
            (need.experts.capacity && !room.experts.capacity, "experts with a capacity"),
            (need.experts.jitter && !room.experts.jitter, "experts with jitter"),
        ];
        if let Some((_, what)) = missing.into_iter().find(|(is_missing, _)| *is_missing) {
            return Some((what.to_owned(), "none".into()));
        }
        let counts = [
            (need.experts.segments, room.experts.segments, "experts"),
            (need.experts.experts, room.experts.experts, "experts in a block"),
            (need.experts.choices, room.experts.choices, "experts a token"),
            (most_rank(&need.experts), most_rank(&room.experts), "ranks an expert"),
        ];
        if let Some((needed, room, what)) = counts.into_iter().find(|(needed, room, _)| needed > room) {
            return Some((format!("{needed} {what}"), room.to_string()));
        }
        (!self.session.holds(need)).then(|| (format!("{} words of parameters", need.values), format!("{} words", room.values)))
    }

    /// A step boundary and the fused step after it. False where nobody can train until something is asked for.
    ///
    /// # Errors
    /// What concerns all jobs: a lost device, a keeper that cannot tell.
    pub async fn advance(&mut self, gpu: &Gpu, keeper: &mut impl Keeper) -> Result<bool> {
        let Self { members, scheduler, fixed, told, .. } = self;
        let pool = self.session.adapters();
        let pages: Vec<Vec<Words>> = members.iter().map(|member| pool.needs(&member.need)).collect();
        let planned = |set: &[&jobs::Job]| {
            let numbers = set.iter().map(|job| job.id.0 as usize);
            let members = numbers.filter_map(|i| Some((members.get(i)?, &pages[i]))).filter(|(member, _)| !member.is_over());
            let needed = members.fold(Needed::default(), |all, (member, pages)| all.and(&member.need, pages));
            if needed.fits(pool) || set.len() == 1 { *fixed + needed.bytes() } else { u64::MAX }
        };
        let told = std::mem::take(told);
        let diverged: Vec<JobId> = told.iter().flat_map(jobs::Event::diverged).collect();
        let Boundary { decisions, batch } = scheduler.decide(&told, &planned);
        let decided = !decisions.is_empty();
        for decision in decisions {
            let has_diverged = diverged.contains(&decision.job);
            self.carry_out(gpu, keeper, decision, has_diverged).await?;
        }
        let mut batch: Vec<usize> = batch.iter().map(|id| id.0 as usize).filter(|i| self.members[*i].is_on_device()).collect();
        batch.sort_unstable();
        if batch.is_empty() {
            return Ok(decided || !self.told.is_empty());
        }
        self.fused_step(gpu, keeper, &batch).await?;
        Ok(true)
    }

    async fn carry_out(&mut self, gpu: &Gpu, keeper: &mut impl Keeper, decision: Decision, diverged: bool) -> Result<()> {
        let Decision { job: id, name, action, reason } = decision;
        keeper.tell(Event::Schedule { job: name.clone(), action: action.name().to_owned(), reason: reason.clone() })?;
        let at = id.0 as usize;
        match action {
            Action::Admit | Action::Resume => self.enter(gpu, at).await,
            Action::Pause => self.members[at].leave(&mut self.session, gpu).await,
            Action::Done | Action::Stop => {
                let kept = self.finish(gpu, keeper, at).await;
                let member = &mut self.members[at];
                let earlier = member.on_disk.sound(member.run.sound).filter(|_| member.run.progress.diverges());
                if let (Ok(()), Some(file)) = (&kept, earlier) {
                    let left = keeper.leave(&member.run.config, &file, true).unwrap_or_else(|error| error.to_string());
                    let message = format!("it ended with a risen loss: {left}");
                    keeper.tell(Event::Warning { job: Some(name.clone()), message })?;
                }
                self.members[at].end(&mut self.session, gpu, false).await?;
                kept.or_else(|error| job_error(keeper, &name, error))
            }
            Action::Fail => {
                let member = &mut self.members[at];
                let left = member.on_disk.sound(member.run.sound);
                member.end(&mut self.session, gpu, true).await?;
                let left = left.map(|file| keeper.leave(&member.run.config, &file, diverged).unwrap_or_else(|error| error.to_string()));
                // What it failed for may be why nothing could be left.
                let left = left.filter(|left| !reason.contains(left.as_str()));
                let reason = std::iter::once(reason).chain(left).collect::<Vec<_>>().join("; ");
                keeper.tell(Event::JobFailed { job: name, reason })
            }
            Action::Evaluate => {
                let member = &mut self.members[at];
                member.on_disk.is_present = false;
                let Some(found) = member.seat(&mut self.session, gpu).evaluate().await? else { return Ok(()) };
                self.told.push(jobs::Event::Evaluated { job: id, loss: found.loss });
                let best = member.looked_at(found.loss);
                keeper.tell(member.run.eval_event(found, best))?;
                let kept = if best { self.keep_best(gpu, keeper, at).await } else { Ok(()) };
                kept.or_else(|error| {
                    if error.is_of_device() {
                        return Err(error);
                    }
                    self.told.push(jobs::Event::Failed { job: id, reason: error.to_string() });
                    Ok(())
                })
            }
            // Everything was allocated before the first step: no step can run out of memory.
            Action::Shrink { .. } | Action::Refuse | Action::Note => Ok(()),
        }
    }

    /// Puts the jobs on the device that the scheduler takes to be there.
    pub(super) async fn take_places(&mut self, gpu: &Gpu) -> Result<()> {
        for at in 0..self.members.len() {
            if self.scheduler.jobs()[at].status.state == State::Running {
                self.enter(gpu, at).await?;
            }
        }
        Ok(())
    }

    /// Puts a job on the device; where the free words of the pool lie apart, the others move together first.
    async fn enter(&mut self, gpu: &Gpu, at: usize) -> Result<()> {
        match self.members[at].enter(&mut self.session, gpu).await {
            Err(Error::OutOfMemory { .. }) => {}
            done => return done,
        }
        let present: Vec<usize> = (0..self.members.len()).filter(|i| self.members[*i].is_on_device()).collect();
        for i in &present {
            self.members[*i].leave(&mut self.session, gpu).await?;
        }
        for i in present.into_iter().chain([at]) {
            self.members[i].enter(&mut self.session, gpu).await?;
        }
        Ok(())
    }

    /// Keeps the adapters, as they are, of jobs that have begun and not ended. One that cannot be kept is told of.
    ///
    /// # Errors
    /// A lost device; a keeper that cannot tell.
    pub async fn keep_all(&mut self, gpu: &Gpu, keeper: &mut impl Keeper) -> Result<()> {
        let begun = |member: &Member| !member.is_over() && member.run.done > 0;
        for at in (0..self.members.len()).filter(|at| begun(&self.members[*at])).collect::<Vec<_>>() {
            match self.keep(gpu, keeper, at).await {
                Err(error) if error.is_of_device() => return Err(error),
                kept => {
                    let run = &self.members[at].run;
                    let (job, path) = (run.config.name.clone(), run.config.out.clone());
                    keeper.tell(match kept {
                        Ok(()) => Event::Saved { path },
                        Err(error) => Event::Warning { job: Some(job), message: error.to_string() },
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Keeps a job's adapter as it is.
    async fn keep(&mut self, gpu: &Gpu, keeper: &mut impl Keeper, at: usize) -> Result<()> {
        let member = &mut self.members[at];
        let buffers = member.buffers(&mut self.session, gpu).await?;
        let files = member.job_mut().export(&buffers.values)?;
        keeper.finish(&member.run.config.out, &files)
    }

    /// Keeps a job's adapter at its end.
    async fn finish(&mut self, gpu: &Gpu, keeper: &mut impl Keeper, at: usize) -> Result<()> {
        self.keep(gpu, keeper, at).await?;
        let member = &self.members[at];
        keeper.tell(member.run.done_event(member.seconds(), member.run.config.out.clone()))
    }

    async fn fused_step(&mut self, gpu: &Gpu, keeper: &mut impl Keeper, batch: &[usize]) -> Result<()> {
        let began = clock::now();
        let rows: Vec<u64> = batch.iter().map(|i| self.members[*i].next().rows).collect();
        let mut jobs: Vec<&mut Job> =
            self.members.iter_mut().enumerate().filter(|(i, _)| batch.contains(i)).map(|(_, member)| member.job_mut()).collect();
        let outcomes = micro_step(&mut self.session, gpu, &mut jobs).await?;
        let seconds = (clock::now() - began).as_secs_f64();
        let (mut passes, mut after) = (Vec::with_capacity(batch.len()), Vec::new());
        for ((at, outcome), rows) in batch.iter().zip(outcomes).zip(rows) {
            let member = &mut self.members[*at];
            member.on_disk.is_present = false;
            let job = JobId(*at as u32);
            // The scheduler ends a job whose loss is not finite.
            let (loss, stepped) = match &outcome {
                Ok(Some(report)) => (report.loss, true),
                Ok(None) => (member.job_mut().step_loss(), false),
                Err(_) => (f64::NAN, false),
            };
            let left = member.job_mut().micro_batches_left();
            if let Ok(Some(report)) = outcome {
                after.push((*at, report));
            }
            let next = if left > 0 { member.next() } else { jobs::MicroBatch { rows, documents: 1, longest: rows } };
            passes.push(Pass { job, rows, loss, stepped, left, next });
        }
        self.told.push(jobs::Event::Stepped { seconds, passes });
        for (at, report) in after {
            if let Err(error) = self.after_step(gpu, keeper, at, report).await {
                if error.is_of_device() {
                    return Err(error);
                }
                self.told.push(jobs::Event::Failed { job: JobId(at as u32), reason: error.to_string() });
            }
        }
        Ok(())
    }

    /// Evaluation, knots, the best adapter: what falls due after a job's step.
    async fn after_step(&mut self, gpu: &Gpu, keeper: &mut impl Keeper, at: usize, report: StepReport) -> Result<()> {
        let Self { session, members, told, .. } = self;
        let id = JobId(at as u32);
        let Some((job, run)) = members[at].parts() else { return Ok(()) };
        let mut seat = Seat { job, session, gpu };
        let tell = |event: Event| {
            if let Event::Eval { loss, .. } = &event {
                told.push(jobs::Event::Evaluated { job: id, loss: *loss });
            }
            keeper.tell(event)
        };
        let After { best, .. } = run.stepped(report, &mut seat, tell).await?;
        seat.job.progress = run.progress;
        if run.is_over() && run.done < run.total {
            told.push(jobs::Event::Request { job: id, what: Request::Stop });
        }
        if best { self.keep_best(gpu, keeper, at).await } else { Ok(()) }
    }

    /// Keeps a job's adapter, which has the lowest held-out loss so far.
    async fn keep_best(&mut self, gpu: &Gpu, keeper: &mut impl Keeper, at: usize) -> Result<()> {
        let member = &mut self.members[at];
        let buffers = member.buffers(&mut self.session, gpu).await?;
        let job = member.job_mut();
        keeper.best(&job.config.out, &job.export(&buffers.values)?)
    }
}

fn most_rank(experts: &ExpertCapacity) -> usize {
    experts.sites.values().map(|ranks| ranks.rank).max().unwrap_or(0)
}

/// A job whose result cannot be kept has failed; the others go on.
fn job_error(keeper: &mut impl Keeper, name: &str, error: Error) -> Result<()> {
    if error.is_of_device() {
        return Err(error);
    }
    keeper.tell(Event::JobFailed { job: name.to_owned(), reason: error.to_string() })
}
