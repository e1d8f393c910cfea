#!/usr/bin/env python3
"""A sweep of the embedded model, job after job, fused, and fused with early exit: time, steps and best held-out loss of each, for several seeds.

    python scripts/experiments/sweep.py --weblora target/release/weblora --out out/sweep

Rates from 1e-5 to 1e-1 (logarithmic) and ranks of 2 to 16, drawn anew for every seed; rungs of successive halving at 1/9, 1/3 and all of the steps. The
three forms of a seed follow each other at once, so that what else the machine does weighs on all of them. The best job and its loss are those of
jobs that came to their end. Prints a line a run, then the table of
docs/jobs.md.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FORMS = {
    "job after job": "step-jobs = 1\npolicy = 'fifo'\n",
    "fused": "",
    "fused, early exit": "[early-stop]\nrules = ['halving']\neta = 3\nfirst-rung = {rung}\n",
}


def run(args, seed, form):
    """One sweep: seconds from its first step on, steps of all jobs, best job and its last held-out loss."""
    folder = args.out / f"{seed}-{form.replace(', ', '-').replace(' ', '-')}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    held_out = folder / "heldout.jsonl"
    held_out.write_text("".join((ROOT / "assets/demo/heldout.jsonl").read_text().splitlines(keepends=True)[:6]))
    options = FORMS[form].format(rung=args.steps // 9)
    top, _, tables = options.partition("[")
    (folder / "jobs.toml").write_text(
        f"model = '{ROOT}/assets/demo/demo.gguf'\ndata = '{ROOT}/assets/demo/train.jsonl'\neval-data = '{held_out}'\n"
        f"out = '{folder}/runs'\nbatch = 1\nbatch-rows = 1\nseq = 32\nsteps = {args.steps}\nwarmup = 0\nschedule = 'constant'\nseed = {seed}\n"
        f"save-every = 0\nmemory = '{args.memory}'\n{top}"
        f"[sweep]\nname = 's'\nsearch = 'random'\ntrials = {args.jobs}\nseed = {seed}\n"
        f"[sweep.keys]\nlr = {{ min = 1e-5, max = 1e-1 }}\nrank = [2, 4, 8, 16]\n" + ("[" + tables if tables else "")
    )
    command = [args.weblora, "jobs", str(folder / "jobs.toml"), "--json", "--no-tune"]
    first, steps, taken, losses, failed = time.monotonic(), 0, {}, {}, 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "step":
                first = first if steps else time.monotonic()
                steps += 1
                taken[event["job"]] = event["step"]
            elif event["event"] == "eval":
                losses[event["job"]] = event["loss"]
            elif event["event"] == "job_failed":
                failed += 1  # a rate may be too high; the run exits with 1 then
    assert process.returncode == (1 if failed else 0), f"{form}: exit {process.returncode}"
    seconds = time.monotonic() - first
    loss, best = min((losses[job], job) for job, last in taken.items() if last == args.steps and job in losses)
    print(f"seed {seed}: {form}: {seconds:.1f} s, {steps} steps, best {best} {loss:.4f}", flush=True)
    return {"seconds": seconds, "steps": steps, "best": best, "loss": loss}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weblora", default=str(ROOT / "target/release/weblora"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--alone", type=int, default=5, help="seeds whose jobs also run one after the other")
    parser.add_argument("--memory", default="512 MiB", help="budget of every sweep")
    args = parser.parse_args()
    forms = lambda seed: [form for form in FORMS if seed < args.alone or form != "job after job"]  # noqa: E731
    seeds = [{form: run(args, seed, form) for form in forms(seed)} for seed in range(args.seeds)]
    print("\n| | time, s | of job after job | steps | best held-out loss, by seed | the best of the exhaustive run |\n|---|---|---|---|---|---|")
    for form in FORMS:
        ran = [seed for seed in seeds if form in seed]
        of = lambda key: [seed[form][key] for seed in ran]  # noqa: E731
        compared = [seed for seed in ran if "job after job" in seed]
        share = statistics.median(seed[form]["seconds"] / seed["job after job"]["seconds"] for seed in compared)
        found = sum(seed[form]["best"] == seed["fused"]["best"] for seed in ran)
        losses = ", ".join(f"{loss:.4f}" for loss in of("loss"))
        seconds, steps = statistics.median(of("seconds")), statistics.median(of("steps"))
        print(f"| {form} | {seconds:.0f} | {share:.2f} | {steps:.0f} | {losses} | in {found} of {len(ran)} |")


if __name__ == "__main__":
    main()
