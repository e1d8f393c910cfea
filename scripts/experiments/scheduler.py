"""The scheduler's policies on simulated workloads: the tables and pictures of docs/jobs.md.

    cargo build --release
    python scripts/experiments/scheduler.py --step-ms 30 --row-us 200 --svg docs
    python scripts/experiments/scheduler.py --step-ms 30 --row-us 200 --events run/events.jsonl --workload-out run/workload.jsonl

The two times are inputs: what a fused step costs whatever its size, and what a row costs, as `weblora bench` measures them on the device in
question. With --events the events of a run (`--json`) become a workload, which is simulated like the others. Needs no Python package.
"""

import argparse
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORKLOADS = ["burst", "stream", "urgent", "outlier"]
MEMORY = {"urgent": "360MiB"}
STEP_TOKENS = 4096
# name, policy, flags, colour
ARMS = [
    ("one after the other", "fifo", ["--step-jobs", "1"], "#8c8c8c"),
    ("first come, padded", "fifo", ["--step-jobs", "4", "--padded"], "#cc79a7"),
    ("MinPad, padded", "min-pad", ["--step-jobs", "4", "--padded"], "#d55e00"),
    ("fifo", "fifo", [], "#e69f00"),
    ("priority", "priority", [], "#56b4e9"),
    ("fair", "fair", [], "#0072b2"),
    ("shortest", "shortest", [], "#009e73"),
]
RULES = [("none", []), ("median", ["--early-stop", "median"]), ("asha", ["--early-stop", "asha"]), ("halving", ["--early-stop", "halving"])]
SEEDS = range(5)
FIGURES = [
    ("makespan", "all done after, s", 1),
    ("turnaround", "mean time from arrival to end, s", 1),
    ("urgent_turnaround", "the same, highest priority, s", 1),
    ("waiting", "mean wait for the device, s", 1),
    ("longest_wait", "longest wait for the device, s", 1),
    ("peak_bytes", "planned memory at most, MiB", 1 / 2**20),
    ("utilisation", "time that computes rows of documents, %", 100),
    ("padding", "rows that are padding, %", 100),
    ("tokens_per_s", "tokens a second", 1),
    ("swaps", "moves to host memory and back", 1),
]


def simulate(arguments, workload: str, flags: list[str]) -> list[dict]:
    """The events of one simulation."""
    times = ["--step-ms", str(arguments.step_ms), "--row-us", str(arguments.row_us), "--swap-ms", str(arguments.swap_ms)]
    command = [str(arguments.weblora), "simulate", "--json", "--workload", workload, "--step-tokens", str(STEP_TOKENS), *times, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def row(name: str, values: list[float]) -> str:
    """A line of a table."""
    return "| " + " | ".join([name, *(f"{v:.0f}" if abs(v) >= 100 else f"{v:.1f}" for v in values)]) + " |"


def policies(arguments, workload: str) -> list[dict]:
    """One outcome an arm."""
    memory = ["--memory", MEMORY.get(workload, "700MiB"), "--jobs"]
    outcomes = []
    for _, policy, flags, _ in ARMS:
        outcome, *jobs = simulate(arguments, workload, ["--policy", policy, *memory, *flags])
        failed = [f"{job['name']}: {job['reason']}" for job in jobs if job["state"] != "done"]
        if failed:
            raise SystemExit(f"{workload}: a comparison needs all jobs done, but {failed[0]}")
        outcomes.append(outcome)
    return outcomes


def table(outcomes: list[dict]) -> str:
    """A Markdown table: figures down, arms across."""
    lines = ["| | " + " | ".join(name for name, *_ in ARMS) + " |", "|---|" + "---|" * len(ARMS)]
    lines += [row(name, [scale * o[key] for o in outcomes]) for key, name, scale in FIGURES]
    return "\n".join(lines)


def sweep(arguments) -> str:
    """A Markdown table: what early stopping saves in a sweep of 64, and what it finds, over five seeds."""
    lines = ["| rule | time, share of none | steps, share of none | the best job found | its loss above the best, mean |", "|---|---|---|---|---|"]
    runs = {name: [simulate(arguments, "sweep", ["--jobs", "--policy", "fair", "--seed", str(seed), *flags]) for seed in SEEDS] for name, flags in RULES}
    best = [min((job["best"], job["name"]) for job in run[1:] if job["best"] is not None) for run in runs["none"]]
    for name, _ in RULES:
        time = sum(run[0]["makespan"] for run in runs[name]) / sum(run[0]["makespan"] for run in runs["none"])
        steps = [sum(job["passes"] for job in run[1:]) for run in runs[name]]
        share = sum(steps) / sum(sum(job["passes"] for job in run[1:]) for run in runs["none"])
        found = [min((job["best"], job["name"]) for job in run[1:] if job["best"] is not None) for run in runs[name]]
        same = sum(f[1] == b[1] for f, b in zip(found, best, strict=True))
        above = sum(f[0] - b[0] for f, b in zip(found, best, strict=True)) / len(best)
        lines.append(f"| {name} | {time:.2f} | {share:.2f} | in {same} of {len(best)} | {above:.4f} |")
    return "\n".join(lines)


STYLE = (
    ".paper{fill:#ffffff}.ink{fill:#1f2328}.faint{fill:#59636e}.grid{stroke:#d1d9e0}"
    "@media(prefers-color-scheme:dark){.paper{fill:#0d1117}.ink{fill:#e6edf3}.faint{fill:#9198a1}.grid{stroke:#30363d}}"
)
FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"


def page(width: int, height: int, title: str, body: list[str]) -> str:
    """A page of SVG that follows the reader's light or dark setting."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="{FONT}" font-size="11" role="img">'
    paper = f'<rect width="{width}" height="{height}" class="paper"/>'
    return "\n".join([head, f"<title>{title}</title><style>{STYLE}</style>", paper, *body, "</svg>", ""])


def text(x: float, y: float, words: str, kind: str = "ink", anchor: str = "start", size: int = 11) -> str:
    """A text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}" font-size="{size}">{words}</text>'


