//! `config.json` in both spellings, every RoPE scaling, and what is refused.

use super::build::{config_json, refused};
use serde_json::{Value, json};
use weblora::config::RopeScaling;
use weblora::formats::parse_config;

fn scaling(changes: Value) -> RopeScaling {
    parse_config("config.json", &config_json(changes)).unwrap().rope_scaling
}

/// Both spellings of one set of RoPE parameters must give the same.
fn both(parameters: Value, theta: f64, expected: &RopeScaling) {
    let mut old = parameters.clone();
    let kind = old.as_object_mut().unwrap().remove("rope_type").unwrap();
    old["type"] = kind;
    let four = config_json(json!({"rope_scaling": old, "rope_theta": theta}));
    let mut new = parameters;
    new["rope_theta"] = json!(theta);
    let five = config_json(json!({"rope_parameters": new}));
    for text in [four, five] {
        let config = parse_config("config.json", &text).unwrap();
        assert_eq!((&config.rope_scaling, config.rope_theta), (expected, theta), "{text}");
    }
}

#[test]
fn defaults() {
    let text = r#"{"model_type":"llama","vocab_size":32000,"hidden_size":4096,"intermediate_size":11008,"num_hidden_layers":32,
        "num_attention_heads":32,"rope_scaling":null,"head_dim":null,"architectures":["LlamaForCausalLM"],"pretraining_tp":1}"#;
    let c = parse_config("config.json", text).unwrap();
    assert_eq!((c.num_key_value_heads, c.head_dim, c.rms_norm_eps, c.rope_theta), (32, 128, 1e-6, 10_000.0));
    assert_eq!(
        (c.tie_word_embeddings, c.max_position_embeddings, c.sliding_window, c.rope_scaling),
        (false, 2048, None, RopeScaling::None)
    );
}

#[test]
fn mistral_keeps_its_window_and_head_width() {
    let text = |window: Value| config_json(json!({"model_type": "mistral", "sliding_window": window, "head_dim": 6}));
    let c = parse_config("config.json", &text(json!(4096))).unwrap();
    assert_eq!((c.model_type.as_str(), c.sliding_window, c.head_dim, c.q_width()), ("mistral", Some(4096), 6, 12));
    assert_eq!(parse_config("config.json", &text(Value::Null)).unwrap().sliding_window, None);
}

/// A linear stretch beside the length before it, as we write it; and that length alone, as LongLoRA's and Vicuna's folders have it.
#[test]
fn a_linear_stretch_has_two_conventions() {
    let context = |more: Value| parse_config("config.json", &config_json(more)).unwrap().max_position_embeddings;
    let authors = json!({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 8.0}});
    let ours = json!({"max_position_embeddings": 32768, "rope_scaling": {"rope_type": "linear", "factor": 8.0, "original_max_position_embeddings": 4096}});
    assert_eq!([context(authors), context(ours)], [32768, 32768]);
    assert_eq!(context(json!({"max_position_embeddings": 4096, "rope_scaling": {"type": "dynamic", "factor": 8.0}})), 4096);
}

#[test]
fn rope_scalings_in_both_spellings() {
    both(json!({"rope_type": "default"}), 1e5, &RopeScaling::None);
    both(json!({"rope_type": "linear", "factor": 4}), 1e4, &RopeScaling::Linear { factor: 4.0 });
    both(json!({"rope_type": "dynamic", "factor": 2.5}), 1e4, &RopeScaling::Dynamic { factor: 2.5 });
    let llama3 = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    let expected =
        RopeScaling::Llama3 { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings: 8192 };
    both(llama3, 5e5, &expected);
    let yarn = |attention_factor| RopeScaling::Yarn {
        factor: 4.0,
        original_max_position_embeddings: 16,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor,
    };
    both(json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}), 1e4, &yarn(None));
    let scaled =
        json!({"rope_type": "yarn", "original_max_position_embeddings": 16, "beta_fast": 32, "mscale": 1.0, "mscale_all_dim": 0.5});
    let ratio = (0.1 * 4f64.ln() + 1.0) / (0.05 * 4f64.ln() + 1.0); // factor 64 / 16 from the contexts
    both(scaled, 1e4, &yarn(Some(ratio)));
    let long = json!({"rope_type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2, 3], "original_max_position_embeddings": 16});
    let expected = RopeScaling::LongRope {
        short_factor: vec![1.0, 1.5],
        long_factor: vec![2.0, 3.0],
        original_max_position_embeddings: 16,
        attention_factor: Some(1.5f64.sqrt()), // sqrt(1 + ln 4 / ln 16)
    };
    both(long, 1e4, &expected);
}

#[test]
fn original_context_outside_the_dictionary_wins() {
    let parameters = json!({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16});
    let RopeScaling::Yarn { original_max_position_embeddings, .. } =
        scaling(json!({"rope_parameters": parameters, "original_max_position_embeddings": 32}))
    else {
        panic!("no yarn")
    };
    assert_eq!(original_max_position_embeddings, 32);
}

#[test]
fn refused_by_name() {
    for (changes, words) in [
        (json!({"model_type": "qwen2"}), "architecture \"qwen2\" is not supported"),
        (json!({"model_type": "mixtral"}), "architecture \"mixtral\""),
        (json!({"model_type": null}), "`model_type` is missing"),
        (json!({"hidden_act": "gelu"}), "`hidden_act` \"gelu\""),
        (json!({"attention_bias": true}), "`attention_bias` true"),
        (json!({"mlp_bias": true}), "`mlp_bias` true"),
        (json!({"partial_rotary_factor": 0.5}), "`partial_rotary_factor` 0.5"),
        (json!({"quantization_config": {"quant_method": "bitsandbytes"}}), "quantised by \"bitsandbytes\""),
        (json!({"vocab_size": null}), "`vocab_size` is missing"),
        (json!({"vocab_size": -3}), "`vocab_size` is -3, a non-negative whole number"),
        (json!({"vocab_size": 3.5}), "`vocab_size` is 3.5"),
        (json!({"hidden_size": "8"}), "`hidden_size` is \"8\""),
        (json!({"num_attention_heads": 3}), "no multiple of 3 heads"),
        (json!({"tie_word_embeddings": 1}), "true or false was expected"),
        (json!({"rope_scaling": [1]}), "an object was expected"),
        (json!({"rope_scaling": {"type": "mrope"}}), "RoPE scaling \"mrope\""),
        (json!({"rope_scaling": {"type": "linear"}}), "`factor` is missing"),
        (json!({"rope_scaling": {"type": "llama3", "factor": 8}}), "`low_freq_factor` is missing"),
        (json!({"rope_scaling": {"type": "yarn", "factor": 8, "truncate": false}}), "`truncate` false"),
        (json!({"rope_scaling": {"type": "longrope", "short_factor": "x", "long_factor": []}}), "`short_factor`"),
        (json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}), "per layer type (\"full_attention\")"),
    ] {
        let error = refused(parse_config("some/config.json", &config_json(changes)));
        assert!(error.contains(words) && error.contains("config.json"), "{error}\nlacks {words}");
    }
    for text in ["", "[]", "{", "\u{0}", &"[".repeat(100_000)] {
        assert!(refused(parse_config("c.json", text)).contains("JSON"));
    }
}
