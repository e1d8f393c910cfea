//! The text files of a Hugging Face folder: those of the base where it is one, else made from a GGUF's metadata.

use serde_json::{Map, Value, json};

use crate::config::{ModelConfig, RopeScaling};
use crate::formats::ModelFile;
use crate::quant::QuantFormat;
use crate::text::Tokenizer;
use crate::{Error, Result};

/// A name in the folder, and the file's bytes.
pub(super) type TextFile = (&'static str, Vec<u8>);

/// Everything but the weights, whose matrices are of `dtype`. `template` is a chat template in place of the base's.
pub(super) fn side_files(
    model: &ModelFile,
    trained: &ModelConfig,
    dtype: &'static QuantFormat,
    template: Option<&str>,
) -> Result<Vec<TextFile>> {
    let side = model.side_files();
    if let Some(config) = &side.config_json {
        let mut files = vec![("config.json", own_config(config, &model.config, trained, dtype)?)];
        let template = template.map(str::to_owned).or_else(|| side.chat_template.clone());
        let others = [
            ("tokenizer.json", &side.tokenizer_json),
            ("tokenizer_config.json", &side.tokenizer_config_json),
            ("chat_template.jinja", &template),
            ("generation_config.json", &side.generation_config_json),
        ];
        files.extend(others.into_iter().filter_map(|(name, text)| Some((name, text.clone()?.into_bytes()))));
        return Ok(files);
    }
    // A GGUF without a tokenizer still has weights worth exporting.
    let has_tokenizer = side.tokenizer_json.is_some() || model.metadata().get("tokenizer.ggml.model").is_some();
    let tokenizer = if has_tokenizer { Some(Tokenizer::of_model(model)?) } else { None };
    let mut files = vec![("config.json", pretty(&config(trained, tokenizer.as_ref(), dtype)))];
    if let Some(mut tokenizer) = tokenizer {
        if let Some(template) = template {
            tokenizer = tokenizer.with_chat_template(template);
        }
        files.extend(tokenizer.to_hf_files(trained.max_position_embeddings)?);
    }
    Ok(files)
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// PyTorch's name for a float format.
fn torch_dtype(dtype: &QuantFormat) -> &'static str {
    match dtype.safetensors_dtype {
        Some("F16") => "float16",
        Some("BF16") => "bfloat16",
        _ => "float32",
    }
}

/// The base's own configuration, with the type of the new weights, and the angles that the adapter was trained with.
fn own_config(config: &str, base: &ModelConfig, trained: &ModelConfig, dtype: &QuantFormat) -> Result<Vec<u8>> {
    let parsed: std::result::Result<Map<String, Value>, _> = serde_json::from_str(config);
    let mut map = parsed.map_err(|e| Error::format("config.json", format!("not a JSON object: {e}"), "download it again"))?;
    // transformers 5 calls it dtype.
    let key = if map.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    map.insert(key.into(), torch_dtype(dtype).into());
    // The base's own word may not be what its file holds, or what a trained embedding leaves of it; LLaMA's default is false.
    if trained.tie_word_embeddings != map.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false) {
        map.insert("tie_word_embeddings".into(), trained.tie_word_embeddings.into());
    }
    if trained.rope_scaling != base.rope_scaling {
        map.insert("max_position_embeddings".into(), trained.max_position_embeddings.into());
        // transformers 5 has all of it in one object.
        match map.get_mut("rope_parameters").and_then(Value::as_object_mut) {
            Some(parameters) => {
                let theta = parameters.get("rope_theta").cloned();
                *parameters = rope_scaling(trained).as_object().cloned().unwrap_or_default();
                parameters.extend(theta.map(|theta| ("rope_theta".to_owned(), theta)));
            }
            None => drop(map.insert("rope_scaling".into(), rope_scaling(trained))),
        }
    }
    Ok(pretty(&Value::Object(map)))
}

/// A `config.json` for transformers.
fn config(c: &ModelConfig, tokenizer: Option<&Tokenizer>, dtype: &QuantFormat) -> Value {
    // A window is all that Mistral has and LLaMA has not.
    let (architecture, model_type) =
        if c.sliding_window.is_some() { ("MistralForCausalLM", "mistral") } else { ("LlamaForCausalLM", "llama") };
    // f32 to f64 would write 1e-5 as 9.999999747378752e-06.
    let eps: f64 = c.rms_norm_eps.to_string().parse().unwrap_or_default();
    let mut config = json!({
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": eps,
        "max_position_embeddings": c.max_position_embeddings,
        "rope_theta": c.rope_theta,
        "rope_scaling": rope_scaling(c),
        "tie_word_embeddings": c.tie_word_embeddings,
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.and_then(Tokenizer::bos),
        "eos_token_id": tokenizer.and_then(Tokenizer::eos),
        "pad_token_id": tokenizer.and_then(Tokenizer::pad),
        "torch_dtype": torch_dtype(dtype),
        "use_cache": true,
    });
    let (key, value) = if c.sliding_window.is_some() { ("sliding_window", json!(c.sliding_window)) } else { ("mlp_bias", json!(false)) };
    config[key] = value;
    config
}

fn rope_scaling(c: &ModelConfig) -> Value {
    match &c.rope_scaling {
        RopeScaling::None => Value::Null,
        // Without the length before the stretch some readers take `max_position_embeddings` for it.
        RopeScaling::Linear { factor } => json!({
            "rope_type": "linear", "factor": factor,
            "original_max_position_embeddings": (c.max_position_embeddings as f64 / factor).round() as u64,
        }),
        RopeScaling::Dynamic { factor } => json!({"rope_type": "dynamic", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor, "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
        RopeScaling::Yarn { factor, original_max_position_embeddings, beta_fast, beta_slow, attention_factor } => json!({
            "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original_max_position_embeddings,
            "beta_fast": beta_fast, "beta_slow": beta_slow, "attention_factor": attention_factor,
        }),
        RopeScaling::LongRope { short_factor, long_factor, original_max_position_embeddings, attention_factor } => json!({
            "rope_type": "longrope", "short_factor": short_factor, "long_factor": long_factor,
            "original_max_position_embeddings": original_max_position_embeddings, "attention_factor": attention_factor,
        }),
        // Divisors of a GGUF: longrope with one list for short and long contexts and no attention factor is the same arithmetic.
        RopeScaling::Divisors(divisors) => json!({
            "rope_type": "longrope", "short_factor": divisors, "long_factor": divisors,
            "original_max_position_embeddings": c.max_position_embeddings, "attention_factor": 1.0,
        }),
    }
}
