"""A mixture of tasks, and runs of `weblora train` on it: what the experiments on methods share. The tasks are four of the embedded language, or with
--sets FOLDER the labelled sets of real sentences in its folders (`NAME/train.jsonl`, `NAME/test.jsonl`, with prompt, completion and choices).

Every run is one `weblora train`; its events and adapters are kept under --out, and a run that is there is not made again. While a run
goes on, the adapter of every held-out evaluation that was the best so far is kept, so that spectra can be compared at the first evaluation
with a loss of at most some bound, as well as at the last step. The rate is constant after the warm-up: a run cut short is then the run itself.
"""

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "embedded"))

import language  # noqa: E402

TRAIN, HELD_OUT, CHOICES = 240, 24, 3
TASKS = {"swap3": language.swap3, "turn": language.turn, "twice": language.twice, "kel": language.kel(0)}
RATES = ["1e-3", "2e-3", "3e-3", "4e-3", "8e-3"]
COMMON = [
    "--alpha-over-rank", "2", "--schedule", "constant", "--warmup", "5", "--eps", "1e-10", "--save-every", "0", "--no-recompute",
]
EMBEDDED = ["--batch", "4", "--seq", "72", "--steps", "120", "--eval-every", "20"]
# Question types, sentiment and subjectivity of real sentences, of at most so many characters, so that every row fits.
SETS = ["trec", "sst2", "subj"]
REAL_SEQ, REAL_STEPS = 96, 120
REAL_TRAIN, REAL_HELD_OUT, LONGEST = 2000, 64, 200


def tasks(args) -> list[str]:
    """Names of the mixture's tasks."""
    return SETS if args.sets else list(TASKS)


def holders(sentences: str) -> list[tuple[str, str]]:
    """(name, what) of "Anna has a red hat. ..."."""
    return re.findall(r"(\w+) has a (\w+ \w+)\.", sentences)


def wrong_answers(task: str, row: dict, rng: random.Random) -> list[str]:
    """Answers of the right form that are not right: people hold each other's things, words change places, words are others."""
    right, wrong = row["completion"], []
    for _ in range(100):
        if task == "kel":
            answer = f" {rng.choice(list(language.ZAN.values()))}."
        elif task == "swap3":
            held = holders(right)
            things = [part for _, thing in held for part in thing.split()]
            colours, names = rng.sample(things[::2], len(held)), rng.sample(things[1::2], len(held))
            answer = " " + " ".join(f"{who} has a {c} {t}." for (who, _), c, t in zip(held, colours, names, strict=True))
        else:
            words = right.strip(" .").split()
            i, j = rng.sample(range(len(words)), 2)
            words[i], words[j] = words[j], words[i]
            answer = f" {' '.join(words)}."
        if answer != right and answer not in wrong:
            wrong.append(answer)
        if len(wrong) == CHOICES - 1:
            break
    return wrong


def write_rows(folder: Path) -> None:
    """Training and held-out rows of every task; `kel` is learnt by heart, so its held-out rows are training rows."""
    for task, make in TASKS.items():
        count = len(language.ZAN) if task == "kel" else TRAIN
        train = language.rows(make, count, f"{task}/train")
        avoid = set() if task == "kel" else {row["prompt"] for row in train}
        held_out = train[:HELD_OUT] if task == "kel" else language.rows(make, HELD_OUT, f"{task}/heldout", avoid)
        rng = random.Random(task)
        labelled = [{**row, "choices": rng.sample([row["completion"], *w], len(w) + 1)} for row in held_out
                    for w in [wrong_answers(task, row, rng)]]
        for name, rows in ((f"{task}.jsonl", train), (f"{task}-heldout.jsonl", labelled)):
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_sets(folder: Path, sets: Path) -> None:
    """Rows drawn from the sets, the same on every machine; held-out rows come from their test files."""
    for task in SETS:
        for source, count, name in (("train", REAL_TRAIN, f"{task}.jsonl"), ("test", REAL_HELD_OUT, f"{task}-heldout.jsonl")):
            # Not splitlines: sentences may hold other line separators.
            lines = (sets / task / f"{source}.jsonl").read_text(encoding="utf-8").split("\n")
            fitting = [line for line in lines if line and len(json.loads(line)["prompt"]) <= LONGEST]
            chosen = random.Random(f"{task}/{source}").sample(fitting, count)
            (folder / name).write_text("".join(line + "\n" for line in chosen), encoding="utf-8")


