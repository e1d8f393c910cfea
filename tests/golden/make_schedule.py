"""Writes schedule.json: learning-rate factors of transformers' schedules, for tests/native/adapters.rs.

    python tests/golden/make_schedule.py

A warm-up of w steps is transformers' of w + 1 in a run of one more step, without its first step, whose rate is 0.
"""

import json
from pathlib import Path

import torch
from transformers import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

CASES = [("constant", 0, 5), ("constant", 3, 6), ("linear", 0, 7), ("linear", 3, 10), ("cosine", 0, 7), ("cosine", 4, 13), ("linear", 5, 5), ("cosine", 8, 5)]


def factors(kind: str, warmup: int, total: int) -> list[float]:
    """The factor at steps 0 to total, the last being one past the end."""
    if warmup > 0:
        return theirs(kind, warmup + 1, total + 1)[1:]
    return theirs(kind, 0, total)


def theirs(kind: str, warmup: int, total: int) -> list[float]:
    """The factors of transformers."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    if kind == "constant":
        schedule = get_constant_schedule_with_warmup(optimizer, warmup)
    else:
        make = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}[kind]
        schedule = make(optimizer, warmup, total)
    values = []
    for _ in range(total + 1):
        values.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return values


rows = [{"schedule": k, "warmup": w, "total": n, "factors": factors(k, w, n)} for k, w, n in CASES]
lines = ",\n".join(" " + json.dumps(row) for row in rows)
Path(__file__).with_name("schedule.json").write_text(f"[\n{lines}\n]\n")
