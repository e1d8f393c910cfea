//! What a row of the method table holds, and the settings that belong to one method only.

use serde_json::Value;

use super::chain::ChainConfig;
use super::config::AdapterConfig;
use super::layout::AdapterLayout;
use super::patterns::json_number;
use crate::config::ModelConfig;
use crate::settings::{one_of, shorten, whole};
use crate::{Error, Result};

/// One way of training an adapter.
pub struct Method {
    /// Name on the command line and in files: "lora".
    pub name: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// Settings of this method; two methods may share one.
    pub options: &'static [OptionSpec],
    /// Lays the adapter out for a model, as it is at the start of a run.
    pub build: fn(&AdapterConfig, &ModelConfig) -> Result<AdapterLayout>,
    /// The chain of a method whose layout changes at knots.
    pub chain: Option<fn(&AdapterConfig) -> Result<ChainConfig>>,
}

/// A setting of a method: a key of run files and a flag of the command line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptionSpec {
    /// Kebab-case name.
    pub key: &'static str,
    /// What its value looks like.
    pub kind: OptionKind,
    /// Its value when it is not given, as typed on the command line.
    pub default: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
}

/// What the value of an option looks like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptionKind {
    /// On or off; a flag without a value.
    Switch,
    /// A number within bounds, both included.
    Number {
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
    },
    /// A whole number within bounds, both included.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A list of whole numbers, each at least 1, separated by commas.
    Counts,
    /// A list of numbers, separated by commas.
    Numbers,
    /// One of some names.
    Choice(&'static [&'static str]),
}

impl OptionSpec {
    /// The value that a text on the command line means.
    ///
    /// # Errors
    /// When it means none.
    pub fn parse(&self, text: &str) -> Result<Value> {
        let value = match self.kind {
            OptionKind::Switch => text.parse().map(Value::Bool).ok(),
            OptionKind::Number { .. } | OptionKind::Count { .. } => text.trim().parse::<f64>().ok().map(json_number),
            OptionKind::Counts | OptionKind::Numbers if text.trim().is_empty() => Some(Value::Array(Vec::new())),
            OptionKind::Numbers => text.split(',').map(|n| n.trim().parse::<f64>().ok().map(json_number)).collect(),
            OptionKind::Counts => text.split(',').map(|n| n.trim().parse::<u64>().ok().map(Value::from)).collect(),
            OptionKind::Choice(_) => Some(Value::from(text)),
        };
        let value = value.unwrap_or_else(|| Value::from(text));
        self.check(&value)?;
        Ok(value)
    }

    /// Refuses a value of the wrong type or out of bounds.
    ///
    /// # Errors
    /// Names the key, the value and what is expected.
    pub fn check(&self, value: &Value) -> Result<()> {
        let (fits, expected) = match self.kind {
            OptionKind::Switch => (value.is_boolean(), "true or false".to_owned()),
            OptionKind::Number { min, max } => {
                (value.as_f64().is_some_and(|x| (min..=max).contains(&x)), format!("a number from {min} to {max}"))
            }
            OptionKind::Count { min, max } => {
                (whole(value).is_some_and(|n| (min..=max).contains(&n)), format!("a whole number from {min} to {max}"))
            }
            OptionKind::Counts => {
                let fits = value.as_array().is_some_and(|list| list.iter().all(|n| whole(n).is_some_and(|n| n >= 1)));
                (fits, "a list of whole numbers such as [8, 4, 2]".to_owned())
            }
            OptionKind::Numbers => {
                let fits = value.as_array().is_some_and(|list| list.iter().all(Value::is_number));
                (fits, "a list of numbers such as [16, 8]".to_owned())
            }
            OptionKind::Choice(names) => (value.as_str().is_some_and(|name| names.contains(&name)), one_of(names)),
        };
        if fits { Ok(()) } else { Err(Error::config(self.key, format!("is {}", shorten(value)), format!("give {expected}"))) }
    }
}
