//! `tokenizer.json` files that would panic, abort or exhaust memory in the `tokenizers` crate, and one beside a GGUF file.

use serde_json::{Value, json};
use weblora::Result;
use weblora::text::Tokenizer;

use crate::formats::build::{GgufFile, kv_array, kv_str};

/// A small byte-level tokenizer, with a part of it replaced.
fn with(part: &str, value: Value) -> Value {
    let vocab: serde_json::Map<String, Value> =
        ["a", "b", "ab", "Ġ", "Ġa", "<s>", "é"].iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let mut file = json!({
        "version": "1.0",
        "added_tokens": [{"id": 5, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["a b", "Ġ a"]},
    });
    *file.pointer_mut(part).unwrap_or_else(|| panic!("no part {part}")) = value;
    file
}

fn open(file: &Value) -> Result<Tokenizer> {
    Tokenizer::from_json("tokenizer.json", file.to_string().as_bytes(), None)
}

fn refused(file: &Value, words: &[&str]) {
    let text = open(file).err().unwrap_or_else(|| panic!("{file} is accepted")).to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text:?} lacks one of {words:?}");
}

#[test]
fn parts_that_the_library_would_panic_on_are_refused_by_name() {
    assert_eq!(open(&with("/version", json!("1.0"))).and_then(|t| t.encode("ab<s> a", false)).expect("encodes"), [2, 5, 4]);
    for (part, value, words) in [
        ("/normalizer", json!({"type": "Precompiled"}), ["normalizer", "Precompiled"]),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "/////wA="}), ["normalizer", "Precompiled"]),
        (
            "/normalizer",
            json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": ""}, {"type": "NFC"}]}),
            ["Prepend", "prepend"],
        ),
        ("/normalizer", json!({"type": "Replace", "pattern": {"Regex": "x*"}, "content": "y"}), ["normalizer", "empty"]),
        ("/normalizer", json!({"type": "Replace", "pattern": {"Regex": "("}, "content": "y"}), ["normalizer", "Regex"]),
        ("/normalizer", json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(1000)}), ["normalizer", "longer"]),
        ("/normalizer", json!({"type": "Sequence"}), ["normalizer", "Sequence"]),
        ("/normalizer", json!({"type": "BertNormalizer"}), ["normalizer", "BertNormalizer"]),
        ("/normalizer", json!({"no": "type"}), ["normalizer", "type"]),
        ("/pre_tokenizer", json!({"type": "FixedLength", "length": 0}), ["pre_tokenizer", "FixedLength"]),
        ("/decoder", json!({"type": "BPEDecoder", "suffix": "</w>"}), ["decoder", "BPEDecoder"]),
        ("/decoder", json!({"type": "Strip", "content": " ", "start": 0, "stop": 3}), ["Strip", "stop"]),
        ("/decoder", json!({"type": "Sequence", "decoders": [{"type": "CTC"}]}), ["decoder", "CTC"]),
        ("/model", json!({"type": "Unigram", "vocab": []}), ["model.vocab", "empty"]),
        ("/model", json!({"type": "Unigram", "vocab": [["a", 0.0]]}), ["unk_id", "1"]),
        ("/model", json!({"type": "Unigram", "unk_id": 0, "vocab": [["", 0.0]]}), ["model.vocab", "entry 0"]),
        ("/model", json!({"type": "WordPiece", "vocab": {}}), ["model", "WordPiece"]),
        ("/model/vocab", json!({"a": 4294967295u32, "b": 1, "ab": 2, "Ġ": 3, "Ġa": 4, "<s>": 5}), ["model.vocab", "id"]),
        ("/model/merges", json!([["", "a"]]), ["merge 0", "empty"]),
        ("/model/merges", json!([["a", "a"]]), ["merge 0", "aa"]),
        ("/added_tokens/0/id", json!(4294967295u32), ["added_tokens", "id"]),
        (
            "/post_processor",
            json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<gone>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {}}),
            ["post_processor", "<gone>"],
        ),
        ("/post_processor", json!({"type": "RobertaProcessing", "sep": ["</s>"], "cls": ["<s>", 5]}), ["post_processor", "sep"]),
    ] {
        refused(&with(part, value), &words);
    }
    let model = json!({"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "<none>"});
    refused(&with("/model", model), &["unk_token", "<none>"]);
    let text = with("/decoder", Value::Null).to_string().replace("\"decoder\":null", r#""decoder":{"type":"\ud800"}"#);
    assert!(Tokenizer::from_json("tokenizer.json", text.as_bytes(), None).is_err_and(|e| e.to_string().contains("tokenizer.json")));
    for pattern in ["(?=a)", "\\b", "^", "a|"] {
        let replace = json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": "y"});
        refused(&with("/normalizer", json!({"type": "Sequence", "normalizers": [replace, {"type": "NFC"}]})), &["Regex", "empty"]);
    }
    let thousands = json!({"type": "Split", "pattern": {"Regex": r"(?=(\d{3})+(?!\d))"}, "behavior": "Isolated", "invert": false});
    assert!(open(&with("/pre_tokenizer", json!({"type": "Sequence", "pretokenizers": [thousands, {"type": "ByteLevel", "use_regex": false, "add_prefix_space": false, "trim_offsets": false}]}))).is_ok());
    // Sixty doublings of a letter.
    let doubling = vec![json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}); 60];
    refused(&with("/normalizer", json!({"type": "Sequence", "normalizers": doubling})), &["normalizer", "longer"]);
    let deep = (0..50).fold(json!({"type": "NFC"}), |inner, _| json!({"type": "Sequence", "normalizers": [inner]}));
    refused(&with("/normalizer", deep), &["normalizer", "nests"]);
}

