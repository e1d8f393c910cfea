//! Trainable embeddings: what a job adds to the embeddings of the tokens that occur in its rows, ΔE `[tokens, hidden]`, zero at the start. Other
//! tokens would have no gradient, so that a model's whole embedding needs neither moments nor gradients. A tied head stays the base's.

use std::sync::Arc;

use super::layout::{AdapterLayout, Embeddings};
use super::params::{Init, ParamSpec, Storage};
use crate::{Error, Result};

/// Hugging Face's name of the module, and the parameter's.
pub const MODULE: &str = "embed_tokens";

/// Embeddings with their values.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingRows {
    /// Tokens, ascending.
    pub tokens: Arc<[u32]>,
    /// What is added to the base's embedding of each, `[tokens, hidden]`.
    pub delta: Vec<f32>,
}

impl EmbeddingRows {
    /// Those of an adapter with these values, where it has any.
    pub fn of(layout: &AdapterLayout, values: &[f32]) -> Option<Self> {
        let Embeddings { param, tokens } = layout.embeddings.as_ref()?;
        Some(Self { tokens: tokens.clone(), delta: layout.params.specs[*param].to_hf(values) })
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.delta.len() / self.tokens.len().max(1)
    }

    /// What is added to the embedding of one token, where it is anything.
    pub fn row(&self, token: u32) -> Option<&[f32]> {
        let place = self.tokens.binary_search(&token).ok()?;
        self.delta.chunks_exact(self.width()).nth(place)
    }

    /// Puts them into their places in an adapter's buffer; false where the layout has no place for one.
    #[must_use]
    pub fn fill(&self, layout: &AdapterLayout, values: &mut [f32]) -> bool {
        let Some(Embeddings { param, tokens }) = &layout.embeddings else { return false };
        let spec = &layout.params.specs[*param];
        let width = spec.shape[1];
        let rows = &mut values[spec.range()];
        self.width() == width
            && self.tokens.iter().zip(self.delta.chunks_exact(width)).all(|(token, delta)| {
                let place = tokens.binary_search(token).ok();
                place.map(|place| rows[place * width..(place + 1) * width].copy_from_slice(delta)).is_some()
            })
    }
}

/// Both lists as one, ascending, each token once.
pub fn union(known: &[u32], more: impl IntoIterator<Item = u32>) -> Arc<[u32]> {
    let mut all: Vec<u32> = known.iter().copied().chain(more).collect();
    all.sort_unstable();
    all.dedup();
    all.into()
}

/// Adds the embeddings of `tokens` to a layout, after everything else; nothing where there are none. They decay as norms do: not at all.
pub(super) fn append(layout: &mut AdapterLayout, hidden: usize, tokens: &Arc<[u32]>) {
    if tokens.is_empty() {
        return;
    }
    let param = layout.params.push(ParamSpec {
        name: MODULE.to_owned(),
        shape: vec![tokens.len(), hidden],
        transposed: false,
        offset: 0,
        adjacent: false,
        padding: 0,
        init: Init::Zeros,
        lr_multiplier: 1.0,
        weight_decay: false,
        trainable: true,
        storage: Storage::F32,
    });
    layout.embeddings = Some(Embeddings { param, tokens: tokens.clone() });
}

/// The values of a run that begins as `values` have it, which are laid out for the embeddings of `tokens`: other tokens that `layout` trains begin
/// with the base's. All else lies before them, and stays.
///
/// # Errors
/// When a token of `tokens` is not among the layout's.
///
/// # Panics
/// When the layouts differ in anything else: a bug of the caller.
pub fn widen(mut values: Vec<f32>, tokens: &Arc<[u32]>, layout: &AdapterLayout) -> Result<Vec<f32>> {
    let missing = || {
        let problem = "is planned without the tokens of the adapter that the run goes on from";
        Error::config("train-embeddings", problem, "plan with the settings that from_adapter gave")
    };
    let Some(Embeddings { param, .. }) = &layout.embeddings else {
        return if tokens.is_empty() { Ok(values) } else { Err(missing()) };
    };
    let spec = &layout.params.specs[*param];
    let old = if tokens.is_empty() { Vec::new() } else { values[spec.offset..spec.offset + tokens.len() * spec.shape[1]].to_vec() };
    values.truncate(spec.offset);
    values.resize(layout.params.words, 0.0);
    let rows = EmbeddingRows { tokens: tokens.clone(), delta: old };
    if tokens.is_empty() || rows.fill(layout, &mut values) { Ok(values) } else { Err(missing()) }
}

#[cfg(test)]
mod tests {
    use super::super::params::ParamLayout;
    use super::*;

    fn layout(tokens: &[u32]) -> AdapterLayout {
        let params = ParamLayout::default();
        let (sites, norms) = (Vec::new(), Vec::new());
        let mut layout =
            AdapterLayout { sites, params, norms, embeddings: None, dropout: 0.0, half: false, rslora: false, blocks: 1, experts: None };
        layout.params.push(ParamSpec {
            name: "before".into(),
            shape: vec![5],
            transposed: false,
            offset: 0,
            adjacent: false,
            padding: 0,
            init: Init::Zeros,
            lr_multiplier: 1.0,
            weight_decay: true,
            trainable: true,
            storage: Storage::F32,
        });
        append(&mut layout, 3, &tokens.into());
        layout
    }

    #[test]
    fn tokens_that_are_new_begin_with_the_bases_embedding() {
        assert_eq!(*union(&[9, 2], [4, 2, 4]), [2, 4, 9]);
        let (old, new) = (layout(&[2, 9]), layout(&[2, 4, 9]));
        let mut values = vec![0.0; old.params.words];
        values[..5].fill(7.0);
        let rows = EmbeddingRows { tokens: [2, 9].into(), delta: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
        assert!(rows.fill(&old, &mut values));
        assert_eq!((rows.row(9), rows.row(4)), (Some(&[4.0, 5.0, 6.0][..]), None));
        let wide = widen(values.clone(), &rows.tokens, &new).expect("a wider layout");
        assert_eq!(wide.len(), new.params.words);
        assert_eq!(EmbeddingRows::of(&new, &wide).map(|rows| rows.delta), Some(vec![1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 4.0, 5.0, 6.0]));
        assert_eq!(wide[..5], values[..5]);
        // From a run without any; and what has no place is told.
        assert_eq!(widen(values[..64].to_vec(), &[].into(), &new).expect("a wider layout")[64..], [0.0; 64]);
        assert!(
            widen(values.clone(), &[1].into(), &new).is_err()
                && widen(values.clone(), &[2].into(), &AdapterLayout { embeddings: None, ..new.clone() }).is_err()
        );
        assert!(!EmbeddingRows { tokens: [3].into(), delta: vec![0.0; 3] }.fill(&new, &mut vec![0.0; new.params.words]));
    }
}
