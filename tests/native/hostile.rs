//! Files that `make fuzz`, or a look for what it cannot reach, found to panic, hang or ask for memory without end; as small as they get.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use weblora::adapters::{Patterns, Projection, Site};
use weblora::analysis::report::report;
use weblora::analysis::svg;
use weblora::export::chain::Chain;
use weblora::export::folder::Folder;
use weblora::export::peft::{Note, PeftAdapter, PeftSite};
use weblora::export::rank_sum::{Weighted, rank_sum};
use weblora::export::update::site_factors;
use weblora::text::{GgufTokenizer, Tokenizer, read_rows};

use crate::formats::build::{GgufFile, kv_u32, open_gguf, refused, typed};

fn says<T>(result: weblora::Result<T>, words: &[&str]) {
    let text = refused(result);
    for word in words {
        assert!(text.contains(word), "{text:?} does not mention {word:?}");
    }
    assert!(text.len() < 400, "{} bytes of error: {text:?}", text.len());
}

#[test]
fn a_part_number_at_the_end_of_its_type() {
    let mut file = GgufFile::llama();
    file.set(kv_u32("split.count", 2)).set(("split.no".into(), typed(10, &u64::MAX.to_le_bytes())));
    says(open_gguf(vec![file.bytes()]), &["part 18446744073709551615 of 2", "1 files were given"]);
}

fn site(layer: usize, rank: usize, size: usize) -> PeftSite {
    let site = Site { layer, projection: Projection::Q };
    PeftSite { site, rank, alpha: 2.0, a: vec![0.5; rank * size], b: vec![0.25; rank * size] }
}

fn adapter(sites: Vec<PeftSite>, steps: u64) -> PeftAdapter {
    let note = Note { weblora: "0.1.0".into(), base_hash: "ab".into(), steps, ..Note::default() };
    PeftAdapter { sites, norms: Vec::new(), embeddings: None, rslora: false, blocks: 1, dropout: 0.0, base_name: None, note: Some(note) }
}

#[test]
fn steps_that_add_up_beyond_their_type() {
    let one = adapter(vec![site(0, 1, 4)], u64::MAX);
    let mut chain = Chain::of_one(one.clone());
    chain.extend("again", Chain::of_one(one.clone())).unwrap();
    assert_eq!(chain.merged().note.unwrap().steps, u64::MAX);
    let twice = [1.0, 2.0].map(|weight| Weighted { name: "one", adapter: &one, weight });
    assert_eq!(rank_sum(&twice).unwrap().note.unwrap().steps, u64::MAX);
}

/// The tensors of one site as a folder's file.
fn weights(module: &str, a: &[usize], b: &[usize]) -> Vec<u8> {
    let zeros = vec![0u8; 4 * a.iter().product::<usize>().max(b.iter().product())];
    let view = |shape: &[usize]| TensorView::new(Dtype::F32, shape.to_vec(), &zeros[..4 * shape.iter().product::<usize>()]).unwrap();
    let key = |half: &str| format!("base_model.model.{module}.{half}.weight");
    safetensors::serialize([(key("lora_A"), view(a)), (key("lora_B"), view(b))], None::<HashMap<String, String>>).unwrap()
}

fn read(config: &Value, weights: &[u8]) -> weblora::Result<PeftAdapter> {
    let config = config.to_string().into_bytes();
    PeftAdapter::read_alone(Folder { name: "x", config: &config, weights, note: None, chain: None })
}

#[test]
fn adapters_of_no_numbers_of_no_model_and_of_no_scale() {
    let config = json!({ "peft_type": "LORA", "r": 2, "target_modules": ["q_proj"] });
    let q = "model.layers.0.self_attn.q_proj";
    read(&config, &weights(q, &[2, 4], &[4, 2])).unwrap();
    says(read(&config, &weights(q, &[2, 0], &[0, 2])), &["layers.0.self_attn.q_proj", "hold no number"]);
    says(read(&config, &weights(q, &[2, 4], &[0, 2])), &["hold no number"]);
    for layer in [1024, usize::MAX - 1, usize::MAX] {
        let far = format!("model.layers.{layer}.self_attn.q_proj");
        says(read(&config, &weights(&far, &[2, 4], &[4, 2])), &[&layer.to_string(), "up to 1024 blocks"]);
    }
    let scaled = |key: &str, alpha: Value| {
        let mut config = config.clone();
        config[key] = alpha;
        read(&config, &weights(q, &[2, 4], &[4, 2]))
    };
    scaled("lora_alpha", json!(1e30)).unwrap();
    // What f32 cannot hold would become infinite when it is used.
    says(scaled("lora_alpha", json!(1e39)), &["lora_alpha", "1e+39"]);
    says(scaled("alpha_pattern", json!({ "q_proj": 1e39 })), &["alpha_pattern", "1e+39"]);
}

