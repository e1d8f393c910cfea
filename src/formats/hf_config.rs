//! The model's shape from a Hugging Face `config.json`, in the spellings of transformers 4 and 5.

use super::check::default_head_dim;
use super::json::Object;
use crate::config::{ModelConfig, RopeScaling};
use crate::error::Result;

const DEFAULT_ROPE_THETA: f64 = 10_000.0;
const DEFAULT_MAX_POSITIONS: usize = 2048;
const DEFAULT_RMS_NORM_EPS: f64 = 1e-6;

/// Reads a `config.json`; `file` is what errors call it. Unknown keys are ignored, known keys that change the arithmetic are not.
pub fn parse_config(file: &str, text: &str) -> Result<ModelConfig> {
    let c = Object::parse(file, text)?;
    let model_type = c.require("model_type", c.str("model_type")?)?;
    if !matches!(model_type, "llama" | "mistral") {
        return Err(c.unsupported(format_args!("the architecture \"{model_type}\""), "dense LLaMA and Mistral models are"));
    }
    refuse_other_arithmetic(&c)?;
    let required = |key: &str| c.require(key, c.usize(key)?);
    let hidden_size = required("hidden_size")?;
    let num_attention_heads = required("num_attention_heads")?;
    let written = c.usize("max_position_embeddings")?.unwrap_or(DEFAULT_MAX_POSITIONS);
    let (rope_theta, rope_scaling) = rope(&c, written)?;
    let max_position_embeddings = context_length(&c, written, &rope_scaling)?;
    Ok(ModelConfig {
        model_type: model_type.to_owned(),
        vocab_size: required("vocab_size")?,
        hidden_size,
        intermediate_size: required("intermediate_size")?,
        num_hidden_layers: required("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: c.usize("num_key_value_heads")?.unwrap_or(num_attention_heads),
        head_dim: match c.usize("head_dim")? {
            Some(width) => width,
            None => default_head_dim(file, hidden_size, num_attention_heads)?,
        },
        rms_norm_eps: c.f64("rms_norm_eps")?.unwrap_or(DEFAULT_RMS_NORM_EPS) as f32,
        max_position_embeddings,
        rope_theta,
        rope_scaling,
        tie_word_embeddings: c.bool("tie_word_embeddings")?.unwrap_or(false),
        sliding_window: if model_type == "mistral" { c.usize("sliding_window")? } else { None },
    })
}

/// Refuses settings under which a LLaMA computes something this crate does not.
fn refuse_other_arithmetic(c: &Object) -> Result<()> {
    if let Some(act) = c.str("hidden_act")?.filter(|&a| !matches!(a, "silu" | "swish")) {
        return Err(c.unsupported(format_args!("`hidden_act` \"{act}\""), "\"silu\" is"));
    }
    for key in ["attention_bias", "mlp_bias"] {
        if c.bool(key)? == Some(true) {
            return Err(c.unsupported(format_args!("`{key}` true"), "use a model without biases"));
        }
    }
    if let Some(part) = c.f64("partial_rotary_factor")?.filter(|&p| p != 1.0) {
        return Err(c.unsupported(format_args!("`partial_rotary_factor` {part}"), "use a model whose heads are rotated whole"));
    }
    if let Some(q) = c.object("quantization_config")? {
        let method = q.str("quant_method")?.unwrap_or("unknown");
        let hint = "pass the original F16, BF16 or F32 weights with --quantize, or a GGUF file";
        return Err(c.unsupported(format_args!("weights quantised by \"{method}\""), hint));
    }
    Ok(())
}

/// Base and scaling: from `rope_parameters` (transformers 5), or from `rope_theta` and `rope_scaling`.
fn rope(c: &Object, max_positions: usize) -> Result<(f64, RopeScaling)> {
    let parameters = match c.object("rope_parameters")? {
        Some(p) => Some(p),
        None => c.object("rope_scaling")?,
    };
    let top_theta = c.f64("rope_theta")?;
    let Some(p) = parameters else { return Ok((top_theta.unwrap_or(DEFAULT_ROPE_THETA), RopeScaling::None)) };
    if let Some((layer_type, _)) = p.iter().find(|(_, v)| v.is_object()) {
        return Err(
            c.unsupported(format_args!("RoPE parameters per layer type (\"{layer_type}\")"), "use a model with one RoPE for all layers")
        );
    }
    if let Some(part) = p.f64("partial_rotary_factor")?.filter(|&f| f != 1.0) {
        return Err(p.unsupported(format_args!("`partial_rotary_factor` {part}"), "use a model whose heads are rotated whole"));
    }
    let theta = p.f64("rope_theta")?.or(top_theta).unwrap_or(DEFAULT_ROPE_THETA);
    let kind = match p.str("rope_type")? {
        Some(kind) => kind,
        None => p.str("type")?.unwrap_or("default"),
    };
    // A length outside the dictionary wins over one inside, as in transformers.
    let original = match c.usize("original_max_position_embeddings")? {
        Some(n) => n,
        None => p.usize("original_max_position_embeddings")?.unwrap_or(max_positions),
    };
    let required = |key: &str| p.require(key, p.f64(key)?);
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: required("factor")? },
        "dynamic" => RopeScaling::Dynamic { factor: required("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: required("factor")?,
            low_freq_factor: required("low_freq_factor")?,
            high_freq_factor: required("high_freq_factor")?,
            original_max_position_embeddings: original,
        },
        "yarn" => yarn(&p, original, max_positions)?,
        "longrope" => long_rope(&p, original, max_positions)?,
        other => {
            return Err(p.unsupported(format_args!("RoPE scaling \"{other}\""), "default, linear, dynamic, llama3, yarn and longrope are"));
        }
    };
    Ok((theta, scaling))
}

