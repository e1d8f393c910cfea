//! A model for longer contexts than it was trained for: its rotary angles stretched, by a method of the user's choice or LongLoRA's linear one.

use serde_json::Value;

use crate::config::{ModelConfig, RopeScaling};
use crate::settings::{Map, one_of};
use crate::{Error, Result};

/// How angles are stretched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// Every frequency divided by the factor: position interpolation.
    Linear,
    /// A larger base, the longer the sequence.
    Dynamic,
    /// High frequencies kept, low ones divided, as Llama 3.1 has it.
    Llama3,
    /// A ramp between kept and divided frequencies, and warmer attention.
    Yarn,
}

impl Stretch {
    /// Names in settings.
    pub const TABLE: &'static [(&'static str, Self)] =
        &[("linear", Self::Linear), ("dynamic", Self::Dynamic), ("llama3", Self::Llama3), ("yarn", Self::Yarn)];

    /// The method's name.
    pub fn name(self) -> &'static str {
        Self::TABLE.iter().find(|(_, one)| *one == self).map_or("", |(name, _)| name)
    }

    /// The method of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn by_name(name: &str) -> Result<Self> {
        Self::TABLE.iter().find(|(known, _)| *known == name).map(|(_, one)| *one).ok_or_else(|| {
            let names: Vec<&str> = Self::TABLE.iter().map(|(name, _)| *name).collect();
            Error::config("rope-scaling", format!("is \"{name}\""), format!("give {}", one_of(&names)))
        })
    }

    /// The method that the model's angles are stretched with already, and the context they were trained for; `None` where they are not.
    fn of(model: &ModelConfig) -> Result<Option<(Self, usize)>> {
        let context = model.max_position_embeddings;
        Ok(match &model.rope_scaling {
            RopeScaling::None => None,
            RopeScaling::Linear { factor } => Some((Self::Linear, ((context as f64 / factor).round() as usize).max(1))),
            RopeScaling::Dynamic { .. } => Some((Self::Dynamic, context)),
            RopeScaling::Llama3 { original_max_position_embeddings: original, .. } => Some((Self::Llama3, *original)),
            RopeScaling::Yarn { original_max_position_embeddings: original, .. } => Some((Self::Yarn, *original)),
            RopeScaling::LongRope { .. } | RopeScaling::Divisors(_) => {
                return Err(Error::Unsupported {
                    what: format!("a context beyond {context} tokens: the model's angles have divisors of their own"),
                    hint: format!("use --context {context} or less"),
                });
            }
        })
    }
}

/// `model` for sequences of `target` tokens. Where it reads them already it stays as it is; else its angles are stretched by the whole number of
/// times that `target` is longer than the context they were trained for, with the model's own method, `method`, or the linear one.
///
/// # Errors
/// A method where nothing is to be stretched, another one than the model's own, or angles that cannot be stretched.
pub fn stretched(model: &ModelConfig, target: usize, method: Option<Stretch>) -> Result<ModelConfig> {
    let reads = model.context_length();
    if target <= reads {
        return match method {
            Some(method) if Stretch::of(model).ok().flatten().is_none_or(|(own, _)| own != method) => {
                let problem = format!("is {}, and the model reads {reads} tokens without: nothing is to be stretched", method.name());
                Err(Error::config("rope-scaling", problem, format!("leave it out, or give a --context above {reads}")))
            }
            _ => Ok(model.clone()),
        };
    }
    let own = Stretch::of(model)?;
    if let (Some((own, _)), Some(method)) = (own, method)
        && own != method
    {
        let problem = format!("is {}, and the model's angles are stretched by {} already", method.name(), own.name());
        return Err(Error::config("rope-scaling", problem, format!("give {}, or leave it out", own.name())));
    }
    let (method, original) = own.unwrap_or((method.unwrap_or(Stretch::Linear), model.max_position_embeddings.max(1)));
    let factor = target.div_ceil(original) as f64;
    let original_max_position_embeddings = original;
    let rope_scaling = match (&model.rope_scaling, method) {
        (_, Stretch::Linear) => RopeScaling::Linear { factor },
        (_, Stretch::Dynamic) => RopeScaling::Dynamic { factor },
        (RopeScaling::Llama3 { low_freq_factor, high_freq_factor, .. }, _) => RopeScaling::Llama3 {
            factor,
            low_freq_factor: *low_freq_factor,
            high_freq_factor: *high_freq_factor,
            original_max_position_embeddings,
        },
        (_, Stretch::Llama3) => {
            RopeScaling::Llama3 { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings }
        }
        (RopeScaling::Yarn { beta_fast, beta_slow, attention_factor, .. }, _) => RopeScaling::Yarn {
            factor,
            original_max_position_embeddings,
            beta_fast: *beta_fast,
            beta_slow: *beta_slow,
            attention_factor: *attention_factor,
        },
        (_, Stretch::Yarn) => {
            RopeScaling::Yarn { factor, original_max_position_embeddings, beta_fast: 32.0, beta_slow: 1.0, attention_factor: None }
        }
    };
    // The dynamic method reads the trained context here.
    let longest = if method == Stretch::Dynamic { original } else { target };
    Ok(ModelConfig { rope_scaling, max_position_embeddings: longest, ..model.clone() })
}

