//! Adapters on the CPU: sites, patterns, initialisation, settings, schedules, PEFT folders.

use proptest::prelude::*;
use serde_json::{Value, json};
use weblora::adapters::pool::AdapterPool;
use weblora::adapters::{AdapterConfig, AdapterLayout, Init, Projection, Site, initial_buffer};
use weblora::config::{ModelConfig, RopeScaling};
use weblora::export::folder::Folder;
use weblora::export::peft::{Note, PeftAdapter};
use weblora::formats::BaseId;
use weblora::gpu::device::PlanLimits;
use weblora::gpu::{Class, Store};
use weblora::settings::Map;
use weblora::train::TrainConfig;

fn model(layers: usize) -> ModelConfig {
    ModelConfig {
        model_type: "llama".into(),
        vocab_size: 8,
        hidden_size: 12,
        intermediate_size: 20,
        num_hidden_layers: layers,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        rms_norm_eps: 1e-5,
        max_position_embeddings: 64,
        rope_theta: 1e4,
        rope_scaling: RopeScaling::None,
        tie_word_embeddings: true,
        sliding_window: None,
    }
}

fn map(value: Value) -> Map {
    value.as_object().expect("an object").clone()
}

fn config(value: Value) -> Result<TrainConfig, weblora::Error> {
    TrainConfig::from_map(&map(value))
}

fn adapter(value: Value) -> AdapterConfig {
    config(value).expect("settings").adapter
}

fn layout(value: Value) -> AdapterLayout {
    adapter(value).layout(&model(3)).expect("a layout")
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, weblora::Error>, words: &[&str]) {
    let text = result.expect_err("should be refused").to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not mention {word:?}");
    }
    assert_eq!(text.lines().count(), 1, "{text:?}");
}

#[test]
fn a_layout_has_every_factor_at_an_aligned_place() {
    let layout = layout(json!({"rank": 3, "alpha": 6, "lora-plus": 16}));
    assert_eq!(layout.sites.len(), 21);
    assert_eq!(layout.params.trainable(), 3 * 3 * ((12 + 16) * 2 + (12 + 8) * 2 + (12 + 20) * 3));
    let mut end = 0;
    for spec in &layout.params.specs {
        assert!(spec.offset >= end && spec.offset.is_multiple_of(64), "{}", spec.name);
        end = spec.offset + spec.len();
    }
    assert!(end <= layout.params.words && layout.params.words.is_multiple_of(64));
    let slice = layout.sites[6].slices[0];
    let (a, b) = (&layout.params.specs[slice.a], &layout.params.specs[slice.b]);
    assert_eq!((a.name.as_str(), &a.shape[..], a.transposed), ("layers.0.mlp.down_proj.lora_A", &[3, 20][..], false));
    assert_eq!((b.name.as_str(), &b.shape[..], b.transposed), ("layers.0.mlp.down_proj.lora_B", &[12, 3][..], true));
    assert_eq!((a.lr_multiplier, b.lr_multiplier, b.init, slice.scale), (1.0, 16.0, Init::Zeros, 2.0));
}

/// A site's row of the table depends on what other jobs adapt; what seeds its dropout does not.
#[test]
fn dropout_is_seeded_alike_alone_and_fused() {
    let model = model(3);
    let tables = |targets: &[&[&str]]| {
        let layouts: Vec<AdapterLayout> = targets.iter().map(|t| layout(json!({ "rank": 4, "targets": t, "dropout": 0.1 }))).collect();
        let mut store = Store::new();
        let row_job = store.declare("row_job", Class::Io, 8).unwrap();
        AdapterPool::of(&layouts.iter().collect::<Vec<_>>(), &model, &mut store, row_job, PlanLimits::FLOOR).unwrap()
    };
    let (alone, fused) = (tables(&[&["v", "up"]]), tables(&[&["v", "up"], &["q", "k", "o", "down"]]));
    let mut keys = std::collections::BTreeSet::new();
    for layer in 0..3 {
        for projection in [Projection::V, Projection::Up] {
            let [a, b] = [&alone, &fused].map(|t| t.site(layer, projection, 8).unwrap());
            assert_eq!(a.dropout_key, b.dropout_key, "layer {layer} {projection:?}");
            assert_ne!(a.site, b.site, "layer {layer} {projection:?}: the same row in both tables shows nothing");
            keys.insert(a.dropout_key);
        }
    }
    assert_eq!(keys.len(), 6, "sites with the same key");
}

