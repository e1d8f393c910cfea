"""Fine-tunes the embedded GGUF with PyTorch + PEFT on its dequantised weights and says what is learnt on held-out rows.

    python scripts/embedded/verify.py --model assets/demo/demo.gguf --task swap --seeds 0 1 2

The batch order is a seeded shuffle of PyTorch's: another shuffle than weblora's, so curves agree in shape, not step by step.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import gguf
import torch
import torch.nn.functional as F

import language
import model  # noqa: F401  puts scripts/ on the path
import rows as row_files
from tokens import encode_row
from weblora_reference import gguf_llama, gguf_tokenizer
from weblora_reference.peft_run import Run, hf_model, initial_adapter, peft_model, train


def padded(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and labels (rows, tokens), padded on the right: under a causal mask the padding is seen by no target."""
    width = max(len(a) + len(b) for a, b in rows)
    ids = torch.tensor([a + b + [0] * (width - len(a) - len(b)) for a, b in rows])
    labels = torch.tensor([[-100] * len(a) + b + [-100] * (width - len(a) - len(b)) for a, b in rows])
    return ids, labels


def exact_match(net, rows) -> float:
    """Share of rows whose whole completion, with the end token, is what greedy decoding gives."""
    ids, labels = padded(rows)
    with torch.no_grad():
        best = net(input_ids=ids).logits[:, :-1].argmax(-1)
    wrong = (best != labels[:, 1:]) & (labels[:, 1:] != -100)
    return 1.0 - wrong.any(-1).float().mean().item()


def say(net, tokenizer, prompt: str, limit: int = 40) -> str:
    """Greedy completion."""
    ids = tokenizer.encode(prompt).ids
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + limit:
            ids.append(int(net(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == 0:
                break
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


def fine_tune(shape, weights, train_rows, heldout, run: Run, batch: int) -> tuple[dict, object]:
    """One run; returns its figures and the trained net."""
    net = peft_model(hf_model(shape, weights), run, initial_adapter(shape, run))
    generator = torch.Generator().manual_seed(run.seed)
    order = torch.cat([torch.randperm(len(train_rows), generator=generator)
                       for _ in range(run.steps * batch // len(train_rows) + 1)]).tolist()

    def loss(step):
        ids, labels = padded([train_rows[i] for i in order[step * batch : (step + 1) * batch]])
        return F.cross_entropy(net(input_ids=ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    before, began = exact_match(net, heldout), time.time()
    curve = train({n: p for n, p in net.named_parameters() if p.requires_grad}, loss, run)
    return {
        "seed": run.seed, "before": before, "after": exact_match(net, heldout), "seconds": round(time.time() - began, 1),
        "loss": [round(sum(part) / len(part), 4) for part in
                 (curve["loss"][:1], curve["loss"][run.steps // 4 : run.steps // 4 + 10], curve["loss"][-10:])],
    }, net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--task", default="swap", choices=[*language.NEW, "kel"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--schedule", default="linear", choices=["linear", "constant"])
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    reader = gguf.GGUFReader(str(args.model))
    tokenizer, shape, weights = gguf_tokenizer.read_tokenizer(reader), gguf_llama.read_shape(reader), gguf_llama.read_weights(reader)
    if args.task == "kel":  # a dictionary cannot be guessed: what is held out is what was learnt
        train_rows = heldout = language.rows(language.kel(0), len(language.ZAN), "kel")
    else:
        train_rows, heldout = row_files.demo_rows(language.NEW[args.task], args.task)
    encoded = [[encode_row(tokenizer, r["prompt"], r["completion"]) for r in part] for part in (train_rows, heldout)]
    run = Run(rank=args.rank, alpha=args.alpha, lr=args.lr, steps=args.steps, schedule=args.schedule, warmup=args.warmup, clip=1.0)
    base = hf_model(shape, weights)
    print(json.dumps({"prompt": heldout[0]["prompt"], "wanted": heldout[0]["completion"],
                      "before": say(base, tokenizer, heldout[0]["prompt"])}), flush=True)
    for seed in args.seeds:
        figures, net = fine_tune(shape, weights, *encoded, replace(run, seed=seed), args.batch)
        print(json.dumps({**figures, "sample": say(net, tokenizer, heldout[0]["prompt"])}), flush=True)


if __name__ == "__main__":
    main()
