//! One LLaMA block: `h = x + o(attention(norm(x)))`, `out = h + down(silu(gate(norm(h))) · up(norm(h)))`.
//!
//! The backward pass mirrors the forward pass line by line. Products are kept for it, what is cheap (norms, SwiGLU) is computed again;
//! under recompute nothing is kept but the block's input, and the forward pass is recorded once more.

use super::Inputs;
use super::decoder::LayerCache;
use super::linear::{Kept, Linear};
use super::weights::LayerWeights;
use crate::adapters::site::Projection;
use crate::adapters::tables::AdapterTables;
use crate::config::ModelConfig;
use crate::gpu::{Recorder, Tensor};
use crate::kernels::attention::{self, AttentionShape};
use crate::kernels::rope::{self, Turn};
use crate::kernels::{elementwise, norm, rows};

/// One block within a recording.
pub struct Block<'a> {
    /// Which block, from 0.
    pub layer: usize,
    /// Shape of the model.
    pub config: &'a ModelConfig,
    /// Frozen weights.
    pub weights: &'a LayerWeights,
    /// Adapters of all jobs, if any.
    pub adapters: Option<&'a AdapterTables>,
    /// The batch.
    pub inputs: &'a Inputs,
    /// (cos, sin) table.
    pub rope: Tensor,
}

/// What the backward pass needs of the forward pass. Tensors that are never used again cost nothing: the plan ends their lives.
#[derive(Debug, Clone, Copy)]
pub struct Saved {
    x: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    h: Tensor,
    gate: Tensor,
    up: Tensor,
    kept: [Kept; 7],
}

impl<'a> Block<'a> {
    fn linear(&self, which: Projection) -> Linear<'a> {
        let adapter = self.adapters.and_then(|a| a.site(self.layer, which, self.inputs.rows));
        Linear { weight: self.weights.projection(which), adapter, name: which.path() }
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

    fn rotate(&self, rec: &mut Recorder, label: &str, x: Tensor, heads: usize, turn: Turn) {
        rope::rotate(rec, label, self.rope, self.inputs.positions, x, heads, self.config.head_dim, turn);
    }

    fn normed(&self, rec: &mut Recorder, name: &str, x: Tensor, w: Tensor) -> (Tensor, Tensor) {
        let y = rec.transient(name, x.len as usize);
        let rstd = rec.transient(&format!("{name}.rstd"), self.inputs.rows);
        norm::forward(rec, name, x, w, y, rstd, self.config.rms_norm_eps);
        (y, rstd)
    }

    /// Records the block on `x` `[t, d]`. With `out` the result is written there; without, only what the backward pass needs is
    /// recorded (recompute).
    pub fn forward(&self, rec: &mut Recorder, x: Tensor, out: Option<Tensor>) -> Saved {
        let c = self.config;
        let t = self.inputs.rows;
        let new = |rec: &mut Recorder, name: &str, width: usize| rec.transient(name, t * width);

        let (n, _) = self.normed(rec, "input_layernorm", x, self.weights.input_layernorm);
        let (q, k, v) = (new(rec, "q", c.q_width()), new(rec, "k", c.kv_width()), new(rec, "v", c.kv_width()));
        let kept_q = self.linear(Projection::Q).forward(rec, t, n, q);
        let kept_k = self.linear(Projection::K).forward(rec, t, n, k);
        let kept_v = self.linear(Projection::V).forward(rec, t, n, v);
        self.rotate(rec, "self_attn.rope_q", q, c.num_attention_heads, Turn::Forward);
        self.rotate(rec, "self_attn.rope_k", k, c.num_key_value_heads, Turn::Forward);
        let (o, lse) = (new(rec, "o", c.q_width()), new(rec, "lse", c.num_attention_heads));
        attention::forward(rec, "self_attn", &self.attention(), q, k, v, self.inputs.margins, o, lse);
        let (y, h) = (new(rec, "self_attn.y", c.hidden_size), new(rec, "h", c.hidden_size));
        let kept_o = self.linear(Projection::O).forward(rec, t, o, y);
        elementwise::add(rec, "self_attn.residual", x, y, h);

        let (n, _) = self.normed(rec, "post_attention_layernorm", h, self.weights.post_attention_layernorm);
        let (gate, up) = (new(rec, "gate", c.intermediate_size), new(rec, "up", c.intermediate_size));
        let kept_gate = self.linear(Projection::Gate).forward(rec, t, n, gate);
        let kept_up = self.linear(Projection::Up).forward(rec, t, n, up);
        let down = self.linear(Projection::Down);
        // The adapter's inner activation of `down` is needed again even where its output is not.
        let (a, y) = (new(rec, "act", c.intermediate_size), new(rec, "mlp.y", c.hidden_size));
        elementwise::swiglu(rec, "mlp.act", gate, up, a);
        let kept_down = down.forward(rec, t, a, y);
        if let Some(out) = out {
            elementwise::add(rec, "mlp.residual", h, y, out);
        }
        Saved { x, q, k, v, o, lse, h, gate, up, kept: [kept_q, kept_k, kept_v, kept_o, kept_gate, kept_up, kept_down] }
    }

