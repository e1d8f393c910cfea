//! The folders of all jobs of a run, and what is told of them.

use std::collections::BTreeMap;
use std::path::Path;

use weblora::export::folder::File;
use weblora::train::fleet::{Fleet, Keeper};
use weblora::train::{Event, TrainConfig};
use weblora::{Error, Result};

use super::failed::FailedJob;
use super::folder::RunFolder;
use crate::cli::files::{BEST, CHECKPOINT_FILE, Existing, OutFolder};
use crate::cli::output::Output;
use crate::cli::train::{last_sound, once_mended};

/// Every job's own folder, locked to the end of the run, and the terminal.
pub struct Folders<'o> {
    /// Where things are told.
    pub output: &'o mut Output,
    existing: Existing,
    /// Where checkpoints are while jobs run.
    pub run: &'o RunFolder,
    open: BTreeMap<String, OutFolder>,
}

impl<'o> Folders<'o> {
    /// No folder is open yet; what is in them is treated as `existing` says.
    pub fn new(output: &'o mut Output, existing: Existing, run: &'o RunFolder) -> Self {
        Self { output, existing, run, open: BTreeMap::new() }
    }

    /// Takes a job's folder, so that nobody else writes there. A job whose folder cannot be had fails.
    pub fn lock(&mut self, fleet: &mut Fleet, out: &str) {
        if let Err(error) = self.folder(out) {
            let job = fleet.members().iter().find(|member| member.run.config.out == out).map(|member| member.run.config.name.clone());
            fleet.fail(&job.unwrap_or_default(), error.to_string());
        }
    }

    /// What could not be written to a job's folder is kept in the run's: the job failed, and its work is not lost.
    fn elsewhere(&self, error: Error, out: &str, inner: Option<&str>, files: &[File]) -> Result<()> {
        match self.run.keep(out, inner, files) {
            Ok(kept) => Err(Error::config("out", error.to_string(), format!("its adapter is in {}", kept.display()))),
            Err(_) => Err(error),
        }
    }

    fn folder(&mut self, out: &str) -> Result<&OutFolder> {
        if !self.open.contains_key(out) {
            self.open.insert(out.to_owned(), OutFolder::open(Path::new(out), self.existing)?);
        }
        Ok(&self.open[out])
    }
}

impl Keeper for Folders<'_> {
    fn tell(&mut self, event: Event) -> Result<()> {
        if let Event::JobFailed { job, reason } = &event {
            self.run.failed().note(FailedJob { job: job.clone(), out: None, reason: reason.clone() });
        }
        self.output.event(&event);
        Ok(())
    }
    fn best(&mut self, out: &str, files: &[File]) -> Result<()> {
        let written = self.folder(out).and_then(|folder| folder.write_best(files));
        written.or_else(|error| self.elsewhere(error, out, Some(BEST), files))
    }
    fn finish(&mut self, out: &str, files: &[File]) -> Result<()> {
        let written = self.folder(out).and_then(|folder| folder.write_adapter(files));
        written.or_else(|error| self.elsewhere(error, out, None, files))
    }
    /// It becomes the checkpoint of the job's own folder, where it can go on by itself.
    fn leave(&mut self, config: &TrainConfig, file: &str, diverged: bool) -> Result<String> {
        let (_, bytes) = self.run.job_state(file)?;
        let saved = self.folder(&config.out).and_then(|out| {
            out.save(&bytes)?;
            out.drop_earlier()?;
            Ok(if diverged { last_sound(config, out) } else { once_mended(out) })
        });
        saved.or_else(|_| {
            let kept = self.run.keep(&config.out, None, &[(CHECKPOINT_FILE, bytes)])?;
            Ok(format!("its checkpoint is in {0}: `weblora train --resume --out {0}` goes on from it", kept.display()))
        })
    }
}
