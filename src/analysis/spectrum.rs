//! What the singular values of an update say in a few numbers.

use serde::{Deserialize, Serialize};

use super::factors::{Factors, numerical_rank, singular_values};

/// The singular values σ of one update, and scores of how flat they are. Energies are `p_i = σ_i² / Σ σ²`; all scores of a zero update are 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// σ, descending, min(rank sum, out, in) of them.
    pub singular_values: Vec<f64>,
    /// `‖ΔW‖_F`, the root of Σ σ².
    pub frobenius: f64,
    /// How many σ are above `σ_1 · max(out, in) · 2⁻²³`, the rounding of f32 factors.
    pub rank: usize,
    /// Entropy of the energies, `H(p) = -Σ p ln p`, in nats.
    pub entropy: f64,
    /// `H(p) / ln n` for n singular values: 1 when all are equal; 0 for n = 1.
    pub normalized_entropy: f64,
    /// `exp H(p)` over the energies: how many directions carry the update.
    pub effective_rank: f64,
    /// `exp H(q)` with `q_i = σ_i / Σ σ`, the effective rank of Roy and Vetterli (2007), which counts small σ for more.
    pub effective_rank_sigma: f64,
    /// `‖ΔW‖_F² / σ_1²`.
    pub stable_rank: f64,
    /// `p_1`, the share of the largest direction.
    pub top1_energy: f64,
}

impl Spectrum {
    /// Scores of given singular values, descending, of a weight of `(out, in)`.
    pub fn of(singular_values: Vec<f64>, shape: (usize, usize)) -> Self {
        let n = singular_values.len();
        let largest = singular_values.first().copied().unwrap_or(0.0);
        // Relative to the largest, so that no square overflows or vanishes.
        let relative: Vec<f64> = singular_values.iter().map(|s| if largest > 0.0 { s / largest } else { 0.0 }).collect();
        let stable_rank: f64 = relative.iter().map(|s| s * s).sum();
        let sum: f64 = relative.iter().sum();
        let zero = largest <= 0.0;
        let entropy = if zero { 0.0 } else { entropy(relative.iter().map(|s| s * s / stable_rank)) };
        let of_sigma = if zero { 0.0 } else { self::entropy(relative.iter().map(|s| s / sum)).exp() };
        Self {
            frobenius: largest * stable_rank.sqrt(),
            rank: numerical_rank(&singular_values, shape),
            entropy,
            normalized_entropy: if n > 1 { entropy / (n as f64).ln() } else { 0.0 },
            effective_rank: if zero { 0.0 } else { entropy.exp() },
            effective_rank_sigma: of_sigma,
            stable_rank,
            top1_energy: if zero { 0.0 } else { 1.0 / stable_rank },
            singular_values,
        }
    }
}

fn entropy(shares: impl Iterator<Item = f64>) -> f64 {
    // The sum of a single share of 1 is -0.
    shares.filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum::<f64>().max(0.0)
}

/// The spectrum of one product.
pub fn spectrum(factors: &Factors<'_>) -> Spectrum {
    spectrum_of_sum(std::slice::from_ref(factors))
}

/// The spectrum of a sum of products of one site: a chain's links, MultiLoRA's modules.
///
/// # Panics
/// When there is no product, or they differ in shape.
pub fn spectrum_of_sum(sum: &[Factors<'_>]) -> Spectrum {
    let shape = sum.first().map(Factors::shape).expect("at least one product");
    Spectrum::of(singular_values(sum), shape)
}
