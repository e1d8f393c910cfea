//! The experts of a MixLoRA adapter side by side: how much each changes, how its router reaches it, and how much it was used.

use serde::{Deserialize, Serialize};

use super::load::RouterLoad;
use super::site_report::SiteReport;
use crate::{Error, Result};

/// Experts and routers, block by block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpertsReport {
    /// Experts in each block.
    pub experts: usize,
    /// Steps of the run that the load is the mean of; absent where no run is at hand.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub load_steps: Option<usize>,
    /// The blocks that have experts.
    pub blocks: Vec<BlockExperts>,
}

/// The experts of one block; every list has a number an expert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockExperts {
    /// Block, from 0.
    pub layer: usize,
    /// `‖ΔW‖_F` over gate, up and down together.
    pub frobenius: Vec<f64>,
    /// Norm of the expert's row of the router.
    pub router: Vec<f64>,
    /// Share of tokens that chose the expert. They sum to the experts that a token gets.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub load: Option<Vec<f64>>,
    /// Mean entropy of the router's probabilities in nats.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub entropy: Option<f64>,
}

impl ExpertsReport {
    /// Of sites that have experts and of routers: a block's number and `[experts, d]`. `None` without routers.
    pub fn new<'a>(sites: &[SiteReport], experts: usize, routers: impl Iterator<Item = (usize, &'a [f32])>) -> Option<Self> {
        let norm = |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let block = |(layer, values): (usize, &[f32])| {
            let width = values.len() / experts.max(1);
            let own = |expert: usize| sites.iter().filter(move |s| s.layer == layer && s.expert == Some(expert));
            let frobenius = |expert| own(expert).map(|s| s.spectrum.frobenius.powi(2)).sum::<f64>().sqrt();
            BlockExperts {
                layer,
                frobenius: (0..experts).map(frobenius).collect(),
                router: values.chunks(width.max(1)).map(norm).collect(),
                load: None,
                entropy: None,
            }
        };
        let blocks: Vec<BlockExperts> = routers.map(block).collect();
        (!blocks.is_empty()).then_some(Self { experts, load_steps: None, blocks })
    }

    /// Adds how much the experts were used in a run.
    ///
    /// # Errors
    /// A run with other blocks or another number of experts.
    pub fn add_load(&mut self, name: &str, load: &RouterLoad) -> Result<()> {
        let other = |problem: String| Error::Adapter {
            adapter: name.to_owned(),
            problem,
            hint: "give the events of the run that this adapter is of",
        };
        for block in &mut self.blocks {
            let found = load.blocks.iter().find(|own| own.layer == block.layer);
            let own = found.ok_or_else(|| other(format!("the run's events have no router of block {}", block.layer)))?;
            if own.load.len() != self.experts {
                return Err(other(format!("it has {} experts in a block, the run {}", self.experts, own.load.len())));
            }
            (block.load, block.entropy) = (Some(own.load.clone()), Some(own.entropy));
        }
        self.load_steps = Some(load.steps);
        Ok(())
    }
}
