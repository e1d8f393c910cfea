//! What a run takes over from an earlier one: the settings of a checkpoint, the settings and values of an adapter.

use std::sync::Arc;

use serde_json::Value;

use super::config::TrainConfig;
use crate::adapters::chain::ChainConfig;
use crate::adapters::params::Storage;
use crate::adapters::{AdapterConfig, AdapterLayout};
use crate::config::ModelConfig;
use crate::export::adapter::Adapter;
use crate::export::chain::{Chain, Link};
use crate::export::folder::{Folder, NOTE_FILE};
use crate::export::mixlora::MixLoraAdapter;
use crate::export::peft::{Note, PeftAdapter};
use crate::formats::BaseId;
use crate::model::stretch;
use crate::settings::{Map, Settings};
use crate::text::ChatOptions;
use crate::{Error, Result};

/// Puts the settings that a run was begun with where `map` says nothing else.
pub fn fill_in(map: &mut Map, begun_with: &Map) {
    for (key, value) in begun_with {
        let other = match key.as_str() {
            "steps" => "epochs",
            "epochs" => "steps",
            _ => key,
        };
        if !map.contains_key(key) && !map.contains_key(other) {
            map.insert(key.clone(), value.clone());
        }
    }
}

/// What a run's adapter starts from, where not from random numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// The values, laid out for the run's first stage.
    pub values: Vec<f32>,
    /// The frozen links that a chain goes on from, oldest first.
    pub links: Vec<Link>,
    /// The same links as they were, where the run stores them rounded.
    pub unrounded: Option<Unrounded>,
    /// One sentence where the adapter was trained on another file than the run's base.
    pub warning: Option<String>,
    /// The values have the norms that the run goes on from; else it begins with the base's.
    pub has_norms: bool,
    /// The tokens whose embeddings the values have.
    pub tokens: Arc<[u32]>,
}

/// An adapter that is only looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Unrounded {
    /// Its parameters, all of them f32.
    pub layout: AdapterLayout,
    /// Their values.
    pub values: Vec<f32>,
}

impl From<Vec<f32>> for Start {
    fn from(values: Vec<f32>) -> Self {
        Self { values, links: Vec::new(), unrounded: None, warning: None, has_norms: false, tokens: Arc::default() }
    }
}

/// Settings and values of a run that starts from the adapter in `folder`: what `map` does not say is the adapter's. A method with a chain
/// goes on from its links (or from the whole of it as one link) with a new one; other methods train the adapter itself on.
///
/// # Errors
/// A damaged adapter, one of another model, with `strict-base` one of another base, or settings that it does not fit.
pub fn from_adapter(mut map: Map, folder: Folder<'_>, model: &ModelConfig, base: &BaseId) -> Result<(TrainConfig, Start)> {
    let adapter = Adapter::read(folder, Some(model))?;
    if let (Some(template), false) = (chat_of(folder)?.template, map.contains_key("chat-template")) {
        map.insert("chat-template".into(), template.into());
    }
    let adapter = match adapter {
        Adapter::Plain(adapter) => adapter,
        Adapter::Routed(adapter) => return from_routed(map, folder.name, &adapter, model, base),
    };
    // It answers as it was trained only with the angles that it was trained with.
    let note = adapter.note.as_ref().filter(|_| !map.contains_key("context"));
    if let Some(note) = note.filter(|note| stretch::of_settings(model, &note.config).is_ok_and(|own| own != *model)) {
        for key in ["context", "rope-scaling"] {
            note.config.get(key).into_iter().for_each(|value| drop(map.insert(key.to_owned(), value.clone())));
        }
    }
    // To another length it is stretched as it was.
    let target = map.get("context").and_then(Value::as_u64).filter(|_| !map.contains_key("rope-scaling"));
    if let (Some(note), Some(target)) = (&adapter.note, target)
        && let Some(method) = stretch::method_of_settings(model, &note.config, usize::try_from(target).unwrap_or(usize::MAX))
    {
        map.insert("rope-scaling".to_owned(), method.name().into());
    }
    let asked = TrainConfig::from_map(&map)?;
    let warning = adapter.check_base(folder.name, base, asked.strict_base)?;
    let has_norms = !adapter.norms.is_empty();
    let tokens: Arc<[u32]> = adapter.embeddings.as_ref().map(|own| own.tokens.clone()).unwrap_or_default();
    let is_chain = asked.adapter.chain()?.is_some();
    let mut config_with = |settings: Map| {
        for (key, value) in settings {
            if !map.contains_key(&key) {
                map.insert(key, value);
            }
        }
        let mut config = TrainConfig::from_map(&map)?;
        config.adapter = config.adapter.with_tokens(tokens.iter().copied());
        Ok::<_, Error>(config)
    };
    if !is_chain {
        let config = config_with(adapter.settings())?;
        let values = adapter.to_buffer(folder.name, &config.adapter.layout(model)?)?;
        return Ok((config, Start { warning, has_norms, tokens, ..values.into() }));
    }
    let chain = Chain::read(folder.name, adapter, folder.chain)?;
    let config = config_with(chain.settings())?;
    let values = chain.to_buffer(folder.name, &config.adapter.layout(model)?, config.seed)?;
    let unrounded = match config.adapter.chain()? {
        Some(stored) if stored.storage == Storage::F16 => {
            let layout = ChainConfig { storage: Storage::F32, ..stored }.layout(&config.adapter, model, 0)?;
            let values = chain.to_buffer(folder.name, &layout, config.seed)?;
            Some(Unrounded { layout, values })
        }
        _ => None,
    };
    Ok((config, Start { values, links: chain.manifest().links, unrounded, warning, has_norms, tokens }))
}

