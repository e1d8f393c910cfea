//! The model's shape from GGUF metadata. Mistral files say `llama` too.

use super::gguf::{Gguf, GgufTensor};
use super::gguf_value::Metadata;
use super::header::HINT_CONVERT;
use super::source::ByteSource;
use crate::config::{ModelConfig, RopeScaling};
use crate::error::{Error, Result};

/// Tensors that hold rotary divisors instead of weights.
pub(super) const ROPE_TENSORS: [&str; 3] = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// Base of the rotary frequencies when the file does not say.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;

/// Largest rotary tensor: one f32 for each pair of the widest head.
const MAX_ROPE_TENSOR_BYTES: u64 = 1 << 16;

/// Refuses files that are no dense LLaMA or Mistral model, by the name they give themselves.
fn check_kind(m: &Metadata, file: &str) -> Result<()> {
    let unsupported = |what: String, hint: &str| Err(Error::Unsupported { what: format!("{file}: {what}"), hint: hint.into() });
    if let Some(kind) = m.str("general.type")?.filter(|&k| k != "model") {
        return unsupported(format!("a GGUF of type \"{kind}\" as a base model"), "pass a file whose `general.type` is \"model\"");
    }
    let architecture = m.require("general.architecture", m.str("general.architecture")?)?;
    if architecture != "llama" {
        return unsupported(format!("the architecture \"{architecture}\""), "LLaMA and Mistral models (architecture \"llama\") are");
    }
    if let Some(n) = m.u64("llama.expert_count")?.filter(|&n| n > 0) {
        return unsupported(format!("a mixture of {n} experts (Mixtral)"), "dense LLaMA and Mistral models are");
    }
    Ok(())
}

/// The configuration of a LLaMA GGUF; reads the small rotary tensors where there are any.
pub(super) async fn read_config(gguf: &Gguf, sources: &[Box<dyn ByteSource>]) -> Result<ModelConfig> {
    let m = &gguf.metadata;
    let file = sources[0].name();
    check_kind(m, file)?;
    let required = |key: &str| m.require(key, m.usize(key)?);
    let hidden_size = required("llama.embedding_length")?;
    let num_attention_heads = required("llama.attention.head_count")?;
    let head_dim = match m.usize("llama.attention.key_length")? {
        Some(width) => width,
        None => hidden_size.checked_div(num_attention_heads).unwrap_or(0),
    };
    for (key, meaning) in [("llama.attention.value_length", "the key width"), ("llama.rope.dimension_count", "the head width")] {
        if let Some(width) = m.usize(key)?.filter(|&w| w != head_dim) {
            let what = format!("{file}: `{key}` {width} that differs from {meaning} {head_dim}");
            return Err(Error::Unsupported { what, hint: "use a model whose heads are rotated whole".into() });
        }
    }
    let rows = gguf.tensors.iter().find(|t| t.name == "token_embd.weight").and_then(|t| t.shape.first().copied());
    let rms_key = "llama.attention.layer_norm_rms_epsilon";
    let max_position_embeddings = required("llama.context_length")?;
    Ok(ModelConfig {
        model_type: "llama".into(),
        vocab_size: m.require("llama.vocab_size", m.usize("llama.vocab_size")?.or(rows))?,
        hidden_size,
        intermediate_size: required("llama.feed_forward_length")?,
        num_hidden_layers: required("llama.block_count")?,
        num_attention_heads,
        num_key_value_heads: m.usize("llama.attention.head_count_kv")?.unwrap_or(num_attention_heads),
        head_dim,
        rms_norm_eps: m.require(rms_key, m.f64(rms_key)?)? as f32,
        max_position_embeddings,
        rope_theta: m.f64("llama.rope.freq_base")?.unwrap_or(DEFAULT_ROPE_THETA),
        rope_scaling: rope_scaling(gguf, sources, max_position_embeddings).await?,
        tie_word_embeddings: !gguf.tensors.iter().any(|t| t.name == "output.weight"),
        sliding_window: m.usize("llama.attention.sliding_window")?.filter(|&w| w > 0),
    })
}