/// The tokens that the model reads. Angles that are stretched linearly come in two ways: with the length before the stretch beside
/// `max_position_embeddings`, as this crate writes it, or with that length in `max_position_embeddings` (LongLoRA's and Vicuna's folders; vLLM and other
/// readers multiply).
fn context_length(c: &Object, written: usize, scaling: &RopeScaling) -> Result<usize> {
    let RopeScaling::Linear { factor } = scaling else { return Ok(written) };
    let mut says = c.usize("original_max_position_embeddings")?.is_some();
    for key in ["rope_parameters", "rope_scaling"] {
        if let Some(inner) = c.object(key)? {
            says |= inner.usize("original_max_position_embeddings")?.is_some();
        }
    }
    Ok(if says { written } else { (written as f64 * factor).round() as usize })
}

/// The stretch: given, or the ratio of the context to the original one.
fn factor(p: &Object, original: usize, max_positions: usize) -> Result<f64> {
    Ok(p.f64("factor")?.unwrap_or(max_positions as f64 / original as f64))
}

fn yarn(p: &Object, original: usize, max_positions: usize) -> Result<RopeScaling> {
    if p.bool("truncate")? == Some(false) {
        return Err(p.unsupported("`truncate` false", "use a model whose YaRN range is rounded to whole dimensions"));
    }
    let factor = factor(p, original, max_positions)?;
    let scale = |m: f64| if factor > 1.0 { 0.1 * m * factor.ln() + 1.0 } else { 1.0 };
    let nonzero = |key: &str| Ok::<_, crate::Error>(p.f64(key)?.filter(|&v| v != 0.0));
    let mscale = nonzero("mscale")?.zip(nonzero("mscale_all_dim")?).map(|(m, all)| scale(m) / scale(all));
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position_embeddings: original,
        beta_fast: nonzero("beta_fast")?.unwrap_or(32.0),
        beta_slow: nonzero("beta_slow")?.unwrap_or(1.0),
        attention_factor: p.f64("attention_factor")?.or(mscale),
    })
}

/// The attention factor is always worked out here, because its default depends on a stretch that [`RopeScaling::LongRope`] does not keep.
fn long_rope(p: &Object, original: usize, max_positions: usize) -> Result<RopeScaling> {
    let factor = factor(p, original, max_positions)?;
    let default = if factor > 1.0 { (1.0 + factor.ln() / (original as f64).ln()).sqrt() } else { 1.0 };
    Ok(RopeScaling::LongRope {
        short_factor: p.require("short_factor", p.f64s("short_factor")?)?,
        long_factor: p.require("long_factor", p.f64s("long_factor")?)?,
        original_max_position_embeddings: original,
        attention_factor: Some(p.f64("attention_factor")?.unwrap_or(default)),
    })
}
