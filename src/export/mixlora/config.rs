//! `adapter_config.json` of a MixLoRA adapter, with the keys of its authors (MixLoRA, MoE-PEFT).
//!
//! Their loaders pass over keys they do not know; ours (`rank_pattern`, `alpha_pattern`, `renormalize`) are written only where they say something.

use serde_json::{Map, Value, json};

use crate::adapters::Patterns;
use crate::adapters::experts::{Balance, Routing, Strategy};
use crate::adapters::mixlora::MAX_EXPERTS;
use crate::adapters::patterns::json_number;
use crate::export::folder::CONFIG_FILE;
use crate::export::peft_config::{MIXLORA_TYPE, is_off, strings};
use crate::settings::{one_of, shorten, whole};
use crate::{Error, Result};

const HINT: &str = "use a MixLoRA adapter for a LLaMA as its authors' programs or weblora save it";

/// The authors' names of the strategies, which are those of our methods, and one from before their version 0.2.2.
const STRATEGIES: [(&str, Strategy); 4] =
    [("mixlora", Strategy::TopK), ("mixlora-dynamic", Strategy::TopP), ("mixlora-switch", Strategy::Switch), ("mixtral", Strategy::TopK)];

/// The name of a strategy, which is the method's, too.
pub fn strategy_name(strategy: Strategy) -> &'static str {
    STRATEGIES.iter().find(|(_, s)| *s == strategy).map_or("", |(name, _)| name)
}

/// Rank, alpha and dropout of products.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraSettings {
    /// Rank.
    pub r: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Dropout of the training.
    pub dropout: f64,
}

/// The file.
#[derive(Debug, Clone, PartialEq)]
pub struct MixLoraConfig {
    /// How rows are routed. What the file does not say has the authors' defaults.
    pub routing: Routing,
    /// Of attention.
    pub attention: LoraSettings,
    /// Of the experts.
    pub experts: LoraSettings,
    /// Scales are alpha / sqrt(rank).
    pub rslora: bool,
    /// Projections or whole module paths that have products.
    pub target_modules: Vec<String>,
    /// Ranks where they are not the general one; our key.
    pub rank_pattern: Patterns,
    /// Alphas likewise; our key.
    pub alpha_pattern: Patterns,
    /// What the base was called.
    pub base_name: Option<String>,
}

/// Keys that say nothing about what the tensors mean, or are read elsewhere in this file.
const HARMLESS: &[&str] = &[
    "alpha_pattern",
    "base_model_name_or_path",
    "bias",
    "expert_capacity",
    "expert_lora",
    "jitter_noise",
    "lora_alpha",
    "lora_dropout",
    "lora_init",
    "num_experts",
    "peft_type",
    "r",
    "rank_pattern",
    "renormalize",
    "router_aux_loss_coef",
    "router_init_range",
    "router_loss",
    "router_z_loss_coef",
    "routing_strategy",
    "target_modules",
    "task_type",
    "temperature",
    "top_k",
    "top_p",
    "use_rslora",
];

/// Names of LLaMA's activation, which the kernels have.
const ACTIVATIONS: [&str; 2] = ["silu", "swish"];

