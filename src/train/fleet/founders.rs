//! The jobs that a fleet begins with, made ready one by one: one that cannot train beside the others is refused alone.

use super::entry::Entry;
use super::member::Member;
use super::of_job::of_job;
use crate::config::ModelConfig;
use crate::formats::ModelFile;
use crate::train::job::BaseIdentity;
use crate::train::recompute::RecomputeChoice;
use crate::{Error, Result};

/// Jobs that can be planned together, and those that cannot.
pub struct Founders {
    pub(super) members: Vec<Member>,
    pub(super) base: BaseIdentity,
    /// What the first member says for all: how the base is quantised, and what is computed again.
    pub(super) shared: Option<(String, RecomputeChoice)>,
    /// Names of the jobs that are not among them, and what is wrong with each.
    pub refused: Vec<(String, Error)>,
}

impl Founders {
    /// Makes `entries` ready on the model in `file`, whose `ModelFile::content_hash` is `hash`. The first that can train says how the angles are
    /// stretched, how the base is quantised and what is computed again, for all have that in common.
    pub fn new(file: &ModelFile, hash: &str, entries: Vec<Entry>) -> Self {
        let base = BaseIdentity::new(file, file.identity_of(hash.to_owned()));
        let mut founders = Self { members: Vec::with_capacity(entries.len()), base, shared: None, refused: Vec::new() };
        for entry in entries {
            let name = entry.config.name.clone();
            if let Err(error) = founders.join(&file.config, entry) {
                founders.refused.push((name.clone(), of_job(&name, error)));
            }
        }
        founders
    }

    /// Whether no job can be planned.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn join(&mut self, model: &ModelConfig, entry: Entry) -> Result<()> {
        let own = (entry.config.quantize.clone(), entry.config.recompute);
        match &self.shared {
            None => self.base.model = entry.config.context.stretch(model)?,
            Some(first) if *first == own => {}
            Some((quantize, _)) => {
                let key = if *quantize == own.0 { "recompute" } else { "quantize" };
                let hint = "all jobs share one base and its recordings: write it once, for all";
                return Err(Error::config(key, "differs from the first job's", hint));
            }
        }
        self.members.push(entry.member(&self.base)?);
        self.shared.get_or_insert(own);
        Ok(())
    }
}
