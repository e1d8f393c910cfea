//! LoRA: `y += alpha / rank · B A dropout(x)` at every site, A Kaiming-uniform, B zero.
//!
//! rsLoRA divides by the root of the rank instead, LoRA+ gives B a higher learning rate.

use super::config::AdapterConfig;
use super::layout::{AdapterLayout, SiteAdapter};
use super::method::{Method, OptionKind, OptionSpec};
use super::params::ParamLayout;
use super::patterns::select_sites;
use super::product::{Rank, push_pair};
use super::site::Site;
use crate::config::ModelConfig;
use crate::{Error, Result};

/// `rslora`: scale by alpha / sqrt(rank).
pub const RSLORA: OptionSpec = OptionSpec {
    key: "rslora",
    kind: OptionKind::Switch,
    default: "false",
    help: "Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA)",
};

/// `lora-plus`: learning rate of B over that of A.
pub const LORA_PLUS: OptionSpec = OptionSpec {
    key: "lora-plus",
    kind: OptionKind::Number { min: 1e-3, max: 1e4 },
    default: "1",
    help: "Learning rate of B as a multiple of A's (LoRA+; its authors use 16)",
};

/// Row of the method table.
pub const LORA: Method =
    Method { name: "lora", help: "one low-rank product B A at every target", options: &[RSLORA, LORA_PLUS], build, chain: None };

fn build(config: &AdapterConfig, model: &ModelConfig) -> Result<AdapterLayout> {
    let (rslora, ratio) = (config.switch(RSLORA.key)?, config.number(LORA_PLUS.key)?);
    let mut params = ParamLayout::default();
    let mut sites = Vec::new();
    for (site, rank, alpha) in ranked_sites(config, model)? {
        let slice = push_pair(&mut params, &site.to_string(), site, model, Rank { rank, alpha, rslora }, ratio);
        sites.push(SiteAdapter::new(site, vec![slice]));
    }
    Ok(AdapterLayout {
        sites,
        params,
        norms: Vec::new(),
        embeddings: None,
        dropout: config.dropout as f32,
        half: false,
        rslora,
        blocks: model.num_hidden_layers,
        experts: None,
    })
}

/// The targeted sites with their rank and alpha, after the patterns.
///
/// # Errors
/// When a target or pattern matches nothing, or a rank is no whole number or larger than its layer.
pub fn ranked_sites(config: &AdapterConfig, model: &ModelConfig) -> Result<Vec<(Site, usize, f64)>> {
    ranked_sites_of(config, model, "rank", &|_| true)
}

/// Those of [`ranked_sites`] that are `wanted`, whose ranks are set by `key`.
///
/// # Errors
/// As there.
pub(super) fn ranked_sites_of(
    config: &AdapterConfig,
    model: &ModelConfig,
    key: &'static str,
    wanted: &dyn Fn(&Site) -> bool,
) -> Result<Vec<(Site, usize, f64)>> {
    let sites = select_sites(&config.targets, model)?;
    let (ranks, alphas) = (config.rank_pattern.compile("rank-pattern")?, config.alpha_pattern.compile("alpha-pattern")?);
    ranks.check_all_used(&sites)?;
    alphas.check_all_used(&sites)?;
    let mut ranked = Vec::with_capacity(sites.len());
    for site in sites.into_iter().filter(wanted) {
        let module = site.module();
        let rank = ranks.find(&module)?.unwrap_or(config.rank as f64);
        let (out, inputs) = site.projection.shape(model);
        let most = out.min(inputs);
        if !(1.0..=most as f64).contains(&rank) || rank.fract() != 0.0 {
            let problem = format!("{rank} at {site}, whose weight is {out} x {inputs}");
            let key = if ranks.find(&module)?.is_some() { "rank-pattern" } else { key };
            return Err(Error::config(key, problem, format!("give a whole number from 1 to {most}")));
        }
        ranked.push((site, rank as usize, alphas.find(&module)?.unwrap_or(config.alpha)));
    }
    Ok(ranked)
}
