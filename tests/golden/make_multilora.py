"""Writes tests/golden/multilora.json: ten-step MultiLoRA curves and the gradients of one step, on the tiny LLaMA.

    python tests/golden/make_multilora.py

The modules are written as the paper has them, `sum_i s_i * (B_i (A_i x))`, and differentiated by PyTorch: once in float64 in the plain
model of scripts/weblora_reference, once in float32 as forward hooks on transformers' LLaMA. The script stops where the two disagree.
"""

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))
sys.path.insert(0, str(HERE))

from weblora_reference.counter import uniform  # noqa: E402
from weblora_reference.files import write_json  # noqa: E402
from weblora_reference.peft_run import hf_model, packed_logits  # noqa: E402
from weblora_reference.torch_llama import PROJECTIONS, forward, masked_loss  # noqa: E402
from make_tiny_llama import TINY  # noqa: E402


@dataclass(frozen=True)
class Run:
    """Settings with the names of the command line."""

    modules: int = 3
    rank: int = 2
    alpha: float = 4
    scale: str = "out"
    scale_lr: float = 10.0
    init_b: str = "kaiming"
    rslora: bool = False
    targets: tuple[str, ...] = tuple(PROJECTIONS)
    lr: float = 5e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-10
    weight_decay: float = 0.0
    clip: float = 0.0
    steps: int = 10
    seed: int = 0

    @property
    def factor(self) -> float:
        """What multiplies the sum over modules."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


RUNS = {
    "out": Run(),
    "scalar": Run(scale="scalar", lr=1e-2),
    "clip_decay": Run(clip=0.5, weight_decay=0.02),
    "zero_b": Run(init_b="zero", scale_lr=1.0),
    "q_v_rank_3_rslora": Run(targets=("q_proj", "v_proj"), rank=3, modules=2, rslora=True, lr=1e-2),
}


def initial(run: Run, random_s: float = 0.0) -> dict[str, torch.Tensor]:
    """A and B Kaiming-uniform and s zero, or B zero and s one; `random_s` draws s from the generator for gradient checks."""
    start = {}
    for site, (rows, cols) in TINY.sites(run.targets):
        for i in range(run.modules):
            a, b, s = (f"{site}.{kind}.{i}" for kind in ("lora_A", "lora_B", "lora_scaling"))
            start[a] = torch.from_numpy(uniform(run.seed, a, (run.rank, cols), 1 / math.sqrt(cols)))
            kaiming = torch.from_numpy(uniform(run.seed, b, (rows, run.rank), 1 / math.sqrt(run.rank)))
            start[b] = kaiming if run.init_b == "kaiming" else torch.zeros(rows, run.rank)
            size = (rows if run.scale == "out" else 1,)
            start[s] = torch.zeros(size) if run.init_b == "kaiming" else torch.ones(size)
            if random_s:
                start[s] = torch.from_numpy(uniform(run.seed, s, size, random_s))
    return start


def modules(run: Run, parameters: dict, site: str, x):
    """sum_i s_i * (B_i (A_i x)), times the common factor."""
    parts = [
        parameters[f"{site}.lora_scaling.{i}"] * F.linear(F.linear(x, parameters[f"{site}.lora_A.{i}"]), parameters[f"{site}.lora_B.{i}"])
        for i in range(run.modules)
    ]
    return run.factor * sum(parts)


class Exact:
    """The plain model in float64. Its adapter interface takes one A and one B: side by side, with s in B."""

    def __init__(self, weights: dict):
        self.weights = {name: w.double() for name, w in weights.items()}

    def loss(self, run: Run, parameters: dict, batch: dict):
        pairs = {}
        for site, _ in TINY.sites(run.targets):
            each = range(run.modules)
            pairs[site + ".lora_A"] = torch.cat([parameters[f"{site}.lora_A.{i}"] for i in each])
            pairs[site + ".lora_B"] = torch.cat(
                [parameters[f"{site}.lora_scaling.{i}"][:, None] * parameters[f"{site}.lora_B.{i}"] for i in each], 1)
        logits = forward(TINY, self.weights, pairs, run.factor, torch.tensor(batch["tokens"]), batch["lengths"])
        return masked_loss(logits, torch.tensor(batch["labels"]))


class Hooked:
    """transformers' LLaMA in float32 with the modules written out in hooks."""

    def __init__(self, weights: dict):
        self.model = hf_model(TINY, weights).requires_grad_(False)

    def loss(self, run: Run, parameters: dict, batch: dict):
        named = dict(self.model.named_modules())
        hooks = [
            named["model." + site].register_forward_hook(lambda _, x, y, site=site: y + modules(run, parameters, site, x[0]))
            for site, _ in TINY.sites(run.targets)
        ]
        logits = packed_logits(self.model, torch.tensor(batch["tokens"]), batch["lengths"])
        for hook in hooks:
            hook.remove()
        return masked_loss(logits, torch.tensor(batch["labels"]))


