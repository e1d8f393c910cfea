//! A fleet that goes on from what was saved of it. A job whose rows or checkpoint are gone fails alone.

use super::entry::Entry;
use super::member::Member;
use super::of_job::of_job;
use super::place::{Place, Recorded};
use super::plan::FleetPlan;
use super::state::{FleetState, MemberState};
use crate::adapters::Capacity;
use crate::formats::ModelFile;
use crate::gpu::Tuner;
use crate::gpu::device::PlanLimits;
use crate::jobs::{self, Job as Scheduled};
use crate::model::Base;
use crate::train::checkpoint::Checkpoint;
use crate::train::config::TrainConfig;
use crate::train::data::TrainData;
use crate::train::job::BaseIdentity;
use crate::train::kernels::KernelChoices;
use crate::train::run::Run;
use crate::{Error, Result};

/// What is found of a job that had not ended: its rows, and its checkpoint with the file's name for errors.
pub struct Found {
    /// The rows.
    pub data: TrainData,
    /// The checkpoint's file.
    pub file: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl FleetPlan {
    /// Plans the run that `state` was saved of. `found` has something for each of its members that had not ended, `None` for the others;
    /// `tuner` sums in the orders of that run from now on.
    ///
    /// # Errors
    /// Another base; what the device's limits make impossible. What is wrong with a job fails that job.
    pub fn resume(
        file: &ModelFile,
        hash: &str,
        resident: Option<&Base>,
        state: FleetState,
        found: Vec<Option<Result<Found>>>,
        limits: PlanLimits,
        tuner: &mut Tuner,
    ) -> Result<FleetPlan> {
        let FleetState { base_hash, asked, sizes, scheduler, mut told, generation, members: saved, .. } = state;
        if base_hash != hash {
            let problem = format!("the run was begun on the base {base_hash}, this is {hash}");
            return Err(Error::config("model", problem, "resume with the model that the run was started with"));
        }
        let mut base = BaseIdentity::new(file, file.identity_of(hash.to_owned()));
        if let Some(first) = saved.first() {
            base.model = TrainConfig::from_map(&first.config)?.context.stretch(&file.config)?;
        }
        if sizes.positions > base.model.context_length() {
            let problem = format!("its rows reach {} tokens, the model {}", sizes.positions, base.model.context_length());
            return Err(Error::format("the saved run", problem, "use a state that weblora wrote, or start anew with --overwrite"));
        }
        let mut members = Vec::with_capacity(saved.len());
        let mut quantize = String::new();
        for ((saved, scheduled), found) in saved.into_iter().zip(scheduler.jobs()).zip(found) {
            let config = TrainConfig::from_map(&saved.config).map_err(|error| of_job(&scheduled.spec.name, error))?;
            let need = config.need(&config.adapter.layout(&base.model)?)?;
            quantize.clone_from(&config.quantize);
            let mut run = Run::new(config, saved.total, saved.done, saved.progress, scheduled.spec.evaluates).with_last(saved.last);
            run.keeps_best |= asked.early_stop.has_rungs();
            let file = saved.file.clone();
            let restored = match found {
                None => None,
                Some(found) => match found.and_then(|found| restore(&run, &saved, scheduled, found, &base)) {
                    Ok(member) => Some(member),
                    Err(error) => {
                        told.push(jobs::Event::Failed { job: scheduled.id, reason: error.to_string() });
                        None
                    }
                },
            };
            let mut member = restored.unwrap_or_else(|| Member::ended(run, need, file));
            member.id = Some(scheduled.id);
            members.push(member);
        }
        KernelChoices::repeat([&sizes.kernels], tuner);
        let needs: Vec<Capacity> = members.iter().map(|member| member.need.clone()).collect();
        let place = Place { file, model: &base.model, resident, limits, tuner, options: &asked, quantize: &quantize };
        let Recorded { planned, fixed, .. } = place.plan(&needs, &sizes)?;
        Ok(FleetPlan { planned, members, scheduler, asked, fixed, sizes, base, told, generation })
    }
}

/// A job as it was.
fn restore(run: &Run, saved: &MemberState, scheduled: &Scheduled, found: Found, base: &BaseIdentity) -> Result<Member> {
    let Found { data, file, bytes } = found;
    let (priority, group) = (scheduled.spec.priority, scheduled.spec.group.clone());
    let mut config = run.config.clone();
    if config.adapter.train_embeddings {
        config.adapter = config.adapter.with_tokens(Checkpoint::read(&file, &bytes)?.state.embedding_tokens);
    }
    let mut member = Entry { config, data, start: None, priority, group, saved: None }.member(base)?;
    let held = member.job_mut().restore(&file, &bytes)?;
    let job = member.job_mut();
    if (job.step, job.total_steps()) != (saved.done, saved.total) {
        let problem = format!("it is at step {} of {}, the run was at {} of {}", job.step, job.total_steps(), saved.done, saved.total);
        return Err(Error::format(file, problem, "use the files that weblora wrote together"));
    }
    // What JSON made of the checkpoint's own progress may differ in the last bit where numbers are read loosely.
    job.progress = run.progress;
    Ok(member.restored(run.clone(), held, saved, scheduled.started))
}
