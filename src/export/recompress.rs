//! An adapter of a smaller rank: the nearest one there is (Eckart and Young), from QR of the factors and an SVD of their small core.
//!
//! `B A = U S Vᵀ`; kept are the largest singular values, as `B' = U √S` and `A' = √S Vᵀ`, with scale 1. What is dropped is reported as its share of
//! `‖ΔW‖_F²`.

use serde::Serialize;

use super::peft::{PeftAdapter, PeftSite};
use crate::analysis::decompose_cut;
use crate::{Error, Result};

/// How much is kept of every site; of two limits the smaller rank holds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cut {
    /// At most this rank.
    pub max_rank: Option<usize>,
    /// The smallest rank that keeps at least this share of `‖ΔW‖_F²`, from 0 (excluded) to 1.
    pub energy: Option<f64>,
}

impl Cut {
    /// Whether nothing is to be cut.
    pub fn is_none(&self) -> bool {
        self.max_rank.is_none() && self.energy.is_none()
    }

    fn check(&self) -> Result<()> {
        if self.max_rank == Some(0) {
            return Err(Error::config("max-rank", "is 0", "give a rank of 1 or more"));
        }
        match self.energy {
            Some(x) if !(x > 0.0 && x <= 1.0) => Err(Error::config("energy", format!("is {x}"), "give a share above 0 and up to 1")),
            _ => Ok(()),
        }
    }
}

/// What was done to one site.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteCut {
    /// Short name of the site.
    pub site: String,
    /// Rank before.
    pub from: usize,
    /// Rank now.
    pub to: usize,
    /// Dropped share of this site's `‖ΔW‖_F²`.
    pub dropped: f64,
    /// `‖ΔW‖_F²` before.
    pub energy: f64,
}

/// What was done to an adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recompressed {
    /// Every site, in the adapter's order.
    pub sites: Vec<SiteCut>,
    /// Dropped share of `‖ΔW‖_F²` summed over all sites.
    pub dropped: f64,
}

/// An adapter cut to a smaller rank, and what was dropped. Sites that are within the limits already keep their factors.
///
/// # Errors
/// When a limit is no possible one, or a factor holds a NaN or infinity.
pub fn recompress(adapter: &PeftAdapter, cut: Cut) -> Result<(PeftAdapter, Recompressed)> {
    cut.check()?;
    let (mut sites, mut cuts) = (Vec::with_capacity(adapter.sites.len()), Vec::with_capacity(adapter.sites.len()));
    for site in &adapter.sites {
        let (site, cut) = recompress_site(site, adapter.rslora, cut)?;
        sites.push(site);
        cuts.push(cut);
    }
    let energy: f64 = cuts.iter().map(|c| c.energy).sum();
    let lost: f64 = cuts.iter().map(|c| c.dropped * c.energy).sum();
    let report = Recompressed { sites: cuts, dropped: if energy > 0.0 { lost / energy } else { 0.0 } };
    Ok((PeftAdapter { rslora: false, ..adapter.with(sites, adapter.note.clone()) }, report))
}

/// One site cut, as an ordinary LoRA site (scale alpha / rank) whatever `rslora` its own scale is by.
pub(super) fn recompress_site(site: &PeftSite, rslora: bool, cut: Cut) -> Result<(PeftSite, SiteCut)> {
    let factors = site.factors(rslora)?;
    let most = cut.max_rank.unwrap_or(usize::MAX).min(site.rank);
    let svd = decompose_cut(&[factors], most);
    let largest = svd.values.first().copied().unwrap_or(0.0);
    // Relative to the largest, so that no square overflows or vanishes.
    let shares: Vec<f64> = svd.values.iter().map(|s| if largest > 0.0 { (s / largest).powi(2) } else { 0.0 }).collect();
    let all: f64 = shares.iter().sum();
    let above = |n: usize| shares[n..].iter().sum::<f64>();
    let enough = |energy: f64| (1..shares.len()).find(|&n| above(n) <= (1.0 - energy) * all).unwrap_or(shares.len());
    // A PEFT adapter of rank 0 does not exist: an update of zero keeps one row.
    let rank = cut.energy.map_or(shares.len(), enough).min(most).max(1);
    let report =
        |to: usize, dropped: f64| SiteCut { site: site.site.to_string(), from: site.rank, to, dropped, energy: largest * largest * all };
    if rank >= site.rank {
        let alpha = factors.scale() * site.rank as f64;
        return Ok((PeftSite { alpha, ..site.clone() }, report(site.rank, 0.0)));
    }
    let (out, _) = factors.shape();
    let root: Vec<f64> = svd.values[..rank].iter().map(|s| s.sqrt()).collect();
    let a = (0..rank).flat_map(|r| svd.v.col(r).iter().map(move |v| (v, r))).map(|(v, r)| (v * root[r]) as f32).collect();
    let b = (0..out).flat_map(|o| (0..rank).map(move |r| (o, r))).map(|(o, r)| (svd.u.at(o, r) * root[r]) as f32).collect();
    let dropped = if all > 0.0 { above(rank) / all } else { 0.0 };
    Ok((PeftSite { site: site.site, rank, alpha: rank as f64, a, b }, report(rank, dropped)))
}
