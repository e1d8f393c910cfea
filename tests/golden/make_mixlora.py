"""Writes tests/golden/mixlora.json: ten-step MixLoRA curves and the gradients of one step, on the tiny LLaMA.

    python tests/golden/make_mixlora.py

scripts/weblora_reference/torch_mixlora.py in float64, differentiated by PyTorch. Witnesses, where the script stops if they disagree: the same
in float32; the plain model with LoRA where all experts are one; the balance loss of transformers' Mixtral.

`gap` is the smallest distance of a probability from another choice of experts, over all rows and blocks of a step: a program whose rounding is
larger may route a row elsewhere. The seeds are such that no gap is below 1e-5.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))
sys.path.insert(0, str(HERE))

from weblora_reference import torch_llama  # noqa: E402
from weblora_reference.files import write_json  # noqa: E402
from weblora_reference.torch_mixlora import MixRun, balance_loss, forward, initial, step_losses, train  # noqa: E402
from make_tiny_llama import TINY  # noqa: E402

B_BOUND, GATE_BOUND = 0.2, 0.3
SMALLEST_GAP = 1e-5

RUNS = {
    "top_2_of_4": MixRun(),
    "gate_up_top_2_of_8": MixRun(
        experts=8, expert_rank=2, expert_alpha=8, targets=("q_proj", "v_proj", "gate_proj", "up_proj"), balance="concatenated",
        grad_accum=2, rslora=True),
    "top_p": MixRun(method="mixlora-dynamic", top_p=0.7),
    "top_p_renormalized": MixRun(method="mixlora-dynamic", top_p=0.7, renormalize=True),
    "switch": MixRun(method="mixlora-switch", expert_capacity=5),
    "group": MixRun(group=8),
    "lora_plus": MixRun(lora_plus=8.0, lr=1e-3, clip=0.5, weight_decay=0.02),
}


def agree(what: str, got: torch.Tensor, want: torch.Tensor, tolerance: float) -> None:
    """Stop unless max |got - want| is within `tolerance` of max |want|."""
    worst = (got.double() - want.double()).abs().max().item() / max(want.double().abs().max().item(), 1e-30)
    if not worst <= tolerance:
        raise SystemExit(f"{what}: differ by {worst:.2e} relative, {tolerance:.0e} allowed")


def gradients(weights: dict, run: MixRun, batches: list, dtype):
    """Losses of a step at values that are not zero, and the gradient of every parameter."""
    start = initial(TINY, run, B_BOUND, GATE_BOUND)
    parameters = {name: value.to(dtype).requires_grad_() for name, value in start.items()}
    losses = step_losses(TINY, weights, parameters, run, batches[: run.grad_accum])
    losses.loss.backward()
    return losses, {name: p.grad for name, p in parameters.items()}


def gradient_case(exact: dict, single: dict, run: MixRun, batches: list) -> dict:
    """Of each gradient the first three values and the sum of squares."""
    losses, grads = gradients(exact, run, batches, torch.float64)
    _, other = gradients(single, run, batches, torch.float32)
    for name, grad in grads.items():
        agree(f"gradient of {name}", other[name], grad, 5e-4)
    digest = {name: [*g.flatten()[:3].tolist(), g.pow(2).sum().item()] for name, g in grads.items()}
    return {
        "loss": losses.loss.item(), "ce": losses.ce, "balance_loss": losses.balance_loss, "gap": losses.gap, "dropped": losses.dropped,
        "experts_without_rows": sum(d[3] == 0 and ".experts." in name for name, d in digest.items()) // 2, "gradients": digest,
    }


def check_one_expert(exact: dict, batch: dict) -> None:
    """Experts that are all the same are plain LoRA, whatever the router says."""
    run = RUNS["top_2_of_4"]
    parameters = {name: p.double() for name, p in initial(TINY, run, B_BOUND, GATE_BOUND).items()}
    for name in parameters:
        if ".experts." in name:
            block, rest = name.split(".experts.")
            parameters[name] = parameters[f"{block}.experts.0.{rest.split('.', maxsplit=1)[1]}"]
    plain = {name.replace(".experts.0", ""): p for name, p in parameters.items() if ".experts." not in name or ".experts.0." in name}
    tokens = torch.tensor(batch["tokens"])
    ours, _ = forward(TINY, exact, parameters, run, tokens, batch["lengths"])
    theirs = torch_llama.forward(TINY, exact, plain, run.of_attention()[1], tokens, batch["lengths"])
    agree("logits of equal experts", ours, theirs, 1e-12)


def check_balance(exact: dict, batch: dict) -> None:
    """Our balance loss is transformers'."""
    run = replace(RUNS["gate_up_top_2_of_8"], grad_accum=1)
    parameters = {name: p.double() for name, p in initial(TINY, run, B_BOUND, GATE_BOUND).items()}
    _, routings = forward(TINY, exact, parameters, run, torch.tensor(batch["tokens"]), batch["lengths"])
    theirs = load_balancing_loss_func(tuple(r.logits for r in routings), run.experts, run.top_k)
    agree("concatenated balance loss", balance_loss(run, routings), torch.as_tensor(theirs), 1e-6)
    each = [load_balancing_loss_func((r.logits,), run.experts, run.top_k) for r in routings]
    agree("balance loss per layer", balance_loss(replace(run, balance="per-layer"), routings), sum(each) / len(each), 1e-6)


