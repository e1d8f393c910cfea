"""Writes patterns.json: which rank PEFT gives to modules under rank patterns, and which modules it targets, for tests/adapters.rs.

    python tests/golden/make_patterns.py
"""

import json
from pathlib import Path

from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

CASES = [
    {"targets": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}},
    {"targets": ["q_proj", "k_proj", "down_proj"], "rank_pattern": {"layers.1.self_attn.q_proj": 3, "q_proj": 2, "mlp.down_proj": 5}},
    {"targets": ["q_proj", "up_proj"], "rank_pattern": {r"layers\.[02]\.(self_attn|mlp)\.\w+": 1, "proj": 7, "_proj": 7, "p_proj": 7}},
    {"targets": ["layers.1.mlp.up_proj", "self_attn.o_proj"], "rank_pattern": {"^model.layers.(?!0).*o_proj": 6}},
    {"targets": ["gate_proj", "11.self_attn.k_proj"], "rank_pattern": {"layers.1.mlp.gate_proj": 2, "gate_proj|k_proj": 3}},
    {"targets": ["1.self_attn.v_proj"], "rank_pattern": {".*": 2}},
]

config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=12, num_attention_heads=2, num_key_value_heads=2)
for case in CASES:
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=4, target_modules=case["targets"], rank_pattern=case["rank_pattern"]))
    case["ranks"] = {
        name.removeprefix("base_model.model.model.").removesuffix(".lora_A.default.weight"): p.shape[0]
        for name, p in model.named_parameters()
        if ".lora_A." in name
    }
lines = ",\n".join(" " + json.dumps(case) for case in CASES)
Path(__file__).with_name("patterns.json").write_text(f"[\n{lines}\n]\n")
