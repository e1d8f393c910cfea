//! Every RoPE scaling against the frequencies of transformers (`tests/golden/make_rope.py`), and text past the end of a run's rows.

use crate::common::gpu;
use pollster::block_on;
use serde_json::{Value, json};
use weblora::config::RopeScaling;
use weblora::demo;
use weblora::formats::{ModelFile, parse_config};
use weblora::generate::{Generator, Sampling, generate};
use weblora::gpu::{Gpu, Tuner};
use weblora::model::decoder::{Decoder, PREFILL};
use weblora::model::rope::frequencies;
use weblora::text::{DataOptions, Dataset, Tokenizer, read_rows};
use weblora::train::TrainConfig;
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};

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

/// The embedded model with another scaling of its angles.
fn scaled(scaling: &RopeScaling) -> ModelFile {
    let mut file = block_on(demo::model()).expect("the embedded model");
    file.config.rope_scaling = scaling.clone();
    file
}

/// Rows of a run's micro-batch below, far fewer than the tokens that are written.
const SEQ: usize = 32;

/// What the base writes with nothing else on the device.
fn alone(gpu: &Gpu, file: &ModelFile, prompt: &[u32], how: &Sampling, max_len: usize) -> Vec<u32> {
    let mut tuner = Tuner::for_device(gpu);
    let mut generator = block_on(Generator::open(gpu, file, &[], None, max_len, &mut tuner, false, |_, _| {})).expect("a generator");
    block_on(generator.generate(gpu, prompt, how, &[], None, |_| true)).expect("text").tokens
}

#[test]
fn text_past_the_rows_of_a_run_is_that_of_a_fresh_base() {
    let Some(gpu) = gpu() else { return };
    let how = Sampling { max_tokens: 34, ..Sampling::default() };
    let half = scaled(&RopeScaling::None).config.head_dim / 2;
    let (short_factor, long_factor) =
        ((0..half).map(|i| 1.0 + 0.01 * i as f64).collect(), (0..half).map(|i| 1.5 + 0.1 * i as f64).collect());
    let original_max_position_embeddings = 40; // between a run's rows and the text
    let scalings = [
        RopeScaling::None,
        RopeScaling::Dynamic { factor: 2.0 },
        RopeScaling::Llama3 { factor: 2.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings },
        RopeScaling::Yarn { factor: 2.0, original_max_position_embeddings, beta_fast: 32.0, beta_slow: 1.0, attention_factor: None },
        RopeScaling::LongRope { short_factor, long_factor, original_max_position_embeddings, attention_factor: None },
    ];
    let mut texts = Vec::new();
    for scaling in &scalings {
        let file = scaled(scaling);
        let tokenizer = Tokenizer::of_model(&file).expect("a tokenizer");
        let rows = read_rows("rows", demo::TRAIN).expect("rows");
        let train = Dataset::build("rows", &rows, &tokenizer, DataOptions::new(SEQ)).expect("rows").examples;
        let prompt = train[0].tokens[..10].to_vec();
        let fresh = alone(gpu, &file, &prompt, &how, prompt.len() + how.max_tokens);
        assert_eq!(fresh.len(), how.max_tokens);

        let mut settings = demo::settings();
        settings.insert("seq".into(), json!(SEQ));
        let config = TrainConfig::from_map(&settings).expect("settings");
        let data = TrainData { train, ..TrainData::default() };
        let mut tuner = Tuner::for_device(gpu);
        let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), &tuner).expect("a plan");
        let mut trainer = block_on(Trainer::new(gpu, &file, config, data, plan, None, &mut tuner, false, |_, _| {})).expect("a run");
        block_on(trainer.step(gpu)).expect("a step");
        let (store, model, tables) = trainer.session().parts();
        let mut decoder = block_on(Decoder::new(gpu, store, model, Some(tables), 128, &mut tuner, false)).expect("a decoder");
        let mut during = |tokens: usize, prompt: &[u32]| {
            block_on(generate(gpu, store, &mut decoder, prompt, &Sampling { max_tokens: tokens, ..how.clone() }, &[], None, |_| true))
                .expect("text")
                .tokens
        };
        assert_eq!(during(how.max_tokens, &prompt), fresh, "during a run, {scaling:?}");
        if matches!(scaling, RopeScaling::LongRope { .. }) {
            // A short text has other angles here, and leaves nothing of them behind.
            let short = Sampling { max_tokens: 4, ..how.clone() };
            assert_eq!(during(4, &prompt), alone(gpu, &file, &prompt, &short, 14), "short");
            assert_eq!(during(how.max_tokens, &prompt), fresh, "again");
        }
        drop(trainer);
        assert_eq!(alone(gpu, &file, &prompt, &how, 128), fresh, "after a run, {scaling:?}");
        texts.push(fresh);
    }
    // The scalings do something here: a table of other angles writes another text.
    assert_ne!(texts[0], texts[4]);
}

#[test]
fn prompts_and_texts_shorter_than_a_piece_of_prompt_are_written() {
    let Some(gpu) = gpu() else { return };
    let file = scaled(&RopeScaling::None);
    let roomy = alone(gpu, &file, &[1, 5, 9], &Sampling { max_tokens: 1, ..Sampling::default() }, 64);
    for room in [4, PREFILL - 1, PREFILL] {
        assert_eq!(alone(gpu, &file, &[1, 5, 9], &Sampling { max_tokens: 1, ..Sampling::default() }, room), roomy, "room for {room}");
    }
}
