"""Writes tests/golden/rope.json: inverse frequencies of every RoPE scaling as transformers computes them.

    python tests/golden/make_rope.py
"""

import sys
from pathlib import Path

import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))

from weblora_reference.files import write_json  # noqa: E402

HEAD_DIM, CONTEXT, ORIGINAL = 16, 256, 64
HALF = HEAD_DIM // 2
# `length` is the running sequence length, which only dynamic and longrope look at.
CASES = {
    "linear": ({"rope_type": "linear", "factor": 4.0}, None),
    "dynamic_short": ({"rope_type": "dynamic", "factor": 2.0}, 200),
    "dynamic_long": ({"rope_type": "dynamic", "factor": 2.0}, 600),
    "llama3": ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": ORIGINAL}, None),
    "yarn": ({"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0,
              "original_max_position_embeddings": ORIGINAL}, None),
    "yarn_attention_factor": ({"rope_type": "yarn", "factor": 16.0, "beta_fast": 8.0, "beta_slow": 0.5, "attention_factor": 1.25,
                               "original_max_position_embeddings": ORIGINAL}, None),
    "longrope_short": ({"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": ORIGINAL,
                        "short_factor": [1.0 + 0.1 * i for i in range(HALF)],
                        "long_factor": [1.0 + 0.75 * i for i in range(HALF)]}, 60),
    "longrope_long": ({"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": ORIGINAL,
                       "short_factor": [1.0 + 0.1 * i for i in range(HALF)],
                       "long_factor": [1.0 + 0.75 * i for i in range(HALF)]}, 200),
}


def main() -> None:
    cases = {}
    for name, (scaling, length) in CASES.items():
        theta = 500000.0 if name == "llama3" else 10000.0
        config = LlamaConfig(
            hidden_size=4 * HEAD_DIM, num_attention_heads=4, head_dim=HEAD_DIM, max_position_embeddings=CONTEXT,
            rope_parameters={**scaling, "rope_theta": theta},
        )
        inv_freq, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, torch.device("cpu"), seq_len=length)
        cases[name] = {"rope_theta": theta, "rope_scaling": scaling, "length": length, "attention_factor": factor,
                       "inv_freq": inv_freq.tolist()}
    write_json(HERE / "rope.json", {"head_dim": HEAD_DIM, "max_position_embeddings": CONTEXT, "cases": cases})


if __name__ == "__main__":
    main()
