"""MixLoRA against LoRA and MultiLoRA, at equal trainable and at equal active parameters, on a mixture of four tasks of the embedded language or of real sets (`mixture.py`).

    cargo build --release
    python scripts/experiments/mixlora.py --out out/mixlora --sweep              # learning rates of every arm, one seed
    python scripts/experiments/mixlora.py --out out/mixlora --seeds 0 1 2 3 4 --lr mix=… lora-trained=… …
    python scripts/experiments/mixlora.py --out out/real --model models/SmolLM2-135M-Instruct.Q4_1.gguf --sets FOLDER --sweep    # hours without a GPU
"""

from mixture import arguments, rates_of, scores, sweep

# Four experts of rank 4 of which a token gets two, and rank 4 at attention: 143,360 parameters are trained, 81,920 work on a token. LoRA of rank 12 and two
# modules of rank 5 have 2 % more and 3 % fewer of the former, LoRA of rank 7 and two modules of rank 3 have 4 and 5 % more of the latter.
MIX = ["--method", "mixlora", "--experts", "4", "--top-k", "2", "--rank", "4"]
ARMS = {
    "mix": MIX,
    "mix-concatenated": [*MIX, "--balance", "concatenated"],
    "mix-unbalanced": [*MIX, "--aux-coef", "0"],
    "lora-trained": ["--method", "lora", "--rank", "12"],
    "lora-active": ["--method", "lora", "--rank", "7"],
    "multi-trained": ["--method", "multilora", "--modules", "2", "--rank", "5", "--scale", "out"],
    "multi-active": ["--method", "multilora", "--modules", "2", "--rank", "3", "--scale", "out"],
}


def main() -> None:
    args = arguments(__doc__.split("\n", maxsplit=1)[0], ARMS).parse_args()
    sweep(args)
    if args.lr:
        scores(args, rates_of(args))


if __name__ == "__main__":
    main()
