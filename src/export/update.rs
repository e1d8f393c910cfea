//! A saved adapter as what it does to the weights: products per site, for analysis, merging and recompression.

use std::collections::BTreeMap;

use super::mixlora::MixLoraAdapter;
use super::peft::{PeftAdapter, PeftSite};
use crate::adapters::Site;
use crate::analysis::report::{AdapterReport, SiteFactors, report};
use crate::analysis::{ExpertsReport, Factors};
use crate::{Error, Result};

/// Links that are analysed one by one: every two are compared, at every site.
pub const MOST_PARTS: usize = 64;

impl PeftSite {
    /// Its product.
    ///
    /// # Errors
    /// When the rank is 0, the lengths contradict it, or a number is NaN or infinite.
    pub fn factors(&self, rslora: bool) -> Result<Factors<'_>> {
        Factors::new(&self.site.to_string(), &self.a, &self.b, self.rank, self.scale(rslora))
    }
}

/// The sites of some adapters that act together (the links of a chain, or one adapter alone), in the model's order, with the products of all of
/// them at each site, in the order of the adapters.
///
/// # Errors
/// As [`PeftSite::factors`], and when there are more than [`MOST_PARTS`].
pub fn site_factors(parts: &[PeftAdapter]) -> Result<Vec<SiteFactors<'_>>> {
    if parts.len() > MOST_PARTS {
        let problem = format!("{} links, at most {MOST_PARTS} are compared in pairs", parts.len());
        return Err(Error::config("links", problem, "analyse the whole adapter, or drop links first"));
    }
    let mut sites: BTreeMap<Site, (Vec<Factors<'_>>, Vec<usize>)> = BTreeMap::new();
    for (number, part) in parts.iter().enumerate() {
        for site in &part.sites {
            let (links, numbers) = sites.entry(site.site).or_default();
            links.push(site.factors(part.rslora)?);
            numbers.push(number);
        }
    }
    Ok(sites.into_iter().map(|(site, (links, numbers))| SiteFactors { site, expert: None, links, numbers }).collect())
}

/// The products of attention and of every expert, in the model's order.
///
/// # Errors
/// As [`PeftSite::factors`].
pub fn routed_factors(adapter: &MixLoraAdapter) -> Result<Vec<SiteFactors<'_>>> {
    let attention = adapter.attention.iter().map(|pair| (None, pair));
    let experts = adapter.experts.iter().flat_map(|set| set.experts.iter().enumerate().map(|(expert, pair)| (Some(expert), pair)));
    let mut all = Vec::new();
    for (expert, pair) in attention.chain(experts) {
        all.push(SiteFactors { site: pair.site, expert, links: vec![pair.factors(adapter.rslora)?], numbers: vec![0] });
    }
    all.sort_by_key(|own| (own.site, own.expert));
    Ok(all)
}

/// What is looked into: an adapter alone, the links of a chain, or routed experts.
#[derive(Debug)]
pub enum Inside {
    /// Products that add up.
    Links(Vec<PeftAdapter>),
    /// Products between which routers choose.
    Routed(Box<MixLoraAdapter>),
}

impl Inside {
    /// Its products, site by site.
    ///
    /// # Errors
    /// As [`site_factors`].
    pub fn factors(&self) -> Result<Vec<SiteFactors<'_>>> {
        match self {
            Self::Links(parts) => site_factors(parts),
            Self::Routed(adapter) => routed_factors(adapter),
        }
    }

    /// The analysis of its `factors`; link by link where `with_links` is set.
    pub fn report(&self, name: &str, factors: &[SiteFactors<'_>], with_links: bool) -> AdapterReport {
        let mut made = report(name, factors, with_links);
        if let Self::Routed(adapter) = self {
            let routers = adapter.gates.iter().map(|gate| (gate.layer, gate.values.as_slice()));
            made.experts = ExpertsReport::new(&made.sites, adapter.routing.experts, routers);
        }
        made
    }
}
