"""Writes tests/golden/batch_rows.json: LoRA on tests/golden/tiny_llama with two rows a batch, as other trainers have them.

    python -m pip install -r scripts/requirements.txt
    python tests/golden/make_batch_rows.py

Rows are taken two by two in their order, padded to the longer one, with an attention mask and labels of -100 on padding and prompts; an epoch
ends with a batch of one row. The loss is the mean over the targets of the batch. Every curve is made twice: by transformers + PEFT in
float32 on the padded batch, and by a plain LLaMA in float64 row by row. The script stops if they disagree.
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
from weblora_reference.peft_run import Run, hf_model, initial_adapter, peft_model, train  # noqa: E402
from weblora_reference.torch_llama import forward  # noqa: E402

ROWS_PER_BATCH = 2
LENGTHS = [5, 19, 8, 8, 3, 14, 11, 2, 17]  # an odd number: the last batch of an epoch has one row
RUN = Run(lr=1e-2, schedule="linear", warmup=2, clip=1.0, weight_decay=0.01, steps=10)


def make_rows(vocab: int) -> list[dict]:
    """Tokens from the generator; the first third of a row is prompt."""
    rows = []
    for number, length in enumerate(LENGTHS):
        tokens = integers(f"0/batch_rows/{number}", length, vocab).tolist()
        labels = [-100 if t == 0 or t < length // 3 else token for t, token in enumerate(tokens)]
        rows.append({"tokens": tokens, "labels": labels})
    return rows


def batch_of(rows: list[dict], step: int, size: int) -> list[dict]:
    """The rows of a step: epoch after epoch, `size` at a time, a short batch at an epoch's end."""
    batches = [rows[at : at + size] for at in range(0, len(rows), size)]
    return batches[step % len(batches)]


def padded_loss(model, rows: list[dict]) -> torch.Tensor:
    """What a Hugging Face trainer computes on a padded batch."""
    longest = max(len(row["tokens"]) for row in rows)
    pad = [longest - len(row["tokens"]) for row in rows]
    tokens = torch.tensor([row["tokens"] + [0] * n for row, n in zip(rows, pad, strict=True)])
    labels = torch.tensor([row["labels"] + [-100] * n for row, n in zip(rows, pad, strict=True)])
    mask = torch.tensor([[1] * len(row["tokens"]) + [0] * n for row, n in zip(rows, pad, strict=True)])
    return model(input_ids=tokens, attention_mask=mask, labels=labels).loss


def curve(shape, weights: dict, rows: list[dict], size: int) -> dict[str, list[float]]:
    """Losses and rates of the run with `size` rows a batch."""
    start = initial_adapter(shape, RUN)
    exact = {n: p.double().requires_grad_() for n, p in start.items()}
    doubles = {n: torch.from_numpy(w).double() for n, w in weights.items()}

    def plain(step):
        total, count = 0.0, 0
        for row in batch_of(rows, step, size):
            logits = forward(shape, doubles, exact, RUN.scale, torch.tensor(row["tokens"]), [len(row["tokens"])])
            labels = torch.tensor(row["labels"])
            total = total + F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum")
            count += int((labels[1:] >= 0).sum())
        return total / count

    made = train(exact, plain, RUN)
    peft = peft_model(hf_model(shape, weights), RUN, start)
    trained = {n: p for n, p in peft.named_parameters() if p.requires_grad}
    theirs = train(trained, lambda step: padded_loss(peft, batch_of(rows, step, size)), RUN)
    for key in ("loss", "grad_norm"):
        worst = max(abs(a / b - 1) for a, b in zip(theirs[key], made[key], strict=True))
        if worst > 1e-4:
            raise SystemExit(f"{key}, {size} rows a batch: PEFT and the plain model differ by {worst:.1e}")
    return made


def main() -> None:
    torch.set_num_threads(2)
    reader = gguf.GGUFReader(str(HERE / "tiny_llama" / "model.gguf"))
    shape, weights = gguf_llama.read_shape(reader), gguf_llama.read_weights(reader)
    rows = make_rows(shape.vocab_size)
    write_json(HERE / "batch_rows.json", {
        "rows_per_batch": ROWS_PER_BATCH, "run": RUN.describe(), "rows": rows,
        "curve": curve(shape, weights, rows, ROWS_PER_BATCH),
        "three_rows_a_batch": curve(shape, weights, rows, 3)["loss"],
    })


if __name__ == "__main__":
    main()
