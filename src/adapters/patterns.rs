//! Which modules a name means, by the rules of Hugging Face PEFT.
//!
//! A *target* is a projection's name or any dotted tail of a module's path: `q_proj` or `layers.3.mlp.up_proj`. A *pattern* of
//! `rank_pattern` and `alpha_pattern` is a name or a Python regular expression K, and covers a module when `(.*\.)?(K)$` matches its
//! path from the start; the first pattern that covers it wins.

use std::collections::HashSet;

use fancy_regex::{Regex, RegexBuilder};
use serde::ser::{Serialize, Serializer};
use serde_json::{Number, Value};

use super::site::{Projection, Site};
use crate::config::ModelConfig;
use crate::settings::{cut, one_of, shorten};
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
                Some(x) if x > 0.0 && x <= f64::from(f32::MAX) => patterns.push((pattern.clone(), x)),
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
    /// When a pattern is no regular expression, or one that takes longer or more memory than any list of modules needs: patterns come with
    /// files of strangers.
    pub fn compile(&self, key: &'static str) -> Result<Matcher<'_>> {
        let regexes = self.0.iter().filter(|(pattern, _)| !is_name(pattern)).count();
        if regexes > MAX_REGEXES || self.0.len() > MAX_PATTERNS {
            let problem = format!("has {} patterns, {regexes} of them regular expressions", self.0.len());
            return Err(Error::config(key, problem, format!("give at most {MAX_PATTERNS}, {MAX_REGEXES} of them regular expressions")));
        }
        let compile = |(pattern, value): &(String, f64)| Ok((Rule::new(key, pattern, regexes)?, *value));
        Ok(Matcher { key, patterns: &self.0, rules: self.0.iter().map(compile).collect::<Result<_>>()? })
    }
}

/// Most patterns, and most of them that are no plain names.
const MAX_PATTERNS: usize = 2048;
const MAX_REGEXES: usize = 256;
/// Longest regular expression, most repetitions that one `{n}` asks for, and all of one expression multiplied.
const MAX_REGEX_BYTES: usize = 4096;
const MAX_REPEAT: u64 = 1000;
const MAX_REPEATS: u64 = 100_000;
/// Steps back of all regular expressions together for one module, of one at most and at least: a path has some sixty characters.
const BACKTRACKS: usize = 50_000;
const BACKTRACKS_OF_ONE: (usize, usize) = (500, 10_000);
/// Bytes of all compiled expressions together, about.
const COMPILED_BYTES: usize = 32 << 20;

/// One prepared pattern.
enum Rule {
    /// Letters, digits, `_`, `-`, and `.`, which stands for any character as in a regular expression.
    Name(String),
    Regex(Regex),
}

impl Rule {
    /// `among` is the number of regular expressions that share the limits.
    fn new(key: &'static str, pattern: &str, among: usize) -> Result<Self> {
        if is_name(pattern) {
            return Ok(Self::Name(pattern.to_owned()));
        }
        let error = |problem: String| Error::config(key, format!("`{}` {problem}", cut(pattern)), "give a name such as q_proj");
        if pattern.len() > MAX_REGEX_BYTES {
            return Err(error(format!("is a regular expression of {} bytes, at most {MAX_REGEX_BYTES} were expected", pattern.len())));
        }
        if repeats(pattern).is_none() {
            return Err(error(format!("repeats more than {MAX_REPEAT} times, or {MAX_REPEATS} times in all")));
        }
        let mut builder = RegexBuilder::new(&format!(r"^(.*\.)?({pattern})$"));
        let bytes = (COMPILED_BYTES / among.max(1)).min(2 << 20);
        let (least, most) = BACKTRACKS_OF_ONE;
        builder.delegate_size_limit(bytes).delegate_dfa_size_limit(bytes).backtrack_limit((BACKTRACKS / among.max(1)).clamp(least, most));
        builder.build().map(Self::Regex).map_err(|e| error(format!("is no regular expression: {e}")))
    }

    fn covers(&self, path: &str) -> std::result::Result<bool, fancy_regex::Error> {
        match self {
            Self::Regex(regex) => regex.is_match(path),
            Self::Name(name) => {
                // Paths of modules are ASCII, as names are.
                let mut rest = path.bytes().rev();
                let same = name.bytes().rev().all(|own| rest.next().is_some_and(|c| own == b'.' || own == c));
                Ok(same && matches!(rest.next(), None | Some(b'.')))
            }
        }
    }
}

fn is_name(pattern: &str) -> bool {
    pattern.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// All repetition counts of a regular expression multiplied, as if each stood inside the others; `None` beyond the limits. Counts inside a class or
/// behind a backslash, which repeat nothing, are counted too.
fn repeats(pattern: &str) -> Option<u64> {
    let counts = pattern.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(inside, _)| inside);
    let mut all = 1u64;
    for inside in counts.filter(|inside| inside.chars().all(|c| c.is_ascii_digit() || c == ',' || c.is_whitespace())) {
        for number in inside.split(',').map(str::trim).filter(|number| !number.is_empty()) {
            let count: u64 = number.parse().ok().filter(|n| *n <= MAX_REPEAT)?;
            all = all.checked_mul(count.max(1)).filter(|n| *n <= MAX_REPEATS)?;
        }
    }
    Some(all)
}

/// Compiled [`Patterns`].
pub struct Matcher<'a> {
    key: &'static str,
    patterns: &'a [(String, f64)],
    rules: Vec<(Rule, f64)>,
}

impl Matcher<'_> {
    /// The number of the first pattern that covers the module at `path` (`model.layers.0.self_attn.q_proj`).
    ///
    /// # Errors
    /// When a pattern needs too much backtracking to decide.
    pub fn find(&self, path: &str) -> Result<Option<f64>> {
        for ((rule, value), (pattern, _)) in self.rules.iter().zip(self.patterns) {
            match rule.covers(path) {
                Ok(true) => return Ok(Some(*value)),
                Ok(false) => {}
                Err(e) => {
                    let problem = format!("`{}` cannot be matched: {e}", cut(pattern));
                    return Err(Error::config(self.key, problem, "simplify the pattern"));
                }
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
        for ((rule, _), (pattern, _)) in self.rules.iter().zip(self.patterns) {
            if !modules.iter().any(|module| rule.covers(module).unwrap_or(false)) {
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
    // Both can be many: every name of a site is looked up among the targets.
    let wanted: HashSet<&str> = targets.iter().map(String::as_str).collect();
    let mut found = HashSet::new();
    let mut chosen = Vec::new();
    for site in Site::all(model) {
        let module = site.module();
        let tails = module.match_indices('.').map(|(dot, _)| &module[dot + 1..]).chain([module.as_str()]);
        let named: Vec<&str> =
            tails.chain([site.projection.short_name(), "all-linear"]).filter_map(|name| wanted.get(name).copied()).collect();
        if !named.is_empty() {
            chosen.push(site);
            found.extend(named);
        }
    }
    match targets.iter().find(|target| !found.contains(target.as_str())) {
        None => Ok(chosen),
        Some(target) => {
            let names: Vec<&str> = Projection::ALL.iter().map(|p| p.short_name()).collect();
            let problem = format!("`{}` matches no linear layer of this model ({} blocks)", cut(target), model.num_hidden_layers);
            Err(Error::config("targets", problem, format!("use {}, or a path such as layers.0.mlp.up_proj", one_of(&names))))
        }
    }
}
