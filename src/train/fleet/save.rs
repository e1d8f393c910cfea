//! A fleet as it is saved: one checkpoint a job, and a manifest with the scheduler and what it has not heard yet, written last. Files are never
//! written over: the manifest names those that belong together, so that a process killed at any moment leaves a whole state behind.

use super::Fleet;
use super::member::Member;
use super::state::{FleetState, MemberState, VERSION};
use crate::Result;
use crate::gpu::Gpu;

/// Where a fleet is saved.
pub trait Keeping {
    /// Writes a job's checkpoint into a new file of that name.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn job(&mut self, file: &str, bytes: &[u8]) -> Result<()>;
    /// Writes the manifest, whole or not at all. Files of jobs that it does not name are not needed from then on.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn manifest(&mut self, state: &FleetState) -> Result<()>;
}

impl Fleet {
    /// Whether a job on the device has made the steps after which it is to be saved.
    pub fn wants_saving(&self) -> bool {
        let due = |member: &Member| {
            let every = member.run.config.save_every;
            !member.is_over() && every > 0 && member.run.done.saturating_sub(member.on_disk.step) >= every
        };
        self.members.iter().any(due)
    }

    /// Saves everything that is needed to go on bit for bit, at a step boundary.
    ///
    /// # Errors
    /// A lost device; what cannot be written.
    pub async fn save_all(&mut self, gpu: &Gpu, keeping: &mut impl Keeping) -> Result<()> {
        self.generation += 1;
        let Self { session, members, generation, .. } = self;
        for member in members.iter_mut().filter(|member| !member.on_disk.is_present) {
            let buffers = member.buffers(session, gpu).await?;
            let Some(job) = member.job() else { continue };
            let file = format!("{}-{generation}.safetensors", job.config.name);
            keeping.job(&file, &job.checkpoint(&buffers, session.kernels())?)?;
            member.on_disk.replace(file, member.run.done, member.run.sound);
        }
        keeping.manifest(&FleetState {
            version: VERSION,
            weblora: env!("CARGO_PKG_VERSION").into(),
            base_hash: self.base.id.hash.clone(),
            asked: self.asked.clone(),
            sizes: self.sizes.clone(),
            scheduler: self.scheduler.clone(),
            told: self.told.clone(),
            generation: self.generation,
            members: self.members.iter().map(member_state).collect(),
        })
    }
}

/// A job as the manifest is to have it.
fn member_state(member: &Member) -> MemberState {
    let run = &member.run;
    MemberState {
        config: run.config.to_map(),
        total: run.total,
        done: run.done,
        last: run.last_loss(),
        progress: run.progress,
        file: member.on_disk.file.clone(),
        earlier: member.on_disk.earlier.clone(),
    }
}