/// Puts the method of the adapter in `folder` where `map` names none and the adapter's is the only one that trains it on: then `map` may have settings of
/// that method.
///
/// # Errors
/// A damaged adapter.
pub fn take_method(map: &mut Map, folder: Folder<'_>) -> Result<()> {
    if !map.contains_key("method")
        && let Adapter::Routed(adapter) = Adapter::read(folder, None)?
    {
        map.extend(adapter.settings().remove("method").map(|method| ("method".to_owned(), method)));
    }
    Ok(())
}

/// As [`from_adapter`], for routers and experts: the run has the adapter's method and trains it on.
fn from_routed(mut map: Map, name: &str, adapter: &MixLoraAdapter, model: &ModelConfig, base: &BaseId) -> Result<(TrainConfig, Start)> {
    let settings = adapter.settings();
    let method = map.entry("method").or_insert_with(|| settings["method"].clone());
    if *method != settings["method"] {
        return Err(Error::Adapter {
            adapter: name.to_owned(),
            problem: format!("it has routed experts of the method {}, the run is to have the method {method}", settings["method"]),
            hint: "leave out --method to train it on",
        });
    }
    for (key, value) in settings {
        map.entry(key).or_insert(value);
    }
    let config = TrainConfig::from_map(&map)?;
    let warning = adapter.check_base(name, base, config.strict_base)?;
    let values = adapter.to_buffer(name, &config.adapter.layout(model)?)?;
    Ok((config, Start { warning, ..values.into() }))
}

/// The chat template and date with which the adapter in `folder` was trained, as far as it says so.
///
/// # Errors
/// A damaged note.
pub fn chat_of(folder: Folder<'_>) -> Result<ChatOptions> {
    let Some(bytes) = folder.note else { return Ok(ChatOptions::default()) };
    let note: Note = serde_json::from_slice(bytes).map_err(|e| Error::Adapter {
        adapter: folder.name.to_owned(),
        problem: format!("{NOTE_FILE} cannot be read: {e}"),
        hint: "save or download the adapter again",
    })?;
    let text = |key: &str| note.config.get(key).and_then(Value::as_str);
    Ok(ChatOptions { template: text("chat-template").map(str::to_owned), date: text("date").and_then(|day| day.parse().ok()) })
}

/// `model` with the rotary angles that the adapter in `folder` was trained with; as it is where the folder does not say, or cannot be read, which is
/// told when the adapter itself is.
///
/// # Errors
/// Angles that this model's cannot be stretched to.
pub fn angles_of(folder: Folder<'_>, model: &ModelConfig) -> Result<ModelConfig> {
    let note = folder.note.and_then(|bytes| serde_json::from_slice::<Note>(bytes).ok());
    note.map_or_else(|| Ok(model.clone()), |note| stretch::of_settings(model, &note.config))
}

/// How the adapter in `folder` stretches `model` to `target` tokens; `None` where it does not say.
pub fn stretch_of(folder: Folder<'_>, model: &ModelConfig, target: usize) -> Option<stretch::Stretch> {
    let note = folder.note.and_then(|bytes| serde_json::from_slice::<Note>(bytes).ok())?;
    stretch::method_of_settings(model, &note.config, target)
}

/// An adapter as it is used for inference: its layout and values.
pub type LaidOut = (AdapterLayout, Vec<f32>);

/// The adapter in `folder` as it is used for inference; and one sentence where it was trained on another file than the
/// base it is used on.
///
/// # Errors
/// A damaged adapter, one of another model, or with `strict` one of another base.
pub fn open_adapter(folder: Folder<'_>, model: &ModelConfig, base: &BaseId, strict: bool) -> Result<(LaidOut, Option<String>)> {
    let adapter = Adapter::read(folder, Some(model))?;
    let warning = adapter.check_base(folder.name, base, strict)?;
    let laid_out = match &adapter {
        Adapter::Plain(adapter) => lay_out(folder.name, adapter, model)?,
        Adapter::Routed(adapter) => {
            let layout = AdapterConfig::read(&mut Settings::new(&adapter.settings()))?.layout(model)?;
            let values = adapter.to_buffer(folder.name, &layout)?;
            (layout, values)
        }
    };
    Ok((laid_out, warning))
}

/// Lays an adapter out for a model.
///
/// # Errors
/// When it does not fit the model.
pub fn lay_out(name: &str, adapter: &PeftAdapter, model: &ModelConfig) -> Result<LaidOut> {
    let tokens = adapter.embeddings.iter().flat_map(|own| own.tokens.iter().copied());
    let layout = AdapterConfig::read(&mut Settings::new(&adapter.settings()))?.with_tokens(tokens).layout(model)?;
    let values = adapter.to_buffer(name, &layout)?;
    Ok((layout, values))
}