#[test]
fn rslora_divides_by_the_root() {
    assert_eq!(layout(json!({"rank": 4, "alpha": 6, "rslora": true})).sites[0].slices[0].scale, 3.0);
    assert_eq!(layout(json!({"rank": 4, "alpha": 6})).sites[0].slices[0].scale, 1.5);
    assert_eq!(layout(json!({"rank": 4})).sites[0].slices[0].scale, 2.0, "alpha is twice the rank by default");
}

#[test]
fn values_start_as_the_generator_says_and_transposing_is_undone() {
    let layout = layout(json!({"rank": 2, "targets": "q,up"}));
    let mut buffer = initial_buffer(&layout.params, 7);
    let spec = &layout.params.specs[0];
    let bound = 1.0 / 12f64.sqrt();
    let expected: Vec<f32> = (1..=24).map(|i| weblora::rng::uniform("7/layers.0.self_attn.q_proj.lora_A", i, bound)).collect();
    assert_eq!(spec.to_hf(&buffer), expected);
    assert_eq!(&buffer[spec.range()], &expected[..], "A is stored as it is");
    let b = &layout.params.specs[1];
    assert!(b.to_hf(&buffer).iter().all(|x| *x == 0.0));
    let values: Vec<f32> = (0..32).map(|i| i as f32).collect();
    b.put_hf(&values, &mut buffer);
    assert_eq!(b.to_hf(&buffer), values);
    assert_eq!(&buffer[b.offset..b.offset + 3], &[0.0, 2.0, 4.0], "B is stored as [rank, out]");
}

#[test]
fn patterns_mean_what_peft_means() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../golden/patterns.json")).expect("golden");
    let mut deep = model(12);
    deep.hidden_size = 16;
    for case in &cases {
        // Patterns that match nothing are a warning for PEFT and an error for us.
        let mut patterns = map(case["rank_pattern"].clone());
        patterns.retain(|pattern, _| !pattern.ends_with("proj") || pattern.contains("_proj") && pattern != "_proj" && pattern != "p_proj");
        let settings = json!({"rank": 4, "targets": case["targets"], "rank-pattern": patterns});
        let layout = adapter(settings).layout(&deep).unwrap_or_else(|e| panic!("{case}: {e}"));
        let ranks: Map = layout.sites.iter().map(|site| (site.site.to_string(), site.slices[0].rank.into())).collect();
        let expected = case["ranks"].as_object().expect("ranks");
        assert_eq!(ranks.len(), expected.len(), "{case}");
        for (site, rank) in expected {
            assert_eq!(ranks.get(site), Some(rank), "{site} in {case}");
        }
    }
    assert_eq!(cases.len(), 6);
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let layout = |value| config(value).and_then(|c| c.adapter.layout(&model(3)));
    refused(layout(json!({"rank": 0})), &["`rank`", "is 0", "from 1"]);
    refused(layout(json!({"rank": 13})), &["`rank`", "13", "from 1 to 12"]);
    refused(layout(json!({"rank": 2, "rank-pattern": {"q_proj": 2.5}})), &["`rank-pattern`", "2.5"]);
    refused(layout(json!({"rank-pattern": {"q_proj": 0}})), &["`rank-pattern`", "q_proj", "0"]);
    refused(layout(json!({"rank": 2, "rank-pattern": {"x_proj": 4}})), &["`rank-pattern`", "x_proj", "matches no"]);
    refused(layout(json!({"rank": 2, "targets": "q", "alpha-pattern": {"k_proj": 4}})), &["`alpha-pattern`", "k_proj"]);
    refused(layout(json!({"rank": 2, "rank-pattern": {"(": 4}})), &["`rank-pattern`", "no regular expression"]);
    refused(layout(json!({"rank": 2, "targets": "q,w"})), &["`targets`", "`w`", "q, k, v, o, gate, up or down"]);
    refused(layout(json!({"rank": 2, "targets": ["layers.3.mlp.up_proj"]})), &["layers.3.mlp.up_proj", "3 blocks"]);
    refused(layout(json!({"rank": 2, "targets": ["roj"]})), &["`roj`"]);
    refused(layout(json!({"method": "dora"})), &["`method`", "dora", "lora"]);
    refused(layout(json!({"lora-plus": 0})), &["`lora-plus`"]);
    refused(layout(json!({"rslora": 1})), &["`rslora`", "true or false"]);
}