/// The library drops its trie one call a byte, and compares each place of a text with the whole of a long token.
#[test]
fn tokens_longer_than_any_in_use_are_refused() {
    let unigram = |length: usize| {
        let mut file = with("/model", json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a".repeat(length), -1.0]]}));
        let spaces = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        (file["pre_tokenizer"], file["decoder"]) = (spaces.clone(), spaces);
        file
    };
    for length in [1025, 40_000, 160_000] {
        refused(&unigram(length), &["token 1 of `model.vocab`", &length.to_string(), "at most 1024"]);
    }
    assert!(open(&unigram(1024)).and_then(|t| t.encode(&"a".repeat(40_000), false)).is_ok_and(|ids| !ids.is_empty()));
    let mut long = with("/version", json!("1.0"));
    long["model"]["vocab"]["a".repeat(4097)] = json!(7);
    refused(&long, &["token 7 of `model.vocab`", "4097 bytes, at most 4096"]);
    refused(&with("/added_tokens/0/content", json!("a".repeat(5000))), &["added_tokens", "5000 bytes, at most 4096"]);
}

#[test]
fn replacements_that_make_a_text_much_longer_are_refused() {
    let fourfold = |n: usize| {
        let parts = vec![json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"}); n];
        with("/normalizer", json!({"type": "Sequence", "normalizers": parts}))
    };
    refused(&fourfold(4), &["`Replace` of `normalizer`", "more than 16 times longer"]);
    assert!(open(&fourfold(2)).is_ok());
}

#[test]
fn added_tokens_that_lose_their_place_are_refused() {
    let token = |id: u32, content: &str, side: &str, normalized: bool| {
        let mut token = json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": normalized, "special": true});
        token[side] = true.into();
        token
    };
    refused(&with("/added_tokens", json!([token(5, "<s>", "rstrip", false), token(6, " ", "lstrip", false)])), &["added token", "spaces"]);
    let mut file = with("/added_tokens", json!([token(7, "  ", "special", true)]));
    file["normalizer"] = json!({"type": "Strip", "strip_left": true, "strip_right": true});
    refused(&file, &["added token", "nothing"]);
    assert!(open(&with("/added_tokens", json!([token(5, "<s>", "rstrip", false), token(6, "<x>", "lstrip", false)]))).is_ok());
}

#[test]
fn what_stands_around_a_text_is_read_from_every_post_processor() {
    let around = |processor: Value| open(&with("/post_processor", processor)).and_then(|t| t.encode("ab", true)).expect("encodes");
    let template = |first: &str| {
        json!({"type": "TemplateProcessing", "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [5], "tokens": ["<s>"]}, "b": {"id": "b", "ids": [1], "tokens": ["b"]}},
        "single": [{"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "b", "type_id": 0}}]})
    };
    assert_eq!(around(template("<s>")), [5, 2, 1]);
    let nested = json!({"type": "Sequence", "processors": [{"type": "ByteLevel", "trim_offsets": true}, template("<s>"), template("b")]});
    assert_eq!(around(nested), [1, 5, 2, 1, 1]);
    let roberta = json!({"type": "RobertaProcessing", "sep": ["b", 1], "cls": ["<s>", 5], "trim_offsets": true, "add_prefix_space": false});
    assert_eq!(around(roberta), [5, 2, 1]);
    assert_eq!(around(Value::Null), [2]);
}

#[test]
fn a_tokenizer_json_beside_a_gguf_file_takes_the_place_of_its_own() {
    let mut gguf = GgufFile::llama();
    gguf.set(kv_str("tokenizer.ggml.model", "gpt2")).set(kv_str("tokenizer.ggml.pre", "nobody-knows"));
    gguf.set(kv_str("tokenizer.chat_template", "from the file"));
    let mut model = gguf.open().expect("a model");
    assert!(Tokenizer::of_model(&model).is_err(), "its own is of an unknown kind");
    let json = with("/version", json!("1.0"));
    model.set_tokenizer("other.json".into(), json.to_string(), None);
    let tokenizer = Tokenizer::of_model(&model).expect("the other tokenizer");
    assert_eq!(tokenizer.encode("ab", false).expect("encodes"), [2]);
    assert_eq!(tokenizer.chat_template(), Some("from the file"));
    model.set_tokenizer("other.json".into(), json.to_string(), Some(r#"{"bos_token": "<s>", "chat_template": "from beside"}"#.into()));
    let tokenizer = Tokenizer::of_model(&model).expect("the other tokenizer");
    assert_eq!((tokenizer.chat_template(), tokenizer.bos()), (Some("from beside"), Some(5)));
    // Another model's: most of the tokens that the file lists are others.
    let mut own = GgufFile::llama();
    let listed: Vec<u8> =
        ["x0", "x1", "x2", "x3", "x4", "<s>"].iter().flat_map(|t| [&(t.len() as u64).to_le_bytes()[..], t.as_bytes()].concat()).collect();
    own.set(kv_str("tokenizer.ggml.model", "gpt2")).set(kv_array("tokenizer.ggml.tokens", 8, 6, &listed));
    let mut other = own.open().expect("a model");
    other.set_tokenizer("other.json".into(), json.to_string(), None);
    let refused = Tokenizer::of_model(&other).err().expect("other tokens").to_string();
    assert!(refused.contains("other.json: ") && refused.contains("others than the model's: token 0 is"), "{refused}");
    // However few of the model's tokens it has.
    let many: Vec<u8> = (0..500).flat_map(|i| format!("t{i:03}").into_bytes()).collect::<Vec<u8>>();
    let many: Vec<u8> = many.chunks(4).flat_map(|token| [&4u64.to_le_bytes()[..], token].concat()).collect();
    own.set(kv_array("tokenizer.ggml.tokens", 8, 500, &many));
    if let Ok(mut large) = own.open() {
        large.set_tokenizer("other.json".into(), json.to_string(), None);
        assert!(Tokenizer::of_model(&large).is_err_and(|e| e.to_string().contains("others than the model's")));
    }
    // Ids that the model has no rows for.
    let large = with("/added_tokens/0/content", json!("<new>"));
    let mut large = large;
    large["model"]["vocab"]["far"] = json!(model.config.vocab_size);
    model.set_tokenizer("other.json".into(), large.to_string(), None);
    assert!(Tokenizer::of_model(&model).is_err_and(|e| e.to_string().contains("other.json: it has token ids up to")));
}
