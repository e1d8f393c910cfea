//! Settings by name: typed look-ups in a JSON object whose errors name the key, and a refusal of every key that nobody asked for.
//!
//! Run files, job files, the flags of the command line and the web page's forms all become one such object, so a value is checked in one
//! place and the message is the same everywhere.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use serde_json::Value;

use crate::{Error, Result};

/// Settings as they stand in a run file: kebab-case keys, in the order they were given.
pub type Map = serde_json::Map<String, Value>;

/// Reads a [`Map`] key by key. `null` counts as absent.
#[derive(Debug)]
pub struct Settings<'a> {
    map: &'a Map,
    known: Vec<&'static str>,
}

impl<'a> Settings<'a> {
    /// Starts reading.
    pub fn new(map: &'a Map) -> Self {
        Self { map, known: Vec::new() }
    }

    /// The value of a key as it stands, or `None` when it is absent.
    pub fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The value of a key that somebody else will ask for.
    pub fn peek(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    fn typed<T>(&mut self, key: &'static str, expected: &str, cast: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        cast(value).map(Some).ok_or_else(|| Error::config(key, format!("is {}", shorten(value)), format!("give {expected}")))
    }

    /// A string.
    ///
    /// # Errors
    /// When the value is of another type, or empty.
    pub fn text(&mut self, key: &'static str) -> Result<Option<String>> {
        self.typed(key, "a text that is not empty", |value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// When the value is anything else.
    pub fn flag(&mut self, key: &'static str, default: bool) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A whole number within `range`, or `None` when absent.
    ///
    /// # Errors
    /// When the value is no whole number, or outside.
    pub fn count_or_none(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>> {
        let expected = match *range.end() {
            u64::MAX => format!("a whole number, at least {}", range.start()),
            end => format!("a whole number from {} to {end}", range.start()),
        };
        self.typed(key, &expected, |value| whole(value).filter(|n| range.contains(n)))
    }

    /// A whole number within `range`.
    ///
    /// # Errors
    /// When the value is no whole number, or outside.
    pub fn count(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> Result<u64> {
        Ok(self.count_or_none(key, range)?.unwrap_or(default))
    }

    /// As [`Self::count`], for what is indexed in memory; `range` must fit in `usize`.
    ///
    /// # Errors
    /// When the value is no whole number, or outside.
    pub fn size(&mut self, key: &'static str, default: usize, range: RangeInclusive<usize>) -> Result<usize> {
        let range = *range.start() as u64..=*range.end() as u64;
        Ok(self.count_or_none(key, range)?.map_or(default, |n| n as usize))
    }

    /// A finite number that `allowed` accepts; `expected` says which those are.
    ///
    /// # Errors
    /// When the value is no number, or not allowed.
    pub fn number(&mut self, key: &'static str, default: f64, expected: &str, allowed: impl Fn(f64) -> bool) -> Result<f64> {
        Ok(self.typed(key, expected, |value| value.as_f64().filter(|x| x.is_finite() && allowed(*x)))?.unwrap_or(default))
    }

    /// A list of texts; a single text is split at commas.
    ///
    /// # Errors
    /// When the value is neither, or empty, or holds an empty text.
    pub fn list(&mut self, key: &'static str) -> Result<Option<Vec<String>>> {
        self.typed(key, "a list of names", |value| {
            let names: Vec<String> = match value {
                Value::String(text) => text.split(',').map(|name| name.trim().to_owned()).collect(),
                Value::Array(items) => items.iter().map(|item| item.as_str().map(|name| name.trim().to_owned())).collect::<Option<_>>()?,
                _ => return None,
            };
            (!names.is_empty() && names.iter().all(|name| !name.is_empty())).then_some(names)
        })
    }

    /// A list of paths; a single text is one path, commas and all.
    ///
    /// # Errors
    /// When the value is neither, or empty, or holds an empty text.
    pub fn paths(&mut self, key: &'static str) -> Result<Vec<String>> {
        let paths = self.typed(key, "a path, or a list of paths", |value| {
            let paths: Vec<String> = match value {
                Value::String(path) => vec![path.clone()],
                Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()?,
                _ => return None,
            };
            (!paths.is_empty() && paths.iter().all(|path| !path.is_empty())).then_some(paths)
        })?;
        Ok(paths.unwrap_or_default())
    }

    /// A list of finite numbers that `allowed` accepts; `expected` says which those are.
    ///
    /// # Errors
    /// When the value is no such list, or empty.
    pub fn numbers(&mut self, key: &'static str, expected: &str, allowed: impl Fn(f64) -> bool) -> Result<Option<Vec<f64>>> {
        self.typed(key, expected, |value| {
            let number = |x: &Value| x.as_f64().filter(|x| x.is_finite() && allowed(*x));
            let numbers: Vec<f64> = match value {
                Value::Array(items) => items.iter().map(number).collect::<Option<_>>()?,
                one => vec![number(one)?],
            };
            (!numbers.is_empty()).then_some(numbers)
        })
    }

    /// One of the names of a table.
    ///
    /// # Errors
    /// When the value is not in the table.
    pub fn choice<T: Copy>(&mut self, key: &'static str, default: T, table: &[(&str, T)]) -> Result<T> {
        let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        let found = self.typed(key, &one_of(&names), |value| {
            let name = value.as_str()?;
            table.iter().find(|(known, _)| *known == name).map(|(_, choice)| *choice)
        })?;
        Ok(found.unwrap_or(default))
    }

    /// Bytes: a number, or a text with a unit such as "2 GiB"; `None` when absent.
    ///
    /// # Errors
    /// When the value is neither, or 0.
    pub fn bytes(&mut self, key: &'static str) -> Result<Option<u64>> {
        self.typed(key, "bytes with a unit, such as \"2 GiB\" or \"800 MB\"", read_bytes)
    }

    /// The keys that were given and not asked for, in the order they were given.
    pub fn rest(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.map.iter().map(|(key, value)| (key.as_str(), value)).filter(|(key, _)| !self.known.contains(key))
    }

    /// The keys that were asked for so far.
    pub fn known(&self) -> &[&'static str] {
        &self.known
    }
}

/// What other trainers (transformers, PEFT, TRL, llama.cpp) call our settings.
#[rustfmt::skip] // one setting a line
const OTHER_NAMES: &[(&str, &[&str])] = &[
    ("alpha", &["lora_alpha"]),
    ("rank", &["r", "lora_r", "lora_rank"]),
    ("dropout", &["lora_dropout"]),
    ("targets", &["target_modules", "lora_target", "lora_target_modules"]),
    ("rslora", &["use_rslora"]),
    ("lora-plus", &["loraplus_lr_ratio", "lora_plus_ratio"]),
    ("lr", &["learning_rate", "adam_alpha"]),
    ("epochs", &["num_train_epochs", "num_epochs", "n_epochs"]),
    ("steps", &["max_steps", "num_steps", "iters", "adam_iter"]),
    ("batch-rows", &["batch_size", "per_device_train_batch_size", "train_batch_size", "micro_batch_size"]),
    ("grad-accum", &["gradient_accumulation_steps", "gradient_accumulation"]),
    ("seq", &["max_seq_length", "max_length", "sequence_len", "cutoff_len", "block_size", "ctx"]),
    ("schedule", &["lr_scheduler_type", "lr_scheduler"]),
    ("warmup", &["warmup_steps", "warmup_ratio"]),
    ("clip", &["max_grad_norm", "grad_clip", "gradient_clipping"]),
    ("beta1", &["adam_beta1"]),
    ("beta2", &["adam_beta2"]),
    ("eps", &["adam_epsilon"]),
    ("weight-decay", &["decay"]),
    ("eval-every", &["eval_steps"]),
    ("eval-split", &["val_set_size", "test_size"]),
    ("save-every", &["save_steps"]),
    ("patience", &["early_stopping_patience"]),
    ("recompute", &["gradient_checkpointing"]),
    ("out", &["output_dir", "lora_out"]),
    ("model", &["model_name_or_path", "base_model", "model_name"]),
    ("data", &["dataset", "dataset_name", "train_file", "train_data"]),
    ("eval-data", &["validation_file", "eval_dataset", "val_data"]),
    ("init-adapter", &["adapter_name_or_path", "lora_model_dir"]),
];

/// What we call the setting that other trainers call `name`, written with `_` or `-`.
pub fn our_name(name: &str) -> Option<&'static str> {
    let plain = name.to_ascii_lowercase().replace('-', "_");
    OTHER_NAMES.iter().find(|(_, names)| names.contains(&plain.as_str())).map(|(ours, _)| *ours)
}

/// The error for a key that is no setting, with the known one that other trainers call so, or else the nearest.
pub fn unknown<'k>(key: &str, known: impl IntoIterator<Item = &'k str>) -> Error {
    let theirs = our_name(key);
    let nearest = known.into_iter().map(|name| (if Some(name) == theirs { 0 } else { distance(key, name) }, name)).min();
    let hint = match nearest {
        Some((far, name)) if far * 2 <= name.len().max(2) => format!("did you mean `{name}`?"),
        _ => "remove it; `weblora train --help` lists the settings".to_owned(),
    };
    Error::config(key, "there is no such setting", hint)
}

/// "a, b or c".
pub fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// A non-negative whole number, written `40` or `40.0`.
pub(crate) fn whole(value: &Value) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    value.as_u64().or_else(|| value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..EXACT).contains(x)).map(|x| x as u64))
}

/// A value as it was written, cut to a length that fits in a sentence.
pub(crate) fn shorten(value: &Value) -> String {
    cut(&value.to_string()).into_owned()
}

/// A text cut to a length that fits in a sentence.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", &text[..cut]).into(),
        None => text.into(),
    }
}