#[test]
fn targets_are_tails_of_paths() {
    let sites =
        |targets: &str| -> Vec<Site> { layout(json!({"rank": 2, "targets": targets})).sites.iter().map(|site| site.site).collect() };
    assert_eq!(sites("all-linear").len(), 21);
    assert_eq!(
        sites("q_proj,k"),
        [0, 1, 2].map(|layer| [Projection::Q, Projection::K].map(|projection| Site { layer, projection })).concat()
    );
    assert_eq!(sites("1.mlp.up_proj"), [Site { layer: 1, projection: Projection::Up }]);
    assert_eq!(sites("model.layers.2.self_attn.o_proj,o"), [0, 1, 2].map(|layer| Site { layer, projection: Projection::O }));
}

#[test]
fn settings_round_trip_and_refuse_strangers() {
    let given = json!({"rank": 4, "targets": "q,v", "warmup": 10, "steps": 30, "shuffle": false, "format": "chat", "rslora": true,
        "alpha-pattern": {"z": 1, "a": 2.5}, "eval-data": "x", "eval-every": 5, "patience": 2, "schedule": "cosine", "clip": 0});
    let config = config(given).expect("settings");
    let written = config.to_map();
    assert_eq!(TrainConfig::from_map(&written).expect("settings"), config);
    assert_eq!(written["alpha"], json!(8));
    assert_eq!(written["warmup"], json!(10));
    assert_eq!(written["alpha-pattern"].to_string(), r#"{"z":1,"a":2.5}"#, "the first pattern wins, so order is kept");
    assert!(written.keys().all(|key| !key.contains('_')), "{written:?}");
    assert!(config.check_resume(&written).is_ok());
}

#[test]
fn wrong_settings_are_refused_by_key() {
    refused(config(json!({"rnak": 4})), &["`rnak`", "did you mean `rank`"]);
    refused(config(json!({"eval_data": "x"})), &["did you mean `eval-data`"]);
    refused(config(json!({"epochs": 1, "steps": 2})), &["`epochs`", "`steps`"]);
    refused(config(json!({"lr": -1})), &["`lr`", "-1"]);
    refused(config(json!({"warmup": 1.5})), &["`warmup`", "1.5"]);
    refused(config(json!({"batch": 1 << 20, "seq": 1 << 20})), &["`batch`"]);
    refused(config(json!({"dropout": 1})), &["`dropout`"]);
    refused(config(json!({"eval-data": "x", "eval-split": 0.1})), &["`eval-split`"]);
    refused(config(json!({"patience": 1})), &["`patience`", "eval-every"]);
    refused(config(json!({"quantize": "f16"})), &["`quantize`", "nf4"]);
    refused(config(json!({"schedule": "step"})), &["`schedule`", "cosine"]);
    let saved = config(json!({"rank": 4, "steps": 5})).expect("settings");
    let now = |value| config(value).expect("settings").check_resume(&saved.to_map());
    assert!(now(json!({"rank": 4, "epochs": 2, "out": "there"})).is_ok());
    refused(now(json!({"rank": 8, "steps": 5})), &["`rank`", "is 8", "with 4"]);
    refused(now(json!({"rank": 4, "rank-pattern": {"q_proj": 2}})), &["`rank-pattern`", "not set"]);
}

#[test]
fn schedules_are_those_of_transformers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../golden/schedule.json")).expect("golden");
    for case in &cases {
        let config = config(json!({"schedule": case["schedule"], "lr": 0.5})).expect("settings");
        let (warmup, total) = (case["warmup"].as_u64().expect("warmup"), case["total"].as_u64().expect("total"));
        let schedule = weblora::train::Schedule { warmup, ..config.schedule(total) };
        for (step, factor) in case["factors"].as_array().expect("factors").iter().enumerate() {
            let (got, want) = (schedule.lr(step as u64), 0.5 * factor.as_f64().expect("a number"));
            assert!((got - want).abs() < 1e-15, "{case}: step {step} is {got}");
            let late = weblora::train::Schedule { warmup: warmup + 1, ..schedule };
            assert!(warmup == 0 || (late.lr(step as u64) - want).abs() > 1e-15 || factor == 1.0 || step as u64 >= total, "cannot fail");
        }
    }
    let warmup = |value: Value, total| config(json!({"warmup": value})).expect("settings").schedule(total).warmup;
    assert_eq!([warmup(json!(0.1), 25), warmup(json!(7), 25), warmup(json!(0), 25)], [3, 7, 0]);
    // No step has the rate 0 by warm-up, in a run of any length.
    for total in [1, 2, 3, 10, 33, 1000] {
        for name in ["constant", "linear", "cosine"] {
            let schedule = config(json!({"schedule": name})).expect("settings").schedule(total);
            assert!((0..total).all(|step| schedule.lr(step) > 0.0), "{name}, {total} steps");
        }
    }
}

