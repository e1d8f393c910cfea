//! One low-rank product `scale · B A x`: its two parameters, its rank and its scale.

use super::params::{Init, ParamLayout, ParamSpec, Storage};
use super::site::Site;
use crate::config::ModelConfig;

/// One low-rank product `scale · B A x` of a site.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice {
    /// Index of A in the layout.
    pub a: usize,
    /// Index of B in the layout.
    pub b: usize,
    /// Rows of A.
    pub rank: usize,
    /// alpha, before the division by the rank.
    pub alpha: f64,
    /// What multiplies the product: alpha / rank, or alpha / sqrt(rank).
    pub scale: f32,
}

/// A site's rank, alpha and how they make the scale.
#[derive(Debug, Clone, Copy)]
pub struct Rank {
    /// Rows of A.
    pub rank: usize,
    /// alpha.
    pub alpha: f64,
    /// Scale by alpha / sqrt(rank).
    pub rslora: bool,
}

impl Rank {
    /// What multiplies B A x.
    pub fn scale(self) -> f32 {
        let rank = self.rank as f64;
        (self.alpha / if self.rslora { rank.sqrt() } else { rank }) as f32
    }
}

/// Appends A and B of one product; `name` is theirs without `.lora_A` and `.lora_B`, `ratio` is the learning rate of B over A's.
pub fn push_pair(params: &mut ParamLayout, name: &str, site: Site, model: &ModelConfig, rank: Rank, ratio: f64) -> Slice {
    let (out, inputs) = site.projection.shape(model);
    let a = ParamSpec {
        name: format!("{name}.lora_A"),
        shape: vec![rank.rank, inputs],
        transposed: false,
        offset: 0,
        adjacent: false,
        padding: 0,
        init: Init::Uniform { bound: 1.0 / (inputs as f64).sqrt() },
        lr_multiplier: 1.0,
        weight_decay: true,
        trainable: true,
        storage: Storage::F32,
    };
    let b = ParamSpec {
        name: format!("{name}.lora_B"),
        shape: vec![out, rank.rank],
        transposed: true,
        init: Init::Zeros,
        lr_multiplier: ratio,
        ..a.clone()
    };
    Slice { a: params.push(a), b: params.push(b), rank: rank.rank, alpha: rank.alpha, scale: rank.scale() }
}
