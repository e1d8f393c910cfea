//! The analysis of a whole adapter, site by site, and of two adapters side by side; serialisable as it stands.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::experts::ExpertsReport;
use super::factors::{Factors, decompose, inner_product};
use super::links::{Links, links};
use super::median::median;
use super::modules::{self, ModuleReport, SiteModules};
use super::similarity::{Similarity, similarity};
use super::site_report::SiteReport;
use super::spectrum::spectrum_of_sum;
use crate::adapters::mixlora::expert_name;
use crate::adapters::{Projection, Site};
use crate::{Error, Result};

/// A site and its products, whose sum is the update: one for plain LoRA, one per link of a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteFactors<'a> {
    /// Where.
    pub site: Site,
    /// Which expert's, where the site has experts.
    pub expert: Option<usize>,
    /// The products, all of one shape; at least one.
    pub links: Vec<Factors<'a>>,
    /// Which link of the chain each product is, ascending from 0.
    pub numbers: Vec<usize>,
}

impl SiteFactors<'_> {
    /// Short name of the site, or of the expert at it.
    pub fn name(&self) -> String {
        self.expert.map_or_else(|| self.site.to_string(), |expert| expert_name(self.site, expert))
    }
}

/// Medians over the sites of one projection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectionSummary {
    /// Short name: `q`.
    pub projection: String,
    /// How many sites.
    pub sites: usize,
    /// Median rank sum.
    pub rank_sum: f64,
    /// Median Frobenius norm.
    pub frobenius: f64,
    /// Median numerical rank.
    pub rank: f64,
    /// Median effective rank, of energies.
    pub effective_rank: f64,
    /// Median effective rank, of singular values.
    pub effective_rank_sigma: f64,
    /// Median normalised entropy.
    pub normalized_entropy: f64,
    /// Median stable rank.
    pub stable_rank: f64,
    /// Median share of the largest direction.
    pub top1_energy: f64,
}

/// An adapter, site by site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterReport {
    /// What it is called.
    pub name: String,
    /// Medians by projection, in the model's order.
    pub projections: Vec<ProjectionSummary>,
    /// Medians over the sites by module; empty where no modules are known.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub modules: Vec<ModuleReport>,
    /// Experts and routers; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub experts: Option<ExpertsReport>,
    /// Every site, in the adapter's order.
    pub sites: Vec<SiteReport>,
}

/// How far the norm of an update may be from that of its modules' sum, of the sum of their norms: f32 rounds `s ⊙ B` when they are added up.
const SAME_UPDATE: f64 = 1e-5;

impl AdapterReport {
    /// Adds what a run knows of the modules that this adapter is the sum of.
    ///
    /// # Errors
    /// When a site has none or their sum is another update: they are of another adapter, or of another step.
    pub fn add_modules(&mut self, sites: &[SiteModules]) -> Result<()> {
        let error = |problem: String| Error::Adapter {
            adapter: self.name.clone(),
            problem,
            hint: "analyse the adapter that was saved together with its run",
        };
        let mut found = Vec::with_capacity(self.sites.len());
        let by_name: HashMap<String, &SiteModules> = sites.iter().map(|site| (site.site().to_string(), site)).collect();
        for own in &self.sites {
            let modules = by_name.get(&own.site).ok_or_else(|| error(format!("the run has no modules at {}", own.site)))?.report();
            let (sum, update) = (modules.frobenius, own.spectrum.frobenius);
            let norms: f64 = modules.each.iter().map(|module| module.frobenius).sum();
            if (sum - update).abs() > SAME_UPDATE * norms.max(update) {
                return Err(error(format!(
                    "at {} the run's modules add up to a norm of {sum:.4e}, the adapter's is {update:.4e}",
                    own.site
                )));
            }
            found.push(modules);
        }
        self.modules = modules::summary(&found);
        for (own, modules) in self.sites.iter_mut().zip(found) {
            own.modules = Some(modules);
        }
        Ok(())
    }
}

/// Two adapters at one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairSite {
    /// Short name: `layers.0.self_attn.q_proj`.
    pub site: String,
    /// Block, from 0.
    pub layer: usize,
    /// Short name: `q`.
    pub projection: String,
    /// φ of the whole output subspaces.
    pub left: f64,
    /// φ of the whole input subspaces.
    pub right: f64,
    /// What random subspaces of these ranks would give, on average: `max(i, j) / n`, of outputs and inputs.
    pub random: (f64, f64),
    /// Cosine of the two updates as vectors.
    pub cosine: f64,
    /// φ(i, j).
    pub phi: Similarity,
}

