//! One LLaMA block: `h = x + o(attention(norm(x)))`, `out = h + down(silu(gate(norm(h))) · up(norm(h)))`.
//!
//! The backward pass mirrors the forward pass line by line. Products are kept for it, what is cheap (norms, SwiGLU) is computed again;
//! under recompute nothing is kept but the block's input, and the forward pass is recorded once more. The
//! feed-forward half is in `ffn.rs`.

use super::ffn::{self, FeedForward, Routing};
use super::linear::{Adapter, Kept, Linear, LinearSiblings, Outputs};
use super::weights::LayerWeights;
use super::{Inputs, RowParts};
use crate::adapters::AdapterPool;
use crate::adapters::norms;
use crate::adapters::site::Projection;
use crate::config::ModelConfig;
use crate::gpu::{Recorder, Tensor};
use crate::kernels::attention::{self, AttentionShape};
use crate::kernels::matrix::MOST_MEMBERS;
use crate::kernels::norm::{self, Weight};
use crate::kernels::rope::{self, Heads, Turn};
use crate::kernels::{elementwise, rows};

/// One block within a recording.
pub struct Block<'a> {
    /// Which block, from 0.
    pub layer: usize,
    /// Shape of the model.
    pub config: &'a ModelConfig,
    /// Frozen weights.
    pub weights: &'a LayerWeights,
    /// Those of the block above, unless this is the last one.
    pub above: Option<&'a LayerWeights>,
    /// Adapters of all jobs, if any.
    pub adapters: Option<&'a AdapterPool>,
    /// The batch.
    pub inputs: &'a Inputs,
    /// (cos, sin) table.
    pub rope: Tensor,
    /// Rows of the feed-forward layer at once.
    pub row_parts: RowParts,
    /// Recorded for training: experts may be full and their inputs random then.
    pub training: bool,
}

/// The hidden states between two blocks.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// `[t, d]`
    pub x: Tensor,
    /// `[t, d]`, normed for the block above: made together with the residual below. Without, the block above norms `x` itself.
    pub normed: Option<Tensor>,
}

impl From<Tensor> for Stream {
    fn from(x: Tensor) -> Self {
        Self { x, normed: None }
    }
}

/// Keys and values of one block.
#[derive(Debug, Clone, Copy)]
pub struct LayerCache {
    /// `[max_len, kv_width]`
    pub k: Tensor,
    /// `[max_len, kv_width]`
    pub v: Tensor,
}

/// What the backward pass needs of the forward pass. Tensors that are never used again cost nothing: the plan ends their lives.
#[derive(Debug, Clone)]
pub struct Saved {
    x: Tensor,
    qkv: Outputs,
    kept_qkv: [Kept; MOST_MEMBERS],
    o: Tensor,
    lse: Tensor,
    kept_o: Kept,
    h: Tensor,
    mlp: ffn::Saved,
}

impl<'a> Block<'a> {
    fn adapter(&self, which: Projection) -> Adapter {
        Adapter { site: self.adapters.and_then(|a| a.site(self.layer, which, self.inputs.rows)), name: which.path(), carry: None }
    }

