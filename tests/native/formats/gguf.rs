//! What an honest GGUF file holds.

use super::build::*;
use weblora::config::RopeScaling;
use weblora::formats::{Array, Gguf, Value};

fn read(file: &GgufFile) -> Gguf {
    pollster::block_on(Gguf::read(&sources(vec![file.bytes()]))).unwrap()
}

#[test]
fn every_value_type() {
    let mut file = GgufFile::empty();
    let scalars: [(u32, Vec<u8>, Value); 11] = [
        (0, vec![200], Value::U8(200)),
        (1, vec![0xfe], Value::I8(-2)),
        (2, 60_000u16.to_le_bytes().into(), Value::U16(60_000)),
        (3, (-3i16).to_le_bytes().into(), Value::I16(-3)),
        (4, 4_000_000_000u32.to_le_bytes().into(), Value::U32(4_000_000_000)),
        (5, (-5i32).to_le_bytes().into(), Value::I32(-5)),
        (6, 0.5f32.to_le_bytes().into(), Value::F32(0.5)),
        (7, vec![1], Value::Bool(true)),
        (10, u64::MAX.to_le_bytes().into(), Value::U64(u64::MAX)),
        (11, i64::MIN.to_le_bytes().into(), Value::I64(i64::MIN)),
        (12, 0.1f64.to_le_bytes().into(), Value::F64(0.1)),
    ];
    for (kind, bytes, _) in &scalars {
        file.kv.push((format!("scalar.{kind}"), typed(*kind, bytes)));
        file.kv.push(kv_array(&format!("array.{kind}"), *kind, 2, &bytes.repeat(2)));
    }
    file.kv.push(kv_str("text", "Grüße"));
    file.kv.push(kv_array("texts", 8, 2, &[string("a b"), string("")].concat()));
    let inner = |n: u8| [0u32.to_le_bytes().as_slice(), &1u64.to_le_bytes(), &[n]].concat();
    file.kv.push(kv_array("nested", 9, 2, &[inner(1), inner(2)].concat()));

    let m = read(&file).metadata;
    for (kind, _, value) in scalars {
        assert_eq!(m.get(&format!("scalar.{kind}")), Some(&value));
        let Some(Value::Array(array)) = m.get(&format!("array.{kind}")) else { panic!("no array of type {kind}") };
        assert_eq!(array.len(), 2);
    }
    assert_eq!(m.get("array.5"), Some(&Value::Array(Array::I32(vec![-5, -5]))));
    assert_eq!(m.str("text").unwrap(), Some("Grüße"));
    assert_eq!(m.strings("texts").unwrap(), Some(["a b".to_owned(), String::new()].as_slice()));
    assert_eq!(m.get("nested"), Some(&Value::Array(Array::Array(vec![Array::U8(vec![1]), Array::U8(vec![2])]))));
    assert_eq!(m.iter().next(), Some(("scalar.0", &Value::U8(200))));
}

#[test]
fn typed_getters_name_key_and_types() {
    let mut file = GgufFile::empty();
    file.kv = vec![kv_u32("n", 7), kv_str("s", "x"), ("neg".into(), typed(5, &(-1i32).to_le_bytes())), kv_f32("f", 1.0)];
    let m = read(&file).metadata;
    assert_eq!((m.u64("n").unwrap(), m.usize("n").unwrap(), m.u64("absent").unwrap()), (Some(7), Some(7), None));
    for error in [
        refused(m.u64("s")),
        refused(m.u64("neg")),
        refused(m.f64("n")),
        refused(m.bool("n")),
        refused(m.str("n")),
        refused(m.strings("s")),
    ] {
        assert!(error.contains("part0.gguf") && error.contains("was expected"), "{error}");
    }
    assert!(refused(m.u64("s")).contains("`s` is a string"));
    assert!(refused(m.require("absent", m.u64("absent").unwrap())).contains("`absent` is missing"));
}

#[test]
fn alignment_and_version_two() {
    for alignment in [8usize, 64, 4096] {
        let mut file = GgufFile::llama();
        file.version = 2;
        file.alignment = alignment;
        file.set(kv_u32("general.alignment", alignment as u32));
        let model = file.open().unwrap();
        assert!(model.tensors().all(|t| t.offset % alignment as u64 == 0));
        let up = pollster::block_on(model.read_f32("model.layers.1.mlp.up_proj.weight")).unwrap();
        assert_eq!(up[11 * HIDDEN..], [11.0; HIDDEN]);
    }
}

