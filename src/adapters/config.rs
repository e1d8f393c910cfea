//! The settings that make an adapter, whatever its method.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::embeddings;
use super::patterns::{Patterns, json_number};
use crate::settings::Map;
use crate::{Error, Result};

/// Largest rank that is taken; kernels and files have no reason to see more.
pub const MAX_RANK: usize = 4096;

/// What an adapter is to be: method, rank, scale, targets. Serialises with the keys of run files.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AdapterConfig {
    /// Name of a row of [`super::methods::METHODS`]; default `lora`.
    pub method: String,
    /// Rank of every site that no pattern covers; default 8.
    pub rank: usize,
    /// Numerator of the scale; default twice the rank, as most published recipes have it, so that changing the rank keeps the scale.
    #[serde(serialize_with = "whole_or_float")]
    pub alpha: f64,
    /// Projections or dotted tails of module paths; default all seven projections.
    pub targets: Vec<String>,
    /// Ranks by pattern.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub rank_pattern: Patterns,
    /// Alphas by pattern.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub alpha_pattern: Patterns,
    /// Probability that an element of an adapter's input is dropped in training; default 0.
    pub dropout: f64,
    /// Train the weights of all norms, too; default false.
    pub train_norms: bool,
    /// Train the embeddings of [`Self::tokens`], too; default false.
    pub train_embeddings: bool,
    /// The tokens whose embeddings train: those of a run's rows, and of the adapter that it goes on from. No setting.
    #[serde(skip)]
    pub tokens: Arc<[u32]>,
    /// The method's own settings, defaults included.
    #[serde(flatten)]
    pub options: Map,
}

// serde hands it a reference.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "whether the lint fires depends on the width of a pointer")]
fn whole_or_float<S: Serializer>(x: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    json_number(*x).serialize(serializer)
}

impl AdapterConfig {
    /// The same with the embeddings of these tokens beside those that it trains already; nothing changes where it trains none.
    #[must_use]
    pub fn with_tokens(mut self, tokens: impl IntoIterator<Item = u32>) -> Self {
        if self.train_embeddings {
            self.tokens = embeddings::union(&self.tokens, tokens);
        }
        self
    }

    /// One of the method's own switches.
    ///
    /// # Errors
    /// When the method has no such switch.
    pub fn switch(&self, key: &'static str) -> Result<bool> {
        self.options.get(key).and_then(Value::as_bool).ok_or_else(|| self.missing(key))
    }

    /// One of the method's own numbers.
    ///
    /// # Errors
    /// When the method has no such number.
    pub fn number(&self, key: &'static str) -> Result<f64> {
        self.options.get(key).and_then(Value::as_f64).ok_or_else(|| self.missing(key))
    }

    /// One of the method's own names.
    ///
    /// # Errors
    /// When the method has no such setting.
    pub fn text(&self, key: &'static str) -> Result<&str> {
        self.options.get(key).and_then(Value::as_str).ok_or_else(|| self.missing(key))
    }

    pub(super) fn missing(&self, key: &'static str) -> Error {
        Error::config(
            key,
            format!("method `{}` needs it", self.method),
            "make the settings with AdapterConfig::read, which fills in defaults",
        )
    }
}
