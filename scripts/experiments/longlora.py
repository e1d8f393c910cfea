"""LongLoRA on the embedded model: a note of two words anywhere in a text of eight times the context that it was pretrained on.

    cargo build --release
    python scripts/experiments/longlora.py --out out/longlora --seeds 0 1 2 --table

Two runs of `weblora train` after each other. The first begins with the bare model, its rotary angles stretched to 1024 tokens, and learns the task on
rows of up to 64 tokens, where all forms of attention are the same; so all arms that train the same parameters share it. The second goes on from there
(`--init-adapter`) over rows of all lengths, or in two arms over rows of up to 128 tokens: the same number of tokens. Then `weblora eval --retrieval note`
asks all adapters for other notes than those of the rows. Runs and answers are kept under --out, and what is there is not made again.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "embedded"))

import language  # noqa: E402

TRAINED, CONTEXT = 128, 1024
# A filler sentence has 5.7 tokens on average; the note, the question and the answer have 20 together.
SENTENCE, REST = 5.7, 20
# Tokens of a step, in micro-batches of half as many.
TOKENS = 2048
# About how long rows are. Rows of 1024 and of 128 tokens would now and then be too long, and lose their answers.
LENGTHS = {"first": [32, 48, 64], "long": [64, 128, 256, 512, 980], "short": [64, 112]}

OWN = ["--train-norms", "--train-embeddings"]
# The first runs, and their flags.
STARTS = {"start": OWN, "start-products": []}
# Of every arm: the run that it goes on from, its flags, its rows.
ARMS = {
    "longlora": ("start", ["--group-ratio", "0.25"], "long"),
    "half": ("start", ["--group-ratio", "0.5"], "long"),
    "full": ("start", [], "long"),
    "products": ("start-products", ["--group-ratio", "0.5"], "long"),
    "lora": ("start-products", [], "long"),
    "pose": ("start", ["--positions", "pose"], "short"),
    "short": ("start", [], "short"),
}
COMMON = ["--warmup", "10", "--save-every", "0", "--grad-accum", "2", "--context", str(CONTEXT)]


def note(rng: random.Random, tokens: int) -> dict:
    """A row of about so many tokens; in the same form as the questions of `eval --retrieval note`."""
    who, words = rng.choice(language.NAMES), " ".join(rng.sample(language.ANIMALS + language.FRUITS, 2))
    lines = [rng.choice(language.FILLER) for _ in range(int((tokens - REST) / SENTENCE))]
    lines.insert(rng.randint(0, len(lines)), f"The note for {who} says {words}.")
    return {"prompt": f"{' '.join(lines)} What does the note for {who} say?", "completion": f" {words}."}


def write_rows(args) -> None:
    """Rows for all steps; every length has the same share of the tokens."""
    for name, lengths in LENGTHS.items():
        rng, lines, total = random.Random(f"notes/{name}"), [], 0
        while total < max(args.steps, args.first) * TOKENS:
            tokens = rng.choices(lengths, [1 / length for length in lengths])[0]
            lines.append(json.dumps(note(rng, tokens)) + "\n")
            total += tokens
        (args.out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def train(args, name: str, seed: int, rows: str, flags: list[str]) -> Path:
    """Makes one run, unless it is there; returns its folder."""
    folder = args.out / f"{name}-{seed}"
    if (folder / "events.jsonl").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    seq = CONTEXT if rows == "long" else TRAINED
    command = [
        str(args.weblora), "train", "--json", "--overwrite", "--model", str(args.model), *COMMON, *flags, "--data", str(args.out / f"{rows}.jsonl"),
        "--seq", str(seq), "--batch", str(TOKENS // 2 // seq), "--seed", str(seed), "--out", str(folder / "adapter"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    (folder / "events.jsonl").write_text(done.stdout, encoding="utf-8")
    losses = [event["loss"] for event in events(folder, "step")]
    print(f"{folder.name:18} last losses {statistics.mean(losses[-10:]):.4f}, {events(folder, 'done')[0]['seconds']:.0f} s", flush=True)
    return folder


def run(args, arm: str, seed: int) -> Path:
    """The second run of an arm, and the first where it is not there; returns the folder of the second."""
    start, flags, rows = ARMS[arm]
    size = ["--rank", str(args.rank), "--alpha", str(2 * args.rank)]
    first = train(args, start, seed, "first", [*STARTS[start], *size, "--lr", args.first_lr, "--steps", str(args.first)])
    return train(args, arm, seed, rows, [*flags, "--init-adapter", str(first / "adapter"), "--lr", args.lr, "--steps", str(args.steps)])


def events(folder: Path, kind: str) -> list[dict]:
    """All events of one kind."""
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def answers(args) -> list[dict]:
    """What the base and all adapters find, by length and depth: heat maps and `retrieval` events."""
    path = args.out / "answers.jsonl"
    if not path.exists():
        adapters = [word for arm in args.arms for seed in args.seeds for word in ("--adapter", str(run(args, arm, seed) / "adapter"))]
        command = [
            str(args.weblora), "eval", "--json", "--model", str(args.model), "--retrieval", "note", "--context", str(CONTEXT),
            "--window", ",".join(map(str, args.windows)), "--depths", "5", "--trials", str(args.trials), *adapters, "--svg", str(args.out / "pictures"),
        ]
        path.write_text(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout, encoding="utf-8")
    return [event for event in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if event["event"] == "retrieval"]


def spread(values: list[float], digits: int = 2) -> str:
    """Mean, and all values where there are several."""
    alone = f"{statistics.mean(values):.{digits}f}"
    return alone if len(values) == 1 else f"{alone} ({', '.join(f'{value:.{digits}f}' for value in values)})"


def table(args) -> None:
    """The table of the docs, in Markdown."""
    found = answers(args)

    def share(adapter: str, length: int) -> float:
        own = [event for event in found if event["adapter"] == adapter and event["length"] == length]
        return sum(event["right"] for event in own) / sum(event["trials"] for event in own)

    print("| arm | " + " | ".join(f"{length} tokens" for length in args.windows) + " | parameters | planned | seconds |")
    print("|---|" + "---|" * (len(args.windows) + 3))
    print("| before | " + " | ".join(spread([share("base", length)]) for length in args.windows) + " | | | |")
    for arm in args.arms:
        folders = [run(args, arm, seed) for seed in args.seeds]
        cells = [spread([share(str(folder / "adapter"), length) for folder in folders]) for length in args.windows]
        start = events(folders[0], "start")[0]
        seconds = statistics.mean(events(folder, "done")[0]["seconds"] for folder in folders)
        print(f"| {arm} | {' | '.join(cells)} | {start['trainable_parameters']} | {start['planned_bytes'] / 1e6:.0f} MB | {seconds:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--weblora", type=Path, default=ROOT / "target" / "release" / "weblora")
    parser.add_argument("--model", type=Path, default=ROOT / "assets" / "demo" / "demo.gguf")
    parser.add_argument("--out", type=Path, required=True, help="folder for rows, runs and answers")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--first", type=int, default=150, help=f"steps of the first run, of {TOKENS} tokens")
    parser.add_argument("--first-lr", default="5e-3")
    parser.add_argument("--steps", type=int, default=200, help="of the second run")
    parser.add_argument("--lr", default="2e-3")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--windows", nargs="+", type=int, default=[128, 256, 512, 1016])
    parser.add_argument("--trials", type=int, default=8, help="questions for every length and each of five depths")
    parser.add_argument("--table", action="store_true", help="ask all adapters, and print what they found")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write_rows(args)
    for seed in args.seeds:
        for arm in args.arms:
            run(args, arm, seed)
    if args.table:
        table(args)


if __name__ == "__main__":
    main()
