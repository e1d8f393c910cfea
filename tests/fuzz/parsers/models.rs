//! Model files: GGUF by bytes and by fields, split files, safetensors with index and configuration, the tokenizer of a GGUF.

use pollster::block_on;
use serde_json::{Value, json};
use weblora::Result;
use weblora::formats::{ByteSource, Bytes, Gguf, ModelFile, SideFiles, parse_config};
use weblora::text::{GgufTokenizer, StreamDecoder, Tokenizer};

use super::golden;
use crate::driver::Parser;
use crate::input::{Input, Part, binary, json, safetensors};

pub static GGUF: Parser = Parser { name: "gguf", seeds: gguf_seeds, dictionary: gguf_words, run: |input| read_all(open(input)?) };
pub static GGUF_SPLIT: Parser =
    Parser { name: "gguf_split", seeds: split_seeds, dictionary: gguf_words, run: |input| read_all(open(input)?) };
pub static GGUF_TYPED: Parser = Parser {
    name: "gguf_typed",
    seeds: typed_seeds,
    dictionary: gguf_words,
    run: |input| read_all(block_on(ModelFile::open_gguf(sources(&[binary(write_typed(&input[0]))])))?),
};
pub static GGUF_TOKENIZER: Parser = Parser { name: "gguf_tokenizer", seeds: tokenizer_seeds, dictionary: gguf_words, run: read_tokenizer };
pub static SAFETENSORS: Parser = Parser { name: "safetensors", seeds: safetensors_seeds, dictionary: config_words, run: read_safetensors };
pub static HF_CONFIG: Parser = Parser { name: "hf_config", seeds: config_seeds, dictionary: config_words, run: read_config };

fn gguf_words() -> Vec<&'static str> {
    vec![
        "GGUF",
        "general.architecture",
        "general.alignment",
        "general.type",
        "llama",
        "model",
        "llama.block_count",
        "llama.context_length",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.attention.key_length",
        "llama.attention.value_length",
        "llama.attention.layer_norm_rms_epsilon",
        "llama.vocab_size",
        "llama.rope.dimension_count",
        "llama.rope.freq_base",
        "llama.rope.scaling.type",
        "llama.rope.scaling.factor",
        "llama.rope.scaling.original_context_length",
        "llama.rope.scale_linear",
        "llama.expert_count",
        "llama.attention.sliding_window",
        "linear",
        "yarn",
        "longrope",
        "none",
        "split.no",
        "split.count",
        "split.tensors.count",
        "rope_freqs.weight",
        "rope_factors_long.weight",
        "rope_factors_short.weight",
        "token_embd.weight",
        "output.weight",
        "output_norm.weight",
        "blk.0.attn_q.weight",
        "blk.1.ffn_down.weight",
        "blk.18446744073709551615.attn_q.weight",
        "tokenizer.ggml.model",
        "gpt2",
        "tokenizer.ggml.pre",
        "llama-bpe",
        "smollm",
        "default",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.scores",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.unknown_token_id",
        "tokenizer.ggml.padding_token_id",
        "tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.add_space_prefix",
        "tokenizer.chat_template",
        "a b",
        " ",
        "▁",
        "<0x0A>",
        "<s>",
        "</s>",
    ]
}

pub fn sources(parts: &[Part]) -> Vec<Box<dyn ByteSource>> {
    let source = |(i, part): (usize, &Part)| Box::new(Bytes::new(format!("part{i}"), part.bytes.clone())) as Box<dyn ByteSource>;
    parts.iter().enumerate().map(source).collect()
}

fn open(parts: &[Part]) -> Result<ModelFile> {
    block_on(ModelFile::open_gguf(sources(parts)))
}

/// Everything that the product asks of an opened model before a device is needed.
fn read_all(model: ModelFile) -> Result<()> {
    let names: Vec<String> = model.tensors().map(|tensor| tensor.name.clone()).collect();
    for name in &names {
        block_on(model.read_f32(name))?;
        let rows = model.tensor(name)?.rows();
        block_on(model.read_rows(name, rows / 3..rows.min(rows / 3 + 5)))?;
    }
    for tensor in model.config_tensors() {
        block_on(model.read_config_tensor(tensor))?;
    }
    assert_eq!(block_on(model.content_hash())?.len(), 32);
    weblora::model::rope::table(&model.config, 4, 64);
    if model.metadata().get("tokenizer.ggml.model").is_some() || model.side_files().tokenizer_json.is_some() {
        speak(&Tokenizer::of_model(&model)?)?;
    }
    Ok(())
}

