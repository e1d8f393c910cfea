//! Run files, patterns and checkpoints.

use std::collections::HashMap;

use safetensors::tensor::{SafeTensors, TensorView};
use serde_json::{Value, json};
use weblora::adapters::{AdapterLayout, METHODS, Patterns, Site};
use weblora::config::ModelConfig;
use weblora::formats::parse_config;
use weblora::rng::{FNV_OFFSET, fnv1a_bytes};
use weblora::settings::Map;
use weblora::text::Example;
use weblora::train::batch::{Cursor, Packer};
use weblora::train::checkpoint::{Buffers, State, write};
use weblora::train::kernels::KernelChoices;
use weblora::train::progress::Progress;
use weblora::train::{Checkpoint, TrainConfig, keys};
use weblora::{Error, Result};

use super::golden;
use crate::driver::Parser;
use crate::input::{Input, json as json_part, safetensors as tensors_part, text};

pub static RUN_FILE: Parser = Parser { name: "run_file", seeds: run_seeds, dictionary: setting_words, run: read_run };
pub static PATTERNS: Parser = Parser { name: "patterns", seeds: pattern_seeds, dictionary: pattern_words, run: read_patterns };
pub static CHECKPOINT: Parser =
    Parser { name: "checkpoint", seeds: checkpoint_seeds, dictionary: setting_words, run: |input| read_checkpoint(&input[0].bytes) };
/// Checkpoints whose checksum is right whatever was changed.
pub static FORGED_CHECKPOINT: Parser =
    Parser { name: "forged_checkpoint", seeds: forged_seeds, dictionary: setting_words, run: |input| read_checkpoint(&forge(input)?) };

pub fn model() -> ModelConfig {
    parse_config("config.json", &String::from_utf8_lossy(&golden("tiny_llama/config.json"))).unwrap()
}

pub fn setting_words() -> Vec<&'static str> {
    let methods = METHODS.iter().flat_map(|method| method.options.iter().map(|option| option.key).chain([method.name]));
    let more = [
        "name",
        "model",
        "data",
        "quantize",
        "eval-data",
        "init-adapter",
        "out",
        "data-weights",
        "data-temperature",
        "q4_0",
        "none",
        "q,v",
        "all-linear",
        "layers.0.mlp.up_proj",
        "constant",
        "linear",
        "cosine",
        "true",
        "false",
        "[",
        "]",
        "[[job]]",
        "[rank-pattern]",
        "= ",
        "\"",
        "1e400",
        "inf",
        "nan",
        "0x7fffffffffffffff",
        "1979-05-27",
        "'''",
        "{a = 1}",
        "link",
        "global",
        "jagged",
        "reset",
        "keep",
        "random",
        "rac",
        "f16",
        "out",
        "scalar",
        "step",
        "cursor",
        "epoch",
        "next",
        "waiting",
        "stage",
        "begun",
        "ends",
        "links",
        "rank",
        "ranks",
        "state",
        "version",
    ];
    keys::KEYS.iter().map(|key| key.key).chain(methods).chain(more).collect()
}

const RUNS: &[&str] = &[
    "model = \"m.gguf\"\ndata = \"d.jsonl\"\nrank = 4\nalpha = 8\ntargets = [\"q\", \"down\"]\nsteps = 10\nlr = 1e-3\nwarmup = 0.1\nbatch = 2\nseq = 64\n\
     [rank-pattern]\n\"layers.0.mlp.down_proj\" = 2\n",
    "method = \"cola\"\nlinks = [4, 2]\nknots = [5]\nsteps = 10\nknot-optimizer = \"magnitude\"\nlink-schedule = \"jagged\"\nlink-storage = \"f16\"\n\
     eval-every = 2\nknot-patience = 2\n",
    "method = \"cola\"\nlink-epochs = [1, 2, 3]\nlink-lrs = [1e-3, 1e-4, 1e-5]\nlink-alphas = [8, 8, 8]\ninit-a = \"gaussian\"\n",
    "method = \"multilora\"\nmodules = 3\nscale = \"scalar\"\nrslora = true\ndata = [\"a.jsonl\", \"b.jsonl\"]\ndata-weights = [2, 1]\nepochs = 3\n\
     eval-data = [\"c.jsonl\"]\npatience = 1\neval-every = 1\n",
];

