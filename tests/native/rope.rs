//! Every RoPE scaling against the frequencies of transformers (`tests/golden/make_rope.py`).

use serde_json::{Value, json};
use weblora::formats::parse_config;
use weblora::model::rope::frequencies;

/// transformers computes in f32, we in f64.
const RELATIVE: f64 = 2e-6;

fn agrees(case: &Value, scaling: &Value, golden: &Value) -> bool {
    let heads = 2;
    let head_dim = golden["head_dim"].as_u64().expect("a width");
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 8, "hidden_size": heads * head_dim,
        "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": heads, "num_key_value_heads": heads, "hidden_act": "silu",
        "max_position_embeddings": golden["max_position_embeddings"], "rms_norm_eps": 1e-5, "rope_theta": case["rope_theta"],
        "rope_scaling": scaling, "tie_word_embeddings": true,
    });
    let config = parse_config("config.json", &config.to_string()).expect("a configuration");
    let (inverse, factor) = frequencies(&config, case["length"].as_u64().unwrap_or(1) as usize);
    let close = |got: f64, want: &Value| want.as_f64().is_some_and(|want| (got - want).abs() <= RELATIVE * want);
    let wanted = case["inv_freq"].as_array().expect("frequencies");
    inverse.len() == wanted.len() && inverse.iter().zip(wanted).all(|(g, w)| close(*g, w)) && close(factor, &case["attention_factor"])
}

#[test]
fn every_scaling_turns_as_transformers_does() {
    let golden: Value = serde_json::from_str(include_str!("../golden/rope.json")).expect("the golden file");
    let cases = golden["cases"].as_object().expect("cases");
    assert!(cases.len() >= 8);
    for (name, case) in cases {
        assert!(agrees(case, &case["rope_scaling"], &golden), "{name}");
        assert!(!agrees(case, &Value::Null, &golden) || name == "dynamic_short", "{name}: plain RoPE would pass too");
    }
}