fn trained(value: Value) -> (AdapterLayout, Vec<f32>) {
    let layout = layout(value);
    let mut buffer = vec![0.0; layout.params.words];
    for (i, spec) in layout.params.specs.iter().enumerate() {
        spec.put_hf(&weblora::rng::fill_uniform(&format!("test/{i}"), spec.len(), 1.0), &mut buffer);
    }
    (layout, buffer)
}

fn note() -> Note {
    Note { weblora: "0.1.0".into(), base_hash: "ab".into(), steps: 3, config: map(json!({"rank": 2})), ..Note::default() }
}

fn files(value: Value) -> (AdapterLayout, Vec<f32>, Vec<weblora::export::folder::File>) {
    let (layout, buffer) = trained(value);
    let adapter = PeftAdapter::from_layout(&layout, &buffer, Some("base".into()), Some(note()));
    (layout, buffer, adapter.to_files("test").expect("files"))
}

fn folder(files: &[weblora::export::folder::File]) -> Folder<'_> {
    let find = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| &bytes[..]).unwrap_or_default();
    Folder {
        name: "test",
        config: find("adapter_config.json"),
        weights: find("adapter_model.safetensors"),
        note: Some(find("weblora.json")),
        chain: None,
    }
}

#[test]
fn a_peft_folder_is_read_as_it_was_written() {
    for value in [
        json!({"rank": 2}),
        json!({"rank": 2, "rslora": true, "targets": "q,v", "alpha": 5.5, "dropout": 0.05}),
        json!({"rank": 2, "rank-pattern": {"q_proj": 3, "layers.1.mlp.up_proj": 1}, "alpha-pattern": {"layers.[02].*": 7}}),
        json!({"rank": 2, "targets": "layers.0.mlp.up_proj,1.self_attn.k_proj"}),
    ] {
        let (layout, buffer, files) = files(value.clone());
        let read = PeftAdapter::read(folder(&files), &model(3)).unwrap_or_else(|e| panic!("{value}: {e}"));
        assert_eq!(read.to_buffer("test", &layout).expect("a buffer"), buffer);
        assert_eq!(read.note, Some(note()));
        // A run that takes the adapter's settings gets the same sites, ranks and scales.
        let again = TrainConfig::from_map(&read.settings()).expect("settings").adapter.layout(&model(3)).expect("a layout");
        assert_eq!(again.sites, layout.sites, "{value}");
        let base = |hash: &str| BaseId { hash: hash.into(), name: "other.gguf".into(), format: "f16".into() };
        assert_eq!(read.check_base("test", &base("ab"), true).expect("its base"), None);
        let warning = read.check_base("test", &base("cd"), false).expect("a warning").expect("a warning");
        for word in ["adapter test", "base (hash ab)", "other.gguf (f16, hash cd)"] {
            assert!(warning.contains(word), "{warning} without {word}");
        }
        refused(read.check_base("test", &base("cd"), true), &["adapter test", "base (hash ab)", "other.gguf (f16, hash cd)"]);
    }
}