fn run_seeds() -> Vec<Input> {
    RUNS.iter().map(|run| vec![text(*run)]).collect()
}

pub fn examples() -> Vec<Example> {
    (1..=5).map(|n| Example { tokens: vec![1; 3 * n], targets: (0..3 * n).map(|i| i > 0).collect(), row: n, rejected: None }).collect()
}

fn read_run(input: &Input) -> Result<()> {
    let wrong = |e: String| Error::format("run.toml", e, "write TOML");
    let text = String::from_utf8(input[0].bytes.clone()).map_err(|e| wrong(e.to_string()))?;
    read_settings(&toml::from_str(&text).map_err(|e| wrong(e.to_string()))?)
}

/// What a run does with its settings before it needs a device.
fn read_settings(map: &Map) -> Result<()> {
    let config = TrainConfig::from_map(map)?;
    let again = TrainConfig::from_map(&config.to_map()).expect("what was written is read");
    assert_eq!(again.to_map(), config.to_map(), "what was written means the same");
    config.check_resume(&config.to_map())?;
    for total in [1, 10, u64::MAX] {
        let schedule = config.schedule(total);
        for step in [0, 1, total / 2, total - 1] {
            assert!(
                schedule.lr(step) >= 0.0 && schedule.lr(step) <= config.lr,
                "a rate of {} at step {step} of {total}",
                schedule.lr(step)
            );
        }
    }
    let layout = config.adapter.layout(&model())?;
    assert!(layout.params.trainable() > 0);
    Ok(())
}

fn pattern_words() -> Vec<&'static str> {
    vec![
        "q_proj",
        ".*",
        "(",
        ")",
        "[",
        "]",
        "{1000}",
        "{1000}{1000}",
        "+",
        "*",
        "?",
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        "(a|aa)+$",
        "(?:(?=a){1000}){1000}",
        "(.*)*x",
        "\\1",
        "(a*)*\\1",
        "\\d+",
        "\\p{L}",
        "[^",
        "(?i)",
        "(?P<x>a)",
        "(?(1)a|b)",
        "|",
        "^",
        "$",
        "\\",
        "\\K",
        "layers\\.[0-9]+\\.",
        "(?>a)",
        "a{0,4294967295}",
        "\u{1F600}",
        "(?R)",
        "\\G",
        "(?x)",
        "(?s:.)",
    ]
}

fn pattern_seeds() -> Vec<Input> {
    let seeds = [
        json!({ "q_proj": 4, "layers.0.mlp.down_proj": 2.0 }),
        json!({ ".*\\.self_attn\\.(q|k)_proj": 3, "(?!.*layers\\.0).*up_proj": 1 }),
        json!({ "^model\\.layers\\.[0-9]+\\.mlp\\..*": 16, "([a-z_])\\1": 2 }),
    ];
    seeds.map(|seed| vec![json_part(seed.to_string())]).into()
}

fn read_patterns(input: &Input) -> Result<()> {
    let value: Value = serde_json::from_slice(&input[0].bytes).map_err(|e| Error::format("patterns", e.to_string(), "write JSON"))?;
    let patterns = Patterns::from_json("rank-pattern", &value)?;
    let matcher = patterns.compile("rank-pattern")?;
    let sites: Vec<Site> = Site::all(&model()).collect();
    for site in &sites {
        matcher.find(&site.module())?;
    }
    matcher.find("model.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab")?;
    matcher.check_all_used(&sites).ok();
    Ok(())
}

fn layout(settings: Value) -> (TrainConfig, AdapterLayout) {
    let config = TrainConfig::from_map(settings.as_object().unwrap()).unwrap();
    let layout = config.adapter.layout(&model()).unwrap();
    (config, layout)
}

