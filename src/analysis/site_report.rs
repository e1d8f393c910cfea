//! The analysis of one site.

use serde::{Deserialize, Serialize};

use super::links::Links;
use super::modules::Modules;
use super::spectrum::Spectrum;

/// What one site does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    /// Short name: `layers.0.self_attn.q_proj`, of an expert `layers.0.mlp.experts.3.gate_proj`.
    pub site: String,
    /// Block, from 0.
    pub layer: usize,
    /// Short name: `q`.
    pub projection: String,
    /// Which expert's, where the site has experts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expert: Option<usize>,
    /// Sizes of the weight.
    pub out_features: usize,
    /// Sizes of the weight.
    pub in_features: usize,
    /// Rows of all A together.
    pub rank_sum: usize,
    /// Of the whole update.
    pub spectrum: Spectrum,
    /// Link by link, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub links: Option<Links>,
    /// Module by module, where the run is at hand that knows them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub modules: Option<Modules>,
}
