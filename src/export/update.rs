//! A saved adapter as what it does to the weights: products per site, for analysis, merging and recompression.

use std::collections::BTreeMap;

use super::peft::{PeftAdapter, PeftSite};
use crate::adapters::Site;
use crate::analysis::Factors;
use crate::analysis::report::SiteFactors;
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
    Ok(sites.into_iter().map(|(site, (links, numbers))| SiteFactors { site, links, numbers }).collect())
}
