//! The table of a run's settings: flags of the command line with their help, keys of run files, fields of forms and TypeScript's types are made
//! from it and from the method table. `TrainConfig` reads them; a test keeps the two equal.

use serde::Serialize;
use serde_json::Value;

use crate::Result;
use crate::adapters::config::MAX_RANK;
use crate::adapters::{Method, OptionKind, OptionSpec};

/// What the value of a setting looks like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// As the settings of methods.
    Option(OptionKind),
    /// A list of names.
    Names,
    /// An object of numbers by name or regular expression.
    Patterns,
    /// A text.
    Text,
    /// A file or folder.
    Path,
    /// Several files.
    Paths,
}

/// A setting that every run has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// The heading that a help has it under; empty for none.
    pub section: &'static str,
    /// Kebab-case name.
    pub key: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// Its value when it is not given, as JSON; `null` when it is not set or follows from others.
    pub default: &'static str,
    /// One line.
    pub help: &'static str,
    /// The flag of the command line that switches it off, where it is on or may be.
    pub off: Option<&'static str>,
}

impl Key {
    const fn off(self, flag: &'static str) -> Key {
        Key { off: Some(flag), ..self }
    }
}

const fn row(section: &'static str, key: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { section, key, kind, default, help, off: None }
}
const fn count(section: &'static str, key: &'static str, min: u64, max: u64, default: &'static str, help: &'static str) -> Key {
    row(section, key, Kind::Option(OptionKind::Count { min, max }), default, help)
}
const fn number(section: &'static str, key: &'static str, min: f64, max: f64, default: &'static str, help: &'static str) -> Key {
    row(section, key, Kind::Option(OptionKind::Number { min, max }), default, help)
}
const fn choice(
    section: &'static str,
    key: &'static str,
    names: &'static [&'static str],
    default: &'static str,
    help: &'static str,
) -> Key {
    row(section, key, Kind::Option(OptionKind::Choice(names)), default, help)
}
const fn switch(section: &'static str, key: &'static str, default: &'static str, help: &'static str) -> Key {
    row(section, key, Kind::Option(OptionKind::Switch), default, help)
}

/// Largest whole number that JavaScript and JSON agree on.
const MANY: u64 = (1 << 53) - 1;
const ROWS: u64 = super::batch::MAX_ROWS as u64;

/// Headings of a help; files are under none.
const FILES: &str = "";
const ADAPTER: &str = "Adapter";
const RUN: &str = "Run";
const LONG: &str = "Long context";
const PREFERENCES: &str = "Preferences";
const OPTIMIZER: &str = "Optimizer";
const TEXT: &str = "Rows";