impl MixLoraConfig {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Routing { strategy, experts, top_k, top_p, temperature, renormalize, capacity, .. } = self.routing;
        let lora = |lora: LoraSettings| json!({ "r": lora.r, "lora_alpha": json_number(lora.alpha), "lora_dropout": lora.dropout });
        let mut file = json!({
            "bias": "none", "peft_type": MIXLORA_TYPE, "r": self.attention.r, "lora_alpha": json_number(self.attention.alpha),
            "lora_dropout": self.attention.dropout, "target_modules": self.target_modules, "use_rslora": self.rslora,
            "routing_strategy": strategy_name(strategy), "num_experts": experts, "base_model_name_or_path": self.base_name,
            "task_type": "CAUSAL_LM",
        });
        if self.experts != self.attention {
            file["expert_lora"] = lora(self.experts);
        }
        match strategy {
            Strategy::TopK => file["top_k"] = top_k.into(),
            Strategy::TopP => {
                file["top_p"] = top_p.into();
                file["temperature"] = temperature.into();
            }
            Strategy::Switch => {
                file["expert_capacity"] = capacity.into();
                file["sparse_step"] = Value::Null;
            }
        }
        if renormalize {
            file["renormalize"] = true.into();
        }
        for (key, patterns) in [("rank_pattern", &self.rank_pattern), ("alpha_pattern", &self.alpha_pattern)] {
            if !patterns.is_empty() {
                file[key] = serde_json::to_value(patterns).unwrap_or_else(|_| json!({}));
            }
        }
        let mut text = format!("{file:#}");
        text.push('\n');
        text.into_bytes()
    }

    /// Whether a file says that it is of a MixLoRA adapter.
    pub fn is_one(bytes: &[u8]) -> bool {
        serde_json::from_slice::<Map<String, Value>>(bytes).is_ok_and(|map| map.get("peft_type").is_some_and(|kind| kind == MIXLORA_TYPE))
    }

    /// Reads the file of the folder `adapter`, which errors name.
    ///
    /// # Errors
    /// When it is not JSON, lacks what the tensors need, names a routing that is not known, or switches on what is not done here; the key is named.
    pub fn parse(adapter: &str, bytes: &[u8]) -> Result<Self> {
        let error =
            |problem: String| Error::Adapter { adapter: adapter.to_owned(), problem: format!("{CONFIG_FILE}: {problem}"), hint: HINT };
        let map: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| error(format!("not a JSON object: {e}")))?;
        check_switched_on(adapter, &map)?;
        let keys = Keys { map: &map, error: &error };
        let attention = LoraSettings {
            r: keys.count("r", None, 1..=1 << 20)?,
            alpha: keys.number("lora_alpha", 8.0, |x| x > 0.0)?,
            dropout: keys.number("lora_dropout", 0.0, |x| (0.0..=1.0).contains(&x))?,
        };
        let rslora = keys.switch("use_rslora", false)?;
        let experts = match keys.get("expert_lora") {
            None => attention,
            Some(Value::Object(own)) => {
                let own = Keys { map: own, error: &error };
                if own.switch("use_dora", false)? || own.switch("use_rslora", rslora)? != rslora {
                    return Err(error("`expert_lora` with `use_dora`, or another `use_rslora` than attention".to_owned()));
                }
                LoraSettings {
                    r: own.count("r", Some(attention.r), 1..=1 << 20)?,
                    alpha: own.number("lora_alpha", attention.alpha, |x| x > 0.0)?,
                    dropout: own.number("lora_dropout", attention.dropout, |x| (0.0..=1.0).contains(&x))?,
                }
            }
            Some(other) => return Err(error(format!("`expert_lora` is {}", shorten(other)))),
        };
        let patterns = |key: &'static str| match keys.get(key) {
            None => Ok(Patterns::default()),
            Some(value) => Patterns::from_json(key, value).map_err(|e| error(e.to_string())),
        };
        Ok(Self {
            routing: routing(adapter, &keys)?,
            attention,
            experts,
            rslora,
            target_modules: targets(keys.get("target_modules")),
            rank_pattern: patterns("rank_pattern")?,
            alpha_pattern: patterns("alpha_pattern")?,
            base_name: keys.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
        })
    }
}

