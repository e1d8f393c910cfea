"""An adapter that `weblora export --to gguf` wrote does the same in llama.cpp as it does here.

    python scripts/interop/llama_cpp_adapter.py target/release/weblora SmolLM2-135M-Instruct.Q4_1.gguf

Makes an adapter with everything that the file has no place for (rsLoRA, ranks and alphas by pattern), exports it, and compares the mean losses of
some texts with and without it:
1. on the base with its weights as f32, where llama.cpp computes in f32, too: tight;
2. on the Q4_1 file itself, where llama.cpp rounds activations to 8 bits and we do not: loose, by a tolerance that was measured.
Each comparison must fail for two wrong files: rows of q and k in Hugging Face's order, and alpha doubled. The greedy text has to change.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from llama_cpp import Llama
from safetensors.numpy import save_file

TEXTS = [
    "The capital of France is Paris. The capital of Germany is Berlin. The capital of Italy is Rome.",
    "Once upon a time there was a little girl who lived in a small house at the edge of a dark forest.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))\n",
    "Water boils at a hundred degrees. Ice melts at zero degrees, and iron at fifteen hundred.",
]
PROMPT = "The best way to learn a language is"
# Largest difference of a mean loss: f32 against f32 (2e-5 was measured), and against llama.cpp's 8-bit activations (0.040 for the base, 0.036 with
# the adapter). Wrong files are off by 0.5 and more.
TIGHT, LOOSE = 5e-4, 0.08
LAYERS, HIDDEN, KV, FEED = 30, 576, 192, 1536
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (KV, HIDDEN), "self_attn.v_proj": (KV, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (FEED, HIDDEN), "mlp.up_proj": (FEED, HIDDEN), "mlp.down_proj": (HIDDEN, FEED),
}
HEADS = {"attn_q": 9, "attn_k": 3}


def make_adapter(folder: Path) -> None:
    """A PEFT folder of random factors: rank 4, 6 for q, alpha 8, 12 for down, rsLoRA."""
    random = np.random.default_rng(0)
    tensors = {}
    for layer in range(LAYERS):
        for name, (out, inputs) in SHAPES.items():
            rank = 6 if name.endswith("q_proj") else 4
            size = 0.2 if name.endswith(("q_proj", "k_proj")) else 0.02
            key = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{key}.lora_A.weight"] = random.normal(0, inputs**-0.5, (rank, inputs)).astype(np.float32)
            tensors[f"{key}.lora_B.weight"] = random.normal(0, size, (out, rank)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "SmolLM2-135M-Instruct", "r": 4, "lora_alpha": 8, "use_rslora": True,
        "bias": "none", "target_modules": [name.split(".")[1] for name in SHAPES], "rank_pattern": {"q_proj": 6}, "alpha_pattern": {"down_proj": 12},
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def copy_gguf(source: Path, target: Path, change=lambda key, value: value, tensor=lambda name, data: data) -> None:
    """A GGUF with some values and tensors changed; all tensors as f32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        sub = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(key, change(key, field.contents()), field.types[0], sub)
    for t in reader.tensors:
        data = np.ascontiguousarray(gguf.dequantize(t.data, t.tensor_type), np.float32)
        writer.add_tensor(t.name, tensor(t.name, data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def in_hf_order(name: str, data: np.ndarray) -> np.ndarray:
    """The mistake of an exporter that forgets to move the rows of q and k."""
    heads = HEADS.get(name.split(".")[2])
    if not name.endswith("lora_b") or heads is None:
        return data
    return data.reshape(heads, data.shape[0] // heads // 2, 2, data.shape[1]).swapaxes(1, 2).reshape(data.shape)


def theirs(model: Path, adapter: Path | None) -> tuple[list[float], str]:
    """Mean losses of the texts, and a greedy continuation, in llama.cpp."""
    llama = Llama(str(model), lora_path=str(adapter) if adapter else None, n_ctx=256, n_batch=256, logits_all=True, type_k=0, type_v=0, verbose=False)
    losses = []
    for text in TEXTS:
        tokens = llama.tokenize(text.encode(), add_bos=False, special=False)
        llama.reset()
        llama.eval(tokens)
        logits = np.asarray(llama.scores[: len(tokens) - 1], np.float64)
        top = logits.max(axis=1)
        norm = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        losses.append(float(np.mean(norm - logits[np.arange(len(tokens) - 1), tokens[1:]])))
    llama.reset()
    return losses, llama.create_completion(PROMPT, max_tokens=12, temperature=0.0)["choices"][0]["text"]


def ours(weblora: str, model: Path, adapter: Path, folder: Path) -> tuple[list[float], list[float]]:
    """Mean losses of the texts without and with the adapter."""
    base, tuned = [], []
    for text in TEXTS:
        (folder / "text.txt").write_text(text)
        out = subprocess.run([weblora, "eval", "--json", "--model", model, "--text", folder / "text.txt", "--adapter", adapter, "--seq", "128", "--no-tune"], check=True, capture_output=True, text=True)
        losses = [event["loss"] for event in map(json.loads, out.stdout.splitlines()) if event["event"] == "eval"]
        base.append(losses[0])
        tuned.append(losses[1])
    return base, tuned


def main(weblora: str, model: Path) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peft = folder / "adapter"
        peft.mkdir()
        make_adapter(peft)
        right = folder / "adapter.gguf"
        subprocess.run([weblora, "export", "--adapter", peft, "--model", model, "--to", "gguf", "--out", right, "--no-tune"], check=True)
        unmoved, doubled, f32 = folder / "unmoved.gguf", folder / "doubled.gguf", folder / "f32.gguf"
        copy_gguf(right, unmoved, tensor=in_hf_order)
        copy_gguf(right, doubled, change=lambda key, value: 2 * value if key == "adapter.lora.alpha" else value)
        copy_gguf(model, f32)
        base, tuned = ours(weblora, model, peft, folder)
        fine = True
        for file, tolerance in ((f32, TIGHT), (model, LOOSE)):
            alone, before = theirs(file, None)
            found, after = theirs(file, right)
            off = {"base": distance(alone, base), "adapter": distance(found, tuned)}
            wrong = {"rows unmoved": distance(theirs(file, unmoved)[0], tuned), "alpha doubled": distance(theirs(file, doubled)[0], tuned)}
            effect = distance(base, tuned)
            print(f"{file.name}: effect {effect:.4f}, tolerance {tolerance}, off {rounded(off)}, wrong files off {rounded(wrong)}")
            print(f"  {PROMPT!r}: {before!r}, with the adapter {after!r}")
            fine &= max(off.values()) < tolerance and min(wrong.values()) > 2 * tolerance and effect > 2 * tolerance and before != after
        return fine


def distance(found: list[float], expected: list[float]) -> float:
    return max(abs(x - y) for x, y in zip(found, expected, strict=True))


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {key: float(f"{value:.3g}") for key, value in values.items()}


if __name__ == "__main__":
    if not main(sys.argv[1], Path(sys.argv[2])):
        sys.exit("llama.cpp and weblora differ, or a wrong file was not told from the right one")
    print("llama.cpp and weblora agree")
