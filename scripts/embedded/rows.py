"""Rows of any task as JSON lines, and the demo's two files.

    python scripts/embedded/rows.py --demo assets/demo
    python scripts/embedded/rows.py --task kel --mapping 3 --count 48 > kel3.jsonl
    python scripts/embedded/rows.py --task far --tokens 1024 --count 200 --key train > far.jsonl

Rows of one task with different keys may overlap; give `--avoid FILE.jsonl` to keep a held-out set apart.
"""

import argparse
import json
import sys
from pathlib import Path

import language

TRAIN_ROWS, HELDOUT_ROWS = 480, 64


def lines(rows: list[dict]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def demo_rows(task=language.swap, name: str = "swap") -> tuple[list[dict], list[dict]]:
    """(training rows, held-out rows), no prompt in both."""
    train = language.rows(task, TRAIN_ROWS, f"{name}/train")
    return train, language.rows(task, HELDOUT_ROWS, f"{name}/heldout", {row["prompt"] for row in train})


def main() -> None:
    tasks = {**language.BASE, **language.NEW}
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--demo", type=Path, metavar="FOLDER", help="write the demo's train.jsonl and heldout.jsonl")
    parser.add_argument("--task", choices=[*tasks, "kel", "far"], help="print rows of this task")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--key", default="train", help="another key gives other rows")
    parser.add_argument("--mapping", type=int, default=0, help="which random dictionary (kel)")
    parser.add_argument("--tokens", type=int, default=512, help="rough length (far)")
    parser.add_argument("--avoid", type=Path, help="rows whose prompts must not come again")
    args = parser.parse_args()
    if (args.demo is None) == (args.task is None):
        parser.error("give either --demo FOLDER or --task NAME")
    if args.demo is not None:
        for name, rows in zip(("train", "heldout"), demo_rows(), strict=True):
            (args.demo / f"{name}.jsonl").write_text(lines(rows), encoding="utf-8")
        return
    task = {**tasks, "kel": language.kel(args.mapping), "far": language.far(args.tokens)}[args.task]
    known = args.avoid.read_text(encoding="utf-8").splitlines() if args.avoid else []
    sys.stdout.write(lines(language.rows(task, args.count, f"{args.task}/{args.key}", {json.loads(k)["prompt"] for k in known})))


if __name__ == "__main__":
    main()
