"""The embedded model while it is pretrained: batched, packed, optionally with weights as Q4_1 will round them."""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from weblora_reference.torch_llama import Shape, rmsnorm  # noqa: E402

import tokens  # noqa: E402

CONTEXT = 128
SHAPE = Shape(
    vocab_size=tokens.VOCAB, hidden_size=128, intermediate_size=384, num_hidden_layers=5, num_attention_heads=4,
    num_key_value_heads=2, head_dim=32, tie_word_embeddings=True, max_position_embeddings=CONTEXT,
)


def initial_weights(seed: int) -> dict[str, torch.nn.Parameter]:
    """Normal weights; what writes to the residual stream is smaller."""
    torch.manual_seed(seed)
    weights = {}
    for site, (rows, cols) in SHAPE.sites():
        gain = (2 * SHAPE.num_hidden_layers) ** -0.5 if site.endswith(("o_proj", "down_proj")) else 1.0
        weights[site + ".weight"] = torch.randn(rows, cols) * cols**-0.5 * gain
    for n in range(SHAPE.num_hidden_layers):
        for kind in ("input_layernorm", "post_attention_layernorm"):
            weights[f"layers.{n}.{kind}.weight"] = torch.ones(SHAPE.hidden_size)
    weights["norm.weight"] = torch.ones(SHAPE.hidden_size)
    weights["embed_tokens.weight"] = torch.randn(SHAPE.vocab_size, SHAPE.hidden_size) * 0.05
    return {name: torch.nn.Parameter(value) for name, value in weights.items()}


def q4_1(weight: torch.Tensor) -> torch.Tensor:
    """The weight rounded as Q4_1 rounds it; the gradient passes straight through."""
    with torch.no_grad():
        blocks = weight.reshape(-1, 32)
        low, high = blocks.min(-1, keepdim=True).values, blocks.max(-1, keepdim=True).values
        step = (high - low) / 15
        code = ((blocks - low) / step.clamp_min(1e-12) + 0.5).floor().clamp(0, 15)
        rounded = (code * step.half().float() + low.half().float()).reshape(weight.shape)
    return weight + (rounded - weight).detach()


def rotary(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin (batch, 1, tokens, head_dim / 2)."""
    half = SHAPE.head_dim // 2
    inv_freq = SHAPE.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)
    angle = positions[:, None, :, None].float() * inv_freq
    return angle.cos(), angle.sin()


def forward(weights: dict, ids: torch.Tensor, positions: torch.Tensor, document: torch.Tensor) -> torch.Tensor:
    """Hidden states (batch, tokens, d) after the last norm; a token sees earlier tokens of its own document."""
    b, t = ids.shape
    order = torch.arange(t)
    visible = ((document[:, :, None] == document[:, None, :]) & (order[None, :] <= order[:, None]))[:, None]
    hidden = torch.zeros(visible.shape).masked_fill(~visible, -1e9)
    group = SHAPE.num_attention_heads // SHAPE.num_key_value_heads
    cos, sin = rotary(positions)

    def heads(y, n, rotate):
        y = y.view(b, t, n, SHAPE.head_dim).transpose(1, 2)
        if rotate:
            low, high = y.float().chunk(2, -1)
            y = torch.cat([low * cos - high * sin, high * cos + low * sin], -1).to(y.dtype)
        return y

    x = F.embedding(ids, weights["embed_tokens.weight"])
    for n in range(SHAPE.num_hidden_layers):
        p, q = f"layers.{n}.self_attn.", f"layers.{n}.mlp."
        h = rmsnorm(x, weights[f"layers.{n}.input_layernorm.weight"], SHAPE.rms_norm_eps)
        q_heads = heads(F.linear(h, weights[p + "q_proj.weight"]), SHAPE.num_attention_heads, True)
        k_heads = heads(F.linear(h, weights[p + "k_proj.weight"]), SHAPE.num_key_value_heads, True)
        v_heads = heads(F.linear(h, weights[p + "v_proj.weight"]), SHAPE.num_key_value_heads, False)
        k_heads, v_heads = (z.repeat_interleave(group, dim=1) for z in (k_heads, v_heads))
        # Written out: PyTorch's fused CPU kernel is six times slower backward at this size.
        score = (q_heads @ k_heads.transpose(2, 3)).float() * SHAPE.head_dim**-0.5 + hidden
        y = score.softmax(-1).to(v_heads.dtype) @ v_heads
        x = x + F.linear(y.transpose(1, 2).reshape(b, t, -1), weights[p + "o_proj.weight"]).float()
        h = rmsnorm(x, weights[f"layers.{n}.post_attention_layernorm.weight"], SHAPE.rms_norm_eps)
        inner = F.silu(F.linear(h, weights[q + "gate_proj.weight"])) * F.linear(h, weights[q + "up_proj.weight"])
        x = x + F.linear(inner, weights[q + "down_proj.weight"]).float()
    return rmsnorm(x, weights["norm.weight"], SHAPE.rms_norm_eps)


def head(weights: dict, hidden: torch.Tensor) -> torch.Tensor:
    """Logits of the tied head."""
    return F.linear(hidden, weights["embed_tokens.weight"]).float()
