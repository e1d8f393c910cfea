//! The settings that make an adapter, whatever its method.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::chain::ChainConfig;
use super::embeddings;
use super::layout::AdapterLayout;
use super::method::Method;
use super::norms;
use super::patterns::{Patterns, json_number};
use crate::config::ModelConfig;
use crate::settings::{Map, Settings, whole};
use crate::{Error, Result};

/// Largest rank that is taken; kernels and files have no reason to see more.
pub const MAX_RANK: usize = 4096;

/// What an adapter is to be: method, rank, scale, targets. Serialises with the keys of run files.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AdapterConfig {
    /// Name of a row of [`super::METHODS`]; default `lora`.
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
    /// Takes the adapter's keys out of a run's settings. The caller must have asked for all its own keys before, because what is left
    /// must be the method's own.
    ///
    /// # Errors
    /// Names the key that is unknown or has a value that cannot work.
    pub fn read(settings: &mut Settings<'_>) -> Result<Self> {
        let method = settings.text("method")?.unwrap_or_else(|| "lora".to_owned());
        // A chain is as large as its first link where nothing else is said.
        let first = settings.peek(super::cola::LINKS.key).and_then(|list| whole(list.as_array()?.first()?)).map_or(8, |n| n as usize);
        let rank = settings.size("rank", first, 1..=MAX_RANK)?;
        let alpha = settings.number("alpha", 2.0 * rank as f64, "a positive number up to 3e38", |x| x > 0.0 && x <= f64::from(f32::MAX))?;
        let targets = settings.list("targets")?.unwrap_or_else(|| ["q", "k", "v", "o", "gate", "up", "down"].map(str::to_owned).to_vec());
        let mut patterns = |key: &'static str| settings.value(key).map_or(Ok(Patterns::default()), |value| Patterns::from_json(key, value));
        let (rank_pattern, alpha_pattern) = (patterns("rank-pattern")?, patterns("alpha-pattern")?);
        let dropout = settings.number("dropout", 0.0, "a probability below 1", |x| (0.0..1.0).contains(&x))?;
        let (train_norms, train_embeddings) = (settings.flag("train-norms", false)?, settings.flag("train-embeddings", false)?);
        let options = Method::by_name(&method)?.options(settings.rest(), settings.known())?;
        let tokens = Arc::default();
        Ok(Self { method, rank, alpha, targets, rank_pattern, alpha_pattern, dropout, train_norms, train_embeddings, tokens, options })
    }

    /// The same with the embeddings of these tokens beside those that it trains already; nothing changes where it trains none.
    #[must_use]
    pub fn with_tokens(mut self, tokens: impl IntoIterator<Item = u32>) -> Self {
        if self.train_embeddings {
            self.tokens = embeddings::union(&self.tokens, tokens);
        }
        self
    }

    /// Lays the adapter out for a model.
    ///
    /// # Errors
    /// When a target or pattern matches nothing, or a rank does not fit its layer.
    pub fn layout(&self, model: &ModelConfig) -> Result<AdapterLayout> {
        if let Some(token) = self.tokens.last().filter(|token| **token as usize >= model.vocab_size) {
            let problem = format!("names token {token}, past the model's vocabulary of {}", model.vocab_size);
            return Err(Error::config("train-embeddings", problem, "use what was made for this model"));
        }
        let mut layout = (Method::by_name(&self.method)?.build)(self, model)?;
        // A chain has them at every stage.
        if self.train_norms && layout.norms.is_empty() {
            norms::append(&mut layout, model);
        }
        if self.train_embeddings && layout.embeddings.is_none() {
            embeddings::append(&mut layout, model.hidden_size, &self.tokens);
        }
        Ok(layout)
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

    /// The chain, where the method is one whose layout changes at knots.
    ///
    /// # Errors
    /// Names the setting that cannot work.
    pub fn chain(&self) -> Result<Option<ChainConfig>> {
        Method::by_name(&self.method)?.chain.map(|read| read(self)).transpose()
    }

    pub(super) fn missing(&self, key: &'static str) -> Error {
        Error::config(
            key,
            format!("method `{}` needs it", self.method),
            "make the settings with AdapterConfig::read, which fills in defaults",
        )
    }
}