#[test]
fn llama_defaults_and_names() {
    let model = GgufFile::llama().open().unwrap();
    let c = &model.config;
    assert_eq!((c.vocab_size, c.hidden_size, c.intermediate_size, c.num_hidden_layers), (VOCAB, HIDDEN, FF, LAYERS));
    assert_eq!((c.num_attention_heads, c.num_key_value_heads, c.head_dim), (2, 1, HEAD_DIM));
    assert_eq!((c.rope_theta, &c.rope_scaling, c.tie_word_embeddings), (10_000.0, &RopeScaling::None, true));
    let q = model.tensor("model.layers.1.self_attn.q_proj.weight").unwrap();
    assert_eq!((q.shape.as_slice(), q.format.name, q.rows(), q.cols(), q.row_bytes()), ([8, 8].as_slice(), "f32", 8, 8, 32));
    assert_eq!(model.tensor("model.norm.weight").unwrap().rows(), 1);
    assert!(refused(model.tensor("lm_head.weight")).contains("`lm_head.weight`"));
}

#[test]
fn missing_kv_heads_mean_one_for_each_query_head() {
    let mut file = GgufFile::llama();
    file.remove("llama.attention.head_count_kv");
    let error = refused(file.open());
    assert!(error.contains("k_proj.weight` has shape [4, 8], [8, 8] was expected"), "{error}");
}

#[test]
fn an_output_matrix_unties_the_head() {
    let mut file = GgufFile::llama();
    file.matrix("output.weight", VOCAB, HIDDEN);
    let model = file.open().unwrap();
    assert!(!model.config.tie_word_embeddings);
    assert_eq!(model.tensor("lm_head.weight").unwrap().shape, [VOCAB, HIDDEN]);
}

#[test]
fn q_and_k_rows_come_in_hugging_face_order() {
    let model = GgufFile::llama().open().unwrap();
    for (name, rows) in [("q_proj", 8), ("k_proj", 4), ("v_proj", 4)] {
        let name = format!("model.layers.0.self_attn.{name}.weight");
        for start in 0..rows {
            for end in start..=rows {
                let bytes = pollster::block_on(model.read_rows(&name, start..end)).unwrap();
                let first_of_row: Vec<f32> = bytes.as_chunks::<4>().0.iter().step_by(HIDDEN).map(|&b| f32::from_le_bytes(b)).collect();
                let expected: Vec<f32> = (start..end).map(|r| r as f32).collect();
                assert_eq!(first_of_row, expected, "{name} {start}..{end}");
            }
        }
    }
}

#[test]
fn rope_scaling_from_metadata_and_tensors() {
    let with = |pairs: &[(String, Vec<u8>)]| {
        let mut file = GgufFile::llama();
        pairs.iter().for_each(|p| {
            file.set(p.clone());
        });
        file.open().unwrap().config.rope_scaling
    };
    let kind = |k: &str| kv_str("llama.rope.scaling.type", k);
    let factor = kv_f32("llama.rope.scaling.factor", 4.0);
    assert_eq!(with(&[kind("none")]), RopeScaling::None);
    assert_eq!(with(&[kind("linear"), factor.clone()]), RopeScaling::Linear { factor: 4.0 });
    assert_eq!(with(&[kv_f32("llama.rope.scale_linear", 2.0)]), RopeScaling::Linear { factor: 2.0 });
    let yarn = [kind("yarn"), factor.clone(), kv_u32("llama.rope.scaling.original_context_length", 16)];
    let expected = |attention_factor| RopeScaling::Yarn {
        factor: 4.0,
        original_max_position_embeddings: 16,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor,
    };
    assert_eq!(with(&yarn), expected(None));
    let attention = [yarn.to_vec(), vec![kv_f32("llama.rope.scaling.attn_factor", 0.5)]].concat();
    assert_eq!(with(&attention), expected(Some(0.5 * (0.1 * 4f64.ln() + 1.0))));

    let mut file = GgufFile::llama();
    let divisors = |name: &str, values: [f32; 2]| Tensor {
        name: name.into(),
        dims: vec![2],
        kind: 0,
        data: values.map(f32::to_le_bytes).concat(),
        offset: None,
    };
    file.tensors.push(divisors("rope_freqs.weight", [1.0, 8.0]));
    assert_eq!(file.open().unwrap().config.rope_scaling, RopeScaling::Divisors(vec![1.0, 8.0]));
    file.set(kind("linear")).set(factor);
    assert_eq!(file.open().unwrap().config.rope_scaling, RopeScaling::Divisors(vec![4.0, 32.0]));
    file.set(kind("yarn"));
    assert!(refused(file.open()).contains("\"yarn\" together with `rope_freqs.weight`"));

    let mut file = GgufFile::llama();
    file.set(kind("longrope"));
    assert!(refused(file.open()).contains("rope_factors_short.weight"));
    file.tensors.push(divisors("rope_factors_long.weight", [3.0, 4.0]));
    file.tensors.push(divisors("rope_factors_short.weight", [1.0, 2.0]));
    let RopeScaling::LongRope { short_factor, long_factor, .. } = file.open().unwrap().config.rope_scaling else { panic!("no longrope") };
    assert_eq!((short_factor, long_factor), (vec![1.0, 2.0], vec![3.0, 4.0]));
}

