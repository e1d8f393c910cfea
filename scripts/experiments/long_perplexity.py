"""Perplexity of a text past the length that a model was trained on, before and after LongLoRA: stories260K (512 tokens) reads Debian's King James Bible.

    cargo build --release
    apt-get install bible-kjv
    python scripts/experiments/long_perplexity.py --stories260k FOLDER --out out/perplexity

FOLDER holds `checkpoint.bin` and `tokenizer.bin` of karpathy/tinyllamas (llama2.c's forms). The model becomes a GGUF file of 32-bit floats under --out,
with the training text (Genesis and Exodus) and the other one (Ruth to First Samuel). What is there is not made again.
"""

import argparse
import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from weblora_reference.gguf_llama import add_shape, finish, gguf_name  # noqa: E402
from weblora_reference.torch_llama import Shape  # noqa: E402

TRAINED, CONTEXT = 512, 2048
WINDOWS = [256, 512, 1024, 2048]
BOOKS = {"train": "gen1:1-exo40:38", "text": "ruth1:1-1sam20:42"}
OWN = ["--train-norms", "--train-embeddings"]
# Rows of each run, and its other flags. All see the same number of tokens.
ARMS = {
    "longlora": (CONTEXT, ["--context", str(CONTEXT), "--group-ratio", "0.25", *OWN]),
    "full": (CONTEXT, ["--context", str(CONTEXT), *OWN]),
    "pose": (TRAINED, ["--context", str(CONTEXT), "--positions", "pose", *OWN]),
    "short": (TRAINED, OWN),
}
COMMON = ["--overlong", "join", "--rank", "16", "--lr", "2e-3", "--warmup", "10", "--save-every", "0"]


def read_checkpoint(path: Path) -> tuple[Shape, dict[str, np.ndarray]]:
    """Shape and tensors, with Hugging Face's names, of a file in llama2.c's first form. Rows of q and k are interleaved, as in GGUF files."""
    data = path.read_bytes()
    d, f, layers, heads, kv_heads, vocab, seq = struct.unpack_from("<7i", data)
    if vocab <= 0:
        raise SystemExit(f"{path.name}: only models whose head is the embedding are read")
    numbers, at, found = np.frombuffer(data, "<f4", offset=28), 0, {}

    def take(count: int, name: str, *shape: int) -> None:
        nonlocal at
        size = int(np.prod(shape))
        for layer in range(count):
            found[name.format(layer)] = numbers[at:at + size].reshape(shape)
            at += size

    kv = d // heads * kv_heads
    take(1, "embed_tokens.weight", vocab, d)
    take(layers, "layers.{}.input_layernorm.weight", d)
    for name, rows, columns in (("q", d, d), ("k", kv, d), ("v", kv, d), ("o", d, d)):
        take(layers, "layers.{}.self_attn." + name + "_proj.weight", rows, columns)
    take(layers, "layers.{}.post_attention_layernorm.weight", d)
    for name, rows, columns in (("gate", f, d), ("down", d, f), ("up", f, d)):
        take(layers, "layers.{}.mlp." + name + "_proj.weight", rows, columns)
    take(1, "norm.weight", d)
    shape = Shape(
        vocab_size=vocab, hidden_size=d, intermediate_size=f, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        head_dim=d // heads, tie_word_embeddings=True, max_position_embeddings=seq,
    )
    return shape, found


def read_tokenizer(path: Path, vocab: int) -> tuple[list[str], list[float]]:
    """Pieces and scores of a file in llama2.c's form, with SentencePiece's sign for a blank."""
    data, at, pieces, scores = path.read_bytes(), 4, [], []
    for _ in range(vocab):
        score, length = struct.unpack_from("<fi", data, at)
        pieces.append(data[at + 8:at + 8 + length].decode())
        scores.append(score)
        at += 8 + length
    return ["<unk>", "<s>", "</s>", *(piece.replace(" ", "▁") for piece in pieces[3:])], scores