def bars(results: dict[str, list[dict]]) -> str:
    """Turnaround and wait by workload and arm."""
    shown = [("turnaround", "mean time from arrival to end, s"), ("longest_wait", "longest wait for the device, s")]
    panel, left, line = 330, 130, 17
    rows = len(ARMS) * line + 52
    body = [text(14, 22, "Policies on simulated workloads", size=15)]
    for w, (workload, outcomes) in enumerate(results.items()):
        top = 36 + w * rows
        for p, (key, label) in enumerate(shown):
            x0, most = 14 + p * (panel + left), max(o[key] for o in outcomes) or 1
            body.append(text(x0 + left, top + 14, f"{workload}: {label}", "faint"))
            for i, ((name, _, _, colour), outcome) in enumerate(zip(ARMS, outcomes, strict=True)):
                y, length = top + 22 + i * line, (panel - 70) * outcome[key] / most
                body.append(text(x0 + left - 6, y + 11, name, anchor="end"))
                body.append(f'<rect x="{x0 + left}" y="{y}" width="{length:.1f}" height="{line - 4}" fill="{colour}"/>')
                body.append(text(x0 + left + length + 4, y + 11, f"{outcome[key]:.0f}", "faint"))
    return page(2 * (panel + left) + 20, 36 + rows * len(results), "Policies on simulated workloads", body)


def spans(arguments) -> str:
    """When each job of the workload `urgent` waited and was on its way, under two policies."""
    body = [text(14, 22, "One patient job among urgent ones", size=15)]
    y, width, left, line = 40, 900, 70, 8
    for name, policy in (("priority", "priority"), ("fair", "fair")):
        jobs = simulate(arguments, "urgent", ["--policy", policy, "--memory", MEMORY["urgent"], "--jobs"])[1:]
        end = max(job["ended"] for job in jobs)
        scale = (width - left - 20) / end
        body.append(text(14, y + 10, f"{name}: waiting in grey, from the first step to the end in colour; all done after {end:.0f} s", "faint"))
        y += 18
        for job in jobs:
            colour = "#d55e00" if job["name"] == "patient" else "#0072b2"
            for start, stop, fill in ((job["arrived"], job["started"], "#8c8c8c"), (job["started"], job["ended"], colour)):
                body.append(f'<rect x="{left + scale * start:.1f}" y="{y}" width="{max(scale * (stop - start), 0.5):.1f}" height="{line - 2}" fill="{fill}"><title>{job["name"]}</title></rect>')
            if job["name"] == "patient":
                body.append(text(left - 6, y + 8, "patient", anchor="end"))
            y += line
        y += 18
    return page(width, y, "One patient job among urgent ones", body)


def recorded(path: Path) -> str:
    """The jobs of a run's events as a workload: arrivals, steps and rows as they were."""
    jobs: dict[str, dict] = {}
    clock = 0.0
    for line in path.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        name = event.get("job")
        if event.get("event") == "start":
            jobs[name] = {"name": name, "arrives": clock, "passes": 0, "batches": [], "priority": event.get("priority", 0)}
        elif event.get("event") == "step" and name in jobs:
            # Documents are not in the events: a micro-batch counts as one.
            batch = {"rows": event["tokens"], "documents": 1, "longest": event["tokens"]}
            jobs[name]["passes"] += 1
            jobs[name]["batches"].append(batch)
            clock += event["tokens"] / event["tokens_per_s"] if event.get("tokens_per_s") else 0.0
    return "".join(json.dumps(job) + "\n" for job in jobs.values() if job["passes"])


def main() -> None:
    """Prints the tables; draws the pictures into --svg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weblora", type=Path, default=ROOT / "target/release/weblora")
    parser.add_argument("--step-ms", type=float, required=True)
    parser.add_argument("--row-us", type=float, required=True)
    parser.add_argument("--swap-ms", type=float, default=50.0)
    parser.add_argument("--svg", type=Path, help="folder for the pictures")
    parser.add_argument("--events", type=Path, help="events of a run, as a workload")
    parser.add_argument("--workload-out", type=Path, help="where the workload of --events goes")
    arguments = parser.parse_args()
    workloads = list(WORKLOADS)
    if arguments.events:
        out = arguments.workload_out or arguments.events.with_suffix(".workload.jsonl")
        out.write_text(recorded(arguments.events), encoding="utf-8")
        workloads.append(str(out))
    results = {workload: policies(arguments, workload) for workload in workloads}
    for workload, outcomes in results.items():
        print(f"**{Path(workload).stem}**\n\n{table(outcomes)}\n")
    print(f"**sweep**\n\n{sweep(arguments)}")
    if arguments.svg:
        (arguments.svg / "jobs_policies.svg").write_text(bars(results), encoding="utf-8")
        (arguments.svg / "jobs_urgent.svg").write_text(spans(arguments), encoding="utf-8")


if __name__ == "__main__":
    main()