#[test]
fn patterns_that_never_end() {
    let compile = |pattern: &str| {
        let patterns = Patterns(vec![(pattern.to_owned(), 1.0)]);
        patterns.compile("rank-pattern").and_then(|matcher| matcher.find("model.layers.0.self_attn.q_proj"))
    };
    for pattern in [
        "(?:(?=a)){4294967295}",
        "a{4294967295}",
        "(?:(?:(?:(?=a){1000}){1000}){1000}){1000}",
        "(?:a{99999999999999999999})\\1",
        "x{1001,}",
    ] {
        says(compile(pattern), &["`rank-pattern`", "repeats more than 1000 times"]);
    }
    says(compile(&"(".repeat(100_000)), &["100000 bytes"]);
    says(compile(&"(".repeat(4000)), &["no regular expression"]);
    says(compile(r"(?:(?=(\w+))\1|.)*(?:(?=(\w+))\2|.)*(?:(?=(\w+))\3|.)*x"), &["cannot be matched"]);
    says(compile(r"[\w\d\s]{1000}[\p{L}]{99}"), &["no regular expression", "error building"]);
    let many =
        |pattern: &dyn Fn(usize) -> String, count: usize| Patterns((0..count).map(|i| (pattern(i), 1.0)).collect()).compile("x").map(drop);
    says(many(&|i| format!("q_proj|{i}"), 257), &["257 patterns", "at most 2048, 256 of them"]);
    says(many(&|i| format!("layers.{i}"), 2049), &["2049 patterns"]);
    many(&|i| format!("model.layers.{i}.self_attn.q_proj"), 2048).unwrap();
}

#[test]
fn names_mean_what_they_mean_as_regular_expressions() {
    let paths = ["model.layers.0.self_attn.q_proj", "model.layers.10.mlp.up_proj", "q_proj", "x.q_proj", "", "a."];
    let names = [
        "",
        "q_proj",
        "proj",
        "_proj",
        "self_attn.q_proj",
        "selfXattn",
        "self.attn.q_proj",
        "layers.0",
        "model.layers.0.self_attn.q_proj",
        ".",
        "..",
        "0.mlp.up_proj",
        "l..0.mlp.up_proj",
        "model.layers.10.mlp.up-proj",
    ];
    let mut covered = 0;
    for name in names {
        // A group without a name says the same and is no plain name.
        let [plain, regex] = [name.to_owned(), format!("(?:{name})")].map(|pattern| Patterns(vec![(pattern, 3.0)]));
        let (plain, regex) = (plain.compile("x").unwrap(), regex.compile("x").unwrap());
        for path in paths {
            let found = plain.find(path).unwrap();
            assert_eq!(found, regex.find(path).unwrap(), "{name:?} on {path:?}");
            covered += usize::from(found.is_some());
        }
    }
    assert!(covered > 8, "{covered}");
}

#[test]
fn a_hundred_thousand_choices() {
    let choices: Vec<String> = (0..100_000).map(|i| format!(" {i}")).collect();
    let mut row = json!({ "prompt": "p", "completion": " 7", "choices": choices });
    assert_eq!(read_rows("rows", row.to_string().as_bytes()).unwrap().len(), 1);
    row["choices"][99_999] = json!(" 50000");
    says(read_rows("rows", row.to_string().as_bytes()), &["row 1", "`choices` has \" 50000\" twice"]);
}

#[test]
fn a_vocabulary_of_one_long_piece() {
    let meta = |length: usize| GgufTokenizer {
        model: "llama".into(),
        tokens: vec!["<unk>".into(), "a".repeat(length)],
        scores: vec![0.0; 2],
        unknown_token_id: Some(0),
        ..GgufTokenizer::default()
    };
    Tokenizer::from_gguf("t", meta(256)).unwrap();
    says(Tokenizer::from_gguf("t", meta(1 << 20)).map(drop), &["token 1", "1048576 bytes, at most 256"]);
}

#[test]
fn pictures_of_numbers_at_the_ends_of_their_type() {
    for (alpha, value) in [(3e38, 3e38f32), (3e38, 1e-40), (1e-300, 1e-40), (3e38, 0.0)] {
        let mut one = adapter(vec![site(0, 2, 4), site(1023, 1, 4)], 1);
        for site in &mut one.sites {
            (site.alpha, site.a, site.b) = (alpha, vec![value; site.a.len()], vec![value; site.b.len()]);
        }
        let parts = [one.clone(), one];
        let found = report("x", &site_factors(&parts).unwrap(), true);
        for (name, picture) in svg::of_adapter(&found) {
            assert!(picture.ends_with("</svg>\n"), "{name}");
        }
    }
}

#[test]
fn a_chain_of_thousands_of_links_is_taken_apart_in_a_moment() {
    let links = 4000;
    let whole = adapter(vec![site(0, links, 8)], 1);
    let link = json!({ "rank": 1, "alpha": 2.0, "steps": 1 });
    let manifest = json!({ "version": 1, "base_hash": "ab", "cumulative": true, "links": vec![link; links] }).to_string();
    let chain = Chain::read_chain("x", whole.clone(), Some(manifest.as_bytes())).unwrap();
    assert_eq!((chain.links.len(), chain.manifest().links.len()), (links, links));
    assert_eq!(chain.merged().sites[0].a, whole.sites[0].a);
    let parts = chain.split();
    says(site_factors(&parts), &["`links`", "4000 links, at most 64"]);
    assert_eq!(site_factors(&parts[..64]).unwrap()[0].links.len(), 64);
}
