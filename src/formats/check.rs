//! Does a configuration make sense, and does the file hold the tensors it implies?

use super::header::HINT_CONVERT;
use super::names::expected_tensors;
use super::tensor_info::TensorInfo;
use crate::config::{ModelConfig, RopeScaling};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Widest layer, longest context and largest vocabulary, far above any LLaMA; products of two such sizes fit 64 bits.
const MAX_SIZE: usize = 1 << 26;

/// Width of a head when the file does not say: the residual stream shared out evenly.
pub(super) fn default_head_dim(file: &str, hidden_size: usize, heads: usize) -> Result<usize> {
    match hidden_size.checked_rem(heads) {
        None => Ok(0), // no heads at all: `check_config` says so
        Some(0) => Ok(hidden_size / heads),
        Some(_) => Err(Error::format(file, format!("the hidden size {hidden_size} is no multiple of {heads} heads"), HINT_CONVERT)),
    }
}

/// Refuses configurations that no kernel could run, before any tensor is looked at.
pub(super) fn check_config(file: &str, c: &ModelConfig) -> Result<()> {
    let wrong = |problem: String| Err(Error::format(file, problem, HINT_CONVERT));
    let sizes = [
        ("vocab_size", c.vocab_size),
        ("hidden_size", c.hidden_size),
        ("intermediate_size", c.intermediate_size),
        ("num_hidden_layers", c.num_hidden_layers),
        ("num_attention_heads", c.num_attention_heads),
        ("num_key_value_heads", c.num_key_value_heads),
        ("head_dim", c.head_dim),
        ("max_position_embeddings", c.max_position_embeddings),
        ("sliding_window", c.sliding_window.unwrap_or(1)),
    ];
    if let Some((key, size)) = sizes.iter().find(|(_, size)| *size == 0 || *size > MAX_SIZE) {
        return wrong(format!("{key} is {size}, 1 to {MAX_SIZE} was expected"));
    }
    if !c.num_attention_heads.is_multiple_of(c.num_key_value_heads) {
        return wrong(format!("{} query heads are no multiple of {} key/value heads", c.num_attention_heads, c.num_key_value_heads));
    }
    if !c.head_dim.is_multiple_of(2) {
        return wrong(format!("the head width is {}, an even number was expected", c.head_dim));
    }
    if c.num_attention_heads.checked_mul(c.head_dim).is_none_or(|width| width > MAX_SIZE) {
        return wrong(format!("{} heads of width {} are wider than {MAX_SIZE}", c.num_attention_heads, c.head_dim));
    }
    if !(c.rms_norm_eps.is_finite() && c.rms_norm_eps >= 0.0) {
        return wrong(format!("rms_norm_eps is {}, a number from 0 was expected", c.rms_norm_eps));
    }
    if !(c.rope_theta.is_finite() && c.rope_theta > 1.0) {
        return wrong(format!("rope_theta is {}, a number above 1 was expected", c.rope_theta));
    }
    check_rope(file, c)
}

/// Refuses scalings with numbers that make frequencies infinite or NaN.
fn check_rope(file: &str, c: &ModelConfig) -> Result<()> {
    let wrong = |problem: String| Err(Error::format(file, problem, HINT_CONVERT));
    let no_list: &[f64] = &[];
    let (numbers, lists, original): (Vec<f64>, [&[f64]; 2], Option<usize>) = match &c.rope_scaling {
        RopeScaling::None => return Ok(()),
        RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor } => (vec![*factor], [no_list; 2], None),
        RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings } => {
            if low >= high {
                return wrong(format!("llama3 RoPE: low_freq_factor {low} is not below high_freq_factor {high}"));
            }
            (vec![*factor, *low, *high], [no_list; 2], Some(*original_max_position_embeddings))
        }
        RopeScaling::Yarn { factor, original_max_position_embeddings, beta_fast, beta_slow, attention_factor } => {
            (vec![*factor, *beta_fast, *beta_slow, attention_factor.unwrap_or(1.0)], [no_list; 2], Some(*original_max_position_embeddings))
        }
        RopeScaling::LongRope { short_factor, long_factor, original_max_position_embeddings, attention_factor } => {
            (vec![attention_factor.unwrap_or(1.0)], [short_factor.as_slice(), long_factor], Some(*original_max_position_embeddings))
        }
        RopeScaling::Divisors(divisors) => (vec![], [divisors.as_slice(), divisors], None),
    };
    let pairs = c.head_dim / 2;
    let needs_lists = matches!(c.rope_scaling, RopeScaling::LongRope { .. } | RopeScaling::Divisors(_));
    if let Some(list) = lists.iter().find(|l| needs_lists && l.len() != pairs) {
        return wrong(format!("RoPE scaling has {} divisors, {pairs} (half the head width) was expected", list.len()));
    }
    let mut all = numbers.iter().chain(lists.into_iter().flatten());
    if let Some(n) = all.find(|n| !(n.is_finite() && **n > 0.0)) {
        return wrong(format!("RoPE scaling has the number {n}, a positive one was expected"));
    }
    match original.filter(|n| *n == 0 || *n > MAX_SIZE) {
        Some(n) => wrong(format!("the original context is {n}, 1 to {MAX_SIZE} was expected")),
        None => Ok(()),
    }
}

/// Refuses a table that lacks a tensor, has one of another shape, or has one that no LLaMA has.
pub(super) fn check_tensors(file: &str, c: &ModelConfig, tensors: &BTreeMap<String, TensorInfo>) -> Result<()> {
    if c.num_hidden_layers > tensors.len() {
        let problem = format!("{} layers are declared but there are only {} tensors", c.num_hidden_layers, tensors.len());
        return Err(Error::format(file, problem, HINT_CONVERT));
    }
    let mut expected = 0;
    for (name, shape) in expected_tensors(c) {
        let Some(found) = tensors.get(&name) else {
            return Err(Error::format(file, format!("tensor `{name}` of shape {shape:?} is missing"), HINT_CONVERT));
        };
        if found.shape != shape {
            let problem = format!("tensor `{name}` has shape {:?}, {shape:?} was expected", found.shape);
            return Err(Error::format(file, problem, HINT_CONVERT));
        }
        expected += 1;
    }
    if expected == tensors.len() {
        return Ok(());
    }
    let names: std::collections::HashSet<String> = expected_tensors(c).map(|(name, _)| name).collect();
    match tensors.keys().find(|name| !names.contains(*name)) {
        Some(extra) => Err(Error::Unsupported {
            what: format!("{file}: tensor `{extra}`"),
            hint: format!("LLaMA and Mistral models without biases are, here with {} layers", c.num_hidden_layers),
        }),
        None => Ok(()),
    }
}
