//! The flags of `train`, and how they join with a run file.

use std::path::PathBuf;

use clap::Args;
use serde::{Serialize, Serializer};
use serde_json::Value;
use weblora::settings::Map;
use weblora::{Error, Result};

use super::device::DeviceArgs;
use super::files;
use super::method_args::MethodArgs;
use super::rows;

/// Arguments of `train`. Every flag but the last five is a key of run files, and serialises to it.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrainArgs {
    /// Base model: a GGUF file, a safetensors file, or a folder with either.
    #[arg(long, value_name = "PATH")]
    model: Option<String>,
    /// A tokenizer.json, or a folder with one, instead of the model's own tokenizer.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<String>,
    /// Quantise float weights when loading: nf4, q4_0, q8_0 or none.
    #[arg(long, value_name = "FORMAT")]
    quantize: Option<String>,
    /// Rows to train on, as JSON lines; repeat it for a mixture, whose losses are told by file.
    #[arg(long, value_name = "FILE")]
    data: Option<Vec<String>>,
    /// How much of each --data file to take, as 2,1; without it every row comes once an epoch.
    #[arg(long, value_name = "X,X,…", value_delimiter = ',', conflicts_with = "data_temperature", value_parser = finite)]
    data_weights: Option<Vec<f64>>,
    /// Take files of n rows in proportion to n^(1/T): 1 by size, larger is more even.
    #[arg(long, value_name = "T", value_parser = finite)]
    data_temperature: Option<f64>,
    /// Rows to evaluate on, as JSON lines; repeatable.
    #[arg(long, value_name = "FILE")]
    eval_data: Option<Vec<String>>,
    /// Share of each file's rows to hold out when there is no --eval-data.
    #[arg(long, value_name = "SHARE", value_parser = finite)]
    eval_split: Option<f64>,
    /// Steps between evaluations; 0 evaluates at the end only [default: 0].
    #[arg(long, value_name = "N")]
    eval_every: Option<u64>,
    /// Stop after this many evaluations without a lower loss; 0 never [default: 0].
    #[arg(long, value_name = "N")]
    patience: Option<u64>,
    /// Folder for the adapter, the settings and the checkpoint [default: adapter].
    #[arg(long, value_name = "DIR")]
    out: Option<String>,
    /// Steps between checkpoints; 0 saves at the end and when interrupted only [default: 100].
    #[arg(long, value_name = "N")]
    save_every: Option<u64>,
    /// Continue from the adapter in this PEFT folder.
    #[arg(long, value_name = "DIR")]
    init_adapter: Option<String>,
    /// Refuse an --init-adapter that was trained on another file of the base (Q4 for F16), instead of warning.
    #[arg(long, num_args = 0, default_missing_value = "true")]
    strict_base: Option<bool>,
    /// Name of the job in events [default: main].
    #[arg(long)]
    name: Option<String>,

    /// How the adapter is trained [default: lora].
    #[arg(long, help_heading = "Adapter")]
    method: Option<String>,
    /// Rank [default: 8].
    #[arg(long, help_heading = "Adapter", value_name = "R")]
    rank: Option<u64>,
    /// Numerator of the scale alpha / rank [default: twice the rank].
    #[arg(long, help_heading = "Adapter", value_name = "X", value_parser = finite)]
    alpha: Option<f64>,
    /// Layers to adapt: q, k, v, o, gate, up, down, a path such as layers.0.mlp.up_proj, or all-linear [default: all seven].
    #[arg(long, help_heading = "Adapter", value_name = "NAMES", value_delimiter = ',')]
    targets: Option<Vec<String>>,
    /// Another rank for the layers that a name or regular expression covers; repeatable.
    #[arg(long, help_heading = "Adapter", value_name = "PATTERN=R", value_parser = pattern)]
    #[serde(serialize_with = "patterns")]
    rank_pattern: Option<Vec<(String, f64)>>,
    /// Another alpha for the layers that a name or regular expression covers; repeatable.
    #[arg(long, help_heading = "Adapter", value_name = "PATTERN=X", value_parser = pattern)]
    #[serde(serialize_with = "patterns")]
    alpha_pattern: Option<Vec<(String, f64)>>,
    /// Probability that an element of an adapter's input is dropped [default: 0].
    #[arg(long, help_heading = "Adapter", value_name = "P", value_parser = finite)]
    dropout: Option<f64>,
    /// Train the weights of all norms, too, as LongLoRA does; they have no weight decay.
    #[arg(long, help_heading = "Adapter", num_args = 0, default_missing_value = "true")]
    train_norms: Option<bool>,
    /// Train the embeddings of the tokens that occur in the rows, too; a tied head stays the base's. They have no weight decay.
    #[arg(long, help_heading = "Adapter", num_args = 0, default_missing_value = "true")]
    train_embeddings: Option<bool>,
    #[command(flatten)]
    #[serde(flatten)]
    method_options: MethodArgs,

    /// Optimizer steps.
    #[arg(long, help_heading = "Run", value_name = "N", conflicts_with = "epochs")]
    steps: Option<u64>,
    /// Passes over the data [default: 1, more for few rows: at least 60 steps].
    #[arg(long, help_heading = "Run", value_name = "N")]
    epochs: Option<u64>,
    /// Most rows in a micro-batch, as other trainers' batch size; without it as many as fit into --batch sequences.
    #[arg(long, help_heading = "Run", value_name = "N")]
    batch_rows: Option<u64>,
    /// Sequences in a micro-batch: N x --seq tokens, which short rows share [default: --batch-rows, or 4].
    #[arg(long, help_heading = "Run", value_name = "N")]
    batch: Option<u64>,
    /// Longest row in tokens [default: --context, or 512].
    #[arg(long, help_heading = "Run", value_name = "N")]
    seq: Option<u64>,
    /// Tokens that the model is to read after the run; --seq where that is not given.
    #[arg(long, help_heading = "Long context", value_name = "N")]
    context: Option<u64>,
    /// Shifted sparse attention in training: rows of a group, an even number.
    #[arg(long, help_heading = "Long context", value_name = "N", conflicts_with = "group_ratio")]
    group: Option<u64>,
    /// Shifted sparse attention in training: rows of a group as a share of --seq.
    #[arg(long, help_heading = "Long context", value_name = "SHARE", value_parser = finite)]
    group_ratio: Option<f64>,
    /// How rotary angles are stretched where --context is longer than the model's: linear, dynamic, llama3 or yarn [default: as
    /// the model's are, else linear].
    #[arg(long, help_heading = "Long context", value_name = "NAME")]
    rope_scaling: Option<String>,
    /// Positions of training rows: row, or pose to spread short rows over the --context (PoSE) [default: row].
    #[arg(long, help_heading = "Long context", value_name = "NAME")]
    positions: Option<String>,
    /// Evaluate under the groups, too; without it only with full attention.
    #[arg(long, help_heading = "Long context", num_args = 0, default_missing_value = "true")]
    eval_group: Option<bool>,
    /// Micro-batches of one optimizer step [default: 1].
    #[arg(long, help_heading = "Run", value_name = "N")]
    grad_accum: Option<u64>,
    /// What is minimised: cross-entropy, or dpo over rows with a chosen and a rejected answer [default: cross-entropy].
    #[arg(long, help_heading = "Preferences", value_name = "NAME")]
    loss: Option<String>,
    /// DPO: how strongly answers are held to those of the base without the adapter [default: 0.1].
    #[arg(long, help_heading = "Preferences", value_name = "X", value_parser = finite)]
    dpo_beta: Option<f64>,
    /// DPO: what answers are held to: base, or start (the base with the links that --method cola --init-adapter goes on from) [default: base].
    #[arg(long, help_heading = "Preferences", value_name = "NAME")]
    dpo_reference: Option<String>,
    /// DPO: share of pairs that are taken to be the wrong way round [default: 0].
    #[arg(long, help_heading = "Preferences", value_name = "SHARE", value_parser = finite)]
    dpo_label_smoothing: Option<f64>,
    /// Seed of everything random [default: 0].
    #[arg(long, help_heading = "Run", value_name = "N")]
    seed: Option<u64>,
    /// Take the rows in the file's order.
    #[arg(long, help_heading = "Run", num_args = 0, default_missing_value = "true")]
    #[serde(rename = "shuffle", serialize_with = "negated")]
    no_shuffle: Option<bool>,
    /// Compute activations again instead of keeping them: on (slower, less memory), off, or auto: where they do not fit [default: auto].
    #[arg(long, help_heading = "Run", value_name = "WHEN", conflicts_with = "no_recompute")]
    #[serde(skip_serializing_if = "Option::is_none")]
    recompute: Option<String>,
    /// The same as --recompute off.
    #[arg(long, help_heading = "Run", num_args = 0, default_missing_value = "true")]
    #[serde(rename = "recompute", serialize_with = "negated", skip_serializing_if = "Option::is_none")]
    no_recompute: Option<bool>,
    /// Most GPU memory that the run may plan, such as "2 GiB"; without it activations are kept up to 2 GiB in all.
    #[arg(long, help_heading = "Run", value_name = "SIZE")]
    memory: Option<String>,

    /// Peak learning rate [default: 5e-4].
    #[arg(long, help_heading = "Optimizer", value_name = "X", value_parser = finite)]
    lr: Option<f64>,
    /// constant, linear or cosine [default: linear].
    #[arg(long, help_heading = "Optimizer", value_name = "NAME")]
    schedule: Option<String>,
    /// Steps of warm-up, or a share of all steps below 1 [default: 0.03].
    #[arg(long, help_heading = "Optimizer", value_name = "N", value_parser = finite)]
    warmup: Option<f64>,
    /// Largest norm of the gradients; 0 clips nothing [default: 1].
    #[arg(long, help_heading = "Optimizer", value_name = "X", value_parser = finite)]
    clip: Option<f64>,
    /// AdamW's weight decay [default: 0].
    #[arg(long, help_heading = "Optimizer", value_name = "X", value_parser = finite)]
    weight_decay: Option<f64>,
    /// AdamW's decay of the first moment [default: 0.9].
    #[arg(long, help_heading = "Optimizer", value_name = "X", value_parser = finite)]
    beta1: Option<f64>,
    /// AdamW's decay of the second moment [default: 0.999].
    #[arg(long, help_heading = "Optimizer", value_name = "X", value_parser = finite)]
    beta2: Option<f64>,
    /// AdamW's epsilon [default: 1e-8].
    #[arg(long, help_heading = "Optimizer", value_name = "X", value_parser = finite)]
    eps: Option<f64>,

    /// How rows become text: auto, plain, chat or alpaca [default: auto].
    #[arg(long, help_heading = "Rows", value_name = "NAME")]
    format: Option<String>,
    /// Chat template: a Jinja file, or chatml, llama3, mistral, gemma or alpaca [default: the model's own].
    #[arg(long, help_heading = "Rows", value_name = "FILE|NAME")]
    chat_template: Option<String>,
    /// The day that chat templates take for today [default: the day on which the run begins].
    #[arg(long, help_heading = "Rows", value_name = "YYYY-MM-DD")]
    date: Option<String>,
    /// Write words of the assistant that the chat template leaves out, such as reasoning.
    #[arg(long, help_heading = "Rows", num_args = 0, default_missing_value = "true")]
    keep_reasoning: Option<bool>,
    /// Read control tokens in prompts and completions; text rows always do, messages never.
    #[arg(long, help_heading = "Rows", num_args = 0, default_missing_value = "true")]
    parse_special: Option<bool>,
    /// Train on prompts too.
    #[arg(long, help_heading = "Rows", num_args = 0, default_missing_value = "true")]
    train_on_prompt: Option<bool>,
    /// Rows longer than --seq: truncate, refuse, or join all rows and cut them into pieces of --seq tokens [default: truncate].
    #[arg(long, help_heading = "Rows", value_name = "NAME")]
    overlong: Option<String>,

    /// The GPU.
    #[command(flatten)]
    #[serde(skip)]
    pub device: DeviceArgs,
    /// Take settings from a TOML file with the flags' names as keys; flags win.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Go on from the checkpoint in --out.
    #[arg(long, conflicts_with = "overwrite")]
    #[serde(skip)]
    pub resume: bool,
    /// Replace an adapter in --out.
    #[arg(long)]
    #[serde(skip)]
    pub overwrite: bool,
}