/// Edits between two names (Levenshtein), `_` and `-` being the same.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let same = |x: char, y: char| x == y || (x == '_' && y == '-');
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    // A key of any length may come from a file; no setting's name is longer than this.
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(!same(x, y));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Units of memory, the longest endings first.
const UNITS: &[(&str, f64)] =
    &[("kib", 1024.0), ("mib", 1_048_576.0), ("gib", 1_073_741_824.0), ("kb", 1e3), ("mb", 1e6), ("gb", 1e9), ("b", 1.0)];

/// `"1.5 GiB"`, `"800MB"`, or a number of bytes; `None` for anything else.
pub fn read_bytes(value: &Value) -> Option<u64> {
    let Some(text) = value.as_str() else { return whole(value).filter(|bytes| *bytes > 0) };
    let text = text.trim().to_lowercase();
    let (ending, unit) = UNITS.iter().find(|(ending, _)| text.ends_with(ending))?;
    let number: f64 = text.strip_suffix(ending)?.trim_end().parse().ok()?;
    Some(number * unit).filter(|bytes| *bytes >= 1.0 && *bytes < 9e15).map(|bytes| bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn values_are_typed_and_bounded() {
        let map = map(json!({"rank": 8.0, "lr": 1e-3, "on": true, "names": "q, v", "list": ["k"], "none": null, "kind": "b"}));
        let mut s = Settings::new(&map);
        assert_eq!(s.size("rank", 1, 1..=64).unwrap(), 8);
        assert_eq!(s.number("lr", 0.0, "a positive number", |x| x > 0.0).unwrap(), 1e-3);
        assert!(s.flag("on", false).unwrap());
        assert_eq!(s.list("names").unwrap().unwrap(), ["q", "v"]);
        assert_eq!(s.list("list").unwrap().unwrap(), ["k"]);
        assert_eq!(s.text("none").unwrap(), None);
        assert_eq!(s.choice("kind", 0, &[("a", 1), ("b", 2)]).unwrap(), 2);
        assert_eq!(s.rest().count(), 0);
    }

    #[test]
    fn wrong_values_are_refused_by_key() {
        let map = map(json!({"rank": 0, "half": 1.5, "lr": "fast", "names": [1], "kind": "c", "empty": "", "on": 1, "big": 1e300}));
        let mut s = Settings::new(&map);
        for error in [
            s.size("rank", 1, 1..=64).unwrap_err(),
            s.count("half", 1, 1..=u64::MAX).unwrap_err(),
            s.count("big", 1, 1..=u64::MAX).unwrap_err(),
            s.number("lr", 0.0, "a positive number", |x| x > 0.0).unwrap_err(),
            s.list("names").unwrap_err(),
            s.choice("kind", 0, &[("a", 1), ("b", 2)]).unwrap_err(),
            s.text("empty").unwrap_err(),
            s.flag("on", false).unwrap_err(),
        ] {
            assert!(matches!(&error, Error::Config { key, .. } if map.contains_key(key)), "{error}");
        }
        assert_eq!(s.size("rank", 1, 1..=64).unwrap_err().to_string(), "`rank`: is 0; give a whole number from 1 to 64");
    }

    #[test]
    fn unknown_keys_get_the_nearest_name() {
        let known = ["rank", "eval-data", "grad-accum"];
        assert!(unknown("eval_data", known).to_string().contains("`eval-data`?"));
        assert!(unknown("rnak", known).to_string().contains("`rank`?"));
        let other = |key| unknown(key, ["alpha", "lora-plus", "batch-rows", "batch", "lr"]).to_string();
        assert!(other("lora_alpha").contains("`alpha`?") && other("Learning-Rate").contains("`lr`?"));
        assert!(other("per_device_train_batch_size").contains("`batch-rows`?"));
        assert!(unknown("zzzzzzzzz", known).to_string().contains("--help"));
        assert!(unknown(&"x".repeat(1 << 20), known).to_string().contains("--help"));
    }
}
