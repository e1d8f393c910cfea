"""Writes tests/golden/cola.json: chains of LoRA on tests/golden/tiny_llama, as the paper has them: the link is merged into the weights.

    python -m pip install -r scripts/requirements.txt
    python tests/golden/make_cola.py

Every curve is made twice: by PEFT (float32: `merge_and_unload`, then a fresh adapter and a fresh torch.optim.AdamW) and by a plain LLaMA in
float64 whose weights take `scale * B A` at a knot. The script stops if the two disagree.
"""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))

from weblora_reference import gguf_llama  # noqa: E402
from weblora_reference.counter import uniform  # noqa: E402
from weblora_reference.files import write_json  # noqa: E402
from weblora_reference.peft_run import Run, hf_model, packed_logits, peft_model  # noqa: E402
from weblora_reference.torch_llama import forward, masked_loss  # noqa: E402

STEPS = 5  # of each link


@dataclass(frozen=True)
class Chain:
    """Settings of a chain, with the names of the command line; links have STEPS steps each."""

    links: tuple[int, ...] = (4, 4, 4)
    alphas: tuple[float, ...] = (8.0, 8.0, 8.0)
    lrs: tuple[float, ...] = (1e-2, 1e-2, 1e-2)
    schedule: str = "constant"
    link_schedule: str = "link"
    warmup: int = 0
    clip: float | None = None
    knot_optimizer: str = "reset"
    rac: bool = False
    # Mistakes, to be told apart from the right curve.
    keep_step: bool = False
    forget_links: bool = False

    def learning_rate(self, step: int) -> float:
        """Of the run's step (from 0)."""
        link = step // STEPS
        if self.link_schedule == "jagged" and link > 0 and step % STEPS < 2:
            return self.lrs[link] * (1 - (link * STEPS + 2) / (3 * STEPS)) * (step % STEPS + 1) / 3
        total, at = (STEPS, step % STEPS) if self.link_schedule == "link" else (len(self.links) * STEPS, step)
        run = Run(lr=self.lrs[link], schedule=self.schedule, warmup=self.warmup, steps=total)
        return run.learning_rate(at)


CHAINS = {
    "reset": Chain(),
    "step_down": Chain(links=(4, 2, 3), alphas=(8.0, 6.0, 3.0), lrs=(1e-2, 5e-3, 8e-3), schedule="linear", warmup=2, clip=1.0),
    "jagged": Chain(schedule="linear", link_schedule="jagged"),
    "keep": Chain(knot_optimizer="keep", link_schedule="global", schedule="linear"),
    "rac": Chain(rac=True),
}
MISTAKES = {"step_not_reset": Chain(keep_step=True), "links_forgotten": Chain(forget_links=True), "moments_not_reset": Chain(knot_optimizer="keep")}


def initial_link(shape, number: int, rank: int) -> dict[str, torch.Tensor]:
    """A Kaiming-uniform, B zero; keyed by the link's name."""
    link = {}
    for site, (rows, cols) in shape.sites():
        link[site + ".lora_A"] = torch.from_numpy(uniform(0, f"link{number}.{site}.lora_A", (rank, cols), 1.0 / math.sqrt(cols)))
        link[site + ".lora_B"] = torch.zeros(rows, rank)
    return link


