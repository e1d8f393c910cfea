"""Writes tests/golden/{tiny_llama,odd_llama}: two random LLaMAs with logits, LoRA gradients and 10-step loss curves.

    python -m pip install -r scripts/requirements.txt
    python tests/golden/make_tiny_llama.py

Every value is made twice: by transformers + PEFT in float32 and by a plain LLaMA in float64; the script stops if they
disagree. Stored tensors are the float64 ones, rounded once. README.md beside this script documents the layout.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))

from weblora_reference import gguf_llama, torch_llama  # noqa: E402
from weblora_reference.counter import bits, fnv1a_64, integers, uniform  # noqa: E402
from weblora_reference.files import write_json  # noqa: E402
from weblora_reference.peft_run import (  # noqa: E402
    Run, hf_model, initial_adapter, packed_logits, peft_model, peft_name, train,
)
from weblora_reference.torch_llama import Shape, forward, masked_loss  # noqa: E402

WEIGHT_SEED = 7
RANDOM_B = 0.2  # large enough that every gradient is far above rounding

TINY = Shape(
    vocab_size=97, hidden_size=32, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=16,
)
ODD = Shape(
    vocab_size=61, hidden_size=36, intermediate_size=50, num_hidden_layers=1,
    num_attention_heads=9, num_key_value_heads=3, head_dim=6, rope_theta=500000.0, rms_norm_eps=1e-6,
    tie_word_embeddings=True,
)
# Document lengths of three batches, used in turn; 1 is a document that can have no target.
BATCHES = {"tiny_llama": [[29, 20], [33, 1, 9], [17, 16, 15]], "odd_llama": [[23, 2, 12], [31], [8, 21]]}

RUNS = {
    "lora": Run(),
    "weight_decay": Run(weight_decay=0.01, lr=1e-2),
    "clip_linear_warmup": Run(clip=1.0, schedule="linear", warmup=3, lr=1e-2),
    "lora_plus": Run(lora_plus=16.0),
    "rslora": Run(rslora=True),
    "q_v_rank_3": Run(targets=("q_proj", "v_proj"), rank=3, alpha=6, lr=1e-2),
}


def random_weights(shape: Shape) -> dict[str, np.ndarray]:
    """Weights from the counter-based generator: variance 1/in for matrices, norms about 1, embeddings of variance 1."""
    weights = {}
    for name, (rows, cols) in shape.sites():
        weights[name + ".weight"] = uniform(WEIGHT_SEED, name + ".weight", (rows, cols), (3.0 / cols) ** 0.5)
    norms = [f"layers.{n}.{kind}.weight" for n in range(shape.num_hidden_layers)
             for kind in ("input_layernorm", "post_attention_layernorm")]
    for name in [*norms, "norm.weight"]:
        weights[name] = np.float32(1) + uniform(WEIGHT_SEED, name, (shape.hidden_size,), 0.25)
    tables = ["embed_tokens.weight"] if shape.tie_word_embeddings else ["embed_tokens.weight", "lm_head.weight"]
    for name in tables:
        bound = 3.0**0.5 if name == "embed_tokens.weight" and len(tables) == 2 else (12.0 / shape.hidden_size) ** 0.5
        weights[name] = uniform(WEIGHT_SEED, name, (shape.vocab_size, shape.hidden_size), bound)
    return weights


def tensor_type(name: str) -> Type:
    """A mixture, so that a reader meets three formats in one file, and one kind in two formats."""
    if name.endswith("norm.weight") or name in ("lm_head.weight", "layers.1.self_attn.v_proj.weight"):
        return Type.F32
    if name.startswith("embed_tokens") or name.endswith(("k_proj.weight", "layers.1.mlp.up_proj.weight")):
        return Type.Q8_0
    return Type.Q4_1


def write_gguf(path: Path, shape: Shape, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Quantise into a GGUF file without a tokenizer; returns the weights as a reader dequantises them."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("weblora tiny golden")
    gguf_llama.add_shape(writer, shape)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    gguf_llama.add_weights(writer, weights, shape.num_attention_heads, shape.num_key_value_heads, tensor_type)
    gguf_llama.finish(writer)
    reader = gguf.GGUFReader(str(path))
    if gguf_llama.read_shape(reader) != shape:
        raise SystemExit("the GGUF metadata do not read back as the shape that was written")
    return gguf_llama.read_weights(reader)


def write_hf(folder: Path, shape: Shape, weights: dict[str, np.ndarray], dtype: torch.dtype) -> None:
    """`model.safetensors` and `config.json` as a Hugging Face folder has them."""
    named = {n if n.startswith("lm_head") else "model." + n: torch.from_numpy(w).to(dtype) for n, w in weights.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    sizes = asdict(shape)
    theta = sizes.pop("rope_theta")
    # The two spellings of RoPE settings that config.json files in the wild have.
    rope = {"rope_theta": theta} if dtype == torch.float32 else {
        "rope_parameters": {"rope_type": "default", "rope_theta": theta}}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "attention_bias": False,
        "mlp_bias": False, "torch_dtype": str(dtype).removeprefix("torch."), **sizes, **rope,
    }
    write_json(folder / "config.json", config)


def make_batch(model: str, index: int, lengths: list[int], vocab: int) -> dict:
    """Tokens from the generator; the first third of each document is prompt, as is every token after a multiple of 7."""
    total = sum(lengths)
    tokens = integers(f"{WEIGHT_SEED}/{model}/batch{index}", total, vocab).tolist()
    labels, start = [], 0
    for length in lengths:
        for t in range(length):
            prompt = t == 0 or t < length // 3 or tokens[start + t - 1] % 7 == 0
            labels.append(-100 if prompt else tokens[start + t])
        start += length
    return {"lengths": lengths, "tokens": tokens, "labels": labels}


class Golden:
    """One model in both implementations, and what is computed from them."""

    def __init__(self, name: str, shape: Shape, weights: dict[str, np.ndarray]):
        self.name, self.shape = name, shape
        self.weights = {n: torch.from_numpy(np.array(w)) for n, w in weights.items()}
        self.exact = {n: w.double() for n, w in self.weights.items()}
        self.batches = [make_batch(name, i, lens, shape.vocab_size) for i, lens in enumerate(BATCHES[name])]

    def batch(self, step: int):
        """Tokens, labels and lengths of a step."""
        batch = self.batches[step % len(self.batches)]
        return torch.tensor(batch["tokens"]), torch.tensor(batch["labels"]), batch["lengths"]

    def exact_loss(self, adapter, run: Run, step: int, weights=None, lengths=None):
        """(loss, logits) of the plain float64 model."""
        tokens, labels, packed = self.batch(step)
        logits = forward(self.shape, weights or self.exact, adapter, run.scale, tokens, lengths or packed)
        return masked_loss(logits, labels), logits

    def gradients(self, run: Run):
        """Logits, loss and adapter gradients of batch 0 with B not zero, by both implementations."""
        start = initial_adapter(self.shape, run, RANDOM_B)
        adapter = {n: p.double().requires_grad_() for n, p in start.items()}
        loss, logits = self.exact_loss(adapter, run, 0)
        loss.backward()
        exact = {"logits": logits.detach(), **{"grad." + n: p.grad for n, p in adapter.items()}}
        base = self.exact_loss({}, run, 0)
        exact["logits_base"] = base[1].detach()

        peft = peft_model(hf_model(self.shape, self.weights), run, start)
        tokens, labels, lengths = self.batch(0)
        theirs = packed_logits(peft, tokens, lengths)
        masked_loss(theirs, labels).backward()
        parameters = dict(peft.named_parameters())
        agree("logits", theirs.detach(), exact["logits"], 2e-5)
        for name in start:
            agree(name, parameters[peft_name(name)].grad, exact["grad." + name], 2e-5)
        # Separate sequences must be the same as packed ones.
        alone = torch.cat([peft(input_ids=d[None]).logits[0] for d in tokens.split(lengths)])
        agree("unpacked logits", alone.detach(), exact["logits"], 2e-5)
        return exact, loss.item(), base[0].item(), start, peft

    def negatives(self, run: Run) -> dict[str, float]:
        """Losses of batch 0 under mistakes; a comparator that accepts one of them is broken."""
        adapter = {n: p.double() for n, p in initial_adapter(self.shape, run, RANDOM_B).items()}
        s, total = self.shape, sum(self.batches[0]["lengths"])
        interleaved = {}
        for name, value in self.exact.items():
            heads = gguf_llama.heads_of(name, s.num_attention_heads, s.num_key_value_heads)
            interleaved[name] = value if heads is None else torch.from_numpy(gguf_llama.permute(value.numpy(), heads))
        unscaled = {n: p / run.scale if "lora_B" in n else p for n, p in adapter.items()}
        return {
            "documents_see_each_other": self.exact_loss(adapter, run, 0, lengths=[total])[0].item(),
            "q_k_rows_left_permuted": self.exact_loss(adapter, run, 0, weights=interleaved)[0].item(),
            "adapter_not_scaled": self.exact_loss(unscaled, run, 0)[0].item(),
        }

    def curve(self, run: Run) -> dict:
        """The run in PEFT float32 and in plain float64; they must agree."""
        start = initial_adapter(self.shape, run)
        exact = {n: p.double().requires_grad_() for n, p in start.items()}
        curve64 = train(exact, lambda step: self.exact_loss(exact, run, step)[0], run)
        peft = peft_model(hf_model(self.shape, self.weights), run, start)
        trained = {n: p for n, p in peft.named_parameters() if p.requires_grad}

        def loss(step):
            tokens, labels, lengths = self.batch(step)
            return masked_loss(packed_logits(peft, tokens, lengths), labels)

        curve32 = train(trained, loss, run)
        for key in ("loss", "grad_norm"):
            agree(f"curve {key}", torch.tensor(curve32[key]), torch.tensor(curve64[key]), 1e-4)
        final = {n: p.detach() for n, p in exact.items()}
        return {
            "run": {**run.describe(), "scale": run.scale},
            "lr": curve64["lr"],
            "f64": {k: curve64[k] for k in ("loss", "grad_norm")},
            "peft_f32": {k: curve32[k] for k in ("loss", "grad_norm")},
            "final_abs_sum": {n: p.abs().sum().item() for n, p in final.items()},
        }


def agree(what: str, got: torch.Tensor, want: torch.Tensor, tolerance: float) -> None:
    """Stop unless max |got - want| is within `tolerance` of max |want|."""
    worst = (got.double() - want.double()).abs().max().item() / want.double().abs().max().item()
    if not worst <= tolerance:
        raise SystemExit(f"{what}: float32 and float64 differ by {worst:.2e} relative, {tolerance:.0e} allowed")


def generator_vectors() -> list[dict]:
    """Known answers of the generator."""
    cases = [(0, "layers.0.self_attn.q_proj.lora_A", 1 / 32**0.5), (1, "layers.0.self_attn.q_proj.lora_A", 1 / 32**0.5),
             (0, "link1.layers.0.mlp.down_proj.lora_A", 1.0), (0, "layers.0.mlp.moe_gate", 0.02 * 3**0.5), (18446744073709551615, "ü", 1.0)]
    return [{
        "seed": str(seed), "name": name, "bound": bound, "fnv1a_64": f"{fnv1a_64(f'{seed}/{name}'):016x}",
        "bits": [f"{int(b):016x}" for b in bits(f"{seed}/{name}", 4)],
        "f32": [float(v) for v in uniform(seed, name, (4,), bound)],
        "f32_bits": [f"{int(v):08x}" for v in uniform(seed, name, (4,), bound).view(np.uint32)],
    } for seed, name, bound in cases]


def make(name: str, shape: Shape, runs: dict[str, Run]) -> None:
    """All files of one model."""
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    weights = random_weights(shape)
    if name == "tiny_llama":
        weights = write_gguf(folder / "model.gguf", shape, weights)
        write_hf(folder, shape, weights, torch.float32)
    else:
        weights = {n: torch.from_numpy(w).to(torch.bfloat16).float().numpy() for n, w in weights.items()}
        write_hf(folder, shape, weights, torch.bfloat16)
    golden = Golden(name, shape, weights)
    run = runs["lora"]
    tensors, loss, base_loss, start, peft = golden.gradients(run)
    save_file({n: t.float().contiguous() for n, t in tensors.items()}, folder / "golden.safetensors")
    if name == "tiny_llama":
        write_adapter(folder / "adapter", peft)
    squares = sum(t.pow(2).sum().item() for n, t in tensors.items() if n.startswith("grad."))
    write_json(folder / "golden.json", {
        "weight_seed": WEIGHT_SEED,
        "batches": golden.batches,
        "gradient_case": {
            "batch": 0, "run": {**run.describe(), "scale": run.scale}, "b_bound": RANDOM_B,
            "loss": loss, "loss_without_adapter": base_loss, "grad_norm": squares**0.5,
            "first_values": {n: p.flatten()[:3].tolist() for n, p in start.items()},
        },
        "negatives": golden.negatives(run),
        "curves": {label: golden.curve(r) for label, r in runs.items()},
    })


def write_adapter(folder: Path, peft) -> None:
    """The adapter of the gradient case exactly as PEFT saves it, with names that hold on any machine."""
    peft.peft_config["default"].base_model_name_or_path = "tiny_llama"
    peft.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"].sort()  # PEFT keeps a set: its order changes from run to run
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    torch.set_num_threads(2)
    make("tiny_llama", TINY, RUNS)
    make("odd_llama", ODD, {k: RUNS[k] for k in ("lora", "clip_linear_warmup")})
    write_json(HERE / "generator.json", generator_vectors())
    for path in sorted(HERE.rglob("*")):
        if path.is_file():
            print(f"{path.stat().st_size:8}  {path.relative_to(HERE)}")


if __name__ == "__main__":
    main()