#[test]
fn an_adapter_for_another_run_or_model_is_refused() {
    let (_, _, files) = files(json!({"rank": 2, "targets": "q"}));
    let read = PeftAdapter::read(folder(&files), &model(3)).expect("an adapter");
    refused(read.to_buffer("test", &layout(json!({"rank": 3, "targets": "q"}))), &["rank 2", "rank 3"]);
    refused(read.to_buffer("test", &layout(json!({"rank": 2, "targets": "q,k"}))), &["3 sites", "6"]);
    refused(read.to_buffer("test", &layout(json!({"rank": 2, "targets": "q", "rslora": true}))), &["adapter test"]);
    refused(PeftAdapter::read(folder(&files), &model(2)), &["layers.2.self_attn.q_proj", "2 blocks"]);
    let mut other = model(3);
    other.hidden_size = 16;
    refused(PeftAdapter::read(folder(&files), &other), &["layers.0.self_attn.q_proj.lora_A", "[2, 12]", "16 x 16"]);
}

#[test]
fn a_rank_sum_is_the_sum_of_its_products() {
    let (mut layout, buffer) = trained(json!({"rank": 2, "targets": "q", "alpha": 3}));
    // Give the first site the second site's factors, too.
    let second = layout.sites.remove(1).slices[0];
    layout.sites[0].slices.push(second);
    let adapter = PeftAdapter::from_layout(&layout, &buffer, None, None);
    let product = |a: &[f32], b: &[f32], rank: usize, scale: f32, o: usize, i: usize| -> f32 {
        (0..rank).map(|r| b[o * rank + r] * a[r * 12 + i]).sum::<f32>() * scale
    };
    let site = &adapter.sites[0];
    assert_eq!((site.rank, site.alpha), (4, 4.0));
    for (o, i) in [(0, 0), (15, 11), (7, 3)] {
        let parts: f32 = layout.sites[0]
            .slices
            .iter()
            .map(|s| {
                let hf = |index: usize| layout.params.specs[index].to_hf(&buffer);
                product(&hf(s.a), &hf(s.b), 2, s.scale, o, i)
            })
            .sum();
        let whole = product(&site.a, &site.b, 4, 1.0, o, i);
        assert!((parts - whole).abs() < 1e-5 && parts.abs() > 1e-3, "{parts} {whole}");
    }
}