def optimizer_of(link: dict, rac: bool, old, keep_moments: bool, keep_step: bool):
    """AdamW over a link's factors, going on from `old` as far as asked."""
    trained = [p for name, p in link.items() if not (rac and name.endswith("lora_A"))]
    new = torch.optim.AdamW(trained, lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    if old is not None and (keep_moments or keep_step):
        for before, after in zip(old.param_groups[0]["params"], trained, strict=True):
            state = {k: v.clone() for k, v in old.state[before].items()}
            if not keep_moments:
                state["exp_avg"].zero_()
                state["exp_avg_sq"].zero_()
            new.state[after] = state
    return new, trained


def curve(chain: Chain, begin, loss_of_step, tie) -> list[float]:
    """Losses before each update. `begin(number, rank)` gives a link's factors, `tie(number)` merges them."""
    losses, optimizer = [], None
    for number, rank in enumerate(chain.links):
        link = begin(number, rank)
        optimizer, trained = optimizer_of(link, chain.rac, optimizer, chain.knot_optimizer == "keep", chain.keep_step)
        for step in range(number * STEPS, (number + 1) * STEPS):
            optimizer.param_groups[0]["lr"] = chain.learning_rate(step)
            optimizer.zero_grad()
            loss = loss_of_step(step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, math.inf if chain.clip is None else chain.clip)
            optimizer.step()
            losses.append(loss.item())
        if not chain.forget_links:
            tie(number)
    return losses


class Plain:
    """The float64 model whose weights take the links."""

    def __init__(self, shape, weights, batches, chain: Chain):
        self.shape, self.batches, self.chain = shape, batches, chain
        self.weights = {n: torch.from_numpy(w).double() for n, w in weights.items()}
        self.link: dict[str, torch.Tensor] = {}
        self.scale = 1.0

    def begin(self, number, rank):
        self.link = {n: p.double().requires_grad_() for n, p in initial_link(self.shape, number, rank).items()}
        self.scale = self.chain.alphas[number] / rank
        return self.link

    def loss(self, step):
        tokens, labels, lengths = self.batches[step % len(self.batches)]
        return masked_loss(forward(self.shape, self.weights, self.link, self.scale, tokens, lengths), labels)

    def tie(self, _number):
        for site, _ in self.shape.sites():
            delta = self.scale * self.link[site + ".lora_B"].detach() @ self.link[site + ".lora_A"].detach()
            self.weights[site + ".weight"] = self.weights[site + ".weight"] + delta


class Peft:
    """transformers + PEFT in float32."""

    def __init__(self, shape, weights, batches, chain: Chain):
        self.shape, self.batches, self.chain = shape, batches, chain
        self.model = hf_model(shape, weights)
        self.wrapped = None

    def begin(self, number, rank):
        if self.wrapped is not None and self.chain.forget_links:
            self.model = self.wrapped.unload()
        link = initial_link(self.shape, number, rank)
        self.wrapped = peft_model(self.model, Run(rank=rank, alpha=self.chain.alphas[number]), link)
        named = {n: p for n, p in self.wrapped.named_parameters() if p.requires_grad}
        return {n.removeprefix("base_model.model.model.").removesuffix(".default.weight"): p for n, p in named.items()}

    def loss(self, step):
        tokens, labels, lengths = self.batches[step % len(self.batches)]
        return masked_loss(packed_logits(self.wrapped, tokens, lengths), labels)

    def tie(self, _number):
        self.model = self.wrapped.merge_and_unload()
        self.wrapped = None


def both(shape, weights, batches, label: str, chain: Chain) -> list[float]:
    """The float64 curve, if PEFT's is the same."""
    plain, peft = Plain(shape, weights, batches, chain), Peft(shape, weights, batches, chain)
    exact = curve(chain, plain.begin, plain.loss, plain.tie)
    theirs = curve(chain, peft.begin, peft.loss, peft.tie)
    worst = max(abs(a / b - 1) for a, b in zip(theirs, exact, strict=True))
    if worst > 1e-4:
        raise SystemExit(f"{label}: PEFT and the plain model differ by {worst:.1e}")
    return exact


def main() -> None:
    torch.set_num_threads(2)
    folder = HERE / "tiny_llama"
    reader = gguf.GGUFReader(str(folder / "model.gguf"))
    shape, weights = gguf_llama.read_shape(reader), gguf_llama.read_weights(reader)
    stored = json.loads((folder / "golden.json").read_text(encoding="utf-8"))["batches"]
    batches = [(torch.tensor(b["tokens"]), torch.tensor(b["labels"]), b["lengths"]) for b in stored]
    result = {"steps_per_link": STEPS, "chains": {}, "mistakes": {}}
    for label, chain in CHAINS.items():
        lrs = [chain.learning_rate(step) for step in range(len(chain.links) * STEPS)]
        settings = {k: getattr(chain, k) for k in ("links", "alphas", "lrs", "schedule", "link_schedule", "warmup", "clip", "knot_optimizer", "rac")}
        result["chains"][label] = {"settings": settings, "lr": lrs, "loss": both(shape, weights, batches, label, chain)}
    for label, chain in MISTAKES.items():
        result["mistakes"][label] = both(shape, weights, batches, label, chain)
    write_json(HERE / "cola.json", result)
    for label, case in [*((k, v["loss"]) for k, v in result["chains"].items()), *result["mistakes"].items()]:
        print(f"{label:18}", " ".join(f"{x:.4f}" for x in case))


if __name__ == "__main__":
    main()