/// Texts that no tokenizer may stumble over.
pub const TEXTS: &[&str] =
    &["", " ", "Hello, world! 123", "\n\n  é\u{0301} 漢字 \u{1F600}", "<s></s><|im_end|>", "\u{0}\u{FDD0}▁Ġ", "aaaaaaaaaaaaaaaa"];

/// Encodes and decodes.
pub fn speak(tokenizer: &Tokenizer) -> Result<()> {
    for text in TEXTS {
        let Ok(ids) = tokenizer.encode(text, true) else { continue };
        // What a tokenizer writes it can read.
        tokenizer.decode(&ids, true)?;
        let mut stream = StreamDecoder::new(false);
        ids.iter().for_each(|&id| drop(stream.push(tokenizer, id)));
        stream.finish();
        if let Ok(pieces) = tokenizer.encode_with_ranges(text) {
            assert!(pieces.iter().all(|(_, range)| range.start <= range.end && range.end <= text.len()), "ranges leave the text");
        }
        tokenizer.mentions_special(text);
    }
    for id in [0, 1, 2, tokenizer.vocab_size() as u32, u32::MAX] {
        assert!(!tokenizer.is_special(id) || !tokenizer.token_bytes(id).is_empty() || tokenizer.decode(&[id], false).is_ok());
    }
    tokenizer.to_hf_files(64)?;
    Ok(())
}

fn gguf_seeds() -> Vec<Input> {
    let typed = typed_seeds().into_iter().map(|input| vec![binary(write_typed(&input[0]))]);
    typed.chain([vec![binary(golden("tiny_llama/model.gguf"))]]).collect()
}

/// A small model as a description that [`write_typed`] turns into a file: metadata by type number, tensors by sizes.
pub fn description(tokenizer: Value) -> Value {
    let mut kv = json!({
        "general.architecture": [8, "llama"], "general.alignment": [4, 32], "llama.block_count": [4, 2], "llama.context_length": [4, 64],
        "llama.embedding_length": [4, 8], "llama.feed_forward_length": [4, 12], "llama.attention.head_count": [4, 2],
        "llama.attention.head_count_kv": [4, 1], "llama.attention.layer_norm_rms_epsilon": [6, 1e-5], "llama.rope.freq_base": [6, 10000.0],
    });
    if let (Value::Object(kv), Value::Object(more)) = (&mut kv, tokenizer) {
        kv.extend(more);
    }
    let mut tensors = vec![json!(["token_embd.weight", [8, 10], 0])];
    for layer in 0..2 {
        let of = [
            ("attn_norm", json!([8])),
            ("attn_q", json!([8, 8])),
            ("attn_k", json!([8, 4])),
            ("attn_v", json!([8, 4])),
            ("attn_output", json!([8, 8])),
            ("ffn_norm", json!([8])),
            ("ffn_gate", json!([8, 12])),
            ("ffn_up", json!([8, 12])),
            ("ffn_down", json!([12, 8])),
        ];
        tensors.extend(of.map(|(stem, dims)| json!([format!("blk.{layer}.{stem}.weight"), dims, 0])));
    }
    tensors.push(json!(["output_norm.weight", [8], 0]));
    json!({ "version": 3, "kv": kv, "tensors": tensors, "data": 8192 })
}

fn byte_level() -> Value {
    let vocab: Value = serde_json::from_slice(&golden("text.json")).unwrap();
    let (tokens, merges) = (&vocab["byte_level"]["tokens"], &vocab["byte_level"]["merges"]);
    let types: Vec<i32> = (0..tokens.as_array().unwrap().len()).map(|id| if id < 3 { 3 } else { 1 }).collect();
    json!({
        "tokenizer.ggml.model": [8, "gpt2"], "tokenizer.ggml.pre": [8, "smollm"], "tokenizer.ggml.tokens": [9, [8, tokens]],
        "tokenizer.ggml.merges": [9, [8, merges]], "tokenizer.ggml.token_type": [9, [5, types]], "tokenizer.ggml.bos_token_id": [4, 1],
        "tokenizer.ggml.eos_token_id": [4, 2], "tokenizer.ggml.add_bos_token": [7, 0], "tokenizer.chat_template": [8, "{{ messages }}"],
    })
}

