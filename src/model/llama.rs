//! The whole model: embedding, blocks, head; what is recorded for training and for evaluation.

use std::ops::Range;
use std::sync::Arc;

use super::block::{Block, Stream};
use super::ffn::Routing;
use super::{Base, Inputs, Recompute, RowParts, Weights, head, rope};
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
    /// Rows of the feed-forward layers at once.
    pub row_parts: RowParts,
    positions: usize,
}

impl Llama {
    /// Declares the rotary table for documents of up to `positions` tokens in `store`, which lies over the base's.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] past 32-bit addressing.
    pub fn on(base: &Base, store: &mut Store, positions: usize) -> Result<Llama> {
        let config = base.config.clone();
        let rope = store.declare("rope", Class::Io, positions.saturating_mul(config.head_dim))?;
        Ok(Llama { config, weights: base.weights.clone(), rope, row_parts: RowParts::WHOLE, positions })
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
        Block { layer, config: &self.config, weights, above, adapters, inputs, rope, row_parts: self.row_parts, training: false }
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
        let blocks = self.config.num_hidden_layers;
        let embeddings = adapters.own_embeddings().zip(inputs.order);
        let lowest = adapters.lowest_layer().unwrap_or(blocks);
        let mut x = Stream::from(self.embed(rec, Some(adapters), inputs));
        // What enters each block and what its forward pass leaves. The plan keeps what the backward pass uses.
        let (mut entering, mut saved) = (Vec::with_capacity(blocks), Vec::with_capacity(blocks));
        for layer in 0..blocks {
            let block = self.training_block(layer, adapters, inputs);
            entering.push(x.x);
            let (left, out) = rec.scoped(format!("layers.{layer}"), |rec| block.forward(rec, x, Routing::New));
            saved.push((recompute == Recompute::Off).then_some(left));
            x = out;
        }
        let x = x.x;
        adapters.record_balance(rec, inputs.rows);
        let dx = rec.transient("dx", inputs.rows * d);
        rec.scoped("head", |rec| head::loss(rec, &self.weights, Some(adapters), inputs, self.config.rms_norm_eps, x, Some(dx)));
        for segment in recompute.segments(lowest..blocks).into_iter().rev() {
            if segment.end < blocks {
                self.record_entering(rec, adapters, inputs, segment.clone(), &mut entering);
            }
            for layer in segment.rev() {
                rec.scoped(format!("layers.{layer}"), |rec| {
                    let block = self.training_block(layer, adapters, inputs);
                    let again = |rec: &mut Recorder| block.forward(rec, entering[layer].into(), Routing::Again).0;
                    let saved = saved[layer].take().unwrap_or_else(|| rec.scoped("again", again));
                    block.backward(rec, saved, dx, layer > lowest || embeddings.is_some());
                });
            }
        }
        if let Some((own, order)) = embeddings {
            embed::own_gradient(rec, "embed_tokens.gradient", inputs.tokens, own, order, d, dx);
        }
    }

    /// Records what enters the blocks of `segment` once more, from what enters the first.
    fn record_entering(&self, rec: &mut Recorder, adapters: &AdapterPool, inputs: &Inputs, segment: Range<usize>, entering: &mut [Tensor]) {
        let mut x = Stream::from(entering[segment.start]);
        for layer in segment.start..segment.end - 1 {
            let block = self.training_block(layer, adapters, inputs);
            x = rec.scoped(format!("layers.{layer}.entering"), |rec| block.forward(rec, x, Routing::Again).1);
            entering[layer + 1] = x.x;
        }
    }
}