def write_model(folder: Path, out: Path) -> None:
    """The GGUF file of the model in `folder`."""
    shape, tensors = read_checkpoint(folder / "checkpoint.bin")
    pieces, scores = read_tokenizer(folder / "tokenizer.bin", shape.vocab_size)
    kinds = gguf.TokenType
    special = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
    types = special + [kinds.BYTE if re.fullmatch(r"<0x[0-9A-F]{2}>", piece) else kinds.NORMAL for piece in pieces[3:]]
    writer = gguf.GGUFWriter(str(out), "llama")
    add_shape(writer, shape)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, value in tensors.items():
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(value, dtype=np.float32))
    finish(writer)


def verses(reference: str) -> str:
    """The text of a range of verses, without their numbers."""
    lines = subprocess.run(["bible", "-f", reference], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    return " ".join(line.split(" ", 1)[1] for line in lines if " " in line)


def prepare(args) -> None:
    """Writes the model and the texts."""
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "model.gguf").exists():
        write_model(args.stories260k, args.out / "model.gguf")
    for name, reference in BOOKS.items():
        if not (args.out / f"{name}.txt").exists():
            (args.out / f"{name}.txt").write_text(verses(reference)[:args.characters[name]], encoding="utf-8")
    rows = {"text": (args.out / "train.txt").read_text(encoding="utf-8")}
    (args.out / "train.jsonl").write_text(json.dumps(rows) + "\n", encoding="utf-8")


def train(args, arm: str) -> Path:
    """Makes one run, unless it is there; returns its adapter."""
    out = args.out / arm
    if not (out / "adapter_model.safetensors").exists():
        seq, flags = ARMS[arm]
        command = [str(args.weblora), "train", "--json", "--overwrite", "--model", str(args.out / "model.gguf"), "--data", str(args.out / "train.jsonl"), *COMMON,
                   *flags, "--seq", str(seq), "--batch", str(CONTEXT // seq), "--steps", str(args.steps), "--out", str(out)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        steps = [event for event in map(json.loads, done.splitlines()) if event["event"] in ("step", "done")]
        print(f"{arm}: last loss {steps[-2]['loss']:.4f}, {steps[-1]['seconds']:.0f} s", flush=True)
    return out


def perplexities(args, context: int | None, windows: list[int], adapters: list[Path]) -> dict[tuple[str, int], float]:
    """Of the text, by adapter ("base" is none) and window. `context` stretches the angles."""
    command = [str(args.weblora), "eval", "--json", "--model", str(args.out / "model.gguf"), "--text", str(args.out / "text.txt"),
               "--window", ",".join(map(str, windows)), *([] if context is None else ["--context", str(context)])]
    command += [word for adapter in adapters for word in ("--adapter", str(adapter))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    events = [event for event in map(json.loads, done.splitlines()) if event["event"] == "eval"]
    return {(Path(event["adapter"]).name, event["window"]): event["perplexity"] for event in events}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--weblora", type=Path, default=ROOT / "target" / "release" / "weblora")
    parser.add_argument("--stories260k", type=Path, required=True, help="folder with checkpoint.bin and tokenizer.bin")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100, help=f"of {CONTEXT} tokens")
    args = parser.parse_args()
    args.characters = {"train": 400_000, "text": 20_000}
    prepare(args)
    adapters = {arm: train(args, arm) for arm in ARMS}
    within = [window for window in WINDOWS if window <= TRAINED]
    stretched = perplexities(args, CONTEXT, WINDOWS, [adapters[arm] for arm in ARMS if arm != "short"])
    unstretched = perplexities(args, None, within, [adapters["short"]])
    print("| model | " + " | ".join(f"{window}" for window in WINDOWS) + " |")
    print("|---|" + "---|" * len(WINDOWS))
    for name, of, found in [
        ("as it is", "base", unstretched), ("angles stretched", "base", stretched), ("`short`", "short", unstretched),
        *((f"`{arm}`", arm, stretched) for arm in ARMS if arm != "short"),
    ]:
        print(f"| {name} | " + " | ".join(f"{found[of, window]:.2f}" if (of, window) in found else "" for window in WINDOWS) + " |")


if __name__ == "__main__":
    main()