    fn qkv(&self) -> LinearSiblings<'a> {
        let adapters = [Projection::Q, Projection::K, Projection::V].map(|which| self.adapter(which)).into();
        LinearSiblings { weights: &self.weights.qkv, adapters, name: "self_attn.qkv_proj", carries: Vec::new() }
    }

    fn o(&self) -> Linear<'a> {
        Linear { weight: &self.weights.o, adapter: self.adapter(Projection::O) }
    }

    fn mlp(&self) -> FeedForward<'a> {
        let adapters = [Projection::Gate, Projection::Up].map(|which| self.adapter(which)).into();
        let (rows, documents) = (self.inputs.rows, self.inputs.documents);
        FeedForward {
            gate_up: LinearSiblings { weights: &self.weights.gate_up, adapters, name: "mlp.gate_up_proj", carries: Vec::new() },
            down: Linear { weight: &self.weights.down, adapter: self.adapter(Projection::Down) },
            experts: self.adapters.and_then(|a| a.experts(self.layer, rows, documents, self.training)),
            rows,
            parts: self.row_parts,
            widths: (self.config.hidden_size, self.config.intermediate_size),
        }
    }

    fn attention(&self) -> AttentionShape {
        AttentionShape {
            rows: self.inputs.rows as u32,
            heads: self.config.num_attention_heads as u32,
            kv_heads: self.config.num_key_value_heads as u32,
            head_dim: self.config.head_dim as u32,
            window: self.config.sliding_window.map(|w| w as u32),
        }
    }

    fn rotate(&self, rec: &mut Recorder, label: &str, q: Tensor, k: Tensor, turn: Turn) {
        let c = self.config;
        let both = Heads { q, k, heads: c.num_attention_heads, kv_heads: c.num_key_value_heads, head_dim: c.head_dim };
        rope::rotate(rec, label, self.rope, self.inputs.positions, both, turn);
    }

    /// The weights of the norm before attention (0) or before the feed-forward layer (1).
    fn norm(&self, which: usize) -> Weight {
        let base = [self.weights.input_layernorm, self.weights.post_attention_layernorm][which];
        Weight { base, own: self.adapters.and_then(|a| a.own_norm(norms::of_layer(self.layer) + which, None)) }
    }

    /// The weights of the norm before attention of the block above.
    fn norm_above(&self) -> Option<Weight> {
        let own = || self.adapters.and_then(|a| a.own_norm(norms::of_layer(self.layer + 1), None));
        self.above.map(|above| Weight { base: above.input_layernorm, own: own() })
    }

    fn normed(&self, rec: &mut Recorder, name: &str, x: Tensor, w: Weight) -> (Tensor, Tensor) {
        let y = rec.transient(name, x.len as usize);
        let rstd = rec.transient(&format!("{name}.rstd"), self.inputs.rows);
        norm::forward(rec, name, x, w, y, rstd, self.config.rms_norm_eps);
        (y, rstd)
    }

    /// Records the residual `y += x` and returns the norm of the sum.
    fn add_normed(&self, rec: &mut Recorder, name: &str, x: Tensor, y: Tensor, w: Weight) -> Tensor {
        let n = rec.transient(name, y.len as usize);
        let rstd = rec.transient(&format!("{name}.rstd"), self.inputs.rows);
        norm::add_forward(rec, name, x, y, w, n, rstd, self.config.rms_norm_eps);
        n
    }

    /// The normed input of attention.
    fn attention_input(&self, rec: &mut Recorder, from: Stream) -> Tensor {
        from.normed.unwrap_or_else(|| self.normed(rec, "input_layernorm", from.x, self.norm(0)).0)
    }

    /// Records the residual around the feed-forward layer, whose output `y` is.
    fn output(&self, rec: &mut Recorder, h: Tensor, y: Tensor) -> Stream {
        if let Some(w) = self.norm_above() {
            let n = self.add_normed(rec, "mlp.residual_norm", h, y, w);
            return Stream { x: y, normed: Some(n) };
        }
        let out = rec.transient("out", y.len as usize);
        elementwise::add(rec, "mlp.residual", h, y, out);
        out.into()
    }

    /// Records the block. Under recompute it is recorded a second time, from `x` alone and with the routing of the first: what only its output needs
    /// is left out of the plan then, because nobody reads it.
    pub fn forward(&self, rec: &mut Recorder, from: Stream, routing: Routing) -> (Saved, Stream) {
        let c = self.config;
        let t = self.inputs.rows;
        let new = |rec: &mut Recorder, name: &str, width: usize| rec.transient(name, t * width);

        let n = self.attention_input(rec, from);
        let qkv = self.qkv().outputs(rec, "qkv", t);
        let kept_qkv = self.qkv().forward(rec, t, n, qkv);
        let [q, k, v] = qkv.each;
        self.rotate(rec, "self_attn.rope", q, k, Turn::Forward);
        let (o, lse) = (new(rec, "o", c.q_width()), new(rec, "lse", c.num_attention_heads));
        attention::forward(rec, "self_attn", &self.attention(), q, k, v, self.inputs.documents, o, lse);
        let h = new(rec, "h", c.hidden_size);
        let kept_o = self.o().forward(rec, t, o, h);

        let n = self.add_normed(rec, "post_attention_layernorm", from.x, h, self.norm(1));
        let y = new(rec, "mlp.y", c.hidden_size);
        let mlp = self.mlp().forward(rec, n, y, routing);
        (Saved { x: from.x, qkv, kept_qkv, o, lse, kept_o, h, mlp }, self.output(rec, h, y))
    }

    /// Records the block on a few new rows against the cache, to which their keys and values are appended.
    pub fn decode(&self, rec: &mut Recorder, from: Stream, cache: LayerCache, max_len: usize, state: Tensor) -> Stream {
        let c = self.config;
        let t = self.inputs.rows;
        let new = |rec: &mut Recorder, name: &str, width: usize| rec.transient(name, t * width);
        let n = self.attention_input(rec, from);
        let qkv = self.qkv().outputs(rec, "qkv", t);
        self.qkv().forward(rec, t, n, qkv);
        let [q, k, v] = qkv.each;
        self.rotate(rec, "self_attn.rope", q, k, Turn::Forward);
        rows::append(rec, "self_attn.cache_k", self.inputs.positions, k, cache.k);
        rows::append(rec, "self_attn.cache_v", self.inputs.positions, v, cache.v);
        let o = new(rec, "o", c.q_width());
        attention::decode(rec, "self_attn", &self.attention(), max_len as u32, q, cache.k, cache.v, state, o);
        let h = new(rec, "h", c.hidden_size);
        self.o().forward(rec, t, o, h);

        let n = self.add_normed(rec, "post_attention_layernorm", from.x, h, self.norm(1));
        let y = new(rec, "mlp.y", c.hidden_size);
        self.mlp().forward(rec, n, y, Routing::New);
        self.output(rec, h, y)
    }

    /// Records the backward pass. `dout` `[t, d]` holds the gradient of the output and becomes the gradient of the input, unless
    /// `input_gradient` is false: then nothing below needs it and it is left unfinished.
    pub fn backward(&self, rec: &mut Recorder, s: Saved, dout: Tensor, input_gradient: bool) {
        let c = self.config;
        let t = self.inputs.rows;
        let new = |rec: &mut Recorder, name: &str, width: usize| rec.transient(name, t * width);

        let (n, rstd) = self.normed(rec, "post_attention_layernorm_again", s.h, self.norm(1));
        let dn = new(rec, "mlp.dn", c.hidden_size);
        self.mlp().backward(rec, &s.mlp, n, dout, dn);
        norm::backward(rec, "post_attention_layernorm_backward", s.h, self.norm(1), rstd, dn, dout, true);
        norm::own_gradient(rec, "post_attention_layernorm_gradient", s.h, self.norm(1), rstd, dn);

        let d_o = new(rec, "do", c.q_width());
        self.o().backward(rec, t, s.o, s.kept_o, dout, Some(d_o));
        let ([q, k, v], dqkv) = (s.qkv.each, self.qkv().outputs(rec, "dqkv", t));
        let [dq, dk, dv] = dqkv.each;
        attention::backward(rec, "self_attn", &self.attention(), q, k, v, self.inputs.documents, s.o, s.lse, d_o, dq, dk, dv);
        self.rotate(rec, "self_attn.rope_back", dq, dk, Turn::Back);
        let (n, rstd) = self.normed(rec, "input_layernorm_again", s.x, self.norm(0));
        let own = self.norm(0);
        let dn = (input_gradient || own.own.is_some()).then(|| new(rec, "self_attn.dn", c.hidden_size));
        self.qkv().backward(rec, t, n, s.kept_qkv, dqkv, dn);
        if let Some(dn) = dn {
            norm::own_gradient(rec, "input_layernorm_gradient", s.x, own, rstd, dn);
        }
        if let Some(dn) = dn.filter(|_| input_gradient) {
            norm::backward(rec, "input_layernorm_backward", s.x, own, rstd, dn, dout, true);
        }
    }
}
