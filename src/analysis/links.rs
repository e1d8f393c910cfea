//! How the links of a chain (or the modules of MultiLoRA) relate at one site.

use serde::{Deserialize, Serialize};

use super::factors::{Factors, decompose, inner_product};
use super::similarity::{Grid, similarity};
use super::spectrum::{Spectrum, spectrum_of_sum};

/// The links of one site, one by one, together, and in pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// Which links of the chain have a part in this site, ascending from 0; the other lists are in this order.
    pub numbers: Vec<usize>,
    /// Spectrum of each link.
    pub spectra: Vec<Spectrum>,
    /// Spectrum of the sum of the first 1, 2, … links: its effective rank is the staircase of a chain.
    pub cumulative: Vec<Spectrum>,
    /// φ of the whole output subspaces of links i and j; 1 on the diagonal.
    pub overlap_left: Grid,
    /// φ of the whole input subspaces.
    pub overlap_right: Grid,
    /// `⟨ΔW_i, ΔW_j⟩ / (‖ΔW_i‖ ‖ΔW_j‖)`: whether links add up, ignore or undo each other.
    pub cosine: Grid,
}

impl Links {
    /// Place of a link in the lists; `None` where it has no part.
    pub fn place(&self, link: usize) -> Option<usize> {
        self.numbers.iter().position(|number| *number == link)
    }

    /// Spectrum of the sum of the links up to this one, whether or not it has a part itself; `None` before the first that has.
    pub fn so_far(&self, link: usize) -> Option<&Spectrum> {
        let count = self.numbers.iter().filter(|number| **number <= link).count();
        self.cumulative.get(count.checked_sub(1)?)
    }

    /// One more than the highest number.
    pub fn count(&self) -> usize {
        self.numbers.last().map_or(0, |last| last + 1)
    }
}

/// Analyses the links of one site, in their order and numbered so.
///
/// # Panics
/// When there is none, or they differ in shape.
pub fn links(links: &[Factors<'_>]) -> Links {
    let each: Vec<_> = links.iter().map(|link| decompose(std::slice::from_ref(link))).collect();
    let shape = links.first().map(Factors::shape).expect("at least one link");
    let pairs =
        |f: &dyn Fn(usize, usize) -> f64| -> Grid { (0..links.len()).map(|i| (0..links.len()).map(|j| f(i, j)).collect()).collect() };
    let whole: Vec<Vec<(f64, f64)>> = each.iter().map(|x| each.iter().map(|y| similarity(x, y).whole()).collect()).collect();
    let norm = |i: usize| each[i].values.iter().map(|s| s * s).sum::<f64>().sqrt();
    let cosine = |i: usize, j: usize| {
        let norms = norm(i) * norm(j);
        if norms > 0.0 { (inner_product(&links[i], &links[j]) / norms).clamp(-1.0, 1.0) } else { 0.0 }
    };
    Links {
        numbers: (0..links.len()).collect(),
        spectra: each.iter().map(|svd| Spectrum::of(svd.values.clone(), shape)).collect(),
        cumulative: (1..=links.len()).map(|n| spectrum_of_sum(&links[..n])).collect(),
        overlap_left: pairs(&|i, j| whole[i][j].0),
        overlap_right: pairs(&|i, j| whole[i][j].1),
        cosine: pairs(&cosine),
    }
}
