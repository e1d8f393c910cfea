//! The table of methods, and what looks a method up in it.

use std::sync::Arc;

use serde_json::Value;

use super::chain::ChainConfig;
use super::config::{AdapterConfig, MAX_RANK};
use super::layout::AdapterLayout;
use super::method::Method;
use super::patterns::Patterns;
use super::{cola, embeddings, lora, mixlora, multilora, norms};
use crate::config::ModelConfig;
use crate::settings::{Map, Settings, one_of, unknown, whole};
use crate::{Error, Result};

/// Every method that an adapter can be trained with.
pub static METHODS: &[Method] =
    &[lora::LORA, cola::COLA, multilora::MULTILORA, mixlora::MIXLORA, mixlora::MIXLORA_DYNAMIC, mixlora::MIXLORA_SWITCH];

impl Method {
    /// The method of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn by_name(name: &str) -> Result<&'static Method> {
        METHODS.iter().find(|method| method.name == name).ok_or_else(|| {
            let names: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
            Error::config("method", format!("`{name}` is unknown"), format!("use {}", one_of(&names)))
        })
    }

    /// The method's own settings out of `rest`, checked, with the defaults of those that were not given.
    /// `known` are the settings that every method has, for the message about a key that is none.
    ///
    /// # Errors
    /// When a key is no setting, or one of another method.
    pub fn options<'a>(&self, rest: impl Iterator<Item = (&'a str, &'a Value)>, known: &[&str]) -> Result<Map> {
        let mut options = Map::new();
        for spec in self.options {
            options.insert(spec.key.to_owned(), spec.parse(spec.default)?);
        }
        for (key, value) in rest.filter(|(_, value)| !value.is_null()) {
            let Some(spec) = self.options.iter().find(|spec| spec.key == key) else {
                return Err(match METHODS.iter().find(|method| method.options.iter().any(|spec| spec.key == key)) {
                    Some(other) => {
                        let problem = format!("method `{}` has no such setting", self.name);
                        Error::config(key, problem, format!("remove it, or set method to `{}`", other.name))
                    }
                    None => unknown(key, known.iter().copied().chain(self.options.iter().map(|spec| spec.key))),
                });
            };
            spec.check(value)?;
            options.insert(key.to_owned(), value.clone());
        }
        Ok(options)
    }
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
        let first = settings.peek(cola::LINKS.key).and_then(|list| whole(list.as_array()?.first()?)).map_or(8, |n| n as usize);
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

    /// The chain, where the method is one whose layout changes at knots.
    ///
    /// # Errors
    /// Names the setting that cannot work.
    pub fn chain(&self) -> Result<Option<ChainConfig>> {
        Method::by_name(&self.method)?.chain.map(|read| read(self)).transpose()
    }
}
