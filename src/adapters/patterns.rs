//! Which modules a name means, by the rules of Hugging Face PEFT.
//!
//! A *target* is a projection's name or any dotted tail of a module's path: `q_proj` or `layers.3.mlp.up_proj`. A *pattern* of
//! `rank_pattern` and `alpha_pattern` is a name or a Python regular expression K, and covers a module when `(.*\.)?(K)$` matches its
//! path from the start; the first pattern that covers it wins.

use fancy_regex::Regex;
use serde::ser::{Serialize, Serializer};
use serde_json::{Number, Value};

use super::site::{Projection, Site};
use crate::config::ModelConfig;
use crate::settings::{one_of, shorten};
use crate::{Error, Result};

/// A number as JSON: whole ones without a decimal point, as PEFT writes and reads `r` and `lora_alpha`.
pub fn json_number(x: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    if x.fract() == 0.0 && x.abs() < EXACT { Value::from(x as i64) } else { Number::from_f64(x).map_or(Value::Null, Value::Number) }
}

/// An ordered map from patterns to numbers: `rank_pattern` or `alpha_pattern`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Patterns(pub Vec<(String, f64)>);

impl Serialize for Patterns {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(pattern, x)| (pattern, json_number(*x))))
    }
}

impl Patterns {
    /// Reads the JSON object of a settings file or an `adapter_config.json`. `key` names it in errors.
    ///
    /// # Errors
    /// When it is no object of positive numbers.
    pub fn from_json(key: &str, value: &Value) -> Result<Self> {
        let error = |problem: String| Error::config(key, problem, "give names or regular expressions with a positive number each");
        let map = value.as_object().ok_or_else(|| error(format!("is {}", shorten(value))))?;
        let mut patterns = Vec::with_capacity(map.len());
        for (pattern, value) in map {
            match value.as_f64() {
                Some(x) if x.is_finite() && x > 0.0 => patterns.push((pattern.clone(), x)),
                _ => return Err(error(format!("`{pattern}` is {}", shorten(value)))),
            }
        }
        Ok(Self(patterns))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Prepares the patterns for matching. `key` names them in errors.
    ///
    /// # Errors
    /// When a pattern is no regular expression.
    pub fn compile(&self, key: &'static str) -> Result<Matcher<'_>> {
        let compile = |(pattern, value): &'_ (String, f64)| match Regex::new(&format!(r"^(.*\.)?({pattern})$")) {
            Ok(regex) => Ok((regex, *value)),
            Err(e) => Err(Error::config(key, format!("`{pattern}` is no regular expression: {e}"), "give a name such as q_proj")),
        };
        Ok(Matcher { key, patterns: &self.0, regexes: self.0.iter().map(compile).collect::<Result<_>>()? })
    }
}

/// Compiled [`Patterns`].
pub struct Matcher<'a> {
    key: &'static str,
    patterns: &'a [(String, f64)],
    regexes: Vec<(Regex, f64)>,
}

impl Matcher<'_> {
    /// The number of the first pattern that covers the module at `path` (`model.layers.0.self_attn.q_proj`).
    ///
    /// # Errors
    /// When a pattern needs too much backtracking to decide.
    pub fn find(&self, path: &str) -> Result<Option<f64>> {
        for ((regex, value), (pattern, _)) in self.regexes.iter().zip(self.patterns) {
            match regex.is_match(path) {
                Ok(true) => return Ok(Some(*value)),
                Ok(false) => {}
                Err(e) => return Err(Error::config(self.key, format!("`{pattern}` cannot be matched: {e}"), "simplify the pattern")),
            }
        }
        Ok(None)
    }

    /// Refuses a pattern that covers none of the sites, which is a misspelling more often than not.
    ///
    /// # Errors
    /// Names the first such pattern.
    pub fn check_all_used(&self, sites: &[Site]) -> Result<()> {
        let modules: Vec<String> = sites.iter().map(|site| site.module()).collect();
        for ((regex, _), (pattern, _)) in self.regexes.iter().zip(self.patterns) {
            if !modules.iter().any(|module| regex.is_match(module).unwrap_or(false)) {
                return Err(Error::config(
                    self.key,
                    format!("`{pattern}` matches no targeted module"),
                    "correct it or add its module to --targets",
                ));
            }
        }
        Ok(())
    }
}

/// The sites that the targets name, in the model's order. A target is `q`, `k`, `v`, `o`, `gate`, `up`, `down`, any dotted tail of a
/// module's path, or `all-linear`.
///
/// # Errors
/// Names the first target that matches nothing.
pub fn select_sites(targets: &[String], model: &ModelConfig) -> Result<Vec<Site>> {
    let all: Vec<(Site, String)> = Site::all(model).map(|site| (site, site.module())).collect();
    let mut chosen = vec![false; all.len()];
    for target in targets {
        let mut found = false;
        let short = Projection::ALL.into_iter().find(|p| p.short_name() == target);
        for ((site, module), chosen) in all.iter().zip(&mut chosen) {
            let named = match short {
                Some(projection) => site.projection == projection,
                None => target == "all-linear" || is_tail(module, target),
            };
            *chosen |= named;
            found |= named;
        }
        if !found {
            let names: Vec<&str> = Projection::ALL.iter().map(|p| p.short_name()).collect();
            let problem = format!("`{target}` matches no linear layer of this model ({} blocks)", model.num_hidden_layers);
            return Err(Error::config("targets", problem, format!("use {}, or a path such as layers.0.mlp.up_proj", one_of(&names))));
        }
    }
    Ok(all.into_iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|((site, _), _)| site).collect())
}

/// Whether `tail` is `path` or its last dotted parts.
fn is_tail(path: &str, tail: &str) -> bool {
    path.strip_suffix(tail).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}