def command(args, arm: str, rate: str, seed: int, out: Path) -> list[str]:
    """The command line of one run."""
    real = ["--batch", "4", "--seq", str(args.seq), "--steps", str(args.steps), "--eval-every", str(args.steps)]
    settings, extra = list(args.methods[arm]), [*COMMON, *(real if args.sets else EMBEDDED)]
    at = extra.index("--alpha-over-rank")
    alpha = int(extra[at + 1]) * int(settings[settings.index("--rank") + 1])
    extra[at:at + 2] = ["--alpha", str(alpha)]
    data = [word for task in tasks(args) for word in ("--data", str(args.out / f"{task}.jsonl"))]
    data += ["--data-weights", ",".join("1" for _ in tasks(args))]
    data += [word for task in tasks(args) for word in ("--eval-data", str(args.out / f"{task}-heldout.jsonl"))]
    return [str(args.weblora), "train", "--json", "--overwrite", "--model", str(args.model), *data, *settings, *extra,
            "--lr", rate, "--seed", str(seed), "--out", str(out)]


def run(args, arm: str, rate: str, seed: int) -> Path:
    """Makes one run, unless it is there; returns its folder."""
    folder = args.out / f"{arm}-{rate}-{seed}"
    if (folder / "events.jsonl").exists():
        return folder
    out = folder / "adapter"
    folder.mkdir(parents=True, exist_ok=True)
    lines, kept = [], None
    with subprocess.Popen(command(args, arm, rate, seed, out), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            event = json.loads(line)
            lines.append(line)
            # What comes after an evaluation is printed once the best adapter has been written.
            if kept is not None:
                shutil.copytree(out / "best", folder / f"at-{kept}", dirs_exist_ok=True)
                kept = None
            if event["event"] == "eval" and event["best"]:
                kept = event["step"]
    if process.returncode:
        raise SystemExit(f"{folder.name} failed")
    (folder / "events.jsonl").write_text("".join(lines), encoding="utf-8")
    final = evaluations(folder)[-1]
    print(f"{folder.name:20} loss {final['loss']:.4f} accuracy {final['accuracy']:.3f} worst {final['worst']}", flush=True)
    return folder


def events(folder: Path, kind: str) -> list[dict]:
    """All events of one kind."""
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def evaluations(folder: Path) -> list[dict]:
    """The held-out evaluations of a run."""
    return events(folder, "eval")


def worst_accuracy(evaluation: dict) -> float:
    """Of the task with the lowest."""
    return min(task["accuracy"] for task in evaluation["tasks"].values())


def worst_loss(evaluation: dict) -> float:
    """Of the task with the highest."""
    return max(task["loss"] for task in evaluation["tasks"].values())


def spread(values: list[float], digits: int = 3) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values) if len(values) > 1 else 0:.{digits}f}"


def scores(args, rates: dict[str, str]) -> None:
    """The table of losses and accuracies in the docs, in Markdown."""
    print("| arm | parameters | rate | loss | worst task's loss | " + " | ".join(tasks(args)) + " | accuracy | worst |")
    print("|---|---|---|---|---|" + "---|" * (len(tasks(args)) + 2))
    for arm, rate in rates.items():
        folders = [run(args, arm, rate, seed) for seed in args.seeds]
        last = [evaluations(folder)[-1] for folder in folders]
        count = events(folders[0], "start")[0]["trainable_parameters"]
        cells = [spread([e["loss"] for e in last]), spread([worst_loss(e) for e in last])]
        cells += [spread([e["tasks"][task]["loss"] for e in last]) for task in tasks(args)]
        cells += [spread([e["accuracy"] for e in last], 2), spread([worst_accuracy(e) for e in last], 2)]
        print(f"| {arm} | {count} | {rate} | " + " | ".join(cells) + " |")


def arguments(title: str, methods: dict[str, list[str]]) -> argparse.ArgumentParser:
    """The options that all experiments have; `methods` are their arms and the flags of each."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--weblora", type=Path, default=ROOT / "target" / "release" / "weblora")
    parser.add_argument("--model", type=Path, default=ROOT / "assets" / "demo" / "demo.gguf")
    parser.add_argument("--sets", type=Path, help="folder of labelled sets, instead of the embedded language")
    parser.add_argument("--seq", type=int, default=REAL_SEQ, help="tokens of a row of real sentences")
    parser.add_argument("--steps", type=int, default=REAL_STEPS, help="of a run on real sentences")
    parser.add_argument("--out", type=Path, required=True, help="folder for rows and runs")
    parser.add_argument("--sweep", action="store_true", help="every arm at every rate with the first seed")
    parser.add_argument("--arms", nargs="+", default=list(methods), choices=methods)
    parser.add_argument("--rates", nargs="+", default=RATES, help="of the sweep")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--lr", nargs="+", default=[], metavar="ARM=RATE", help="the arms and rates of the table")
    parser.set_defaults(methods=methods)
    return parser


def sweep(args) -> None:
    """Writes the rows and, where asked, makes the runs of the sweep."""
    args.out.mkdir(parents=True, exist_ok=True)
    if args.sets:
        write_sets(args.out, args.sets)
    else:
        write_rows(args.out)
    for arm in args.arms if args.sweep else []:
        for rate in args.rates:
            run(args, arm, rate, args.seeds[0])


def rates_of(args) -> dict[str, str]:
    """The arms and rates of the table."""
    return dict(pair.split("=") for pair in args.lr)
