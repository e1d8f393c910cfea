//! A job where it trains: its parameters on a device, read, written and evaluated.

use super::checkpoint::Buffers;
use super::job::Job;
use super::score::{self, HeldOut};
use super::session::Session;
use crate::Result;
use crate::gpu::Gpu;

/// A job with the device it is on.
pub struct Seat<'a> {
    /// The job.
    pub job: &'a mut Job,
    /// Where its parameters are.
    pub session: &'a mut Session,
    /// The device.
    pub gpu: &'a Gpu,
}

impl Seat<'_> {
    /// Gives the reference of preference training its number, where it is not the base.
    ///
    /// # Errors
    /// As [`Session::add_reference`].
    pub(super) fn open_reference(&mut self) -> Result<()> {
        let links = self.job.config.dpo.map_or(Ok(0), |dpo| dpo.reference_links(&self.job.config.adapter))?;
        if links > 0 {
            self.job.reference = self.session.add_reference(self.gpu, self.job.slot, &self.job.layout, links)? as u32;
        }
        Ok(())
    }

    /// Goes on from a checkpoint of the same base, rows and settings; the learning rate may be smaller.
    ///
    /// # Errors
    /// A damaged, foreign or forged checkpoint: the job is as it was then.
    pub fn resume(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        let buffers = self.job.restore(file, bytes)?;
        self.session.relayout(self.gpu, self.job.slot, &self.job.layout)?;
        self.write_buffers(&buffers)
    }

    /// Writes parameters, moments, and the gradients of a step that is under way; without one they are zero.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] if the buffers were not allocated.
    pub fn write_buffers(&self, buffers: &Buffers) -> Result<()> {
        self.session.write_values(self.gpu, self.job.slot, &buffers.values)?;
        match &buffers.grads {
            Some(grads) => self.session.write_grads(self.gpu, self.job.slot, grads)?,
            None => self.session.clear_grads(self.gpu, self.job.slot)?,
        }
        self.session.write_moments(self.gpu, self.job.slot, &buffers.m, &buffers.v)
    }

    /// Reads parameters, moments, and the gradients of a step that is under way.
    ///
    /// # Errors
    /// A lost device.
    pub async fn read_buffers(&self) -> Result<Buffers> {
        let (m, v) = self.session.read_moments(self.gpu, self.job.slot).await?;
        let grads = if self.job.is_mid_step() { Some(self.session.read_grads(self.gpu, self.job.slot).await?) } else { None };
        Ok(Buffers { values: self.session.read_values(self.gpu, self.job.slot).await?, m, v, grads })
    }

    /// Whether the model answers with the adapter as it does without: every product of it is zero.
    ///
    /// # Errors
    /// A lost device.
    pub async fn changes_nothing(&self) -> Result<bool> {
        Ok(self.job.layout.changes_nothing(&self.session.read_values(self.gpu, self.job.slot).await?))
    }

    /// Loss and accuracy of the held-out rows, by task where there are several; `None` without any.
    ///
    /// # Errors
    /// A lost device.
    pub async fn evaluate(&mut self) -> Result<Option<HeldOut>> {
        let slot = Some(self.job.slot);
        let dpo = self.job.config.dpo.as_ref().map(|dpo| (dpo, self.job.reference));
        let mut found = score::held_out(self.session, self.gpu, self.job.data(), slot, dpo).await?;
        if let (Some(found), true) = (&mut found, self.job.config.context.eval_group) {
            let grouped = score::mean_in_groups(self.session, self.gpu, &self.job.data().held_out, slot, self.job.group()).await?;
            found.grouped_loss = grouped.map(|grouped| grouped.loss);
        }
        if let (Some(chain), Some(found)) = (&mut self.job.chain, &found) {
            chain.evaluated(found.loss);
        }
        Ok(found)
    }
}
