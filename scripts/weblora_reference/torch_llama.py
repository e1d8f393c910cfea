"""LLaMA with LoRA in plain PyTorch, in any dtype: the second witness beside transformers + PEFT.

transformers computes RMSNorm and RoPE in float32 whatever the model's dtype, so it cannot give float64 goldens; this can.
Weights are a dict of Hugging Face names without the leading "model."; shapes (out, in).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

PROJECTIONS = {
    "q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn",
    "gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp",
}


@dataclass(frozen=True)
class Shape:
    """Sizes of one model, with the names of `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 128

    def linear(self, projection: str) -> tuple[int, int]:
        """(out, in) of one of the seven projections."""
        d, f = self.hidden_size, self.intermediate_size
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        return {
            "q_proj": (q, d), "k_proj": (kv, d), "v_proj": (kv, d), "o_proj": (d, q),
            "gate_proj": (f, d), "up_proj": (f, d), "down_proj": (d, f),
        }[projection]

    def sites(self, targets=tuple(PROJECTIONS)) -> list[tuple[str, tuple[int, int]]]:
        """Short name and (out, in) of every targeted linear layer, in walk order."""
        return [
            (f"layers.{n}.{PROJECTIONS[p]}.{p}", self.linear(p))
            for n in range(self.num_hidden_layers) for p in PROJECTIONS if p in targets
        ]


def rmsnorm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, positions, theta):
    """RoPE in the half-split convention; x (tokens, heads, head_dim)."""
    half = x.shape[-1] // 2
    inv_freq = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = positions.to(torch.float64)[:, None] * inv_freq
    cos, sin = angle.cos().to(x.dtype)[:, None], angle.sin().to(x.dtype)[:, None]
    low, high = x[..., :half], x[..., half:]
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


def packed_layout(lengths: list[int]):
    """Positions (tokens) and visibility (tokens, tokens) of documents packed one after the other."""
    positions = torch.cat([torch.arange(n) for n in lengths])
    document = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])
    order = torch.arange(len(document))
    visible = (document[:, None] == document[None, :]) & (order[None, :] <= order[:, None])
    return positions, visible


def shifted_groups(lengths: list[int], heads: int, group: int | None):
    """(heads, tokens, tokens): LongLoRA's segments of `group` tokens, cut inside each document, without the wrap-around; all rows before where it is None."""
    positions, seen = packed_layout(lengths)
    if not group:
        return seen[None].repeat(heads, 1, 1)
    of_head = []
    for head in range(heads):
        shift = group // 2 if head >= heads // 2 else 0
        segment = (positions + shift) // group
        of_head.append(seen & (segment[:, None] == segment[None, :]))
    return torch.stack(of_head)


def forward(shape: Shape, weights: dict, adapter: dict, scale: float, tokens, lengths):
    """Logits (tokens, vocab); `adapter` maps "{site}.lora_A" and "{site}.lora_B" to tensors, missing sites have none."""

    def linear(site, x):
        y = x @ weights[site + ".weight"].T
        if site + ".lora_A" in adapter:
            y = y + scale * ((x @ adapter[site + ".lora_A"].T) @ adapter[site + ".lora_B"].T)
        return y

    t, hd = len(tokens), shape.head_dim
    heads, kv_heads = shape.num_attention_heads, shape.num_key_value_heads
    positions, visible = packed_layout(lengths)
    x = weights["embed_tokens.weight"][tokens]
    for n in range(shape.num_hidden_layers):
        block = f"layers.{n}."
        h = rmsnorm(x, weights[block + "input_layernorm.weight"], shape.rms_norm_eps)
        q = rotate(linear(block + "self_attn.q_proj", h).view(t, heads, hd), positions, shape.rope_theta)
        k = rotate(linear(block + "self_attn.k_proj", h).view(t, kv_heads, hd), positions, shape.rope_theta)
        v = linear(block + "self_attn.v_proj", h).view(t, kv_heads, hd)
        k, v = (z.repeat_interleave(heads // kv_heads, dim=1) for z in (k, v))
        score = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(hd)
        share = score.masked_fill(~visible, -math.inf).softmax(-1)
        x = x + linear(block + "self_attn.o_proj", torch.einsum("hij,jhd->ihd", share, v).reshape(t, heads * hd))
        h = rmsnorm(x, weights[block + "post_attention_layernorm.weight"], shape.rms_norm_eps)
        inner = F.silu(linear(block + "mlp.gate_proj", h)) * linear(block + "mlp.up_proj", h)
        x = x + linear(block + "mlp.down_proj", inner)
    x = rmsnorm(x, weights["norm.weight"], shape.rms_norm_eps)
    head = weights["embed_tokens.weight" if shape.tie_word_embeddings else "lm_head.weight"]
    return x @ head.T


def masked_loss(logits, labels):
    """Mean cross-entropy over the targets; labels are Hugging Face's: labels[t] is predicted at t-1, -100 is no target."""
    return F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100)
