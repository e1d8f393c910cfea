//! Large files of every kind, a megabyte or so each: what takes the square of a file's size does not end in time.

use serde_json::{Map, Value, json};
use weblora::export::folder::CHAIN_FILE;

use super::by_name;
use crate::driver::Parser;
use crate::input::{Input, Part, json as json_part, lines, safetensors, text};

/// The first part names a parser, the others are its input. Whether it is accepted does not matter.
pub static LARGE: Parser = Parser { name: "large", seeds, dictionary: Vec::new, run };

fn run(input: &Input) -> weblora::Result<()> {
    (by_name(&String::from_utf8_lossy(&input[0].bytes)).run)(&input[1..].to_vec()).ok();
    Ok(())
}

fn of(parser: &str, parts: impl IntoIterator<Item = Part>) -> Input {
    [text(parser)].into_iter().chain(parts).collect()
}

/// The first seed of a parser with a change to the JSON of one part.
fn seed(parser: &str, number: usize, place: usize, change: impl FnOnce(&mut Value)) -> Input {
    let mut input = (by_name(parser).seeds)()[number].clone();
    let mut value = serde_json::from_slice(&input[place].bytes).unwrap();
    change(&mut value);
    input[place] = json_part(value.to_string());
    of(parser, input)
}

fn seeds() -> Vec<Input> {
    let numbered = |count: usize| (0..count).map(|i| format!("t{i}"));
    let rows = |row: Value, count: usize| of("rows", [lines(vec![row.to_string(); count].join("\n"))]);
    let choices: Vec<String> = numbered(4000).collect();
    let words: Vec<Value> = numbered(100_000).map(Value::from).collect();
    let patterns: Map<String, Value> = numbered(2000).map(|name| (name, json!(1))).collect();
    let settings: String = numbered(50_000).map(|name| format!("{name} = 1\n")).collect();
    vec![
        rows(json!({ "text": "Once upon a time" }), 2000),
        rows(json!({ "text": "a".repeat(200_000) }), 1),
        rows(json!({ "text": " \n".repeat(50_000) }), 1),
        rows(json!({ "prompt": "p", "completion": "t7", "choices": choices }), 1),
        seed("gguf_tokenizer", 0, 0, |value| value["kv"]["tokenizer.ggml.tokens"] = json!([9, [8, words]])),
        seed("gguf_tokenizer", 1, 0, |value| {
            value["kv"]["tokenizer.ggml.tokens"] = json!([9, [8, words]]);
            value["kv"]["tokenizer.ggml.scores"] = json!([9, [6, vec![0.0; 100_000]]]);
            value["kv"]["tokenizer.ggml.token_type"] = json!([9, [5, vec![1; 100_000]]]);
        }),
        seed("gguf_tokenizer", 1, 0, |value| {
            // Long pieces that can be cut anywhere.
            let pieces: Vec<String> = (1..250).flat_map(|n| ["a", "b"].map(|c| c.repeat(n))).collect();
            value["kv"]["tokenizer.ggml.scores"] = json!([9, [6, vec![0.0; pieces.len()]]]);
            value["kv"]["tokenizer.ggml.token_type"] = json!([9, [5, vec![1; pieces.len()]]]);
            value["kv"]["tokenizer.ggml.tokens"] = json!([9, [8, pieces]]);
        }),
        seed("gguf_typed", 0, 0, |value| (0..20_000).for_each(|i| value["kv"][format!("k{i}")] = json!([4, i]))),
        seed("gguf_typed", 0, 0, |value| {
            let tensors: Vec<Value> = (0..20_000).map(|i| json!([format!("blk.{i}.attn_q.weight"), [1], 0])).collect();
            value["tensors"] = tensors.into();
        }),
        seed("tokenizer_json", 0, 0, |value| {
            let vocab: Map<String, Value> = numbered(50_000).enumerate().map(|(id, token)| (token, json!(id + 300))).collect();
            value["model"]["vocab"].as_object_mut().unwrap().extend(vocab);
        }),
        of("patterns", [json_part(Value::Object(patterns).to_string())]),
        of("run_file", [text(settings)]),
        of("run_file", [text(format!("method = \"cola\"\nlinks = {:?}\n", vec![1; 100_000]))]),
        of("run_file", [text(format!("targets = {:?}\n", vec!["layers.0.mlp.up_proj"; 20_000]))]),
        of("run_file", [text(format!("{}a = 1\n", "a.".repeat(100_000)))]),
        of("run_file", [text(format!("[{}a]\nb = 1\n", "a.".repeat(100_000)))]),
        of("run_file", [text(format!("a = {}", "[".repeat(100_000)))]),
        of("hf_config", [json_part("{\"a\":".repeat(100_000))]),
        of("rows", [lines("[".repeat(100_000))]),
        many_sites(),
        many_links(),
        seed("forged_checkpoint", 0, 0, |value| value["cursor"]["waiting"] = json!(vec![1; 100_000])),
        seed("safetensors", 0, 2, |value| (0..20_000).for_each(|i| value["weight_map"][format!("t{i}")] = json!("part0"))),
    ]
}

fn folder(tensors: &[(String, Vec<usize>)], config: Value, chain: Value) -> Vec<Part> {
    let mut offset = 0;
    let entry = |(name, shape): &(String, Vec<usize>)| {
        let from = offset;
        offset += 4 * shape.iter().product::<usize>();
        (name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, offset] }))
    };
    let header = Value::Object(tensors.iter().map(entry).collect()).to_string();
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header.as_bytes());
    weights.resize(weights.len() + offset, 0);
    let chain = if chain.is_null() { String::new() } else { chain.to_string() };
    assert_eq!(CHAIN_FILE, "chain.json");
    vec![json_part(config.to_string()), safetensors(weights), json_part(""), json_part(chain)]
}

fn config(rank: usize) -> Value {
    json!({ "peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": ["q_proj"] })
}

fn pair(layer: usize, rank: usize, size: usize) -> [(String, Vec<usize>); 2] {
    let key = |half: &str| format!("base_model.model.model.layers.{layer}.self_attn.q_proj.{half}.weight");
    [(key("lora_A"), vec![rank, size]), (key("lora_B"), vec![size, rank])]
}

fn many_sites() -> Input {
    let tensors: Vec<_> = (0..1000).flat_map(|layer| pair(layer, 2, 2)).collect();
    let alphas: Map<String, Value> = (0..1000).map(|i| (format!("layers.{i}.self_attn.q_proj"), json!(i + 1))).collect();
    let mut config = config(2);
    config["alpha_pattern"] = alphas.into();
    of("adapter", folder(&tensors, config, Value::Null))
}

fn many_links() -> Input {
    let link = json!({ "rank": 1, "alpha": 2.0, "steps": 1 });
    let chain = json!({ "version": 1, "base_hash": null, "cumulative": true, "links": vec![link; 4000] });
    of("adapter", folder(&pair(0, 4000, 8), config(4000), chain))
}
