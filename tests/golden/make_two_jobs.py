"""Writes tests/golden/two_jobs.json: two LoRA jobs of different rank, targets, rate and rows over one base, ten steps each.

    python -m pip install -r scripts/requirements.txt
    python tests/golden/make_two_jobs.py

One PEFT model holds both adapters over one float32 base and trains them in turns; a plain LLaMA in float64 trains each alone. The
script stops if the two disagree. The base is tests/golden/tiny_llama.
"""

import sys
from pathlib import Path

import gguf
import torch
from peft import LoraConfig, get_peft_model

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))

from weblora_reference import gguf_llama  # noqa: E402
from weblora_reference.counter import integers  # noqa: E402
from weblora_reference.files import write_json  # noqa: E402
from weblora_reference.peft_run import Run, hf_model, initial_adapter, packed_logits, train  # noqa: E402
from weblora_reference.torch_llama import forward, masked_loss  # noqa: E402

# Rank, targets, rate, decay, clipping, schedule and micro-batches a step.
JOBS = {
    "attention": (Run(rank=3, alpha=6, targets=("q_proj", "v_proj"), lr=1e-2, clip=1.0, seed=3), 1),
    "products": (Run(rank=8, alpha=8, targets=("o_proj", "up_proj", "down_proj"), lr=4e-3, weight_decay=0.01, seed=4, schedule="linear",
                     warmup=2), 2),
}
LENGTHS = {"attention": [19, 7, 12], "products": [9, 24, 5, 16]}


def documents(name: str, vocab: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens and labels of a job's rows; the first quarter of each is prompt."""
    made = []
    for i, length in enumerate(LENGTHS[name]):
        tokens = torch.tensor(integers(f"two jobs/{name}/{i}", length, vocab).tolist())
        labels = tokens.clone()
        labels[: max(1, length // 4)] = -100
        made.append((tokens, labels))
    return made


def step_rows(rows: list, step: int, accumulated: int) -> list:
    """The rows of a step, one a micro-batch, in the file's order."""
    return [rows[(step * accumulated + i) % len(rows)] for i in range(accumulated)]


def mean_loss(rows: list, logits_of) -> torch.Tensor:
    """Mean over the targets of all rows."""
    counts = [int((labels[1:] >= 0).sum()) for _, labels in rows]
    losses = [masked_loss(logits_of(tokens), labels) * count for (tokens, labels), count in zip(rows, counts)]
    return sum(losses) / sum(counts)


def adapter_parameters(model, name: str) -> dict[str, torch.Tensor]:
    """{our name: PEFT's parameter} of one adapter."""
    found = {}
    for full, parameter in model.named_parameters():
        if f".{name}." in full:
            found[full.removeprefix("base_model.model.model.").replace(f".{name}.weight", "")] = parameter
    return found


def main() -> None:
    """Both implementations, and the file."""
    reader = gguf.GGUFReader(str(HERE / "tiny_llama" / "model.gguf"))
    shape = gguf_llama.read_shape(reader)
    weights = {n: torch.from_numpy(w.copy()) for n, w in gguf_llama.read_weights(reader).items()}
    exact_weights = {n: w.double() for n, w in weights.items()}
    rows = {name: documents(name, shape.vocab_size) for name in JOBS}
    model, steppers, curves = None, {}, {}
    for name, (run, accumulated) in JOBS.items():
        config = LoraConfig(r=run.rank, lora_alpha=run.alpha, bias="none", target_modules=list(run.targets), task_type="CAUSAL_LM")
        if model is None:
            model = get_peft_model(hf_model(shape, weights), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
        start = initial_adapter(shape, run)
        parameters = adapter_parameters(model, name)
        if set(parameters) != set(start):
            raise SystemExit(f"{name}: PEFT trains {sorted(parameters)}, {sorted(start)} were expected")
        with torch.no_grad():
            for parameter, value in start.items():
                parameters[parameter].copy_(value)
        steppers[name] = Stepper(parameters, run)
        exact = {n: p.double().requires_grad_() for n, p in start.items()}

        def exact_loss(step, exact=exact, run=run, name=name, accumulated=accumulated):
            return mean_loss(step_rows(rows[name], step, accumulated),
                             lambda tokens: forward(shape, exact_weights, exact, run.scale, tokens, [len(tokens)]))

        curves[name] = train(exact, exact_loss, run)
    # In turns over one base.
    for step in range(10):
        for name, (run, accumulated) in JOBS.items():
            model.set_adapter(name)
            loss = mean_loss(step_rows(rows[name], step, accumulated), lambda tokens: packed_logits(model, tokens, [len(tokens)]))
            steppers[name].step(step, loss)
    for name, stepper in steppers.items():
        for key in ("loss", "grad_norm"):
            for step, (got, want) in enumerate(zip(stepper.curve[key], curves[name][key], strict=True)):
                if abs(got - want) > 1e-4 * abs(want):
                    raise SystemExit(f"{name}, step {step}: {key} is {got} in PEFT, {want} in float64")
    write_json(HERE / "two_jobs.json", {
        "jobs": [{
            "name": name,
            "run": run.describe(),
            "grad_accum": accumulated,
            "rows": [{"tokens": tokens.tolist(), "targets": (labels >= 0).tolist()} for tokens, labels in rows[name]],
            "lr": curves[name]["lr"],
            "loss": curves[name]["loss"],
            "grad_norm": curves[name]["grad_norm"],
            "peft_f32": {key: steppers[name].curve[key] for key in ("loss", "grad_norm")},
        } for name, (run, accumulated) in JOBS.items()],
    })


class Stepper:
    """AdamW on one adapter of several, a step at a time."""

    def __init__(self, parameters: dict[str, torch.Tensor], run: Run):
        self.parameters, self.run = list(parameters.values()), run
        self.optimizer = torch.optim.AdamW(self.parameters, lr=run.lr, betas=run.betas, eps=run.eps, weight_decay=run.weight_decay)
        self.curve = {"loss": [], "grad_norm": []}

    def step(self, step: int, loss: torch.Tensor) -> None:
        """One update."""
        self.optimizer.param_groups[0]["lr"] = self.run.learning_rate(step)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, float("inf") if self.run.clip is None else self.run.clip)
        self.optimizer.step()
        self.curve["loss"].append(loss.item())
        self.curve["grad_norm"].append(norm.item())


if __name__ == "__main__":
    main()