fn settings() -> [Value; 3] {
    [
        json!({ "rank": 2, "targets": "q,v", "steps": 4 }),
        json!({ "method": "cola", "links": [2, 1], "targets": "q", "steps": 4 }),
        json!({ "method": "multilora", "modules": 2, "rank": 2, "targets": "q", "steps": 4 }),
    ]
}

fn state(config: &TrainConfig) -> State {
    let chain = config.adapter.chain().unwrap().map(|_| {
        json!({
            "stage": 1, "begun": 2, "ends": [2, 4], "first_gap": 0.5, "best": 1.5, "stale": 0,
            "links": [{ "rank": 2, "alpha": 4.0, "steps": 2 }],
        })
    });
    State {
        version: weblora::train::checkpoint::VERSION,
        weblora: "0.1.0".into(),
        base_hash: "base".into(),
        data_hash: "rows".into(),
        config: config.to_map(),
        step: 3,
        tokens: 99,
        cursor: Cursor { epoch: 0, next: 3, waiting: vec![1] },
        progress: Progress::default(),
        lr_changes: Vec::new(),
        partial: None,
        kernels: Some(KernelChoices { device: "a GPU".into(), choices: [("case".to_owned(), "kernel A=1".to_owned())].into() }),
        embedding_tokens: Vec::new(),
        chain: chain.map(|chain| serde_json::from_value(chain).unwrap()),
    }
}

fn file(settings: Value) -> Vec<u8> {
    let (config, layout) = layout(settings);
    let words = layout.params.gradient_offsets().1;
    let buffers = Buffers { values: vec![0.5; layout.params.words], m: vec![0.0; words], v: vec![0.0; words], grads: None };
    write(&state(&config), &layout.params, &buffers).unwrap()
}

fn checkpoint_seeds() -> Vec<Input> {
    settings().map(|settings| vec![tensors_part(file(settings))]).into()
}

/// State and tensors apart, for [`forge`].
fn forged_seeds() -> Vec<Input> {
    let apart = |settings: Value| {
        let bytes = file(settings.clone());
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let plain = ::safetensors::serialize(read.tensors(), None).unwrap();
        vec![json_part(serde_json::to_string(&state(&layout(settings).0)).unwrap()), tensors_part(plain)]
    };
    settings().map(apart).into()
}

/// A checkpoint of any state and tensors, with the checksum that they should have.
fn forge(input: &Input) -> Result<Vec<u8>> {
    let wrong = |e: &dyn std::fmt::Display| Error::format("tensors", e.to_string(), "write safetensors");
    let state = String::from_utf8_lossy(&input[0].bytes).into_owned();
    let read = SafeTensors::deserialize(&input[1].bytes).map_err(|e| wrong(&e))?;
    let mut tensors: Vec<(String, TensorView<'_>)> = read.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hash = fnv1a_bytes(FNV_OFFSET, state.as_bytes());
    for (name, view) in &tensors {
        hash = fnv1a_bytes(hash, name.as_bytes());
        view.shape().iter().for_each(|&size| hash = fnv1a_bytes(hash, &(size as u64).to_le_bytes()));
        hash = fnv1a_bytes(hash, view.data());
    }
    let meta = json!({ "checksum": format!("{hash:016x}"), "state": state }).to_string();
    ::safetensors::serialize(tensors, Some(HashMap::from([("weblora".to_owned(), meta)]))).map_err(|e| wrong(&e))
}

fn read_checkpoint(bytes: &[u8]) -> Result<()> {
    let checkpoint = Checkpoint::read("checkpoint", bytes)?;
    checkpoint.check("base", "rows").ok();
    read_settings(&checkpoint.state.config)?;
    let config = TrainConfig::from_map(&checkpoint.state.config)?;
    checkpoint.modules()?;
    checkpoint.buffers(&config.adapter.layout(&model())?.params)?;
    let examples = examples();
    let mut packer = Packer::new(&examples, 20, config.seed, config.shuffle)?.resume(checkpoint.state.cursor.clone())?;
    (0..3).for_each(|_| drop(packer.next_batch(&examples)));
    assert!(packer.epochs_done() >= 0.0);
    Ok(())
}
