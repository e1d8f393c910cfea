"""A `tokenizers` tokenizer and the chat template from GGUF metadata (byte-level BPE only)."""

import gguf
import jinja2
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from .gguf_llama import field

CONTROL = 3
# What llama.cpp and Hugging Face split on before the merges, by `tokenizer.ggml.pre`.
SPLITS = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    ),
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
}


def read_tokenizer(reader: gguf.GGUFReader) -> Tokenizer:
    """The tokenizer in the file; refuses other kinds than byte-level BPE with a known pre-tokeniser."""
    kind, pre = field(reader, "tokenizer.ggml.model"), field(reader, "tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in SPLITS:
        raise SystemExit(f"expected a gpt2 tokenizer with pre in {sorted(SPLITS)}, found {kind} with {pre}")
    tokens = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = SPLITS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    types = field(reader, "tokenizer.ggml.token_type")
    tokenizer.add_special_tokens([
        AddedToken(token, special=True, normalized=False) for token, t in zip(tokens, types, strict=True) if t == CONTROL
    ])
    return tokenizer


def render_chat(reader: gguf.GGUFReader, messages: list[dict], add_generation_prompt: bool = True) -> str:
    """The file's own chat template over these messages."""
    tokens = field(reader, "tokenizer.ggml.tokens")
    names = {"bos_token": "tokenizer.ggml.bos_token_id", "eos_token": "tokenizer.ggml.eos_token_id"}
    special = {name: tokens[field(reader, key)] for name, key in names.items() if field(reader, key) is not None}
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(field(reader, "tokenizer.chat_template"))
    return template.render(messages=messages, add_generation_prompt=add_generation_prompt, **special)
