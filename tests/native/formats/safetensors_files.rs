//! Safetensors files, shards and folders, written by the `safetensors` crate; and the lies they can tell.

use super::build::*;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};
use std::path::Path;
use weblora::formats::{ByteSource, Bytes, ModelFile, SideFiles, expected_tensors, parse_config};

/// Names, shapes and BF16 bytes of the test model's tensors: row `r` of every matrix holds the number `r`.
fn tensors(config: &str) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let config = parse_config("config.json", config).unwrap();
    expected_tensors(&config)
        .map(|(name, shape)| {
            let cols = shape[shape.len() - 1];
            let values = (0..shape.iter().product::<usize>()).map(|i| half::bf16::from_f32((i / cols) as f32));
            let bytes = values.flat_map(|v| v.to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect()
}

fn write(tensors: &[(String, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let views = tensors.iter().map(|(n, s, b)| (n.as_str(), TensorView::new(Dtype::BF16, s.clone(), b).unwrap()));
    serialize(views, Some([("format".to_owned(), "pt".to_owned())].into())).unwrap()
}

fn open(files: Vec<(&str, Vec<u8>)>, index: Option<Value>, config: String) -> weblora::Result<ModelFile> {
    let shards = files.into_iter().map(|(name, data)| Box::new(Bytes::new(name, data)) as Box<dyn ByteSource>).collect();
    pollster::block_on(ModelFile::open_safetensors(shards, index.map(|i| i.to_string()).as_deref(), side(config)))
}

fn read(model: &ModelFile, name: &str) -> Vec<f32> {
    pollster::block_on(model.read_f32(name)).unwrap()
}

#[test]
fn a_single_file_reads_back() {
    for (tied, count) in [(true, 20), (false, 21)] {
        let config = config_json(json!({"tie_word_embeddings": tied}));
        let model = open(vec![("model.safetensors", write(&tensors(&config)))], None, config).unwrap();
        assert_eq!(model.tensors().count(), count);
        let q = read(&model, "model.layers.1.self_attn.q_proj.weight");
        assert_eq!(q, (0..64).map(|i| (i / 8) as f32).collect::<Vec<_>>(), "rows are not permuted");
        let rows = pollster::block_on(model.read_rows("model.embed_tokens.weight", 3..5)).unwrap();
        assert_eq!(rows, [half::bf16::from_f32(3.0), half::bf16::from_f32(4.0)].map(|v| v.to_le_bytes().repeat(HIDDEN)).concat());
        assert!(model.metadata().is_empty() && model.side_files().config_json.is_some());
    }
}

#[test]
fn leftovers_of_old_checkpoints_are_passed_over() {
    let config = config_json(json!({}));
    let mut all = tensors(&config);
    let embedding = all.iter().find(|(name, ..)| name == "model.embed_tokens.weight").unwrap().2.clone();
    all.push(("lm_head.weight".into(), vec![VOCAB, HIDDEN], embedding)); // the config ties the head
    all.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), vec![2], vec![0; 4]));
    let model = open(vec![("m.safetensors", write(&all))], None, config).unwrap();
    assert_eq!(model.tensors().count(), 20);
    assert!(model.config.tie_word_embeddings && model.warnings().is_empty());
}

#[test]
fn a_stored_head_that_is_no_copy_of_the_embedding_is_the_head() {
    let config = config_json(json!({}));
    let mut all = tensors(&config);
    let mut head = all.iter().find(|(name, ..)| name == "model.embed_tokens.weight").unwrap().2.clone();
    *head.last_mut().unwrap() ^= 0x40; // one number of one row
    all.push(("lm_head.weight".into(), vec![VOCAB, HIDDEN], head));
    let model = open(vec![("m.safetensors", write(&all))], None, config.clone()).unwrap();
    assert!(!model.config.tie_word_embeddings && model.tensors().count() == 21);
    assert_ne!(read(&model, "lm_head.weight"), read(&model, "model.embed_tokens.weight"));
    assert!(model.warnings()[0].contains("another `lm_head.weight`"), "{:?}", model.warnings());
    // One of another shape cannot be the head.
    *all.last_mut().unwrap() = ("lm_head.weight".into(), vec![1, HIDDEN], vec![0; HIDDEN * 2]);
    let model = open(vec![("m.safetensors", write(&all))], None, config).unwrap();
    assert!(model.config.tie_word_embeddings && model.warnings()[0].contains("left out"), "{:?}", model.warnings());
}

#[test]
fn gguf_and_safetensors_agree() {
    let config = config_json(json!({}));
    let one = open(vec![("m.safetensors", write(&tensors(&config)))], None, config).unwrap();
    let two = GgufFile::llama().open().unwrap();
    for t in one.tensors() {
        assert_eq!(read(&one, &t.name), read(&two, &t.name), "{}", t.name);
    }
}

/// The test model in two shards, and their index.
fn shards() -> (Vec<(&'static str, Vec<u8>)>, Value) {
    let all = tensors(&config_json(json!({})));
    let (a, b) = all.split_at(9);
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let map: serde_json::Map<String, Value> =
        all.iter().enumerate().map(|(i, (n, ..))| (n.clone(), json!(names[usize::from(i >= 9)]))).collect();
    (vec![(names[0], write(a)), (names[1], write(b))], json!({"metadata": {"total_size": 1}, "weight_map": map}))
}

#[test]
fn shards_in_any_order() {
    let (mut files, index) = shards();
    files.reverse();
    files[0].0 = "https://example.org/a/model-00002-of-00002.safetensors?download=true";
    let model = open(files, Some(index), config_json(json!({}))).unwrap();
    assert_eq!(read(&model, "model.layers.1.mlp.down_proj.weight")[7 * FF..], [7.0; FF]);
}

#[test]
fn shards_that_do_not_fit_the_index() {
    let config = || config_json(json!({}));
    let (files, index) = shards();
    let error = refused(open(files[..1].to_vec(), Some(index.clone()), config()));
    assert!(error.contains("is said to be in model-00002-of-00002.safetensors, which is not there"), "{error}");
    let mut wrong = index.clone();
    wrong["weight_map"]["model.norm.weight"] = json!("model-00001-of-00002.safetensors");
    let error = refused(open(files.clone(), Some(wrong), config()));
    assert!(error.contains("but is in model-00002-of-00002.safetensors"), "{error}");
    let error = refused(open(vec![files[0].clone(), files[0].clone()], None, config()));
    assert!(error.contains("model-00001-of-00002.safetensors too"), "{error}");
    for bad in [json!("../secret"), json!("/etc/passwd"), json!("a\\b"), json!(""), json!(3)] {
        let mut wrong = index.clone();
        wrong["weight_map"]["model.norm.weight"] = bad;
        assert!(refused(open(files.clone(), Some(wrong), config())).contains("a file in the same folder was expected"));
    }
    assert!(refused(open(files, Some(json!({})), config())).contains("`weight_map` is missing"));
}

/// A file with that header text and `data` zero bytes.
fn raw(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn lies() {
    let config = || config_json(json!({}));
    let error = |bytes: Vec<u8>| refused(open(vec![("m.safetensors", bytes)], None, config()));
    let tensor = |text: &str, data: usize| error(raw(&format!("{{\"model.norm.weight\":{text}}}"), data));
    for (error, words) in [
        (error(vec![1, 2, 3]), "a header of at least 8"),
        (error(u64::MAX.to_le_bytes().to_vec()), "at most 100000000"),
        (error(99u64.to_le_bytes().to_vec()), "the header claims 99 bytes but only 0 follow"),
        (error(raw("{", 0)), "not JSON"),
        (error(raw("[]", 0)), "not an object"),
        (error([&2u64.to_le_bytes(), [0xff, 0xfe].as_slice()].concat()), "not UTF-8"),
        (error(raw("{}", 4)), "describes 0 bytes of data but 4 follow"),
        (error(raw("{}", 0)), "2 layers are declared but there are only 0 tensors"),
        (tensor("7", 0), "`model.norm.weight`"),
        (tensor(r#"{"dtype":"F32","shape":[8]}"#, 32), "missing field `data_offsets`"),
        (tensor(r#"{"dtype":"F32","shape":[8],"data_offsets":[0,32],"x":1}"#, 32), "unknown field `x`"),
        (tensor(r#"{"dtype":"F32","shape":[-8],"data_offsets":[0,32]}"#, 32), "invalid value"),
        (tensor(r#"{"dtype":"F32","shape":[8],"data_offsets":[0,64]}"#, 32), "describes 64 bytes of data but 32 follow"),
        (tensor(r#"{"dtype":"F32","shape":[8],"data_offsets":[4,36]}"#, 36), "a start at 0 was expected"),
        (tensor(r#"{"dtype":"F32","shape":[8],"data_offsets":[32,0]}"#, 32), "a start at 0 was expected"),
        (tensor(r#"{"dtype":"F32","shape":[8],"data_offsets":[0,18446744073709551615]}"#, 32), "but 32 follow"),
        (tensor(r#"{"dtype":"F32","shape":[9],"data_offsets":[0,32]}"#, 32), "which its shape [9] of F32 contradicts"),
        (tensor(r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,32]}"#, 32), "contradicts"),
        (tensor(r#"{"dtype":"F32","shape":[],"data_offsets":[0,4]}"#, 4), "has the shape []"),
        (tensor(r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#, 0), "has the shape [0]"),
        (tensor(r#"{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}"#, 8), "dtype F8_E4M3 is not supported"),
    ] {
        assert!(error.contains(words), "{error}\nlacks {words}");
    }
    let two = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    assert!(error(raw(two, 12)).contains("`b` is at 4..12 of the data, a start at 8 was expected"));
    let twice = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#;
    assert!(error(raw(twice, 16)).contains("a start at 0 was expected"));
}

#[test]
fn missing_misshapen_and_unknown_tensors() {
    let config = config_json(json!({}));
    let all = tensors(&config);
    let open = |t: &[_]| refused(open(vec![("m.safetensors", write(t))], None, config_json(json!({}))));
    assert!(open(&all[1..]).contains("`model.embed_tokens.weight` of shape [10, 8] is missing"));
    let mut bent = all.clone();
    bent[2].1.reverse();
    bent[8].1.reverse();
    assert!(open(&bent).contains("has shape"));
    let mut more = all.clone();
    more.push(("model.layers.0.self_attn.q_proj.bias".into(), vec![8], vec![0; 16]));
    assert!(open(&more).contains("`model.layers.0.self_attn.q_proj.bias` is not supported"));
    let without = pollster::block_on(ModelFile::open_safetensors(vec![], None, SideFiles::default()));
    assert!(refused(without).contains("without a config.json"));
}

fn open_path(path: &Path) -> weblora::Result<ModelFile> {
    pollster::block_on(ModelFile::open_path(path))
}

#[test]
fn folders_and_files_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(refused(open_path(folder.path())).contains("neither a GGUF nor a safetensors file"));
    let (files, index) = shards();
    for (name, data) in &files {
        std::fs::write(at(name), data).unwrap();
    }
    assert!(refused(open_path(folder.path())).contains("2 safetensors files but no model.safetensors.index.json"));
    std::fs::write(at("model.safetensors.index.json"), index.to_string()).unwrap();
    assert!(refused(open_path(folder.path())).contains("without a config.json"));
    std::fs::write(at("config.json"), config_json(json!({}))).unwrap();
    std::fs::write(at("tokenizer.json"), "{}").unwrap();
    for path in [folder.path().to_owned(), at(files[1].0)] {
        let model = open_path(&path).unwrap();
        assert_eq!(model.tensors().count(), 20);
        assert_eq!(model.side_files().tokenizer_json.as_deref(), Some("{}"));
    }
    std::fs::write(at("stray.gguf"), GgufFile::llama().bytes()).unwrap();
    assert!(refused(open_path(folder.path())).contains("both GGUF and safetensors"));
    assert_eq!(open_path(&at("stray.gguf")).unwrap().tensors().count(), 20);
    std::fs::remove_file(at(files[0].0)).unwrap();
    assert!(refused(open_path(&at(files[1].0))).contains(files[0].0));
}

#[test]
fn split_gguf_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let at = |no: usize| folder.path().join(format!("tiny-{no:05}-of-00003.gguf"));
    for (i, part) in super::gguf::split(3).iter().enumerate() {
        std::fs::write(at(i + 1), part.bytes()).unwrap();
    }
    for path in [at(1), at(3), folder.path().to_owned()] {
        assert_eq!(open_path(&path).unwrap().tensors().count(), 20);
    }
    std::fs::remove_file(at(2)).unwrap();
    let error = refused(open_path(&at(1)));
    assert!(error.contains("one of 3 parts but") && error.contains("tiny-00002-of-00003.gguf is not there"), "{error}");
}

#[test]
fn paths_that_are_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        refused(open_path(&path))
    };
    assert!(write("model.bin", "PK").contains("a PyTorch pickle is not supported"));
    assert!(write("notes.txt", "hello").contains("neither a GGUF file nor a .safetensors file"));
    assert!(write("empty.gguf", "").contains("file ends after 0"));
    assert!(write("wrong.gguf", "GGML....").contains("\"GGUF\" was expected"));
    assert!(refused(open_path(&folder.path().join("absent.gguf"))).contains("cannot read"));
    std::fs::write(folder.path().join("latin1.safetensors"), raw("{}", 0)).unwrap();
    std::fs::write(folder.path().join("config.json"), [b'"', 0xe9, b'"']).unwrap();
    assert!(refused(open_path(&folder.path().join("latin1.safetensors"))).contains("not UTF-8 text at byte 1"));
}