/// Scaling by metadata, by tensor, or (linear with divisors) by both.
async fn rope_scaling(gguf: &Gguf, sources: &[Box<dyn ByteSource>], context: usize) -> Result<RopeScaling> {
    let m = &gguf.metadata;
    let file = sources[0].name();
    let divisors = read_divisors(gguf, sources, "rope_freqs.weight").await?;
    let legacy = m.f64("llama.rope.scale_linear")?;
    let kind = m.str("llama.rope.scaling.type")?.unwrap_or(if legacy.is_some() { "linear" } else { "none" });
    let factor = m.f64("llama.rope.scaling.factor")?.or(legacy).filter(|&f| f != 0.0); // zero means "not set"
    let original = m.usize("llama.rope.scaling.original_context_length")?.unwrap_or(context);
    let attention = m.f64("llama.rope.scaling.attn_factor")?;
    let need_factor = || m.require("llama.rope.scaling.factor", factor);
    match (kind, divisors) {
        ("none", None) => Ok(RopeScaling::None),
        ("none", Some(divisors)) => Ok(RopeScaling::Divisors(divisors)),
        ("linear", None) => Ok(RopeScaling::Linear { factor: need_factor()? }),
        ("linear", Some(divisors)) => {
            let factor = need_factor()?;
            Ok(RopeScaling::Divisors(divisors.into_iter().map(|d| d * factor).collect()))
        }
        ("yarn", None) => yarn(m, file, need_factor()?, original, attention),
        ("longrope", None) => {
            let [long, short] = [ROPE_TENSORS[1], ROPE_TENSORS[2]];
            Ok(RopeScaling::LongRope {
                short_factor: m.require(short, read_divisors(gguf, sources, short).await?)?,
                long_factor: m.require(long, read_divisors(gguf, sources, long).await?)?,
                original_max_position_embeddings: original,
                attention_factor: Some(attention.unwrap_or(1.0)), // llama.cpp derives none here
            })
        }
        (kind, divisors) => Err(Error::Unsupported {
            what: format!("{file}: RoPE scaling \"{kind}\"{}", if divisors.is_some() { " together with `rope_freqs.weight`" } else { "" }),
            hint: "none, linear, yarn, longrope and `rope_freqs.weight` are".into(),
        }),
    }
}

/// YaRN as llama.cpp reads it: its own attention factor multiplies the paper's `0.1 ln(factor) + 1`.
fn yarn(m: &Metadata, file: &str, factor: f64, original: usize, attention: Option<f64>) -> Result<RopeScaling> {
    for key in ["llama.rope.scaling.yarn_ext_factor", "llama.rope.scaling.yarn_log_multiplier"] {
        let neutral = if key.ends_with("ext_factor") { 1.0 } else { 0.0 };
        if let Some(v) = m.f64(key)?.filter(|&v| v != neutral) {
            return Err(Error::Unsupported {
                what: format!("{file}: `{key}` {v}"),
                hint: "leave it out, or convert the model again".into(),
            });
        }
    }
    let attention = match attention {
        Some(a) => Some(a),
        None => m.f64("llama.rope.scaling.yarn_attn_factor")?,
    };
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position_embeddings: original,
        beta_fast: m.f64("llama.rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
        beta_slow: m.f64("llama.rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
        attention_factor: attention.map(|a| if factor > 1.0 { a * (0.1 * factor.ln() + 1.0) } else { a }),
    })
}

/// The values of a rotary tensor, if the file has it.
async fn read_divisors(gguf: &Gguf, sources: &[Box<dyn ByteSource>], name: &str) -> Result<Option<Vec<f64>>> {
    let Some(GgufTensor { shape, format, offset, bytes, source, .. }) = gguf.tensors.iter().find(|t| t.name == name) else {
        return Ok(None);
    };
    if shape.len() != 1 || *bytes > MAX_ROPE_TENSOR_BYTES {
        let problem = format!("tensor `{name}` has shape {shape:?}, one divisor per pair of a head was expected");
        return Err(Error::format(sources[*source].name(), problem, HINT_CONVERT));
    }
    let data = sources[*source].read(*offset, *bytes as usize).await?; // at most MAX_ROPE_TENSOR_BYTES
    Ok(Some(format.decode_vec(&data).into_iter().map(f64::from).collect()))
}