/// `model` as an adapter was trained for it, whose run had these settings.
///
/// # Errors
/// As [`stretched`].
pub fn of_settings(model: &ModelConfig, settings: &Map) -> Result<ModelConfig> {
    let Some(context) = settings.get("context").and_then(Value::as_u64) else { return Ok(model.clone()) };
    let method = settings.get("rope-scaling").and_then(Value::as_str).map(Stretch::by_name).transpose()?;
    // A merged model is stretched already.
    let method = method.filter(|_| context as usize > model.context_length());
    stretched(model, usize::try_from(context).unwrap_or(usize::MAX), method)
}

/// The method by which an adapter was trained whose run had these settings, for a context of `target` tokens of `model`: how that stretches, where nothing
/// else is said.
pub fn method_of_settings(model: &ModelConfig, settings: &Map, target: usize) -> Option<Stretch> {
    let method = settings.get("rope-scaling").and_then(Value::as_str).and_then(|name| Stretch::by_name(name).ok())?;
    (target > model.context_length()).then_some(method)
}

/// How the angles of `stretched` differ from those of `model`, for people; `None` where they are the same.
pub fn in_words(model: &ModelConfig, stretched: &ModelConfig) -> Option<String> {
    let factor = match &stretched.rope_scaling {
        same if *same == model.rope_scaling => return None,
        RopeScaling::Linear { factor }
        | RopeScaling::Dynamic { factor }
        | RopeScaling::Llama3 { factor, .. }
        | RopeScaling::Yarn { factor, .. } => factor,
        _ => return None,
    };
    let (method, _) = Stretch::of(stretched).ok().flatten()?;
    Some(format!("`{}` with factor {factor} for {} tokens", method.name(), stretched.context_length()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rope::frequencies;

    fn model(rope_scaling: RopeScaling, context: usize) -> ModelConfig {
        ModelConfig {
            model_type: "llama".into(),
            vocab_size: 8,
            hidden_size: 32,
            intermediate_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 16,
            rms_norm_eps: 1e-5,
            max_position_embeddings: context,
            rope_theta: 10000.0,
            rope_scaling,
            tie_word_embeddings: false,
            sliding_window: None,
        }
    }

    #[test]
    fn angles_are_stretched_by_whole_numbers_and_once() {
        let plain = model(RopeScaling::None, 128);
        assert_eq!(stretched(&plain, 128, None).expect("fits"), plain);
        let linear = stretched(&plain, 500, None).expect("stretched");
        assert_eq!((linear.rope_scaling.clone(), linear.max_position_embeddings), (RopeScaling::Linear { factor: 4.0 }, 500));
        assert_eq!(frequencies(&linear, 500).0[3], frequencies(&plain, 128).0[3] / 4.0);
        // From the context that was trained, not from the stretched one.
        let further = stretched(&model(RopeScaling::Linear { factor: 4.0 }, 512), 1000, None).expect("stretched");
        assert_eq!(further.rope_scaling, RopeScaling::Linear { factor: 8.0 });
        for (name, method) in Stretch::TABLE {
            let long = stretched(&plain, 1024, Some(*method)).expect("stretched");
            assert_eq!((Stretch::of(&long).expect("known"), long.context_length()), (Some((*method, 128)), 1024), "{name}");
            assert_eq!(stretched(&long, 1024, Some(*method)).expect("fits"), long, "{name}");
            assert_eq!(in_words(&plain, &long), Some(format!("`{name}` with factor 8 for 1024 tokens")));
            assert_eq!(in_words(&long, &long), None, "{name}");
            let settings = serde_json::json!({"context": 1024, "rope-scaling": name});
            assert_eq!(of_settings(&plain, settings.as_object().expect("an object")).expect("stretched"), long, "{name}");
            assert_eq!(of_settings(&long, settings.as_object().expect("an object")).expect("as it is"), long, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_stretched_is_refused() {
        let refused = |model: &ModelConfig, target, method| stretched(model, target, method).expect_err("refused").to_string();
        let plain = model(RopeScaling::None, 128);
        assert!(refused(&plain, 64, Some(Stretch::Yarn)).contains("above 128"));
        let linear = model(RopeScaling::Linear { factor: 2.0 }, 256);
        assert!(refused(&linear, 1000, Some(Stretch::Yarn)).contains("give linear"));
        assert!(refused(&model(RopeScaling::Divisors(vec![1.0; 8]), 128), 256, None).contains("--context 128"));
        assert!(Stretch::by_name("cubic").expect_err("unknown").to_string().contains("linear, dynamic, llama3 or yarn"));
    }
}