/// The router's keys, with the defaults of the authors' code.
fn routing(adapter: &str, keys: &Keys<'_>) -> Result<Routing> {
    let name = keys.get("routing_strategy").and_then(Value::as_str);
    let known = STRATEGIES.iter().find(|(known, _)| Some(*known) == name);
    let Some((_, strategy)) = known else {
        let found = keys.map.get("routing_strategy").map_or_else(|| "none".to_owned(), shorten);
        let names: Vec<&str> = STRATEGIES.iter().map(|(name, _)| *name).collect();
        return Err(Error::Unsupported {
            what: format!("adapter {adapter}: {CONFIG_FILE} with `routing_strategy` = {found}"),
            hint: format!("{} are", one_of(&names)),
        });
    };
    let experts = keys.count("num_experts", None, 2..=MAX_EXPERTS)?;
    let top_k = match strategy {
        Strategy::TopK => keys.count("top_k", Some(2), 1..=experts)?,
        Strategy::TopP => experts,
        Strategy::Switch => 1,
    };
    let switch = *strategy == Strategy::Switch;
    let positive = |x: f64| (0.0..=1e3).contains(&x);
    let aux_coef = keys.number("router_aux_loss_coef", 0.001, positive)?;
    Ok(Routing {
        strategy: *strategy,
        experts,
        top_k,
        top_p: if *strategy == Strategy::TopP { keys.number("top_p", 0.8, |p| p > 0.0 && p <= 1.0)? } else { 1.0 },
        temperature: if *strategy == Strategy::TopP { keys.number("temperature", 0.0, positive)? } else { 0.0 },
        renormalize: *strategy == Strategy::TopP && keys.switch("renormalize", false)?,
        capacity: if switch { keys.count("expert_capacity", Some(32), 1..=1 << 20)? } else { 0 },
        jitter: keys.number("jitter_noise", 0.0, |x| (0.0..=0.9).contains(&x))?,
        aux_coef: if keys.switch("router_loss", true)? { aux_coef } else { 0.0 },
        z_coef: if switch { keys.number("router_z_loss_coef", 0.001, positive)? } else { 0.0 },
        balance: Balance::Concatenated,
    })
}

/// A list of names, or an object of names that are on or off.
fn targets(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Object(map)) => map.iter().filter(|(_, on)| **on == true).map(|(name, _)| name.clone()).collect(),
        Some(value) => strings(value),
        None => Vec::new(),
    }
}

/// The keys of an object of the file; `null` is as good as absent.
struct Keys<'a> {
    map: &'a Map<String, Value>,
    error: &'a dyn Fn(String) -> Error,
}

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn impossible(&self, key: &str, value: &Value) -> Error {
        (self.error)(format!("`{key}` is {}, which is no possible value", shorten(value)))
    }

    fn number(&self, key: &str, default: f64, allowed: impl Fn(f64) -> bool) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = value.as_f64().filter(|x| x.abs() <= f64::from(f32::MAX) && allowed(*x));
        number.ok_or_else(|| self.impossible(key, value))
    }

    fn count(&self, key: &str, default: Option<usize>, allowed: std::ops::RangeInclusive<usize>) -> Result<usize> {
        match (self.get(key), default) {
            (Some(value), _) => {
                let count = whole(value).and_then(|n| usize::try_from(n).ok()).filter(|n| allowed.contains(n));
                count.ok_or_else(|| {
                    let range = format!("{} to {}", allowed.start(), allowed.end());
                    (self.error)(format!("`{key}` is {}, a whole number from {range} was expected", shorten(value)))
                })
            }
            (None, Some(default)) => Ok(default),
            (None, None) => Err((self.error)(format!("`{key}` is missing"))),
        }
    }

    fn switch(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(on)) => Ok(*on),
            Some(other) => Err(self.impossible(key, other)),
        }
    }
}

/// Refuses by name whatever changes the meaning of the tensors. Keys we have never heard of are taken when they are off.
fn check_switched_on(adapter: &str, map: &Map<String, Value>) -> Result<()> {
    for (key, value) in map {
        let fine = match (key.as_str(), value) {
            ("peft_type", value) => value == MIXLORA_TYPE,
            ("bias", Value::String(bias)) => bias == "none",
            ("task_type", Value::String(task)) => task == "CAUSAL_LM",
            ("act_fn", Value::String(name)) => ACTIVATIONS.contains(&name.as_str()),
            ("sparse_step", value) if *value == 1 => true,
            (key, value) => HARMLESS.contains(&key) || is_off(value),
        };
        if !fine {
            return Err(Error::Unsupported {
                what: format!("adapter {adapter}: {CONFIG_FILE} with `{key}` = {}", shorten(value)),
                hint: format!("{HINT}: routers and LoRA experts on the feed-forward layers of all blocks, plain LoRA on attention"),
            });
        }
    }
    Ok(())
}
