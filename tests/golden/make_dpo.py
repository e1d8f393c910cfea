"""Writes tests/golden/dpo.json: ten steps of direct preference optimisation of a LoRA against its base.

    python -m pip install -r scripts/requirements.txt
    python tests/golden/make_dpo.py

transformers + PEFT in float32 (the reference is the same model with the adapter switched off) and a plain LLaMA in float64; the script
stops if the two disagree. The base is tests/golden/tiny_llama.
"""

import sys
from pathlib import Path

import gguf
import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))

from weblora_reference import gguf_llama  # noqa: E402
from weblora_reference.counter import integers  # noqa: E402
from weblora_reference.files import write_json  # noqa: E402
from weblora_reference.peft_run import Run, hf_model, initial_adapter, packed_logits, peft_model, peft_name, train  # noqa: E402
from weblora_reference.torch_llama import forward  # noqa: E402

RUN = Run(rank=4, alpha=8, lr=2e-2, clip=1.0, weight_decay=0.01, seed=5, targets=("q_proj", "v_proj", "o_proj", "up_proj", "down_proj"))
BETA, SMOOTHING = 0.3, 0.05
PAIRS_A_MICRO_BATCH, MICRO_BATCHES = 2, 2
# Prompt, chosen answer, rejected answer.
LENGTHS = [(5, 7, 4), (3, 2, 9), (8, 5, 5), (1, 6, 1), (4, 3, 3), (6, 8, 2)]


def rows(vocab: int) -> list[dict]:
    """Tokens of both answers behind one prompt, and which of them are targets."""
    made = []
    for i, (prompt, chosen, rejected) in enumerate(LENGTHS):
        start = integers(f"dpo/{i}/prompt", prompt, vocab).tolist()
        row = {}
        for side, length in (("chosen", chosen), ("rejected", rejected)):
            row[side] = start + integers(f"dpo/{i}/{side}", length, vocab).tolist()
            row[f"{side}_targets"] = [False] * prompt + [True] * length
        made.append(row)
    return made


def log_likelihood(row: dict, side: str, logits_of) -> torch.Tensor:
    """Of the targets of one answer."""
    tokens, targets = torch.tensor(row[side]), torch.tensor(row[f"{side}_targets"])
    scores = F.log_softmax(logits_of(tokens)[:-1], dim=-1).gather(1, tokens[1:, None])[:, 0]
    return scores[targets[1:]].sum()


def step_loss(chosen_rows: list[dict], policy, reference) -> tuple[torch.Tensor, dict]:
    """The mean loss of pairs, and what TRL calls their rewards."""
    losses, rewards = [], []
    for row in chosen_rows:
        gains = []
        for side in ("chosen", "rejected"):
            with torch.no_grad():
                before = log_likelihood(row, side, reference)
            gains.append(log_likelihood(row, side, policy) - before)
        h = BETA * (gains[0] - gains[1])
        losses.append(-(1 - SMOOTHING) * F.logsigmoid(h) - SMOOTHING * F.logsigmoid(-h))
        rewards.append([BETA * gain.item() for gain in gains])
    mean = [sum(pair[side] for pair in rewards) / len(rewards) for side in (0, 1)]
    accuracy = sum(pair[0] > pair[1] for pair in rewards) / len(rewards)
    return sum(losses) / len(losses), {"chosen": mean[0], "rejected": mean[1], "margin": mean[0] - mean[1], "accuracy": accuracy}


def main() -> None:
    """Both implementations, and the file."""
    reader = gguf.GGUFReader(str(HERE / "tiny_llama" / "model.gguf"))
    shape = gguf_llama.read_shape(reader)
    weights = {n: torch.from_numpy(w.copy()) for n, w in gguf_llama.read_weights(reader).items()}
    exact_weights = {n: w.double() for n, w in weights.items()}
    data = rows(shape.vocab_size)
    a_step = PAIRS_A_MICRO_BATCH * MICRO_BATCHES

    def of_step(step: int) -> list[dict]:
        # A step never mixes epochs inside a micro-batch; the rows are a multiple of it.
        return [data[(step * a_step + i) % len(data)] for i in range(a_step)]

    start = initial_adapter(shape, RUN)
    exact = {n: p.double().requires_grad_() for n, p in start.items()}
    nothing = {n: torch.zeros_like(p) for n, p in exact.items()}
    rewards = []

    def exact_loss(step: int) -> torch.Tensor:
        def logits(adapter):
            return lambda tokens: forward(shape, exact_weights, adapter, RUN.scale, tokens, [len(tokens)])

        loss, report = step_loss(of_step(step), logits(exact), logits(nothing))
        rewards.append(report)
        return loss

    curve = train(exact, exact_loss, RUN)
    model = peft_model(hf_model(shape, weights), RUN, start)
    parameters = dict(model.named_parameters())

    def peft_loss(step: int) -> torch.Tensor:
        def reference(tokens):
            with model.disable_adapter():
                return packed_logits(model, tokens, [len(tokens)])

        return step_loss(of_step(step), lambda tokens: packed_logits(model, tokens, [len(tokens)]), reference)[0]

    peft_curve = train({name: parameters[peft_name(name)] for name in start}, peft_loss, RUN)
    for key in ("loss", "grad_norm"):
        for step, (got, want) in enumerate(zip(peft_curve[key], curve[key], strict=True)):
            if abs(got - want) > 1e-4 * abs(want):
                raise SystemExit(f"step {step}: {key} is {got} in PEFT, {want} in float64")
    write_json(HERE / "dpo.json", {
        "run": RUN.describe(), "beta": BETA, "label_smoothing": SMOOTHING, "batch_rows": PAIRS_A_MICRO_BATCH, "grad_accum": MICRO_BATCHES,
        "rows": data, "lr": curve["lr"], "loss": curve["loss"], "grad_norm": curve["grad_norm"], "rewards": rewards,
        "peft_f32": {key: peft_curve[key] for key in ("loss", "grad_norm")},
    })


if __name__ == "__main__":
    main()