/// Names, files and what the base is: settings that a program or a page has other ways to give, and no form shows.
#[rustfmt::skip] // one row a setting
pub const PLACES: &[Key] = &[
    row(FILES, "model", Kind::Path, "null", "Base model: a GGUF file, a safetensors file, or a folder with either"),
    row(FILES, "tokenizer", Kind::Path, "null", "A tokenizer.json, or a folder with one, instead of the model's own tokenizer"),
    row(FILES, "quantize", Kind::Text, r#""none""#, "Quantise float weights when loading: nf4, q4_0, q8_0 or none"),
    row(FILES, "data", Kind::Paths, "null", "Rows to train on, as JSON lines; several files are a mixture, whose losses are told by file"),
    row(FILES, "eval-data", Kind::Paths, "null", "Rows to evaluate on, as JSON lines"),
    row(FILES, "out", Kind::Path, r#""adapter""#, "Folder for the adapter, the settings and the checkpoint"),
    row(FILES, "init-adapter", Kind::Path, "null", "Continue from the adapter in this PEFT folder"),
    row(FILES, "name", Kind::Text, r#""main""#, "Name of the job in events"),
    row(ADAPTER, "method", Kind::Text, r#""lora""#, "How the adapter is trained"),
];

/// Settings that say one thing in two ways: a run has one of the two.
pub const EXCLUSIVE: &[[&str; 2]] =
    &[["steps", "epochs"], ["group", "group-ratio"], ["data-weights", "data-temperature"], ["eval-data", "eval-split"]];

/// Every setting of a run but [`PLACES`] and the method's own, in the order of a form.
#[rustfmt::skip] // one row a setting
pub const KEYS: &[Key] = &[
    count(ADAPTER, "rank", 1, MAX_RANK as u64, "8", "Rank of the adapter"),
    number(ADAPTER, "alpha", 0.0, f64::MAX, "null", "Numerator of the scale alpha / rank; twice the rank when not given"),
    row(ADAPTER, "targets", Kind::Names, r#"["q","k","v","o","gate","up","down"]"#, "Layers to adapt: q, k, v, o, gate, up, down, or a module path"),
    row(ADAPTER, "rank-pattern", Kind::Patterns, "null", "Another rank for the layers that a name or regular expression covers"),
    row(ADAPTER, "alpha-pattern", Kind::Patterns, "null", "Another alpha for the layers that a name or regular expression covers"),
    number(ADAPTER, "dropout", 0.0, 1.0, "0", "Probability that an element of an adapter's input is dropped"),
    switch(ADAPTER, "train-norms", "false", "Train the weights of all norms too, as LongLoRA does; without weight decay"),
    switch(ADAPTER, "train-embeddings", "false", "Train the embeddings of the rows' tokens too; a tied head stays the base's; without weight decay"),
    count(RUN, "steps", 1, MANY, "null", "Optimizer steps; excludes epochs"),
    count(RUN, "epochs", 1, MANY, "null", "Passes over the rows; without it and without steps one, or more where the rows are few: at least 60 steps"),
    count(RUN, "batch", 1, ROWS, "4", "Sequences in a micro-batch: batch x seq tokens, which short rows share; batch-rows where that is given"),
    count(RUN, "batch-rows", 1, ROWS, "null", "Most rows in a micro-batch: what other trainers call the batch size; without it as many as fit"),
    count(RUN, "seq", 2, ROWS, "512", "Longest row in tokens; context where that is given"),
    count(LONG, "context", 2, ROWS, "null", "Tokens that the model is to read after the run; seq where that is not given"),
    count(LONG, "group", 2, ROWS, "null", "Shifted sparse attention: rows of a group, an even number; full attention when not given"),
    number(LONG, "group-ratio", 0.0, 1.0, "null", "Shifted sparse attention: rows of a group as a share of seq"),
    choice(LONG, "rope-scaling", &["linear", "dynamic", "llama3", "yarn"], "null", "How rotary angles are stretched where the context is longer than the model's; as the model's are, else linearly, when not given"),
    choice(LONG, "positions", &["row", "pose"], r#""row""#, "Positions of training rows: their own, or skipped ones that spread short rows over the context (PoSE)"),
    switch(LONG, "eval-group", "false", "Evaluations tell the loss under the groups, too; without it only that of full attention"),
    count(RUN, "grad-accum", 1, 1 << 16, "1", "Micro-batches of one optimizer step"),
    choice(PREFERENCES, "loss", &["cross-entropy", "dpo"], "null", "What is minimised: the loss of the trained tokens, or DPO's over rows with a chosen and a rejected answer; the former when not given"),
    number(PREFERENCES, "dpo-beta", 0.0, f64::MAX, "null", "DPO: how strongly answers are held to the reference's, the base without the adapter; 0.1 when not given"),
    choice(PREFERENCES, "dpo-reference", &["base", "start"], "null", "DPO: what answers are held to: the base without an adapter, or with the links that a chain goes on from; the former when not given"),
    number(PREFERENCES, "dpo-label-smoothing", 0.0, 0.5, "null", "DPO: share of pairs that are taken to be the wrong way round; 0 when not given"),
    number(OPTIMIZER, "lr", 0.0, f64::MAX, "0.0005", "Peak learning rate"),
    choice(OPTIMIZER, "schedule", &["constant", "linear", "cosine"], r#""linear""#, "What the learning rate does after the warm-up"),
    number(OPTIMIZER, "warmup", 0.0, f64::MAX, "0.03", "Steps of warm-up, or a share of all steps below 1"),
    number(OPTIMIZER, "clip", 0.0, f64::MAX, "1", "Largest norm of the gradients; 0 clips nothing"),
    number(OPTIMIZER, "weight-decay", 0.0, f64::MAX, "0", "AdamW's weight decay"),
    number(OPTIMIZER, "beta1", 0.0, 1.0, "0.9", "AdamW's decay of the first moment"),
    number(OPTIMIZER, "beta2", 0.0, 1.0, "0.999", "AdamW's decay of the second moment"),
    number(OPTIMIZER, "eps", 0.0, f64::MAX, "1e-8", "AdamW's epsilon"),
    count(RUN, "seed", 0, MANY, "0", "Seed of everything random"),
    switch(RUN, "shuffle", "true", "Shuffle the rows anew in every epoch").off("no-shuffle"),
    row(FILES, "data-weights", Kind::Option(OptionKind::Numbers), "null", "Share of each set of rows in a pass; its number of rows when not given"),
    number(FILES, "data-temperature", 0.0, f64::MAX, "null", "Shares of the sets of rows by size to the power 1 / T: 1 is by size, larger is more even"),
    choice(TEXT, "format", &["auto", "plain", "chat", "alpaca"], r#""auto""#, "How rows become text"),
    row(TEXT, "chat-template", Kind::Text, "null", "Chat template: chatml, llama3, mistral, gemma, alpaca, or Jinja; the model's own when not given"),
    row(TEXT, "date", Kind::Text, "null", "The day that chat templates take for today, as 2024-07-26; the day on which the run begins when not given"),
    switch(TEXT, "keep-reasoning", "false", "Write words of the assistant that the chat template leaves out"),
    switch(TEXT, "parse-special", "false", "Read control tokens in prompts and completions; text rows always do, messages never"),
    switch(TEXT, "train-on-prompt", "false", "Train on prompts too"),
    choice(TEXT, "overlong", &["truncate", "refuse", "join"], r#""truncate""#, "Rows longer than seq; join puts all rows end to end and cuts them into pieces of seq tokens"),
    number(FILES, "eval-split", 0.0, 1.0, "0", "Share of the rows to hold out when no held-out rows are given"),
    count(FILES, "eval-every", 0, MANY, "0", "Steps between evaluations; 0 evaluates at the end only"),
    count(FILES, "patience", 0, MANY, "0", "Stop after this many evaluations without a lower loss; 0 never"),
    count(FILES, "save-every", 0, MANY, "100", "Steps between checkpoints; 0 saves at the end and when interrupted only"),
    switch(FILES, "strict-base", "false", "Refuse an initial adapter that was trained on another file of the base, instead of warning"),
    choice(RUN, "recompute", &["auto", "on", "off", "nested"], r#""auto""#, "Compute activations again in the backward pass instead of keeping them: on keeps each block's input, nested (two-level checkpointing) the inputs of some blocks, which is slower still; auto takes the first of off, on, nested that fits").off("no-recompute"),
    row(RUN, "memory", Kind::Text, "null", "Most GPU memory that a run may plan, such as 2 GiB; without it activations are kept up to 2 GiB in all"),
];

/// A setting as a form needs it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Described {
    key: &'static str,
    kind: &'static str,
    default: Value,
    help: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    choices: Option<&'static [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
}

impl Described {
    fn new(key: &'static str, kind: Kind, default: Value, help: &'static str) -> Self {
        let mut made = Self { key, kind: "", default, help, method: None, choices: None, min: None, max: None };
        let bounds = |min: f64, max: f64| (Some(min), Some(max).filter(|max| *max < f64::MAX));
        made.kind = match kind {
            Kind::Names => "names",
            Kind::Patterns => "patterns",
            Kind::Text | Kind::Path | Kind::Paths => "text",
            Kind::Option(OptionKind::Switch) => "switch",
            Kind::Option(OptionKind::Counts) => "counts",
            Kind::Option(OptionKind::Numbers) => "numbers",
            Kind::Option(OptionKind::Number { min, max }) => {
                (made.min, made.max) = bounds(min, max);
                "number"
            }
            Kind::Option(OptionKind::Count { min, max }) => {
                (made.min, made.max) = bounds(min as f64, max as f64);
                "count"
            }
            Kind::Option(OptionKind::Choice(names)) => {
                made.choices = Some(names);
                "choice"
            }
        };
        made
    }
}

/// The settings of a run with `method`: the method's own first, then those of every run.
///
/// # Errors
/// When there is no such method.
pub fn describe(method: &str) -> Result<Vec<Described>> {
    let method = Method::by_name(method)?;
    let own = |spec: &'static OptionSpec| -> Result<Described> {
        Ok(Described {
            method: Some(method.name),
            ..Described::new(spec.key, Kind::Option(spec.kind), spec.parse(spec.default)?, spec.help)
        })
    };
    let mut all: Vec<Described> = method.options.iter().map(own).collect::<Result<_>>()?;
    all.extend(KEYS.iter().map(|k| Described::new(k.key, k.kind, serde_json::from_str(k.default).unwrap_or_default(), k.help)));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Map, one_of};
    use crate::train::TrainConfig;
    use serde_json::json;

    fn read(key: &str, value: Value) -> Result<TrainConfig> {
        let mut map = Map::from_iter([(key.to_owned(), value)]);
        if key == "patience" {
            map.insert("eval-every".into(), 1.into());
        }
        if key.starts_with("dpo-") {
            map.insert("loss".into(), "dpo".into());
        }
        if key == "eval-group" {
            map.insert("group".into(), 32.into());
        }
        if key == "rope-scaling" || key == "positions" {
            map.extend([("context".into(), 4096.into()), ("seq".into(), 256.into())]);
        }
        TrainConfig::from_map(&map)
    }

    #[test]
    fn the_table_has_every_setting_with_its_default() {
        let config = TrainConfig::from_map(&Map::new()).expect("defaults");
        let map = config.to_map();
        let own: Vec<&str> = Method::by_name(&config.adapter.method).expect("the default").options.iter().map(|o| o.key).collect();
        for key in map.keys().map(String::as_str).filter(|key| !own.contains(key)) {
            assert_eq!(KEYS.iter().chain(PLACES).filter(|k| k.key == key).count(), 1, "rows for `{key}`");
        }
        for key in KEYS.iter().chain(PLACES) {
            let default: Value = serde_json::from_str(key.default).expect("JSON");
            match map.get(key.key) {
                Some(value) if default.is_number() => assert_eq!(value.as_f64(), default.as_f64(), "{}", key.key),
                Some(value) if key.key != "alpha" => assert_eq!(*value, default, "{}", key.key),
                _ => assert_eq!(default, Value::Null, "{}", key.key),
            }
        }
    }

    #[test]
    fn the_table_has_the_bounds_that_are_read() {
        for Key { key, kind, .. } in KEYS.iter().chain(PLACES) {
            match *kind {
                Kind::Option(OptionKind::Count { min, max }) => {
                    read(key, json!(min)).expect(key);
                    assert!(min == 0 || read(key, json!(min - 1)).is_err(), "{key} below {min}");
                    assert!(max == MANY || read(key, json!(max + 1)).is_err(), "{key} above {max}");
                }
                Kind::Option(OptionKind::Number { min, max }) => {
                    read(key, json!((min + max.min(1.0)) / 2.0)).expect(key);
                    assert!(read(key, json!(min - 0.1)).is_err(), "{key} below {min}");
                    assert!(max == f64::MAX || read(key, json!(max + 0.1)).is_err(), "{key} above {max}");
                }
                Kind::Option(OptionKind::Choice(names)) => {
                    names.iter().for_each(|name| assert!(read(key, json!(name)).is_ok(), "{key} {name}"));
                    let error = read(key, json!("?")).expect_err("unknown").to_string();
                    assert!(error.contains(&one_of(names)), "{error}");
                }
                Kind::Option(OptionKind::Switch) => assert!(read(key, json!("?")).is_err() && read(key, json!(true)).is_ok(), "{key}"),
                Kind::Text | Kind::Path | Kind::Paths => assert!(read(key, json!([7])).is_err(), "{key}"),
                // A number alone is a list of one.
                Kind::Option(OptionKind::Numbers) => assert!(read(key, json!("?")).is_err() && read(key, json!([2, 1])).is_ok(), "{key}"),
                Kind::Names | Kind::Patterns | Kind::Option(OptionKind::Counts) => assert!(read(key, json!(7)).is_err(), "{key}"),
            }
        }
    }

    #[test]
    fn a_form_gets_the_methods_own_settings_first() {
        let rows = serde_json::to_value(describe("lora").expect("a method")).expect("JSON");
        assert_eq!(rows[0]["key"], "rslora");
        assert_eq!(rows[0]["method"], "lora");
        let rank = rows.as_array().expect("a list").iter().find(|r| r["key"] == "rank").expect("rank");
        assert_eq!(*rank, json!({"key": "rank", "kind": "count", "default": 8, "help": "Rank of the adapter", "min": 1.0, "max": 4096.0}));
        assert_eq!(describe("nothing").expect_err("no method").code(), "config");
    }
}
