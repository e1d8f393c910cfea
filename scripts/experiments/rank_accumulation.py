"""Rank accumulation: does a chain of four links of rank 2 do what LoRA of rank 8 does, with a quarter of its optimizer memory?

    cargo build --release
    python scripts/experiments/rank_accumulation.py --out out/rank --sweep        # learning rates of every arm, a seed of its own
    python scripts/experiments/rank_accumulation.py --out out/rank --seeds 0 1 2 3 4 --lr lora2=6e-2 ...
    python scripts/experiments/rank_accumulation.py --out out/rank --table --svg docs/rank_accumulation.svg

The task is `kel`, a random dictionary of 48 words that the embedded model has to learn by heart with one layer, so that rank is what
it lacks. What is measured is the loss on the rows that are trained. Every run is one `weblora train` of the same number of steps; its events are kept under --out, and a run that is there is
not made again. Needs no Python package.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "embedded"))

import language  # noqa: E402

STEPS = 480
CHAIN = ["--method", "cola", "--links", "2,2,2,2", "--link-schedule", "link", "--knot-probes", "1"]
ARMS = {
    "lora2": ("LoRA r 2", ["--method", "lora", "--rank", "2"]),
    "lora8": ("LoRA r 8", ["--method", "lora", "--rank", "8"]),
    "cola": ("COLA 4 x r 2", CHAIN),
    "restart": ("restarts, no merging", [*CHAIN, "--restart-only"]),
    "keep": ("COLA, optimizer kept", [*CHAIN, "--knot-optimizer", "keep"]),
    "grad": ("COLA, A from the gradient", [*CHAIN, "--init-a", "grad-svd"]),
}
RATES = ["3e-2", "6e-2", "1.2e-1"]
SWEEP_SEED = 100
COMMON = [
    "--steps", str(STEPS), "--batch", "4", "--seq", "16", "--schedule", "linear", "--warmup", "0.05", "--eval-every", "40",
    "--save-every", "0", "--no-recompute", "--no-tune", "--targets", "TARGETS",
]
COLOURS = {"lora2": "#d55e00", "lora8": "#0072b2", "cola": "#009e73", "restart": "#cc79a7", "keep": "#8c8c8c", "grad": "#56b4e9"}


def rows(out: Path) -> Path:
    """The dictionary as JSON lines."""
    path = out / "kel.jsonl"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        words = language.rows(language.kel(0), len(language.ZAN), "kel/train")
        path.write_text("".join(json.dumps(row) + "\n" for row in words), encoding="utf-8")
    return path


def events(arguments, arm: str, lr: str, seed: int) -> list[dict]:
    """The events of one run, which is made if it is not there."""
    folder = arguments.out / f"{arm}-{lr}-{seed}"
    log = arguments.out / f"{folder.name}.jsonl"
    if not log.exists():
        data = str(rows(arguments.out))
        common = [arguments.targets if word == "TARGETS" else word for word in COMMON]
        command = [
            str(arguments.weblora), "train", "--json", "--overwrite", "--model", str(ROOT / "assets/demo/demo.gguf"), "--data", data,
            "--eval-data", data, "--out", str(folder), "--lr", lr, "--seed", str(seed), *common, *ARMS[arm][1],
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        log.write_text(done.stdout, encoding="utf-8")
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def curve(run: list[dict]) -> list[tuple[int, float]]:
    """Held-out losses by step."""
    return [(e["step"], e["loss"]) for e in run if e["event"] == "eval"]


def final(run: list[dict]) -> float:
    """The last of them."""
    return curve(run)[-1][1]


def start(run: list[dict]) -> dict:
    """The first event."""
    return next(e for e in run if e["event"] == "start")


def table(arguments, rates: dict[str, str]) -> str:
    """A Markdown table: the loss at the end by arm, paired by seed with LoRA of rank 8."""
    reference = [final(events(arguments, "lora8", rates["lora8"], seed)) for seed in arguments.seeds]
    lines = ["| arm | rate | trained at once | optimizer bytes | loss at the end, mean ± sd | minus LoRA r 8, mean ± sd |", "|---|---|---|---|---|---|"]
    for arm, (name, _) in ARMS.items():
        runs = [events(arguments, arm, rates[arm], seed) for seed in arguments.seeds]
        losses = [final(run) for run in runs]
        trained = start(runs[0])["trainable_parameters"]
        apart = [a - b for a, b in zip(losses, reference, strict=True)]
        spread = [f"{statistics.mean(x):.4f} ± {statistics.stdev(x) if len(x) > 1 else 0:.4f}" for x in (losses, apart)]
        lines.append(f"| {name} | {rates[arm]} | {trained:,} | {8 * trained:,} | {spread[0]} | {spread[1]} |")
    knots = [[e for e in events(arguments, "cola", rates["cola"], seed) if e["event"] == "knot"] for seed in arguments.seeds]
    ranks = [statistics.mean(k[i]["effective_rank"][i] for k in knots) for i in range(len(knots[0]))]
    lines.append("")
    lines.append("Mean effective rank of the chain at its knots: " + ", ".join(f"{r:.2f}" for r in ranks)
                 + f"; largest change of a log-probability by a knot: {max(e['logit_jump'] for k in knots for e in k):.1e}.")
    return "\n".join(lines)


def svg(arguments, rates: dict[str, str]) -> str:
    """Mean loss by step on a logarithmic axis, one line an arm, knots dotted."""
    import math  # noqa: PLC0415

    width, height, left, right, top, bottom = 720, 400, 60, 170, 16, 44
    means = {}
    for arm in ARMS:
        runs = [curve(events(arguments, arm, rates[arm], seed)) for seed in arguments.seeds]
        means[arm] = [(steps[0][0], statistics.mean(loss for _, loss in steps)) for steps in zip(*runs, strict=True)]
    values = [math.log10(loss) for points in means.values() for _, loss in points]
    low, high = math.floor(2 * min(values)) / 2, math.ceil(2 * max(values)) / 2

    def x(step: float) -> float:
        return left + (width - left - right) * step / STEPS

    def y(loss: float) -> float:
        return top + (height - top - bottom) * (high - math.log10(loss)) / (high - low)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{height}" fill="white"/>']
    for tick in range(int(2 * low), int(2 * high) + 1):
        loss = 10 ** (tick / 2)
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(loss):.1f}" y2="{y(loss):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.3g}</text>')
    for step in range(0, STEPS + 1, STEPS // 4):
        dash = ' stroke-dasharray="3 3"' if 0 < step < STEPS else ""
        parts.append(f'<line x1="{x(step):.1f}" x2="{x(step):.1f}" y1="{top}" y2="{height - bottom}" stroke="#999"{dash}/>')
        parts.append(f'<text x="{x(step):.1f}" y="{height - bottom + 16}" text-anchor="middle">{step}</text>')
    labels = sorted(((y(points[-1][1]), arm) for arm, points in means.items()))
    at = -1e9
    for place, arm in labels:
        points = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in means[arm])
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[arm]}" stroke-width="2"/>')
        at = max(place + 4, at + 15)
        parts.append(f'<text x="{width - right + 6}" y="{at:.1f}" fill="{COLOURS[arm]}">{ARMS[arm][0]}</text>')
    parts.append(f'<text x="{(left + width - right) / 2:.0f}" y="{height - 8}" text-anchor="middle">steps (knots dotted)</text>')
    parts.append(f'<text transform="translate(14 {(top + height - bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">mean loss in nats</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weblora", type=Path, default=ROOT / "target/release/weblora")
    parser.add_argument("--targets", default="layers.4.mlp.down_proj")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--lr", nargs="*", default=[], metavar="ARM=RATE", help="rates; without it the sweep's best of each arm")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--sweep", action="store_true", help="one seed of every arm at every rate")
    parser.add_argument("--table", action="store_true", help="print the table of runs that are there")
    parser.add_argument("--svg", type=Path, help="write the figure")
    arguments = parser.parse_args()
    if arguments.sweep:
        for arm in arguments.arms:
            losses = {lr: final(events(arguments, arm, lr, SWEEP_SEED)) for lr in RATES}
            print(f"{arm:8}", "  ".join(f"{lr} {loss:.4f}" for lr, loss in losses.items()), flush=True)
        return
    rates = dict(pair.split("=") for pair in arguments.lr)
    for arm in ARMS:
        if arm not in rates:
            rates[arm] = min(RATES, key=lambda lr, arm=arm: final(events(arguments, arm, lr, SWEEP_SEED)))
    if arguments.table:
        print(table(arguments, rates))
    elif not arguments.svg:
        for seed in arguments.seeds:
            for arm in arguments.arms:
                print(f"seed {seed} {arm:8} {rates[arm]} loss {final(events(arguments, arm, rates[arm], seed)):.4f}", flush=True)
    if arguments.svg:
        arguments.svg.write_text(svg(arguments, rates), encoding="utf-8")


if __name__ == "__main__":
    main()
