//! The whole model: embedding, blocks, head; what is recorded for training and for evaluation.

use std::sync::Arc;

use super::block::{Block, Saved, Stream};
use super::ffn::Routing;
use super::{Base, Inputs, Weights, head, rope};
use crate::Result;
use crate::adapters::AdapterPool;
use crate::config::ModelConfig;
use crate::gpu::{Class, Gpu, Recorder, Store, Tensor};
use crate::kernels::embed;

/// A LLaMA-family model: a [`Base`] and a rotary table in a store over it.
pub struct Llama {
    /// Shape.
    pub config: ModelConfig,
    /// Frozen weights.
    pub weights: Arc<Weights>,
    /// `[positions, head_dim / 2]` (cos, sin), for training and evaluation. A decoder has a table of its own: its sequences are other lengths.
    pub rope: Tensor,
    positions: usize,
}

/// How much of the forward pass is kept for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recompute {
    /// Keep the products of every block.
    Off,
    /// Keep only each block's input and run its forward pass again.
    Blocks,
}

impl Llama {
    /// Declares the rotary table for documents of up to `positions` tokens in `store`, which lies over the base's.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] past 32-bit addressing.
    pub fn on(base: &Base, store: &mut Store, positions: usize) -> Result<Llama> {
        let config = base.config.clone();
        let rope = store.declare("rope", Class::Io, positions.saturating_mul(config.head_dim))?;
        Ok(Llama { config, weights: base.weights.clone(), rope, positions })
    }

    /// Writes the rotary table.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] if the buffers were not allocated.
    pub fn upload(&self, gpu: &Gpu, store: &Store) -> Result<()> {
        store.write(gpu, self.rope, &rope::table(&self.config, self.positions, self.positions))
    }

    fn block<'a>(&'a self, layer: usize, adapters: Option<&'a AdapterPool>, inputs: &'a Inputs) -> Block<'a> {
        self.block_turned_by(self.rope, layer, adapters, inputs)
    }

    fn training_block<'a>(&'a self, layer: usize, adapters: &'a AdapterPool, inputs: &'a Inputs) -> Block<'a> {
        Block { training: true, ..self.block(layer, Some(adapters), inputs) }
    }

    pub(super) fn block_turned_by<'a>(
        &'a self,
        rope: Tensor,
        layer: usize,
        adapters: Option<&'a AdapterPool>,
        inputs: &'a Inputs,
    ) -> Block<'a> {
        let (weights, above) = (&self.weights.layers[layer], self.weights.layers.get(layer + 1));
        Block { layer, config: &self.config, weights, above, adapters, inputs, rope, training: false }
    }

    pub(super) fn embed(&self, rec: &mut Recorder, adapters: Option<&AdapterPool>, inputs: &Inputs) -> Tensor {
        let x = rec.transient("embed_tokens", inputs.rows * self.config.hidden_size);
        embed::gather(rec, "embed_tokens", inputs.tokens, &self.weights.embed_tokens, x);
        if let Some(own) = adapters.and_then(AdapterPool::own_embeddings) {
            embed::add_own(rec, "embed_tokens.own", inputs.tokens, own, self.config.hidden_size, x);
        }
        x
    }

    /// Records the loss of every target row, without gradients.
    pub fn record_eval(&self, rec: &mut Recorder, adapters: Option<&AdapterPool>, inputs: &Inputs) {
        let x = self.hidden(rec, adapters, inputs);
        rec.scoped("head", |rec| head::loss(rec, &self.weights, adapters, inputs, self.config.rms_norm_eps, x, None));
    }

    /// Records the blocks and returns what enters the final norm, `[t, d]`.
    pub fn hidden(&self, rec: &mut Recorder, adapters: Option<&AdapterPool>, inputs: &Inputs) -> Tensor {
        let mut x = Stream::from(self.embed(rec, adapters, inputs));
        for layer in 0..self.config.num_hidden_layers {
            let block = self.block(layer, adapters, inputs);
            x = rec.scoped(format!("layers.{layer}"), |rec| block.forward(rec, x, Routing::New).1);
        }
        x.x
    }

    /// Records the loss and the gradients of every trainable parameter; gradients are added to what is there.
    pub fn record_train(&self, rec: &mut Recorder, adapters: &AdapterPool, inputs: &Inputs, recompute: Recompute) {
        let d = self.config.hidden_size;
        let embeddings = adapters.own_embeddings().zip(inputs.order);
        let lowest = adapters.lowest_layer().unwrap_or(self.config.num_hidden_layers);
        let mut x = Stream::from(self.embed(rec, Some(adapters), inputs));
        let mut kept: Vec<(Tensor, Option<Saved>)> = Vec::new();
        for layer in 0..self.config.num_hidden_layers {
            let block = self.training_block(layer, adapters, inputs);
            let (saved, out) = rec.scoped(format!("layers.{layer}"), |rec| block.forward(rec, x, Routing::New));
            kept.push((x.x, (recompute == Recompute::Off && layer >= lowest).then_some(saved)));
            x = out;
        }
        let x = x.x;
        adapters.record_balance(rec, inputs.rows);
        let dx = rec.transient("dx", inputs.rows * d);
        rec.scoped("head", |rec| head::loss(rec, &self.weights, Some(adapters), inputs, self.config.rms_norm_eps, x, Some(dx)));
        for layer in (lowest..self.config.num_hidden_layers).rev() {
            rec.scoped(format!("layers.{layer}"), |rec| {
                let block = self.training_block(layer, adapters, inputs);
                let (x, saved) = kept[layer];
                let saved = saved.unwrap_or_else(|| rec.scoped("again", |rec| block.forward(rec, x.into(), Routing::Again).0));
                block.backward(rec, saved, dx, layer > lowest || embeddings.is_some());
            });
        }
        if let Some((own, order)) = embeddings {
            embed::own_gradient(rec, "embed_tokens.gradient", inputs.tokens, own, order, d, dx);
        }
    }
}
