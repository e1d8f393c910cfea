//! Everything that a run needs to go on bit for bit, in one safetensors file.
//!
//! Tensors, F32, in Hugging Face's shapes: `param.{name}` for every parameter, `exp_avg.{name}` and `exp_avg_sq.{name}` (AdamW's
//! moments) for the trainable ones, and `grad.{name}` where a step was under way. The metadata key `weblora` holds JSON: `state`, itself JSON text (see [`State`]), and `checksum`, FNV-1a 64
//! over that text and all tensors. The random numbers need no state: they are functions of the seed, the step and a name.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::batch::Cursor;
use super::chain::ChainState;
use super::kernels::KernelChoices;
use super::progress::Progress;
use super::score::Score;
use crate::adapters::{ParamLayout, ParamSpec};
use crate::rng::{FNV_OFFSET, fnv1a_bytes};
use crate::settings::Map;
use crate::{Error, Result};

/// Version of the file; another one is refused.
pub const VERSION: u32 = 2;

const META: &str = "weblora";
const KINDS: [&str; 3] = ["param", "exp_avg", "exp_avg_sq"];
const GRAD: &str = "grad";
const HINT_DAMAGED: &str = "use an undamaged checkpoint, or start anew without --resume";
const HINT_OTHER: &str = "resume with the weblora version and settings that wrote it, or start anew without --resume";

/// All of a run's state but the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the program that wrote the file.
    pub weblora: String,
    /// Identity of the base weights (`ModelFile::content_hash`).
    pub base_hash: String,
    /// Identity of the training rows ([`super::data::data_hash`]).
    pub data_hash: String,
    /// The settings, as [`super::TrainConfig::to_map`] gives them.
    pub config: Map,
    /// Optimizer steps done.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Where the run is in its data.
    pub cursor: Cursor,
    /// Best held-out loss and how long ago it was.
    pub progress: Progress,
    /// Where the chain stands, if the run has one.
    pub chain: Option<ChainState>,
    /// Where the run went on with a smaller learning rate than before, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lr_changes: Vec<LrChange>,
    /// The optimizer step that was under way, if some of its micro-batches were done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
    /// Kernel choices that the run's bits depend on; checkpoints of earlier versions do not have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<KernelChoices>,
    /// The tokens whose embeddings train, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub embedding_tokens: Vec<u32>,
}

/// An optimizer step of which some micro-batches are done. `cursor` is where the step began: its micro-batches are drawn again from there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partial {
    /// Micro-batches done; at least 1.
    pub micro_batches: usize,
    /// Sum of the losses of their targets.
    pub sum: f64,
    /// The same by task.
    pub by_task: Vec<Score>,
}

/// A run was resumed with a smaller learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LrChange {
    /// After this step.
    pub step: u64,
    /// The rate until then.
    pub from: f64,
    /// The rate since.
    pub to: f64,
}

/// The flat buffers of a run, laid out by a [`ParamLayout`].
#[derive(Debug, Clone, PartialEq)]
pub struct Buffers {
    /// Parameters, `words` long.
    pub values: Vec<f32>,
    /// First moments of the trainable ones, as [`ParamLayout::gradient_offsets`] lays them out.
    pub m: Vec<f32>,
    /// Second moments, likewise.
    pub v: Vec<f32>,
    /// Gradients added up so far, likewise; `None` between steps, where they are zero.
    pub grads: Option<Vec<f32>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    checksum: String,
    state: String,
}

/// The bytes of a checkpoint file.
///
/// # Errors
/// When the state cannot be written as JSON (a best loss that is not finite).
///
/// # Panics
/// When a buffer has not the layout's length.
pub fn write(state: &State, layout: &ParamLayout, buffers: &Buffers) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::format("checkpoint", format!("cannot be written: {e}"), "report this");
    assert_eq!(state.partial.is_some(), buffers.grads.is_some(), "gradients of a step that is under way");
    let mut tensors: Vec<(String, &[usize], Vec<f32>)> = Vec::new();
    let grads = buffers.grads.iter().map(|grads| (GRAD, grads));
    for (kind, buffer) in KINDS.into_iter().zip([&buffers.values, &buffers.m, &buffers.v]).chain(grads) {
        let (places, words) = places(kind, layout);
        assert_eq!(buffer.len(), words, "words of the {kind} buffer");
        for (spec, offset) in places {
            tensors.push((format!("{kind}.{}", spec.name), &spec.shape, spec.to_hf_at(buffer, offset)));
        }
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    // Files are little-endian, as is every machine that wgpu runs on.
    let mut views = Vec::with_capacity(tensors.len());
    for (name, shape, values) in &tensors {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytemuck::cast_slice(values)).map_err(|e| failed(&e))?;
        views.push((name.as_str(), view));
    }
    let state = serde_json::to_string(state).map_err(|e| failed(&e))?;
    let meta = Meta { checksum: checksum(&state, views.iter().map(|(name, view)| (*name, view))), state };
    let meta = serde_json::to_string(&meta).map_err(|e| failed(&e))?;
    safetensors::serialize(views, Some(HashMap::from([(META.to_owned(), meta)]))).map_err(|e| failed(&e))
}

