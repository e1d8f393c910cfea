"""Pretrains the embedded model on the CPU (minutes on one core) and writes float32 weights and the tokenizer.

    python scripts/embedded/pretrain.py --out out/first
    python scripts/embedded/pretrain.py --out out/second --init out/first --stage second --seed 1 --steps 1100 --adam-lr 3e-3
"""

import argparse
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import language
import model
import tokens

SEQUENCES = 16  # of CONTEXT tokens in a step
PROMPT_WEIGHT = 0.1  # prompts are mostly random: they teach the grammar, but should not drown the answers
CHAT_SHARE = 0.15
ROUNDED_SHARE = 0.25  # of the steps, at the end, run with weights rounded as the file will hold them


def packed(tokenizer, key: str, stage: str):
    """Endless batches (ids, positions, documents, labels' weights), rows packed without padding but at the end of a sequence."""
    stream, rng = language.mixture(key, stage), random.Random(key + "/form")
    waiting = []
    while True:
        batch = [[], [], [], []]
        for _ in range(SEQUENCES):
            ids, positions, documents, weights = [], [], [], []
            while True:
                while len(waiting) < 32:
                    _, prompt, completion = next(stream)
                    waiting.append(tokens.encode_row(tokenizer, prompt, completion, rng.random() < CHAT_SHARE))
                    if sum(map(len, waiting[-1])) > model.CONTEXT:
                        raise SystemExit(f"a row is longer than the context of {model.CONTEXT}: {prompt!r}")
                fits = [row for row in waiting if len(ids) + len(row[0]) + len(row[1]) <= model.CONTEXT]
                if not fits:
                    break
                # The oldest row first, then whatever fits: next to no padding, and no row waits for ever.
                first, second = fits[0]
                waiting.remove(fits[0])
                n = len(first) + len(second)
                documents += [len(positions)] * n
                positions += range(n)
                ids += first + second
                weights += [0.0] + [PROMPT_WEIGHT] * (len(first) - 1) + [1.0] * len(second)
            pad = model.CONTEXT - len(ids)
            for column, value, fill in zip(batch, (ids, positions, documents, weights), (0, 0, -1, 0.0), strict=True):
                column.append(value + [fill] * pad)
        yield [torch.tensor(column) for column in batch]


def exact_match(weights, tokenizer, task, count: int, key: str, chat: bool = False) -> float:
    """Share of rows whose whole completion is what greedy decoding gives (every teacher-forced argmax is right)."""
    hits = 0
    rows = [tokens.encode_row(tokenizer, r["prompt"], r["completion"], chat) for r in language.rows(task, count, key)]
    for start in range(0, count, 32):
        part = rows[start : start + 32]
        width = max(len(a) + len(b) for a, b in part)
        ids = torch.tensor([a + b + [0] * (width - len(a) - len(b)) for a, b in part])
        positions = torch.arange(width).expand_as(ids)
        with torch.no_grad():
            best = model.head(weights, model.forward(weights, ids, positions, torch.zeros_like(ids))).argmax(-1)
        for i, (a, b) in enumerate(part):
            hits += best[i, len(a) - 1 : len(a) + len(b) - 1].tolist() == b
    return hits / count


def scores(weights, tokenizer, count: int = 64) -> dict[str, float]:
    """Exact match of each base task on fresh rows (fewer where few exist), and of the new task `swap`."""
    tasks = {**language.BASE, "swap": language.swap}
    return {n: round(exact_match(weights, tokenizer, t, 40 if n in ("zan", "kind") else count, f"score/{n}"), 3)
            for n, t in tasks.items()}


def optimizers(weights, muon_lr: float, adam_lr: float, decay: float):
    """Muon for the matrices of the blocks, AdamW for embeddings and norms."""
    matrices = [p for n, p in weights.items() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in weights.items() if p.ndim == 1 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=muon_lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def loss_of(weights, batch) -> tuple[torch.Tensor, float]:
    """(weighted loss, mean loss of completion tokens alone)."""
    ids, positions, documents, weight = batch
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.forward(weights, ids, positions, documents)
        keep = weight[:, 1:] > 0
        logits = model.head(weights, hidden[:, :-1][keep])
    each = F.cross_entropy(logits, ids[:, 1:][keep], reduction="none")
    share = weight[:, 1:][keep]
    return (each * share).sum() / share.sum(), each.detach()[share == 1.0].mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stage", choices=list(language.STAGES), default="first")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and of the rows' order")
    parser.add_argument("--init", type=Path, help="go on from the weights in this folder (with another seed: fresh rows)")
    parser.add_argument("--muon-lr", type=float, default=4e-3)
    parser.add_argument("--adam-lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = tokens.train_tokenizer()
    tokenizer.save(str(args.out / "tokenizer.json"))
    weights = model.initial_weights(args.seed)
    if args.init is not None:
        weights = {n: torch.nn.Parameter(w) for n, w in load_file(args.init / "pretrained.safetensors").items()}
    print(f"{sum(p.numel() for p in weights.values())} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    steppers = optimizers(weights, args.muon_lr, args.adam_lr, args.weight_decay)
    batches, began, seen = packed(tokenizer, f"pretrain/{args.seed}", args.stage), time.time(), []
    for step in range(args.steps):
        factor = min(1.0, (step + 1) / 50) * min(1.0, (args.steps - step) / (0.5 * args.steps))
        for stepper, rate in zip(steppers, (args.muon_lr, args.adam_lr), strict=True):
            stepper.param_groups[0]["lr"] = rate * factor
        used = weights
        if step >= (1 - ROUNDED_SHARE) * args.steps:
            used = {n: model.q4_1(p) if p.ndim == 2 and "embed" not in n else p for n, p in weights.items()}
        loss, answers = loss_of(used, next(batches))
        for stepper in steppers:
            stepper.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        for stepper in steppers:
            stepper.step()
        seen.append(answers)
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}  answers {sum(seen[-50:]) / 50:.4f}  {time.time() - began:.0f} s", flush=True)
        if (step + 1) % 400 == 0 or step + 1 == args.steps:
            print(scores(used, tokenizer), flush=True)
            save_file({n: p.detach().contiguous() for n, p in weights.items()}, args.out / "pretrained.safetensors")


if __name__ == "__main__":
    main()
