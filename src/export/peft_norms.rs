//! The norms among the tensors of a PEFT file: what `modules_to_save` lists.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorView};

use super::folder::PREFIX;
use crate::adapters::norms;
use crate::config::ModelConfig;

/// The norms of a file as they are found.
#[derive(Debug, Default)]
pub(super) struct OwnNorms {
    of_blocks: BTreeMap<usize, (String, Vec<f32>)>,
    last: Option<(String, Vec<f32>)>,
}

impl OwnNorms {
    /// Takes one norm's weights; `norm` is its number, or `None` for the last one.
    pub(super) fn add(&mut self, norm: Option<usize>, key: &str, values: Vec<f32>) {
        match norm {
            Some(number) => drop(self.of_blocks.insert(number, (key.to_owned(), values))),
            None => self.last = Some((key.to_owned(), values)),
        }
    }

    /// All of them in the model's order, none where there is none; else what is wrong with them.
    pub(super) fn finish(self, model: Option<&ModelConfig>) -> std::result::Result<Vec<Vec<f32>>, String> {
        if self.of_blocks.is_empty() && self.last.is_none() {
            return Ok(Vec::new());
        }
        let found = self.of_blocks.len() + usize::from(self.last.is_some());
        let blocks = model.map_or(self.of_blocks.len() / 2, |model| model.num_hidden_layers);
        if !self.of_blocks.keys().copied().eq(0..norms::last(blocks)) || self.last.is_none() {
            return Err(format!("it has {found} trained norms, all {} of the model or none are possible", norms::last(blocks) + 1));
        }
        let all: Vec<(String, Vec<f32>)> = self.of_blocks.into_values().chain(self.last).collect();
        let width = model.map_or(all[0].1.len(), |model| model.hidden_size);
        match all.iter().find(|(_, values)| values.len() != width) {
            Some((key, values)) => Err(format!("tensor `{key}` has {} elements, {width} were expected", values.len())),
            None => Ok(all.into_iter().map(|(_, values)| values).collect()),
        }
    }
}

/// The tensors of a file; else what is wrong with the numbers.
pub(super) fn views(norms: &[Vec<f32>]) -> std::result::Result<Vec<(String, TensorView<'_>)>, String> {
    let mut views = Vec::with_capacity(norms.len());
    for (name, values) in norms::names(norms.len() / 2).zip(norms) {
        if let Some(bad) = values.iter().find(|x| !x.is_finite()) {
            return Err(format!("{name} holds {bad}"));
        }
        let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
        views.push((format!("{PREFIX}model.{name}.weight"), view.map_err(|e| format!("{name}: {e}"))?));
    }
    Ok(views)
}

/// The norm that a tensor is the weights of, as [`norms::parse`] numbers it.
pub(super) fn parse_norm(key: &str) -> Option<Option<usize>> {
    norms::parse(key.strip_prefix(PREFIX)?.strip_suffix(".weight")?)
}
