"""Loads the adapter folder that weblora wrote (peft_patterns/) into PEFT and compares the logits with the product written out by hand.

    python tests/golden/check_peft.py

The folder has per-module ranks, per-pattern alphas and rsLoRA scaling. Prints the differences; exits with 1 when one is not as expected.
"""

import json
import re
import sys
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
FOLDER = HERE / "peft_patterns"


def base():
    """The tiny model in float32."""
    return AutoModelForCausalLM.from_pretrained(HERE / "tiny_llama", dtype=torch.float32).eval()


def by_hand(config: dict, tensors: dict):
    """The base with scale * B A added to its weights, the scale worked out from the configuration alone."""
    model = base()
    modules = dict(model.named_modules())
    for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        a, b = tensors[key], tensors[key.replace("lora_A", "lora_B")]
        alpha = next((x for k, x in config["alpha_pattern"].items() if re.match(rf"(.*\.)?({k})$", name)), config["lora_alpha"])
        modules[name].weight.data += alpha / a.shape[0] ** 0.5 * b @ a
    return model


torch.manual_seed(0)
tokens = torch.randint(0, 97, (1, 24))
with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    peft = PeftModel.from_pretrained(base(), FOLDER).eval()
    loaded = peft(tokens).logits
    config = json.loads((FOLDER / "adapter_config.json").read_text())
    expected = by_hand(config, load_file(FOLDER / "adapter_model.safetensors"))(tokens).logits
    without = base()(tokens).logits

error = (loaded - expected).abs().max().item()
effect = (loaded - without).abs().max().item()
trained = sum(p.numel() for n, p in peft.named_parameters() if "lora_" in n)
stored = sum(t.numel() for t in load_file(FOLDER / "adapter_model.safetensors").values())
complaints = [str(w.message) for w in caught if re.search("missing|unexpected|match|adapter", str(w.message), re.I)]
print(f"max |PEFT - by hand| = {error:.2e}, max |PEFT - base| = {effect:.2e}, parameters {trained} in PEFT, {stored} in the file, {complaints}")
sys.exit(0 if error < 1e-4 and effect > 0.1 and trained == stored and not complaints else 1)