#[test]
fn switched_on_options_are_refused_by_name() {
    let (_, _, files) = files(json!({"rank": 2}));
    let with = |key: &str, value: Value| {
        let mut config: Map = serde_json::from_slice(folder(&files).config).expect("JSON");
        if value.is_null() {
            config.remove(key)
        } else {
            config.insert(key.into(), value)
        };
        let config = serde_json::to_vec(&config).expect("JSON");
        PeftAdapter::read(Folder { config: &config, ..folder(&files) }, &model(3))
    };
    for (key, value) in [
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("bias", json!("all")),
        ("layer_replication", json!([[0, 2]])),
        ("lora_bias", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("trainable_token_indices", json!([1])),
        ("fan_in_fan_out", json!(true)),
        ("peft_type", json!("LOHA")),
        ("task_type", json!("SEQ_CLS")),
        ("an_option_of_the_future", json!(3)),
    ] {
        refused(with(key, value), &["not supported", &format!("`{key}`")]);
    }
    for (key, value) in [
        ("use_dora", json!(false)),
        ("modules_to_save", json!([])),
        ("init_lora_weights", json!("gaussian")),
        ("peft_version", json!("9")),
        ("an_option_of_the_future", json!(false)),
    ] {
        with(key, value).unwrap_or_else(|e| panic!("{key}: {e}"));
    }
    for (key, value, words) in [
        ("r", json!(0), vec!["`r`", "0"]),
        ("r", Value::Null, vec!["`r` is missing"]),
        ("r", json!(3), vec!["rank 3", "[2, 12]"]),
        ("r", json!(1e30), vec!["`r`"]),
        ("lora_alpha", json!("x"), vec!["`lora_alpha`"]),
        ("peft_type", Value::Null, vec!["`peft_type` is missing"]),
        ("rank_pattern", json!({"q_proj": 1.5}), vec!["q_proj", "1.5"]),
        ("rank_pattern", json!({"(": 2}), vec!["no regular expression"]),
    ] {
        refused(with(key, value), &words);
    }
}

/// One tensor of a safetensors file, and the file.
fn weights(tensors: &[(&str, safetensors::Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).expect("a view")));
    safetensors::serialize(views, None).expect("a file")
}

#[test]
fn lying_weights_are_refused() {
    use safetensors::Dtype::{BF16, F16, F32, I32};
    let (_, _, files) = files(json!({"rank": 2}));
    const A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    const B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";
    let read = |weights: &[u8]| PeftAdapter::read(Folder { weights, ..folder(&files) }, &model(3));
    let (a, b) = ((A, F32, vec![2, 12], vec![0; 96]), (B, F32, vec![16, 2], vec![0; 128]));
    assert!(read(&weights(&[a.clone(), b.clone()])).is_ok());
    refused(read(&weights(std::slice::from_ref(&a))), &["no lora_B"]);
    refused(read(&weights(std::slice::from_ref(&b))), &["no lora_A"]);
    refused(read(&weights(&[])), &["no tensor"]);
    refused(read(&weights(&[a.clone(), (B, F32, vec![2, 16], vec![0; 128])])), &["lora_B", "[2, 16]"]);
    refused(read(&weights(&[a.clone(), (B, I32, vec![16, 2], vec![0; 128])])), &["I32"]);
    refused(read(&weights(&[a.clone(), (B, F32, vec![16, 2], [0, 0, 0xC0, 0x7F].repeat(32))])), &["NaN"]);
    refused(read(&weights(&[a.clone(), b.clone(), ("base_model.model.lm_head.lora_A.weight", F32, vec![1], vec![0; 4])])), &["lm_head"]);
    refused(
        read(&weights(&[a.clone(), b.clone(), ("layers.0.mlp.up_proj.lora_A.weight", F32, vec![1], vec![0; 4])])),
        &["layers.0.mlp.up_proj"],
    );
    refused(read(b"not safetensors"), &["adapter_model.safetensors"]);
    // 1.5 in half the bytes, twice.
    let halves = weights(&[(A, F16, vec![2, 12], [0x00, 0x3E].repeat(24)), (B, BF16, vec![16, 2], [0xC0, 0x3F].repeat(32))]);
    let adapter = read(&halves).expect("an adapter");
    assert!(adapter.sites[0].a.iter().chain(&adapter.sites[0].b).all(|x| *x == 1.5));
}

/// The model of `golden/tiny_llama`.
fn tiny() -> ModelConfig {
    let text = include_str!("../golden/tiny_llama/config.json");
    weblora::formats::parse_config("config.json", text).expect("a configuration")
}