    /// Records the block on a few new rows against the cache, to which their keys and values are appended.
    pub fn decode(&self, rec: &mut Recorder, x: Tensor, out: Tensor, cache: LayerCache, max_len: usize, state: Tensor) {
        let c = self.config;
        let t = self.inputs.rows;
        let new = |rec: &mut Recorder, name: &str, width: usize| rec.transient(name, t * width);
        let (n, _) = self.normed(rec, "input_layernorm", x, self.weights.input_layernorm);
        let (q, k, v) = (new(rec, "q", c.q_width()), new(rec, "k", c.kv_width()), new(rec, "v", c.kv_width()));
        self.linear(Projection::Q).forward(rec, t, n, q);
        self.linear(Projection::K).forward(rec, t, n, k);
        self.linear(Projection::V).forward(rec, t, n, v);
        self.rotate(rec, "self_attn.rope_q", q, c.num_attention_heads, Turn::Forward);
        self.rotate(rec, "self_attn.rope_k", k, c.num_key_value_heads, Turn::Forward);
        rows::append(rec, "self_attn.cache_k", self.inputs.positions, k, cache.k);
        rows::append(rec, "self_attn.cache_v", self.inputs.positions, v, cache.v);
        let o = new(rec, "o", c.q_width());
        attention::decode(rec, "self_attn", &self.attention(), max_len as u32, q, cache.k, cache.v, state, o);
        let (y, h) = (new(rec, "self_attn.y", c.hidden_size), new(rec, "h", c.hidden_size));
        self.linear(Projection::O).forward(rec, t, o, y);
        elementwise::add(rec, "self_attn.residual", x, y, h);

        let (n, _) = self.normed(rec, "post_attention_layernorm", h, self.weights.post_attention_layernorm);
        let (gate, up) = (new(rec, "gate", c.intermediate_size), new(rec, "up", c.intermediate_size));
        self.linear(Projection::Gate).forward(rec, t, n, gate);
        self.linear(Projection::Up).forward(rec, t, n, up);
        let (a, y) = (new(rec, "act", c.intermediate_size), new(rec, "mlp.y", c.hidden_size));
        elementwise::swiglu(rec, "mlp.act", gate, up, a);
        self.linear(Projection::Down).forward(rec, t, a, y);
        elementwise::add(rec, "mlp.residual", h, y, out);
    }

    /// Records the backward pass. `dout` `[t, d]` holds the gradient of the output and becomes the gradient of the input, unless
    /// `input_gradient` is false: then nothing below needs it and it is left unfinished.
    pub fn backward(&self, rec: &mut Recorder, s: Saved, dout: Tensor, input_gradient: bool) {
        let c = self.config;
        let t = self.inputs.rows;
        let new = |rec: &mut Recorder, name: &str, width: usize| rec.transient(name, t * width);
        let kept = |p: Projection| s.kept[p as usize];

        let da = new(rec, "dact", c.intermediate_size);
        let a = new(rec, "act_again", c.intermediate_size);
        elementwise::swiglu(rec, "mlp.act_again", s.gate, s.up, a);
        self.linear(Projection::Down).backward(rec, t, a, kept(Projection::Down), dout, Some(da), false);
        elementwise::swiglu_backward(rec, "mlp.act_backward", s.gate, s.up, da);
        let (dgate, dup) = (s.gate, s.up);
        let (n, rstd) = self.normed(rec, "post_attention_layernorm_again", s.h, self.weights.post_attention_layernorm);
        let dn = new(rec, "mlp.dn", c.hidden_size);
        self.linear(Projection::Up).backward(rec, t, n, kept(Projection::Up), dup, Some(dn), false);
        self.linear(Projection::Gate).backward(rec, t, n, kept(Projection::Gate), dgate, Some(dn), true);
        norm::backward(rec, "post_attention_layernorm_backward", s.h, self.weights.post_attention_layernorm, rstd, dn, dout, true);

        let d_o = new(rec, "do", c.q_width());
        self.linear(Projection::O).backward(rec, t, s.o, kept(Projection::O), dout, Some(d_o), false);
        let (dq, dk, dv) = (new(rec, "dq", c.q_width()), new(rec, "dk", c.kv_width()), new(rec, "dv", c.kv_width()));
        attention::backward(rec, "self_attn", &self.attention(), s.q, s.k, s.v, self.inputs.margins, s.o, s.lse, d_o, dq, dk, dv);
        self.rotate(rec, "self_attn.rope_q_back", dq, c.num_attention_heads, Turn::Back);
        self.rotate(rec, "self_attn.rope_k_back", dk, c.num_key_value_heads, Turn::Back);
        let (n, rstd) = self.normed(rec, "input_layernorm_again", s.x, self.weights.input_layernorm);
        let dn = input_gradient.then(|| new(rec, "self_attn.dn", c.hidden_size));
        self.linear(Projection::V).backward(rec, t, n, kept(Projection::V), dv, dn, false);
        self.linear(Projection::K).backward(rec, t, n, kept(Projection::K), dk, dn, true);
        self.linear(Projection::Q).backward(rec, t, n, kept(Projection::Q), dq, dn, true);
        if let Some(dn) = dn {
            norm::backward(rec, "input_layernorm_backward", s.x, self.weights.input_layernorm, rstd, dn, dout, true);
        }
    }
}
