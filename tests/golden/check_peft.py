"""Loads the adapter folders that weblora wrote into PEFT and compares the logits with the adapter written out by hand.

    python tests/golden/check_peft.py

`peft_patterns/` has per-module ranks, per-pattern alphas and rsLoRA scaling; by hand, `scale * B A` is added to the weights.
`peft_multilora/` is MultiLoRA as plain LoRA; by hand, every module runs for itself with the parameters that the generator gives.
`peft_embeddings/` is of the model with a tied head; by hand, the trained rows are added to the input embedding alone.
Prints the differences; exits with 1 when one is not as expected.
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

import make_multilora

HERE = Path(__file__).parent


def base(tied: bool = False):
    """The tiny model in float32; `tied`, with its embedding as the head."""
    model = AutoModelForCausalLM.from_pretrained(HERE / "tiny_llama", dtype=torch.float32).eval()
    if tied:
        model.config.tie_word_embeddings = True
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


def by_hand(config: dict, tensors: dict, model=None):
    """The base with scale * B A added to its weights, the scale worked out from the configuration alone."""
    model = model or base()
    modules = dict(model.named_modules())
    for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        a, b = tensors[key], tensors[key.replace("lora_A", "lora_B")]
        alpha = next((x for k, x in config["alpha_pattern"].items() if re.match(rf"(.*\.)?({k})$", name)), config["lora_alpha"])
        modules[name].weight.data += alpha / a.shape[0] ** (0.5 if config["use_rslora"] else 1) * b @ a
    return model


def with_embeddings(config: dict, tensors: dict):
    """The same on the tied model, whose input embedding has the trained rows and whose head has not."""
    model = by_hand(config, tensors, base(tied=True))
    rows = model.model.embed_tokens.weight.detach().clone()
    rows[tensors["weblora.embed_tokens.tokens"].long()] += tensors["weblora.embed_tokens.delta"]
    model.model.embed_tokens = torch.nn.Embedding.from_pretrained(rows)
    return model


def with_modules(config: dict, tensors: dict):
    """The base with the modules of the golden gradient case beside its layers."""
    run = make_multilora.RUNS["out"]
    case = json.loads((HERE / "multilora.json").read_text())["gradient_cases"][0]
    parameters = make_multilora.initial(run, case["s_bound"])
    model = base()
    named = dict(model.named_modules())
    for site, _ in make_multilora.TINY.sites(run.targets):
        named["model." + site].register_forward_hook(
            lambda _, x, y, site=site: y + make_multilora.modules(run, parameters, site, x[0]))
    return model


def check(name: str, expectation, tied: bool = False) -> bool:
    """Whether PEFT loads the folder as it is and means the same by it."""
    torch.manual_seed(0)
    tokens = torch.randint(0, 97, (1, 24))
    folder = HERE / name
    config, tensors = json.loads((folder / "adapter_config.json").read_text()), load_file(folder / "adapter_model.safetensors")
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        peft = PeftModel.from_pretrained(base(tied), folder).eval()
        loaded = peft(tokens).logits
        expected = expectation(config, tensors)(tokens).logits
        without = base(tied)(tokens).logits
    error = (loaded - expected).abs().max().item()
    effect = (loaded - without).abs().max().item()
    trained = sum(p.numel() for n, p in peft.named_parameters() if "lora_" in n or "modules_to_save" in n)
    stored = sum(t.numel() for name, t in tensors.items() if not name.startswith("weblora."))
    # That a tied layer trains on its own is meant.
    complaints = [str(w.message) for w in caught if re.search("missing|unexpected|match|adapter", str(w.message), re.I)
                  and not (tied and "ensure_weight_tying" in str(w.message))]
    print(f"{name}: max |PEFT - by hand| = {error:.2e}, max |PEFT - base| = {effect:.2e}, "
          f"parameters {trained} in PEFT, {stored} in the file, {complaints}")
    return error < 1e-4 and effect > 0.1 and trained == stored and not complaints


sys.exit(0 if all([check("peft_patterns", by_hand), check("peft_multilora", with_modules),
                   check("peft_embeddings", with_embeddings, tied=True)]) else 1)
