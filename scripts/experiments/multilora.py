"""MultiLoRA against LoRA at equal parameters on a mixture of four tasks of the embedded language (`mixture.py`).

    cargo build --release
    python scripts/experiments/multilora.py --out out/multilora --sweep          # learning rates of every arm, one seed
    python scripts/experiments/multilora.py --out out/multilora --seeds 0 1 2 3 4 --lr lora=4e-3 multi=2e-3 scalar=3e-3 single=3e-3
"""

import json
import statistics
import subprocess
from pathlib import Path

from mixture import arguments, evaluations, rates_of, run, scores, spread, sweep

# Three modules of rank 4 with a scale per output have 4 % more parameters than LoRA of rank 13, with one in all 8 % fewer.
ARMS = {
    "lora": ["--method", "lora", "--rank", "13"],
    "multi": ["--method", "multilora", "--modules", "3", "--rank", "4", "--scale", "out"],
    "scalar": ["--method", "multilora", "--modules", "3", "--rank", "4", "--scale", "scalar"],
    "single": ["--method", "multilora", "--modules", "1", "--rank", "12", "--scale", "out"],
}


def spectrum(args, adapter: Path) -> tuple[float, float]:
    """Medians over all sites of the effective rank (exp of the entropy of energies) and of the share of the largest direction."""
    printed = subprocess.run([str(args.weblora), "analyze", "--json", str(adapter)], check=True, capture_output=True, text=True).stdout
    sites = json.loads(printed.splitlines()[0])["sites"]
    effective = statistics.median(site["spectrum"]["effective_rank"] for site in sites)
    return effective, statistics.median(site["spectrum"]["top1_energy"] for site in sites)


def spectra(args, rates: dict[str, str]) -> None:
    """The table of spectra in the docs, in Markdown."""
    print(f"\n| arm | effective rank, last step | top-1 energy | steps to loss {args.loss} | effective rank there | top-1 energy |")
    print("|---|---|---|---|---|---|")
    for arm, rate in rates.items():
        folders = [run(args, arm, rate, seed) for seed in args.seeds]
        last = [spectrum(args, folder / "adapter") for folder in folders]
        first = [next((e["step"] for e in evaluations(folder) if e["loss"] <= args.loss), None) for folder in folders]
        there = [spectrum(args, folder / f"at-{step}") for folder, step in zip(folders, first, strict=True) if step is not None]
        cells = [spread([x for x, _ in last], 2), spread([x for _, x in last])]
        if there:
            cells += [spread([s for s in first if s is not None], 0), spread([x for x, _ in there], 2), spread([x for _, x in there])]
        else:
            cells += ["not reached", "-", "-"]
        print(f"| {arm} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = arguments(__doc__.split("\n", maxsplit=1)[0], ARMS)
    parser.add_argument("--loss", type=float, default=0.5, help="where spectra are compared at matched loss")
    args = parser.parse_args()
    sweep(args)
    if args.lr:
        scores(args, rates_of(args))
        spectra(args, rates_of(args))


if __name__ == "__main__":
    main()
