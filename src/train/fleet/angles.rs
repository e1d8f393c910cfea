//! The rotary angles that all jobs of a fleet share.

use super::member::Member;
use super::of_job::of_job;
use crate::config::ModelConfig;
use crate::model::rope;
use crate::{Error, Result};

/// Refuses jobs whose angles depend on how long the rows of the others are: all share one table.
pub(super) fn check_angles(members: &[Member], longest: usize, model: &ModelConfig) -> Result<()> {
    members.iter().try_for_each(|member| match rope::difference(model, member.longest(), longest) {
        Some(problem) => {
            let hint = "give all jobs one --seq, another --rope-scaling such as linear, or train them one after the other";
            Err(of_job(&member.run.config.name, Error::config("rope-scaling", problem, hint)))
        }
        None => Ok(()),
    })
}