def train(model, run: Run, batches: list, dtype) -> dict[str, list[float]]:
    """AdamW with a faster, decay-free group for s. Losses are those before each update, norms those before clipping."""
    parameters = {name: value.to(dtype).requires_grad_() for name, value in initial(run).items()}
    fast = [p for name, p in parameters.items() if "lora_scaling" in name]
    rest = [p for name, p in parameters.items() if "lora_scaling" not in name]
    groups = [{"params": rest}, {"params": fast, "lr": run.lr * run.scale_lr, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=run.lr, betas=run.betas, eps=run.eps, weight_decay=run.weight_decay)
    curve = {"loss": [], "grad_norm": []}
    for step in range(run.steps):
        optimizer.zero_grad()
        loss = model.loss(run, parameters, batches[step % len(batches)])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(rest + fast, run.clip or math.inf)
        optimizer.step()
        curve["loss"].append(loss.item())
        curve["grad_norm"].append(norm.item())
    return curve


def gradients(model, run: Run, start: dict, batch: dict, dtype):
    """Loss and the gradient of every parameter at `start`."""
    parameters = {name: value.to(dtype).requires_grad_() for name, value in start.items()}
    loss = model.loss(run, parameters, batch)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in parameters.items()}


def agree(what: str, got: torch.Tensor, want: torch.Tensor, tolerance: float) -> None:
    """Stop unless max |got - want| is within `tolerance` of max |want|."""
    worst = (got.double() - want.double()).abs().max().item() / want.double().abs().max().item()
    if not worst <= tolerance:
        raise SystemExit(f"{what}: float32 and float64 differ by {worst:.2e} relative, {tolerance:.0e} allowed")


def gradient_case(exact: Exact, hooked: Hooked, run: Run, batch: dict) -> dict:
    """One step's gradients with no parameter zero; of each the first three values and the sum of squares."""
    bound = 0.5
    start = initial(run, bound)
    loss, grads = gradients(exact, run, start, batch, torch.float64)
    _, other = gradients(hooked, run, start, batch, torch.float32)
    for name, grad in grads.items():
        agree(name, other[name], grad, 2e-4)
    digest = {name: [*g.flatten()[:3].tolist(), g.pow(2).sum().item()] for name, g in grads.items()}
    return {"run": asdict(run), "s_bound": bound, "loss": loss, "gradients": digest}


def main() -> None:
    torch.set_num_threads(1)
    weights = {name.removeprefix("model."): w for name, w in load_file(HERE / "tiny_llama" / "model.safetensors").items()}
    batches = json.loads((HERE / "tiny_llama" / "golden.json").read_text(encoding="utf-8"))["batches"]
    exact, hooked = Exact(weights), Hooked(weights)
    curves = {}
    for name, run in RUNS.items():
        curve = train(exact, run, batches, torch.float64)
        single = train(hooked, run, batches, torch.float32)
        for key in ("loss", "grad_norm"):
            agree(f"{name} {key}", torch.tensor(single[key]), torch.tensor(curve[key]), 2e-4 if key == "loss" else 2e-3)
        curves[name] = {"run": asdict(run), **curve}
    slow = train(exact, Run(scale_lr=1.0), batches, torch.float64)
    cases = [gradient_case(exact, hooked, run, batches[0]) for run in (RUNS["out"], RUNS["scalar"])]
    write_json(HERE / "multilora.json", {"curves": curves, "slow_scales": slow["loss"], "gradient_cases": cases})
    for name, curve in curves.items():
        print(f"{name:20} loss {curve['loss'][0]:.4f} -> {curve['loss'][-1]:.4f}")


if __name__ == "__main__":
    main()
