//! Jobs taken out of a fleet and put into another: each from a checkpoint of its own, whatever the others did since.

use super::Fleet;
use super::entry::Saved;
use crate::export::folder::File;
use crate::gpu::Gpu;
use crate::{Error, Result};

impl Fleet {
    /// Where a job is, to go on from. The gradients of a step that is under way are in it.
    ///
    /// # Errors
    /// No job of that name, or one that has ended; a lost device.
    pub async fn save(&mut self, gpu: &Gpu, name: &str) -> Result<Saved> {
        let at = self.place(name)?;
        let curve = self.scheduler.by_name(name).map(|job| job.curve.clone()).unwrap_or_default();
        let member = &mut self.members[at];
        if member.is_over() {
            return Err(over(name));
        }
        let buffers = member.buffers(&mut self.session, gpu).await?;
        Ok(Saved { checkpoint: member.job_mut().checkpoint(&buffers, self.session.kernels())?, curve })
    }

    /// The files of a job's adapter as it is now.
    ///
    /// # Errors
    /// No job of that name; a lost device; a parameter that is not finite.
    pub async fn export(&mut self, gpu: &Gpu, name: &str) -> Result<Vec<File>> {
        let at = self.place(name)?;
        let member = &mut self.members[at];
        if member.job().is_none() {
            return Err(over(name));
        }
        let buffers = member.buffers(&mut self.session, gpu).await?;
        member.job_mut().export(&buffers.values)
    }

    fn place(&self, name: &str) -> Result<usize> {
        let job = self.scheduler.by_name(name).map(|job| job.id.0 as usize);
        job.ok_or_else(|| Error::config("job", format!("there is none called {name}"), "look at the status of the jobs"))
    }
}

fn over(name: &str) -> Error {
    Error::config("job", format!("{name} has ended, and nothing is left of it here"), "use the adapter that it left")
}