/// A number that JSON can hold: NaN would count as not given.
pub fn finite(text: &str) -> std::result::Result<f64, String> {
    text.trim().parse().ok().filter(|x: &f64| x.is_finite()).ok_or_else(|| format!("{text:?} is no number"))
}

fn pattern(text: &str) -> std::result::Result<(String, f64), String> {
    let (pattern, number) = text.rsplit_once('=').ok_or("expected PATTERN=NUMBER")?;
    Ok((pattern.to_owned(), finite(number)?))
}

// serde's signature for `serialize_with`.
#[expect(clippy::ref_option)]
fn patterns<S: Serializer>(patterns: &Option<Vec<(String, f64)>>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match patterns {
        Some(patterns) => serializer.collect_map(patterns.iter().map(|(pattern, x)| (pattern, x))),
        None => serializer.serialize_none(),
    }
}

#[expect(clippy::ref_option)]
fn negated<S: Serializer>(flag: &Option<bool>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    flag.map(|on| !on).serialize(serializer)
}

impl TrainArgs {
    /// Every key that a run file may have: the flags of all methods, those that switch something off without their `no-`.
    pub fn keys() -> Vec<String> {
        let command = Self::augment_args(clap::Command::new("train"));
        let others = ["config", "resume", "overwrite", "gpu", "require-gpu", "no-tune", "no-subgroups", "precision", "help"];
        let flags = command.get_arguments().filter_map(|arg| arg.get_long()).filter(|flag| !others.contains(flag));
        let mut keys: Vec<String> = flags.map(|flag| flag.strip_prefix("no-").unwrap_or(flag).to_owned()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// The settings of the run file and the flags together; a flag wins.
    pub fn settings(&self) -> Result<Map> {
        let mut map = match &self.config {
            Some(path) => parse_run_file(&path.display().to_string(), &files::read_text(path)?)?,
            None => Map::new(),
        };
        let flags = serde_json::to_value(self).ok();
        for (key, value) in flags.as_ref().and_then(Value::as_object).into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            // The two say the same thing in two ways: a flag replaces whichever the file has.
            match key.as_str() {
                "steps" => drop(map.shift_remove("epochs")),
                "epochs" => drop(map.shift_remove("steps")),
                "group" => drop(map.shift_remove("group-ratio")),
                "group-ratio" => drop(map.shift_remove("group")),
                "data-weights" => drop(map.shift_remove("data-temperature")),
                "data-temperature" => drop(map.shift_remove("data-weights")),
                _ => {}
            }
            map.insert(key.clone(), value.clone());
        }
        if let Some(Value::String(template)) = map.get_mut("chat-template") {
            *template = rows::template(template)?;
        }
        Ok(map)
    }
}

/// The keys of a run file, in its order. Unknown ones are found when the settings are read.
pub(super) fn parse_run_file(file: &str, text: &str) -> Result<Map> {
    let broken = |e: toml::de::Error| {
        let line = e.span().map_or(1, |span| text[..span.start].lines().count().max(1));
        Error::format(format!("{file}, line {line}"), e.message().to_owned(), "write TOML: key = value, one a line")
    };
    // JSON has no NaN and no infinity: they would count as not given.
    let table: toml::Table = toml::from_str(text).map_err(broken)?;
    if let Some((key, value)) = table.iter().find(|(_, value)| !is_finite(value)) {
        return Err(Error::config(key.as_str(), format!("is {value} in {file}"), "give a finite number"));
    }
    toml::from_str(text).map_err(broken)
}

fn is_finite(value: &toml::Value) -> bool {
    match value {
        toml::Value::Float(x) => x.is_finite(),
        toml::Value::Array(items) => items.iter().all(is_finite),
        toml::Value::Table(table) => table.iter().all(|(_, value)| is_finite(value)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;
    use weblora::adapters::METHODS;
    use weblora::train::TrainConfig;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: TrainArgs,
    }

    fn settings(arguments: &[&str]) -> Map {
        Cli::try_parse_from([&["train"], arguments].concat()).expect("arguments").args.settings().expect("settings")
    }

    #[test]
    fn no_flag_no_setting() {
        assert_eq!(settings(&[]), Map::new());
    }

    #[test]
    fn every_setting_has_a_flag_and_every_flag_a_setting() {
        use clap::CommandFactory;
        let command = Cli::command();
        let flags: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
        let all = json!({"model": "m", "tokenizer": "t", "data": "d", "init-adapter": "a", "steps": 1, "batch-rows": 2, "loss": "dpo",
            "rank-pattern": {"q_proj": 1}, "alpha-pattern": {"q_proj": 1}});
        let mut config = TrainConfig::from_map(all.as_object().expect("an object")).expect("settings");
        (config.eval_data, config.epochs) = (vec!["e".into()], Some(1));
        config.memory = Some(1 << 30);
        (config.data_weights, config.data_temperature) = (Some(vec![1.0]), Some(2.0));
        (config.context.context, config.context.group, config.context.group_ratio) = (Some(512), Some(32), Some(0.25));
        config.context.rope_scaling = weblora::model::stretch::Stretch::by_name("yarn").ok();
        (config.chat_template, config.date) = (Some("chatml".into()), "2024-07-26".parse().ok());
        let keys = config.to_map();
        for key in keys.keys() {
            assert!(flags.contains(&key.as_str()) || flags.contains(&format!("no-{key}").as_str()), "no flag for {key}");
        }
        // A method has its own settings only; the flags are those of all methods.
        let of_method = |flag: &str| METHODS.iter().flat_map(|method| method.options).any(|spec| spec.key == flag);
        let others = ["config", "resume", "overwrite", "gpu", "require-gpu", "no-tune", "no-subgroups", "precision", "help"];
        for flag in flags.iter().filter(|flag| !others.contains(flag) && !of_method(flag)) {
            assert!(keys.contains_key(flag.trim_start_matches("no-")), "no setting for --{flag}");
        }
    }

    #[test]
    fn flags_become_settings() {
        let map = settings(&[
            "--rank=4",
            "--targets",
            "q,v",
            "--no-shuffle",
            "--rslora",
            "--lora-plus",
            "16",
            "--rank-pattern",
            "a=b=2",
            "--rank-pattern",
            "c=3",
            "--lr",
            "1e-3",
        ]);
        let expected = json!({"rank": 4, "targets": ["q", "v"], "rank-pattern": {"a=b": 2.0, "c": 3.0}, "rslora": true, "lora-plus": 16, "shuffle": false, "lr": 1e-3});
        assert_eq!(Value::Object(map), expected);
    }

    #[test]
    fn a_mixture_is_several_files_with_weights() {
        let map = settings(&["--data", "a,b.jsonl", "--data", "c.jsonl", "--data-weights", "2,1"]);
        assert_eq!(Value::Object(map.clone()), json!({"data": ["a,b.jsonl", "c.jsonl"], "data-weights": [2.0, 1.0]}));
        assert_eq!(TrainConfig::from_map(&map).expect("settings").data, ["a,b.jsonl", "c.jsonl"]);
        let one = TrainConfig::from_map(&settings(&["--data", "a,b.jsonl"])).expect("settings");
        assert_eq!(one.to_map()["data"], json!("a,b.jsonl"));
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.toml");
        std::fs::write(&path, "rank = 2\nepochs = 3\nshuffle = false\ntargets = [\"k\"]\n[rank-pattern]\nz = 1\na = 2\n").expect("written");
        let map = settings(&["--config", &path.display().to_string(), "--rank", "16", "--steps", "9"]);
        assert_eq!(map["rank"], json!(16));
        assert_eq!(map["targets"], json!(["k"]));
        assert_eq!(map["rank-pattern"].to_string(), r#"{"z":1,"a":2}"#);
        assert_eq!((map.get("epochs"), &map["steps"]), (None, &json!(9)));
    }

    #[test]
    fn a_broken_file_is_refused_with_its_line() {
        let error = parse_run_file("run.toml", "rank = 2\nlr = = 3\n").expect_err("broken").to_string();
        assert!(error.starts_with("run.toml, line 2: "), "{error}");
        for text in ["rank = 2\nlr = nan\n", "lr = -inf", "lr = 1e-3\n[alpha-pattern]\nq_proj = nan", "link-lrs = [1.0, inf]"] {
            let error = parse_run_file("run.toml", text).expect_err("not finite").to_string();
            assert!(error.contains("finite number"), "{error}");
        }
    }

    #[test]
    fn numbers_are_finite() {
        let parse = |arguments: &[&str]| Cli::try_parse_from([&["train"], arguments].concat());
        for arguments in [
            ["--lr", "nan"],
            ["--lr", "inf"],
            ["--warmup", "NaN"],
            ["--data-weights", "1,nan"],
            ["--alpha-pattern", "q=inf"],
            ["--lora-plus", "nan"],
        ] {
            assert!(parse(&arguments).is_err(), "{arguments:?}");
        }
        assert!(parse(&["--lr", " 1e-3"]).is_ok());
    }
}
