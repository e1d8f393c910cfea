//! Rotary frequencies, with every scaling of `transformers.modeling_rope_utils`, computed in f64 and rounded once.

use std::f64::consts::PI;

use crate::config::{ModelConfig, RopeScaling};

/// The table of `positions` rows of `head_dim / 2` pairs (cos, sin), for a context of `context` tokens.
///
/// `context` only matters to scalings that depend on the length (`dynamic`, `longrope`): the longest document of a run, or what a generated
/// sequence can come to.
pub fn table(config: &ModelConfig, positions: usize, context: usize) -> Vec<[f32; 2]> {
    let (inverse, factor) = frequencies(config, context);
    let pair = |position: usize, frequency: f64| {
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        [(cos * factor) as f32, (sin * factor) as f32]
    };
    (0..positions).flat_map(|p| inverse.iter().map(move |f| pair(p, *f))).collect()
}

/// Why sequences of up to `length` tokens have other angles than in a table for `longest`; `None` where they have the same.
pub fn difference(config: &ModelConfig, length: usize, longest: usize) -> Option<String> {
    let name = match config.rope_scaling {
        RopeScaling::LongRope { .. } => "longrope",
        // Nothing else depends on the length.
        _ => "dynamic",
    };
    let differ = frequencies(config, length) != frequencies(config, longest);
    differ.then(|| format!("angles of `{name}` depend on the longest row: {length} tokens have others than {longest}"))
}

/// Angle per position of each pair, and the factor on cos and sin.
pub fn frequencies(config: &ModelConfig, context: usize) -> (Vec<f64>, f64) {
    let dim = config.head_dim as f64;
    let half = config.head_dim / 2;
    let plain = |base: f64| (0..half).map(|i| base.powf(-2.0 * i as f64 / dim)).collect::<Vec<f64>>();
    let inverse = plain(config.rope_theta);
    match &config.rope_scaling {
        RopeScaling::None => (inverse, 1.0),
        RopeScaling::Linear { factor } => (inverse.iter().map(|f| f / factor).collect(), 1.0),
        RopeScaling::Divisors(divisors) => (inverse.iter().zip(divisors).map(|(f, d)| f / d).collect(), 1.0),
        RopeScaling::Dynamic { factor } => {
            let trained = config.max_position_embeddings as f64;
            let length = trained.max(context as f64);
            (plain(config.rope_theta * (factor * length / trained - (factor - 1.0)).powf(dim / (dim - 2.0))), 1.0)
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let original = *original_max_position_embeddings as f64;
            let scale = |f: &f64| {
                let wavelength = 2.0 * PI / f;
                if wavelength < original / high_freq_factor {
                    *f
                } else if wavelength > original / low_freq_factor {
                    f / factor
                } else {
                    let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * f / factor + smooth * f
                }
            };
            (inverse.iter().map(scale).collect(), 1.0)
        }
        RopeScaling::Yarn { factor, original_max_position_embeddings, beta_fast, beta_slow, attention_factor } => {
            let original = *original_max_position_embeddings as f64;
            let dimension = |turns: f64| dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * config.rope_theta.ln());
            let low = dimension(*beta_fast).floor().max(0.0);
            let high = dimension(*beta_slow).ceil().min(dim - 1.0);
            let high = if low == high { high + 0.001 } else { high };
            let scale = |(i, f): (usize, &f64)| {
                let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                f / factor * ramp + f * (1.0 - ramp)
            };
            let attention = attention_factor.unwrap_or(if *factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 });
            (inverse.iter().enumerate().map(scale).collect(), attention)
        }
        RopeScaling::LongRope { short_factor, long_factor, original_max_position_embeddings, attention_factor } => {
            let original = *original_max_position_embeddings as f64;
            let divisors = if context as f64 > original { long_factor } else { short_factor };
            let stretch = config.max_position_embeddings as f64 / original;
            let derived = if stretch > 1.0 { (1.0 + stretch.ln() / original.ln()).sqrt() } else { 1.0 };
            (inverse.iter().zip(divisors).map(|(f, d)| f / d).collect(), attention_factor.unwrap_or(derived))
        }
    }
}
