//! The flags of `train`, and how they join with a run file.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use weblora::adapters::METHODS;
use weblora::settings::Map;
use weblora::train::keys::EXCLUSIVE;
use weblora::{Error, Result};

use super::device::DeviceArgs;
use super::files;
use super::method_args::MethodArgs;
use super::rows;
use super::setting_args::{self, SettingArgs};

/// Arguments of `train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Keys of run files.
    #[command(flatten)]
    settings: SettingArgs,
    /// Those of the methods.
    #[command(flatten)]
    method_options: MethodArgs,
    /// The GPU.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Take settings from a TOML file with the flags' names as keys; flags win.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Go on from the checkpoint in --out.
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Replace an adapter in --out.
    #[arg(long)]
    pub overwrite: bool,
}

impl TrainArgs {
    /// Every key that a run file may have, with those of all methods.
    pub fn keys() -> Vec<&'static str> {
        let of_methods = METHODS.iter().flat_map(|method| method.options).map(|option| option.key);
        let mut keys: Vec<&str> = setting_args::all().map(|key| key.key).chain(of_methods).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The settings of the run file and the flags together; a flag wins.
    pub fn settings(&self) -> Result<Map> {
        let mut map = match &self.config {
            Some(path) => parse_run_file(&path.display().to_string(), &files::read_text(path)?)?,
            None => Map::new(),
        };
        for (key, value) in self.settings.0.iter().chain(&self.method_options.0) {
            // A flag replaces whichever the file has of two that say the same thing in two ways.
            for pair in EXCLUSIVE.iter().filter(|pair| pair.contains(&key.as_str())) {
                pair.iter().for_each(|one| drop(map.shift_remove(*one)));
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
    use weblora::train::TrainConfig;
    use weblora::train::keys::{KEYS, describe};

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

    /// Keys of run files, flags and fields of forms: the same three times, for every method.
    #[test]
    fn every_key_is_a_flag_and_a_field() {
        use clap::CommandFactory;
        let command = Cli::command();
        let flags: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
        let is_flag = |key: &str| flags.contains(&key) || flags.contains(&format!("no-{key}").as_str());
        let all = json!({"model": "m", "tokenizer": "t", "data": "d", "init-adapter": "a", "steps": 1, "batch-rows": 2, "loss": "dpo",
            "rank-pattern": {"q_proj": 1}, "alpha-pattern": {"q_proj": 1}});
        for method in METHODS {
            let mut map = if method.chain.is_some() { Map::new() } else { all.as_object().expect("an object").clone() };
            map.insert("method".into(), method.name.into());
            let mut config = TrainConfig::from_map(&map).expect("settings");
            (config.eval_data, config.epochs) = (vec!["e".into()], Some(1));
            config.memory = Some(1 << 30);
            (config.data_weights, config.data_temperature) = (Some(vec![1.0]), Some(2.0));
            (config.context.context, config.context.group, config.context.group_ratio) = (Some(512), Some(32), Some(0.25));
            config.context.rope_scaling = weblora::model::stretch::Stretch::by_name("yarn").ok();
            (config.chat_template, config.date) = (Some("chatml".into()), "2024-07-26".parse().ok());
            let form = serde_json::to_value(describe(method.name).expect("a method")).expect("JSON");
            let fields: Vec<&str> = form.as_array().expect("a list").iter().filter_map(|field| field["key"].as_str()).collect();
            for key in config.to_map().keys().map(String::as_str) {
                assert!(is_flag(key), "no flag for {key}");
                assert!(TrainArgs::keys().contains(&key), "no key {key}");
                let is_place = setting_args::all().any(|one| one.key == key) && !KEYS.iter().any(|one| one.key == key);
                assert!(is_place || fields.contains(&key), "no field for {key} of {}", method.name);
            }
        }
        let others = ["config", "resume", "overwrite", "gpu", "require-gpu", "no-tune", "no-subgroups", "precision", "help"];
        for flag in flags.iter().filter(|flag| !others.contains(flag)) {
            let key = flag.strip_prefix("no-").unwrap_or(flag);
            assert!(TrainArgs::keys().contains(&key), "no setting for --{flag}");
        }
    }

    #[test]
    fn what_is_on_is_switched_off() {
        assert_eq!(Value::Object(settings(&["--no-recompute"])), json!({ "recompute": false }));
        assert_eq!(Value::Object(settings(&["--recompute", "on", "--strict-base"])), json!({ "strict-base": true, "recompute": "on" }));
        assert!(Cli::try_parse_from(["train", "--recompute", "on", "--no-recompute"]).is_err());
        assert!(Cli::try_parse_from(["train", "--steps", "1", "--epochs", "1"]).is_err());
        assert!(Cli::try_parse_from(["train", "--rank", "2.5"]).is_err() && Cli::try_parse_from(["train", "--shuffle"]).is_err());
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