/// The test model in `n` parts: metadata in the first, tensors dealt round.
pub(crate) fn split(n: u16) -> Vec<GgufFile> {
    let whole = GgufFile::llama();
    (0..n)
        .map(|no| {
            let mut part = if no == 0 { whole.clone() } else { GgufFile::empty() };
            part.tensors = whole.tensors.iter().skip(no.into()).step_by(n.into()).cloned().collect();
            part.set(("split.no".into(), typed(2, &no.to_le_bytes())));
            part.set(("split.count".into(), typed(2, &n.to_le_bytes())));
            part.set(("split.tensors.count".into(), typed(5, &(whole.tensors.len() as i32).to_le_bytes())));
            part
        })
        .collect()
}

#[test]
fn split_files_in_any_order_equal_the_whole() {
    let whole = GgufFile::llama().open().unwrap();
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let parts = split(3);
        let model = open_gguf(order.iter().map(|&i| parts[i].bytes()).collect()).unwrap();
        assert_eq!(model.config, whole.config);
        assert_eq!(model.metadata().str("general.architecture").unwrap(), Some("llama"));
        for t in whole.tensors() {
            let read = |m: &weblora::formats::ModelFile| pollster::block_on(m.read_f32(&t.name)).unwrap();
            assert_eq!(read(&model), read(&whole), "{}", t.name);
        }
        assert_eq!(pollster::block_on(model.content_hash()).unwrap(), pollster::block_on(whole.content_hash()).unwrap());
    }
}

#[test]
fn content_hash_sees_weights_names_and_formats() {
    let hash = |file: &GgufFile| pollster::block_on(file.open().unwrap().content_hash()).unwrap();
    let base = hash(&GgufFile::llama());
    let mut other = GgufFile::llama();
    other.set(kv_str("general.name", "the same weights under another name"));
    assert_eq!(hash(&other), base);
    other.tensor("blk.1.ffn_up.weight").data[6 * HIDDEN * 4] ^= 1; // the middle row
    assert_ne!(hash(&other), base);
    // A small model is hashed whole: one bit of any row counts.
    assert!(other.open().unwrap().is_hashed_whole());
    for (tensor, at) in [("blk.1.ffn_up.weight", 0), ("token_embd.weight", HIDDEN * 4), ("output_norm.weight", 4)] {
        let mut other = GgufFile::llama();
        other.tensor(tensor).data[at] ^= 1;
        assert_ne!(hash(&other), base, "{tensor}");
    }
}

#[test]
fn not_finite_weights_are_refused_by_name() {
    for bad in [f32::NAN, f32::NEG_INFINITY] {
        let mut file = GgufFile::llama();
        file.tensor("blk.0.attn_norm.weight").data[4..8].copy_from_slice(&bad.to_le_bytes());
        let error = refused(pollster::block_on(file.open().unwrap().read_f32("model.layers.0.input_layernorm.weight")));
        assert!(error.contains("`model.layers.0.input_layernorm.weight`") && error.contains("row 0, column 1"), "{error}");
    }
}
