//! A job as it arrives, and what is made of it.

use super::member::Member;
use crate::adapters::{embeddings, initial_buffer};
use crate::jobs::curve::Curve;
use crate::train::checkpoint::{Buffers, Checkpoint};
use crate::train::config::TrainConfig;
use crate::train::data::TrainData;
use crate::train::job::{BaseIdentity, Job};
use crate::train::plan::{check_length, micro_rows};
use crate::train::start::Start;
use crate::{Error, Result};

/// A job as it arrives.
pub struct Entry {
    /// Its settings.
    pub config: TrainConfig,
    /// Its rows.
    pub data: TrainData,
    /// What its adapter starts from, where not from random numbers.
    pub start: Option<Start>,
    /// Higher goes first.
    pub priority: i64,
    /// Jobs that early stopping compares it with.
    pub group: Option<String>,
    /// Where it was, if it goes on.
    pub saved: Option<Saved>,
}

/// Where a job was.
#[derive(Debug, Clone)]
pub struct Saved {
    /// The bytes of its checkpoint.
    pub checkpoint: Vec<u8>,
    /// Its losses so far, by which early stopping compares it.
    pub curve: Curve,
}

impl Entry {
    /// The member that it becomes in a fleet on `base`.
    ///
    /// # Errors
    /// What is wrong with its settings, its rows or where it was.
    pub(super) fn member(self, base: &BaseIdentity) -> Result<Member> {
        let Self { mut config, data, start, priority, group, saved } = self;
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
}
