//! Compiling ahead: a browser makes pipelines when they are asked for and tells nobody how far it is.

use std::collections::BTreeMap;

use super::device::Gpu;
use super::dispatch::Command;
use super::plan::Plan;
use crate::{Error, Result};

impl Gpu {
    /// Compiles every pipeline of `plans` that is not there yet, one by one. `progress` gets pipelines done and in all.
    ///
    /// # Errors
    /// [`Error::Gpu`] if a shader is refused; a lost device.
    pub async fn prewarm(&self, plans: &[&Plan], mut progress: impl FnMut(usize, usize)) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for command in plans.iter().flat_map(|plan| &plan.commands) {
            if let Command::Dispatch { run, .. } = command {
                wanted.entry((run.spec.name, run.variant.key())).or_insert(run);
            }
        }
        progress(0, wanted.len());
        for (i, ((name, variant), run)) in wanted.iter().enumerate() {
            let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
            let made = self.pipeline(run.spec, &run.variant);
            // The answer comes when the driver is through with the pipeline, and lets other tasks run meanwhile.
            if let Some(error) = scope.pop().await {
                return Err(Error::Gpu { what: format!("compiling {name} {variant}"), message: error.to_string() });
            }
            made?;
            self.check()?;
            progress(i + 1, wanted.len());
        }
        Ok(())
    }
}