#[test]
fn what_peft_saved_is_written_again_byte_for_byte() {
    let saved = Folder {
        name: "golden",
        config: include_bytes!("../golden/tiny_llama/adapter/adapter_config.json"),
        weights: include_bytes!("../golden/tiny_llama/adapter/adapter_model.safetensors"),
        note: None,
        chain: None,
    };
    let adapter = PeftAdapter::read(saved, &tiny()).expect("an adapter");
    let files = adapter.to_files("golden").expect("files");
    assert_eq!(folder(&files).weights, saved.weights);
    let json = |bytes: &[u8]| serde_json::from_slice::<Map>(bytes).expect("JSON");
    let (ours, theirs) = (json(folder(&files).config), json(saved.config));
    for (key, value) in &ours {
        assert_eq!(Some(value), theirs.get(key), "{key}");
    }
    // Every key of PEFT's that we leave out is off, or does not concern what the tensors mean.
    for (key, value) in theirs.iter().filter(|(key, _)| !ours.contains_key(*key)) {
        let off = value.is_null() || *value == json!(false) || *value == json!({});
        assert!(off || ["megatron_core", "peft_version", "qalora_group_size"].contains(&key.as_str()), "{key}: {value}");
    }
}

/// `golden/check_peft.py` loads the folder that is compared here into PEFT and checks its effect on the logits. After a change of
/// the writer: run this test with `WEBLORA_BLESS=1`, then that script.
#[test]
fn a_folder_with_patterns_is_the_one_that_peft_was_seen_to_load() {
    let settings = json!({"rank": 2, "alpha": 3, "rslora": true, "targets": "q,v,down,layers.1.mlp.up_proj", "dropout": 0.05,
        "rank-pattern": {"layers.0.self_attn.q_proj": 5, "v_proj": 3}, "alpha-pattern": {"down_proj": 4.5}});
    let layout = adapter(settings).layout(&tiny()).expect("a layout");
    let mut buffer = vec![0.0; layout.params.words];
    for spec in &layout.params.specs {
        spec.put_hf(&weblora::rng::fill_uniform(&format!("golden/{}", spec.name), spec.len(), 0.5), &mut buffer);
    }
    let files = PeftAdapter::from_layout(&layout, &buffer, Some("tiny_llama".into()), Some(note())).to_files("test").expect("files");
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/peft_patterns");
    for (name, bytes) in &files {
        if std::env::var_os("WEBLORA_BLESS").is_some() {
            std::fs::create_dir_all(&golden).expect("a folder");
            std::fs::write(golden.join(name), bytes).expect("written");
        }
        let expected = std::fs::read(golden.join(name)).expect("golden");
        assert!(*bytes == expected, "{name} is not the committed one");
    }
}

proptest! {
    #[test]
    fn damaged_folders_never_panic(at in 0usize..4000, byte: u8, cut in 0usize..6000, which in 0usize..3) {
        let (_, _, mut files) = files(json!({"rank": 1, "targets": "q,up"}));
        files.retain(|(name, _)| *name != "README.md"); // which nobody reads
        let bytes = &mut files[which].1;
        // A JSON file without its last newline is whole.
        let (length, meant) = (bytes.len(), bytes.trim_ascii_end().len());
        bytes[at % length] = byte;
        let _ = PeftAdapter::read(folder(&files), &model(3));
        files[which].1.truncate(cut % meant);
        let truncated = PeftAdapter::read(folder(&files), &model(3));
        prop_assert!(truncated.is_err());
    }

    #[test]
    fn any_json_is_a_configuration_or_an_error(text in "\\PC{0,200}", key in "[a-z_-]{1,20}", number: f64) {
        let (_, _, files) = files(json!({"rank": 1, "targets": "q"}));
        let _ = PeftAdapter::read(Folder { config: text.as_bytes(), ..folder(&files) }, &model(3));
        let _ = config(json!({key.clone(): number}));
        let _ = config(json!({key: text.clone(), "targets": text.clone(), "rank-pattern": {text: 1}})).map(|c| c.adapter.layout(&model(3)));
    }
}
