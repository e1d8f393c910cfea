//! `adapter_config.json` of Hugging Face PEFT: what we write, and what of it we can honour when reading.

use serde_json::{Map, Value, json};

use super::folder::CONFIG_FILE;
use crate::adapters::embeddings::MODULE;
use crate::adapters::patterns::json_number;
use crate::adapters::{Patterns, Projection, Site, norms};
use crate::settings::{shorten, whole};
use crate::{Error, Result};

/// PEFT's name for what this file reads and writes.
const PEFT_TYPE: &str = "LORA";

/// `peft_type` of folders with routers and experts.
pub(super) const MIXLORA_TYPE: &str = "MIXLORA";

const HINT: &str = "use a plain LoRA adapter as PEFT saves it";

/// The part of `adapter_config.json` that decides what the tensors mean.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftConfig {
    /// Rank where no pattern says otherwise.
    pub r: usize,
    /// Alpha where no pattern says otherwise.
    pub lora_alpha: f64,
    /// Dropout of the training that made it.
    pub lora_dropout: f64,
    /// Scales are alpha / sqrt(rank).
    pub use_rslora: bool,
    /// Ranks by pattern.
    pub rank_pattern: Patterns,
    /// Alphas by pattern.
    pub alpha_pattern: Patterns,
    /// Projections (`q_proj`) or whole module paths that have an adapter.
    pub target_modules: Vec<String>,
    /// Modules that are saved whole: norms, the embedding, or nothing.
    pub modules_to_save: Vec<String>,
    /// What the base was called.
    pub base_model_name_or_path: Option<String>,
}

/// Keys that say nothing about what the tensors mean: they concern training, are about where the base comes from, name the modules (the tensors
/// do that themselves), or are read elsewhere in this file.
const HARMLESS: &[&str] = &[
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// Initialisations that leave the base weights as they were; the others (pissa, olora, loftq, corda, lora_ga) subtract something from them.
const KEEPS_BASE: &[&str] = &["gaussian", "eva", "orthogonal"];

impl PeftConfig {
    /// The file's bytes: keys sorted, two blanks of indent, as PEFT writes it. Only keys that PEFT has had for years, because its older
    /// versions stop at one they do not know.
    pub fn to_bytes(&self) -> Vec<u8> {
        let patterns = |p: &Patterns| serde_json::to_value(p).unwrap_or_else(|_| json!({}));
        let mut targets = self.target_modules.clone();
        targets.sort();
        // In the order of the alphabet.
        let file = json!({
            "alpha_pattern": patterns(&self.alpha_pattern),
            "auto_mapping": null,
            "base_model_name_or_path": self.base_model_name_or_path,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_pattern": null,
            "layers_to_transform": null,
            "lora_alpha": json_number(self.lora_alpha),
            "lora_dropout": self.lora_dropout,
            "modules_to_save": if self.modules_to_save.is_empty() { Value::Null } else { json!(self.modules_to_save) },
            "peft_type": PEFT_TYPE,
            "r": self.r,
            "rank_pattern": patterns(&self.rank_pattern),
            "revision": null,
            "target_modules": targets,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": self.use_rslora,
        });
        let mut text = format!("{file:#}");
        text.push('\n');
        text.into_bytes()
    }

    /// Reads the file of the adapter folder `adapter`, which errors name.
    ///
    /// # Errors
    /// When it is not JSON, lacks `r`, or switches something on that plain LoRA has not; the key is named.
    pub fn parse(adapter: &str, bytes: &[u8]) -> Result<Self> {
        let error =
            |problem: String| Error::Adapter { adapter: adapter.to_owned(), problem: format!("{CONFIG_FILE}: {problem}"), hint: HINT };
        let map: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| error(format!("not a JSON object: {e}")))?;
        check_switched_on(adapter, &map)?;
        let get = |key: &str| map.get(key).filter(|value| !value.is_null());
        let number = |key: &str, default: f64, allowed: fn(f64) -> bool| match get(key) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|x| x.is_finite() && allowed(*x))
                .ok_or_else(|| error(format!("`{key}` is {}, which is no possible value", shorten(value)))),
        };
        let patterns = |key: &'static str| match get(key) {
            None => Ok(Patterns::default()),
            Some(value) => Patterns::from_json(key, value).map_err(|e| error(e.to_string())),
        };
        let r = get("r").ok_or_else(|| error("`r` is missing".to_owned()))?;
        let r = whole(r)
            .filter(|r| (1..=1 << 20).contains(r))
            .ok_or_else(|| error(format!("`r` is {}, at least 1 was expected", shorten(r))))?;
        Ok(Self {
            r: r as usize,
            lora_alpha: number("lora_alpha", 8.0, |x| x > 0.0 && x <= f64::from(f32::MAX))?,
            lora_dropout: number("lora_dropout", 0.0, |x| (0.0..=1.0).contains(&x))?,
            use_rslora: get("use_rslora").is_some_and(|value| value == true),
            rank_pattern: patterns("rank_pattern")?,
            alpha_pattern: patterns("alpha_pattern")?,
            target_modules: get("target_modules").map(strings).unwrap_or_default(),
            modules_to_save: get("modules_to_save").map(strings).unwrap_or_default(),
            base_model_name_or_path: get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
        })
    }
}

