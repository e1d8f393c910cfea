//! What a run takes over from an earlier one: the settings of a checkpoint, the settings and values of an adapter.

use super::config::TrainConfig;
use crate::Result;
use crate::adapters::{AdapterConfig, AdapterLayout};
use crate::config::ModelConfig;
use crate::export::peft::{Folder, PeftAdapter};
use crate::settings::{Map, Settings};

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

/// Settings and values of a run that starts from the adapter in `folder`: what `map` does not say is the adapter's.
///
/// # Errors
/// A damaged adapter, one of another base or model, or settings that it does not fit.
pub fn from_adapter(mut map: Map, folder: Folder<'_>, model: &ModelConfig, base_hash: &str) -> Result<(TrainConfig, Vec<f32>)> {
    let adapter = PeftAdapter::read(folder, model)?;
    adapter.check_base(folder.name, base_hash)?;
    for (key, value) in adapter.settings() {
        if !map.contains_key(&key) {
            map.insert(key, value);
        }
    }
    let config = TrainConfig::from_map(&map)?;
    let values = adapter.to_buffer(folder.name, &config.adapter.layout(model)?)?;
    Ok((config, values))
}

/// The adapter in `folder` as it is used for inference: its layout and values.
///
/// # Errors
/// A damaged adapter, or one of another base or model.
pub fn open_adapter(folder: Folder<'_>, model: &ModelConfig, base_hash: &str) -> Result<(AdapterLayout, Vec<f32>)> {
    let adapter = PeftAdapter::read(folder, model)?;
    adapter.check_base(folder.name, base_hash)?;
    let layout = AdapterConfig::read(&mut Settings::new(&adapter.settings()))?.layout(model)?;
    let values = adapter.to_buffer(folder.name, &layout)?;
    Ok((layout, values))
}