/// Two adapters of one base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairReport {
    /// The one.
    pub first: String,
    /// The other.
    pub second: String,
    /// The sites that both have.
    pub sites: Vec<PairSite>,
}

/// Analyses an adapter; link by link too when `with_links` is set.
pub fn report(name: &str, sites: &[SiteFactors<'_>], with_links: bool) -> AdapterReport {
    let site = |s: &SiteFactors<'_>| {
        let (out_features, in_features) = s.links.first().map_or((0, 0), Factors::shape);
        SiteReport {
            site: s.name(),
            layer: s.site.layer,
            projection: s.site.projection.short_name().to_owned(),
            expert: s.expert,
            out_features,
            in_features,
            rank_sum: s.links.iter().map(Factors::rank).sum(),
            spectrum: spectrum_of_sum(&s.links),
            links: with_links.then(|| Links { numbers: s.numbers.clone(), ..links(&s.links) }),
            modules: None,
        }
    };
    let sites: Vec<SiteReport> = sites.iter().map(site).collect();
    let projections = Projection::ALL.iter().filter_map(|p| summary(p.short_name(), &sites)).collect();
    AdapterReport { name: name.to_owned(), projections, modules: Vec::new(), experts: None, sites }
}

fn summary(projection: &str, sites: &[SiteReport]) -> Option<ProjectionSummary> {
    let own: Vec<&SiteReport> = sites.iter().filter(|s| s.projection == projection).collect();
    let of = |f: &dyn Fn(&SiteReport) -> f64| median(own.iter().map(|s| f(s)));
    Some(ProjectionSummary {
        projection: projection.to_owned(),
        sites: own.len(),
        rank_sum: of(&|s| s.rank_sum as f64)?,
        frobenius: of(&|s| s.spectrum.frobenius)?,
        rank: of(&|s| s.spectrum.rank as f64)?,
        effective_rank: of(&|s| s.spectrum.effective_rank)?,
        effective_rank_sigma: of(&|s| s.spectrum.effective_rank_sigma)?,
        normalized_entropy: of(&|s| s.spectrum.normalized_entropy)?,
        stable_rank: of(&|s| s.spectrum.stable_rank)?,
        top1_energy: of(&|s| s.spectrum.top1_energy)?,
    })
}

/// Compares two adapters at the sites that both have.
///
/// # Errors
/// When they have no site in common, or a site is of another shape: then they are not of one base.
pub fn compare(first: (&str, &[SiteFactors<'_>]), second: (&str, &[SiteFactors<'_>])) -> Result<PairReport> {
    let error = |problem: String| Error::Adapter { adapter: second.0.to_owned(), problem, hint: "compare adapters of one base" };
    let others: HashMap<(Site, Option<usize>), &SiteFactors<'_>> = second.1.iter().map(|y| ((y.site, y.expert), y)).collect();
    let mut sites = Vec::new();
    for x in first.1 {
        let Some(y) = others.get(&(x.site, x.expert)) else { continue };
        let (shape, other) = (x.links[0].shape(), y.links[0].shape());
        if shape != other {
            return Err(error(format!("{} is {other:?} here and {shape:?} in {}", x.name(), first.0)));
        }
        let (a, b) = (decompose(&x.links), decompose(&y.links));
        let phi = similarity(&a, &b);
        let ranks = a.rank.max(b.rank) as f64;
        let norm = |values: &[f64]| values.iter().map(|s| s * s).sum::<f64>().sqrt();
        let norms = norm(&a.values) * norm(&b.values);
        let product: f64 = x.links.iter().flat_map(|f| y.links.iter().map(move |g| inner_product(f, g))).sum();
        sites.push(PairSite {
            site: x.name(),
            layer: x.site.layer,
            projection: x.site.projection.short_name().to_owned(),
            left: phi.whole().0,
            right: phi.whole().1,
            random: (ranks / shape.0 as f64, ranks / shape.1 as f64),
            cosine: if norms > 0.0 { (product / norms).clamp(-1.0, 1.0) } else { 0.0 },
            phi,
        });
    }
    if sites.is_empty() {
        return Err(error(format!("it has no site in common with {}", first.0)));
    }
    Ok(PairReport { first: first.0.to_owned(), second: second.0.to_owned(), sites })
}
