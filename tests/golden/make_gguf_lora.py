"""Writes the adapter of `peft_patterns/` as the GGUF that llama.cpp loads, with gguf-py.

    python tests/golden/make_gguf_lora.py

Worked out from the PEFT folder alone: rsLoRA scales and alphas by pattern go into B, rows of q's and k's B are moved as the converter of
llama.cpp moves those of the weights.
"""

import json
import re
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

HERE = Path(__file__).parent
NAMES = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}


def moved(b: np.ndarray, heads: int) -> np.ndarray:
    """The two halves of every head, row by row in turns."""
    return b.reshape(heads, 2, b.shape[0] // heads // 2, *b.shape[1:]).swapaxes(1, 2).reshape(b.shape)


def main() -> None:
    folder = HERE / "peft_patterns"
    config = json.loads((folder / "adapter_config.json").read_text())
    note = json.loads((folder / "weblora.json").read_text())
    model = json.loads((HERE / "tiny_llama" / "config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    heads = {"q_proj": model["num_attention_heads"], "k_proj": model["num_key_value_heads"]}

    def site(key: str) -> tuple[int, int]:
        layer, module = re.match(r"base_model\.model\.model\.layers\.(\d+)\.\w+\.(\w+)\.lora_A\.weight$", key).groups()
        return int(layer), list(NAMES).index(module)

    modules = []
    for key in sorted((key for key in tensors if key.endswith(".lora_A.weight")), key=site):
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        a, b = tensors[key], tensors[key.replace("lora_A", "lora_B")]
        alpha = next((x for k, x in config["alpha_pattern"].items() if re.match(rf"(.*\.)?({k})$", module)), config["lora_alpha"])
        rank = a.shape[0]
        scale = alpha / (rank**0.5 if config["use_rslora"] else rank)
        modules.append((site(key), a, b, scale, rank))
    # Of those that occur most the smallest.
    counts = Counter(scale * rank for *_, scale, rank in modules)
    common = np.float32(min(x for x, n in counts.items() if n == max(counts.values())))

    out = folder.parent / "gguf_lora.gguf"
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(common))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_name(f"LoRA for {config['base_model_name_or_path']}")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, config["base_model_name_or_path"])
    writer.add_string("weblora.base_hash", note["base_hash"])
    writer.add_uint64("weblora.steps", note["steps"])
    for (layer, which), a, b, scale, rank in modules:
        module = list(NAMES)[which]
        b = b * np.float32(scale * rank / np.float64(common))
        b = moved(b, heads[module]) if module in heads else b
        writer.add_tensor(f"blk.{layer}.{NAMES[module]}.weight.lora_a", a)
        writer.add_tensor(f"blk.{layer}.{NAMES[module]}.weight.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(out.name, out.stat().st_size, "bytes, alpha", common)


if __name__ == "__main__":
    main()