fn sentence_piece() -> Value {
    let vocab: Value = serde_json::from_slice(&golden("text.json")).unwrap();
    let vocab = &vocab["sentence_piece"];
    json!({
        "tokenizer.ggml.model": [8, "llama"], "tokenizer.ggml.tokens": [9, [8, vocab["tokens"]]],
        "tokenizer.ggml.scores": [9, [6, vocab["scores"]]], "tokenizer.ggml.token_type": [9, [5, vocab["token_type"]]],
        "tokenizer.ggml.unknown_token_id": [4, 0], "tokenizer.ggml.bos_token_id": [4, 1], "tokenizer.ggml.eos_token_id": [4, 2],
    })
}

fn typed_seeds() -> Vec<Input> {
    let mut yarn = description(json!({}));
    for (key, value) in [
        ("llama.rope.scaling.type", json!([8, "yarn"])),
        ("llama.rope.scaling.factor", json!([6, 4.0])),
        ("llama.vocab_size", json!([10, 10])),
        ("llama.rope.scaling.original_context_length", json!([4, 16])),
        ("x", json!([9, [9, [[0, [1, 2]], [8, ["a", ""]]]]])),
    ] {
        yarn["kv"][key] = value;
    }
    [description(json!({})), yarn].map(|value| vec![json(value.to_string())]).into()
}

fn tokenizer_seeds() -> Vec<Input> {
    [byte_level(), sentence_piece()]
        .map(|tokenizer| vec![json(json!({ "version": 3, "kv": tokenizer, "tensors": [], "data": 0 }).to_string())])
        .into()
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_i64().map(|n| n as u64)).unwrap_or_else(|| value.as_f64().unwrap_or(0.0) as u64)
}

fn put_value(out: &mut Vec<u8>, kind: u64, value: &Value) {
    match kind {
        0 | 1 | 7 => out.push(number(value) as u8),
        2 | 3 => out.extend((number(value) as u16).to_le_bytes()),
        4 | 5 => out.extend((number(value) as u32).to_le_bytes()),
        6 => out.extend((value.as_f64().unwrap_or(f64::NAN) as f32).to_le_bytes()),
        8 => put_text(out, value.as_str().map_or_else(|| value.to_string(), str::to_owned).as_bytes()),
        9 => {
            let (kind, items) = (number(&value[0]), value[1].as_array().cloned().unwrap_or_default());
            out.extend((kind as u32).to_le_bytes());
            out.extend(value.get(2).map_or(items.len() as u64, number).to_le_bytes());
            items.iter().for_each(|item| put_value(out, kind, item));
        }
        10 | 11 => out.extend(number(value).to_le_bytes()),
        _ => out.extend(value.as_f64().unwrap_or(f64::NAN).to_le_bytes()),
    }
}

/// The GGUF file of a description; what the description lacks is written as zero.
pub fn write_typed(part: &Part) -> Vec<u8> {
    let value: Value = serde_json::from_slice(&part.bytes).unwrap_or_default();
    let mut out = b"GGUF".to_vec();
    out.extend((number(&value["version"]) as u32).to_le_bytes());
    let (tensors, kv) = (value["tensors"].as_array().cloned().unwrap_or_default(), value["kv"].as_object().cloned().unwrap_or_default());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((kv.len() as u64).to_le_bytes());
    for (key, typed) in &kv {
        put_text(&mut out, key.as_bytes());
        out.extend((number(&typed[0]) as u32).to_le_bytes());
        put_value(&mut out, number(&typed[0]), &typed[1]);
    }
    let mut offset = 0u64;
    for tensor in &tensors {
        put_text(&mut out, tensor[0].as_str().unwrap_or_default().as_bytes());
        let dims: Vec<u64> = tensor[1].as_array().into_iter().flatten().map(number).collect();
        out.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|n| out.extend(n.to_le_bytes()));
        out.extend((number(&tensor[2]) as u32).to_le_bytes());
        out.extend(tensor.get(3).map_or(offset, number).to_le_bytes());
        let bytes = dims.iter().fold(4u64, |bytes, &n| bytes.saturating_mul(n));
        offset = offset.saturating_add(bytes).checked_next_multiple_of(32).unwrap_or(0);
    }
    out.resize(out.len().next_multiple_of(32) + (number(&value["data"]) as usize).min(1 << 16), 0);
    out
}