/// The parameters in the buffer of that kind with their first words, and its length.
fn places<'l>(kind: &str, layout: &'l ParamLayout) -> (Vec<(&'l ParamSpec, usize)>, usize) {
    if kind == KINDS[0] {
        return (layout.specs.iter().map(|spec| (spec, spec.offset)).collect(), layout.words);
    }
    let (offsets, words) = layout.gradient_offsets();
    (layout.specs.iter().zip(offsets).filter(|(spec, _)| spec.trainable).collect(), words)
}

/// FNV-1a 64 over the state's text, then for every tensor its name, sizes and bytes; in order of the names.
fn checksum<'a, 'd: 'a>(state: &str, tensors: impl Iterator<Item = (&'a str, &'a TensorView<'d>)>) -> String {
    let mut hash = fnv1a_bytes(FNV_OFFSET, state.as_bytes());
    for (name, view) in tensors {
        hash = fnv1a_bytes(hash, name.as_bytes());
        for &size in view.shape() {
            hash = fnv1a_bytes(hash, &(size as u64).to_le_bytes());
        }
        hash = fnv1a_bytes(hash, view.data());
    }
    format!("{hash:016x}")
}

/// A checkpoint file, its structure and checksum verified.
#[derive(Debug)]
pub struct Checkpoint<'a> {
    /// What the run was doing.
    pub state: State,
    file: String,
    tensors: SafeTensors<'a>,
}

impl<'a> Checkpoint<'a> {
    /// Reads a file; `file` names it in errors.
    ///
    /// # Errors
    /// When it is no checkpoint, is cut off or damaged, or is of another version.
    pub fn read(file: &str, bytes: &'a [u8]) -> Result<Self> {
        let damaged = |problem: String| Error::format(file, problem, HINT_DAMAGED);
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(format!("not a whole safetensors file: {e}")))?;
        let text = header.metadata().as_ref().and_then(|map| map.get(META));
        let text = text.ok_or_else(|| damaged(format!("it has no metadata `{META}`, so it is no checkpoint")))?;
        let meta: Meta = serde_json::from_str(text).map_err(|e| damaged(format!("its metadata cannot be read: {e}")))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| damaged(format!("not a whole safetensors file: {e}")))?;
        let mut named = tensors.tensors();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let sum = checksum(&meta.state, named.iter().map(|(name, view)| (name.as_str(), view)));
        if sum != meta.checksum {
            return Err(damaged(format!("its checksum is {sum} but {} was written", meta.checksum)));
        }
        // The version comes first: a later one may hold anything else.
        let version = serde_json::from_str::<Map>(&meta.state).ok().and_then(|map| map.get("version")?.as_u64());
        if version != Some(u64::from(VERSION)) {
            let found = version.map_or_else(|| "unknown".to_owned(), |v| v.to_string());
            return Err(Error::format(file, format!("its version is {found}, {VERSION} was expected"), HINT_OTHER));
        }
        let state = serde_json::from_str(&meta.state).map_err(|e| damaged(format!("its state cannot be read: {e}")))?;
        Ok(Self { state, file: file.to_owned(), tensors })
    }

    /// Refuses another base model or other rows than those that the run was started with.
    ///
    /// # Errors
    /// Says which of the two differs.
    pub fn check(&self, base_hash: &str, data_hash: &str) -> Result<()> {
        let differs = |what: &str, found: &str, written: &str, hint| {
            Error::format(&self.file, format!("it belongs to the {what} {written}, not to {found}"), hint)
        };
        if self.state.base_hash != base_hash {
            return Err(differs("base model", base_hash, &self.state.base_hash, "resume with the model that the run was started with"));
        }
        if self.state.data_hash != data_hash {
            return Err(differs("training rows", data_hash, &self.state.data_hash, "resume with the data that the run was started with"));
        }
        Ok(())
    }

    /// Names of the parameters, without `param.` in front.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &str> {
        self.tensors.names().into_iter().filter_map(|name| name.strip_prefix(KINDS[0])?.strip_prefix('.'))
    }

    /// Shape and values of one parameter.
    ///
    /// # Errors
    /// When it is missing or not F32.
    pub(super) fn parameter(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let name = format!("{}.{name}", KINDS[0]);
        let wrong = |problem: String| Error::format(&self.file, problem, HINT_OTHER);
        let view = self.tensors.tensor(&name).map_err(|_| wrong(format!("tensor `{name}` is missing")))?;
        if view.dtype() != Dtype::F32 {
            return Err(wrong(format!("tensor `{name}` is {:?}, F32 was expected", view.dtype())));
        }
        Ok((view.shape().to_vec(), floats(&view)))
    }

    /// The flat buffers for `layout`.
    ///
    /// # Errors
    /// When a tensor is missing, surplus, of another shape or not F32.
    pub fn buffers(&self, layout: &ParamLayout) -> Result<Buffers> {
        let wrong = |problem: String| Error::format(&self.file, problem, HINT_OTHER);
        let mut taken = 0;
        let mut read = |kind: &str| -> Result<Vec<f32>> {
            let (places, words) = places(kind, layout);
            let mut buffer = vec![0.0; words];
            for (spec, offset) in places {
                let name = format!("{kind}.{}", spec.name);
                let view = self.tensors.tensor(&name).map_err(|_| wrong(format!("tensor `{name}` is missing")))?;
                if view.dtype() != Dtype::F32 || view.shape() != spec.shape {
                    let found = format!("{:?} {:?}", view.dtype(), view.shape());
                    return Err(wrong(format!("tensor `{name}` is {found}, F32 {:?} was expected", spec.shape)));
                }
                spec.put_hf_at(&floats(&view), &mut buffer, offset);
                taken += 1;
            }
            Ok(buffer)
        };
        let grads = self.state.partial.is_some();
        let mut buffers = Buffers { values: read(KINDS[0])?, m: read(KINDS[1])?, v: read(KINDS[2])?, grads: None };
        if grads {
            buffers.grads = Some(read(GRAD)?);
        }
        if taken != self.tensors.len() {
            return Err(wrong(format!("it has {} tensors, {taken} were expected", self.tensors.len())));
        }
        Ok(buffers)
    }
}

fn floats(view: &TensorView<'_>) -> Vec<f32> {
    view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
