"""LLaMA weights in and out of GGUF, the way llama.cpp's converter writes them (q/k rows interleaved for its RoPE)."""

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

TENSORS = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
TOP = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight", "output.weight": "lm_head.weight"}


def hf_name(name: str) -> str:
    """Hugging Face name (without "model.") of a GGUF tensor name."""
    if name in TOP:
        return TOP[name]
    _, layer, kind, suffix = name.split(".")
    return f"layers.{layer}.{TENSORS[kind]}.{suffix}"


def gguf_name(name: str) -> str:
    """GGUF tensor name of a Hugging Face name (without "model.")."""
    for ours, theirs in TOP.items():
        if name == theirs:
            return ours
    _, layer, rest = name.split(".", 2)
    kind = next(k for k, v in TENSORS.items() if rest == v + ".weight")
    return f"blk.{layer}.{kind}.weight"


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Half-split rows (Hugging Face) to interleaved rows (GGUF): gguf[2i + s] = hf[i + s * head_dim / 2] in each head."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `permute`."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def heads_of(name: str, heads: int, kv_heads: int) -> int | None:
    """How many heads the rows of this tensor are permuted by, or None; either naming."""
    if name.endswith(("q_proj.weight", "attn_q.weight")):
        return heads
    if name.endswith(("k_proj.weight", "attn_k.weight")):
        return kv_heads
    return None


def add_weights(writer: gguf.GGUFWriter, weights: dict[str, np.ndarray], heads: int, kv_heads: int, kind) -> None:
    """Add every weight, permuted, as the type that `kind(hf_name)` gives (F32, Q4_1 or Q8_0)."""
    for name, value in weights.items():
        value = np.ascontiguousarray(value, dtype=np.float32)
        if (rotary := heads_of(name, heads, kv_heads)) is not None:
            value = np.ascontiguousarray(permute(value, rotary))
        if (to := kind(name)) == Type.F32:
            writer.add_tensor(gguf_name(name), value)
        else:
            writer.add_tensor(gguf_name(name), gguf.quantize(value, to), raw_dtype=to)


def add_shape(writer: gguf.GGUFWriter, shape) -> None:
    """Add the llama.* metadata of a `torch_llama.Shape`."""
    writer.add_vocab_size(shape.vocab_size)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    if shape.head_dim * shape.num_attention_heads != shape.hidden_size:
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_rope_freq_base(shape.rope_theta)


def finish(writer: gguf.GGUFWriter) -> None:
    """Write the file out and close it."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def field(reader: gguf.GGUFReader, key: str, default=None):
    """One metadata value, or `default`."""
    found = reader.fields.get(key)
    return default if found is None else found.contents()


def read_weights(reader: gguf.GGUFReader) -> dict[str, np.ndarray]:
    """All tensors dequantised to float32, Hugging Face names and row order."""
    heads = field(reader, "llama.attention.head_count")
    kv_heads = field(reader, "llama.attention.head_count_kv", heads)
    weights = {}
    for tensor in reader.tensors:
        dims = [int(n) for n in reversed(tensor.shape)]
        value = np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32).reshape(dims)
        if (rotary := heads_of(tensor.name, heads, kv_heads)) is not None:
            value = unpermute(value, rotary)
        weights[hf_name(tensor.name)] = np.ascontiguousarray(value)
    return weights


def read_shape(reader: gguf.GGUFReader):
    """The `torch_llama.Shape` that the metadata describe."""
    from .torch_llama import Shape

    heads, width = field(reader, "llama.attention.head_count"), field(reader, "llama.embedding_length")
    names = {tensor.name for tensor in reader.tensors}
    embedding = next(t for t in reader.tensors if t.name == "token_embd.weight")
    return Shape(
        vocab_size=int(embedding.shape[1]),
        hidden_size=width,
        intermediate_size=field(reader, "llama.feed_forward_length"),
        num_hidden_layers=field(reader, "llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=field(reader, "llama.attention.head_count_kv", heads),
        head_dim=field(reader, "llama.attention.key_length", width // heads),
        rms_norm_eps=float(str(np.float32(field(reader, "llama.attention.layer_norm_rms_epsilon")))),  # 1e-5, not 9.99e-6
        rope_theta=float(field(reader, "llama.rope.freq_base", 10000.0)),
        tie_word_embeddings="output.weight" not in names,
        max_position_embeddings=field(reader, "llama.context_length"),
    )