fn read_tokenizer(input: &Input) -> Result<()> {
    let gguf = block_on(Gguf::read(&sources(&[binary(write_typed(&input[0]))])))?;
    speak(&Tokenizer::from_gguf("tokenizer.gguf", GgufTokenizer::from_metadata(&gguf.metadata)?)?)
}

/// The tiny model in two parts.
fn split_seeds() -> Vec<Input> {
    let whole = description(json!({}));
    let part = |no: usize, tensors: &[Value]| {
        let mut value = whole.clone();
        value["kv"]["split.no"] = json!([2, no]);
        value["kv"]["split.count"] = json!([2, 2]);
        value["kv"]["split.tensors.count"] = json!([5, whole["tensors"].as_array().unwrap().len()]);
        value["tensors"] = tensors.into();
        binary(write_typed(&json(value.to_string())))
    };
    let tensors = whole["tensors"].as_array().unwrap();
    let (first, second) = tensors.split_at(7);
    vec![vec![part(0, first), part(1, second)], vec![part(1, second), part(0, first)]]
}

fn config_words() -> Vec<&'static str> {
    vec![
        "model_type",
        "llama",
        "mistral",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "silu",
        "max_position_embeddings",
        "original_max_position_embeddings",
        "rms_norm_eps",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "rope_type",
        "type",
        "factor",
        "linear",
        "dynamic",
        "llama3",
        "yarn",
        "longrope",
        "default",
        "short_factor",
        "long_factor",
        "low_freq_factor",
        "high_freq_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "attention_factor",
        "truncate",
        "tie_word_embeddings",
        "sliding_window",
        "quantization_config",
        "partial_rotary_factor",
        "weight_map",
        "__metadata__",
        "dtype",
        "shape",
        "data_offsets",
        "F32",
        "F16",
        "BF16",
        "I64",
        "F64",
        "../x",
        "part2",
        "model.layers.0.self_attn.q_proj.weight",
        "model.embed_tokens.weight",
        "lm_head.weight",
    ]
}

fn config_seeds() -> Vec<Input> {
    let base: Value = serde_json::from_slice(&golden("tiny_llama/config.json")).unwrap();
    let with = |rope: Value| {
        let mut value = base.clone();
        value["rope_scaling"] = rope;
        vec![json(value.to_string())]
    };
    let width =
        base["head_dim"].as_u64().unwrap_or_else(|| base["hidden_size"].as_u64().unwrap() / base["num_attention_heads"].as_u64().unwrap());
    let list = vec![1.5; width as usize / 2];
    vec![
        vec![json(golden("tiny_llama/config.json"))],
        vec![json(golden("odd_llama/config.json"))],
        with(json!({ "rope_type": "linear", "factor": 2.0 })),
        with(json!({ "rope_type": "dynamic", "factor": 2.0 })),
        with(
            json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32 }),
        ),
        with(json!({ "rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1 })),
        with(json!({ "type": "longrope", "short_factor": list, "long_factor": list, "original_max_position_embeddings": 32 })),
    ]
}

fn read_config(input: &Input) -> Result<()> {
    parse_config("config.json", &String::from_utf8_lossy(&input[0].bytes)).map(drop)
}

fn safetensors_seeds() -> Vec<Input> {
    let model = golden("odd_llama/model.safetensors");
    let header = ::safetensors::SafeTensors::deserialize(&model).unwrap();
    let map: serde_json::Map<String, Value> = header.names().into_iter().map(|name| (name.to_owned(), json!("part0"))).collect();
    let index = json!({ "metadata": {}, "weight_map": map });
    vec![vec![safetensors(model.clone()), json(golden("odd_llama/config.json")), json(index.to_string())]]
}

fn read_safetensors(input: &Input) -> Result<()> {
    let text = |part: &Part| String::from_utf8_lossy(&part.bytes).into_owned();
    let side = SideFiles { config_json: Some(text(&input[1])), ..SideFiles::default() };
    // An index that was damaged says so itself; the model is read without it, too.
    let indexed = block_on(ModelFile::open_safetensors(sources(&input[..1]), Some(&text(&input[2])), side.clone()));
    read_all(block_on(ModelFile::open_safetensors(sources(&input[..1]), None, side))?)?;
    indexed.map(drop)
}