pub(super) fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Refuses by name whatever changes the meaning of the tensors. Keys we have never heard of are taken when they are off.
fn check_switched_on(adapter: &str, map: &Map<String, Value>) -> Result<()> {
    let unsupported = |key: &str, value: &Value| Error::Unsupported {
        what: format!("adapter {adapter}: {CONFIG_FILE} with `{key}` = {}", shorten(value)),
        hint: format!("{HINT}: one low-rank pair per linear layer, without biases or extra weights"),
    };
    if map.get("peft_type").is_some_and(|kind| kind == MIXLORA_TYPE) {
        return Err(Error::Unsupported {
            what: format!("adapter {adapter} is MixLoRA: its routers choose experts for every token, so it is no update of the weights, and this"),
            hint: "generate, eval, inspect, --init-adapter and export --to mixlora or mixlora-bin take it; no merging, joining, chains, plain PEFT \
                   or GGUF"
                .to_owned(),
        });
    }
    for (key, value) in map {
        let fine = match (key.as_str(), value) {
            ("peft_type", value) => value == PEFT_TYPE,
            ("modules_to_save", Value::Array(names)) => names.iter().all(|name| name.as_str().is_some_and(is_trained)),
            ("bias", Value::String(bias)) => bias == "none",
            ("task_type", Value::String(task)) => task == "CAUSAL_LM",
            ("init_lora_weights", Value::String(init)) => KEEPS_BASE.contains(&init.to_lowercase().as_str()),
            (key, value) => HARMLESS.contains(&key) || is_off(value),
        };
        if !fine {
            return Err(unsupported(key, value));
        }
    }
    if map.contains_key("peft_type") {
        return Ok(());
    }
    Err(Error::Adapter { adapter: adapter.to_owned(), problem: format!("{CONFIG_FILE}: `peft_type` is missing"), hint: HINT })
}

/// Whether a name or path under `modules_to_save` is that of norms or the embedding, whose weights stand among the tensors.
fn is_trained(name: &str) -> bool {
    norms::MODULES.contains(&name) || norms::parse(name).is_some() || name.strip_prefix("model.").unwrap_or(name) == MODULE
}

pub(super) fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    }
}

/// The number that occurs most; the smallest of those.
pub(super) fn most(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    let runs = sorted.chunk_by(|a, b| a == b);
    runs.fold((0, 0.0), |best, run| if run.len() > best.0 { (run.len(), run[0]) } else { best }).1
}

/// A pattern for every site whose number is not the general one: the projection's name where all its sites agree, else the path. `sites` have
/// their number and the general one.
pub(super) fn by_pattern(sites: &[(Site, f64, f64)]) -> Patterns {
    let mut patterns = Vec::new();
    for projection in Projection::ALL {
        let own: Vec<&(Site, f64, f64)> = sites.iter().filter(|(site, ..)| site.projection == projection).collect();
        let Some((_, first, general)) = own.first() else { continue };
        if own.iter().all(|(_, number, _)| number == first) {
            patterns.extend((first != general).then(|| (projection.hf_name().to_owned(), *first)));
        } else {
            let different = own.into_iter().filter(|(_, number, general)| number != general);
            patterns.extend(different.map(|(site, number, _)| (site.module(), *number)));
        }
    }
    Patterns(patterns)
}

/// Names of projections when each of them has an adapter in all blocks; else whole paths.
pub(super) fn target_modules(sites: &[Site], blocks: usize) -> Vec<String> {
    let projections: Vec<Projection> = Projection::ALL.into_iter().filter(|p| sites.iter().any(|site| site.projection == *p)).collect();
    if blocks.checked_mul(projections.len()) == Some(sites.len()) {
        return projections.into_iter().map(|p| p.hf_name().to_owned()).collect();
    }
    sites.iter().map(|site| site.module()).collect()
}