def seeded(exact: dict, run: MixRun, batches: list) -> tuple[MixRun, dict]:
    """The run with the first seed of whose gaps none is too small, and its curve."""
    for seed in range(20):
        found = replace(run, seed=seed)
        curve = train(TINY, exact, found, batches, torch.float64)
        losses, _ = gradients(exact, found, batches, torch.float64)
        if min([losses.gap, *curve["gap"]]) > SMALLEST_GAP:
            return found, curve
    raise SystemExit("no seed keeps away from ties")


def main() -> None:
    torch.set_num_threads(1)
    single = {name.removeprefix("model."): w for name, w in load_file(HERE / "tiny_llama" / "model.safetensors").items()}
    exact = {name: w.double() for name, w in single.items()}
    batches = json.loads((HERE / "tiny_llama" / "golden.json").read_text(encoding="utf-8"))["batches"]
    check_one_expert(exact, batches[1])
    check_balance(exact, batches[1])
    cases = {}
    for name, base in RUNS.items():
        run, curve = seeded(exact, base, batches)
        again = train(TINY, single, run, batches, torch.float32)
        for key, tolerance in (("loss", 2e-4), ("ce", 2e-4), ("balance_loss", 2e-4), ("grad_norm", 2e-3)):
            agree(f"{name} {key}", torch.tensor(again[key]), torch.tensor(curve[key]), tolerance)
        cases[name] = {"settings": run.settings(), "curve": curve, "gradient": gradient_case(exact, single, run, batches)}
        print(f"{name:20} seed {run.seed}, loss {curve['loss'][0]:.4f} -> {curve['loss'][-1]:.4f}, balance "
              f"{curve['balance_loss'][0]:.4f} -> {curve['balance_loss'][-1]:.4f}, gap {min(curve['gap']):.1e} "
              f"{cases[name]['gradient']['gap']:.1e}, dropped {curve['dropped']} {cases[name]['gradient']['dropped']}", flush=True)
    # What a comparison must tell apart: mistakes in the same run, so many steps.
    base = replace(RUNS["top_2_of_4"], seed=cases["top_2_of_4"]["settings"]["seed"])
    wrong = {
        "no_balance_loss": replace(base, aux_coef=0.0), "one_expert": replace(base, top_k=1), "not_trained": replace(base, lr=0.0),
        "grouped": replace(base, group=8),
    }
    negatives = {name: train(TINY, exact, run, batches, torch.float64)["loss"] for name, run in wrong.items()}
    write_json(HERE / "mixlora.json", {"b_bound": B_BOUND, "gate_bound": GATE_BOUND, "cases": cases, "negatives": negatives})


if __name__ == "__main__":
    main()
