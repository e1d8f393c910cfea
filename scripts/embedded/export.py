"""Quantises the pretrained weights into the embedded GGUF file, with tokenizer and chat template, as llama.cpp's tools would.

    python scripts/embedded/export.py --pretrained out/embedded --out assets/demo/demo.gguf
"""

import argparse
import json
from pathlib import Path

import gguf
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import model
import tokens
from weblora_reference import gguf_llama, gguf_tokenizer  # found because model.py put scripts/ on the path


def tensor_type(name: str) -> Type:
    """Q4_1 for the matrices of the blocks, Q8_0 for the embedding (which is also the head), F32 for norms."""
    if name.endswith("norm.weight"):
        return Type.F32
    return Type.Q8_0 if name.startswith("embed_tokens") else Type.Q4_1


def add_tokenizer(writer: gguf.GGUFWriter, path: Path) -> None:
    """Vocabulary, merges, special tokens and chat template."""
    spec = json.loads(path.read_text(encoding="utf-8"))["model"]
    vocabulary = [token for token, _ in sorted(spec["vocab"].items(), key=lambda item: item[1])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([gguf.TokenType.CONTROL if t in tokens.CONTROL else gguf.TokenType.NORMAL for t in vocabulary])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in spec["merges"]])
    writer.add_bos_token_id(tokens.EOS)
    writer.add_eos_token_id(tokens.EOS)
    writer.add_pad_token_id(tokens.EOS)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(tokens.TEMPLATE)


def check(path: Path, tokenizer: Tokenizer) -> None:
    """The file must read back: shape, types, and a tokenizer that gives the same tokens."""
    reader = gguf.GGUFReader(str(path))
    if gguf_llama.read_shape(reader) != model.SHAPE:
        raise SystemExit("the metadata do not read back as the model's shape")
    again = gguf_tokenizer.read_tokenizer(reader)
    for text in ["Anna has a red hat.", "<|user|>Copy: cat =<|model|> cat.<|end|>", "naïve 12 345\n\n\tLoRA's 漢字 🙂  end"]:
        ids = again.encode(text).ids
        if ids != tokenizer.encode(text).ids or again.decode(ids, skip_special_tokens=False) != text:
            raise SystemExit(f"the tokenizer in the file disagrees on {text!r}")
    rendered = gguf_tokenizer.render_chat(reader, [{"role": "user", "content": "Copy: cat ="}])
    if rendered != "<|user|>Copy: cat =<|model|>":
        raise SystemExit(f"the chat template renders {rendered!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--pretrained", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    weights = load_file(args.pretrained / "pretrained.safetensors")
    writer = gguf.GGUFWriter(str(args.out), "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("weblora demo")
    writer.add_description("A LLaMA of a million parameters that speaks the synthetic language of scripts/embedded/language.py")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    gguf_llama.add_shape(writer, model.SHAPE)
    add_tokenizer(writer, args.pretrained / "tokenizer.json")
    gguf_llama.add_weights(writer, weights, model.SHAPE.num_attention_heads, model.SHAPE.num_key_value_heads, tensor_type)
    gguf_llama.finish(writer)
    check(args.out, Tokenizer.from_file(str(args.pretrained / "tokenizer.json")))
    print(f"{args.out.name}: {args.out.stat().st_size} bytes, {sum(w.size for w in weights.values())} parameters")


if __name__ == "__main__":
    main()
