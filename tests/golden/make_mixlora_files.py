"""Writes tests/golden/mixlora/{bin,safetensors,legacy,switch}: MixLoRA folders of the tiny LLaMA with the names and keys of the authors' code.

    python tests/golden/make_mixlora_files.py
    python tests/golden/make_mixlora_files.py --check     # that PyTorch reads what weblora wrote: tests/golden/mixlora/ours

Every number is k/64 for a whole k, so that float16 and bfloat16 hold it: the folders bin, safetensors and legacy hold the same adapter.
"""

import json
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))

from weblora_reference.counter import integers  # noqa: E402
from weblora_reference.torch_llama import PROJECTIONS, Shape  # noqa: E402

TINY = Shape(
    vocab_size=97, hidden_size=32, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=16,
)
EXPERTS, RANK, EXPERT_RANK = 3, 2, 1
TARGETS = ["q_proj", "gate_proj", "down_proj"]
LEGACY = {"gate_proj": "w1_proj", "down_proj": "w2_proj", "up_proj": "w3_proj"}
CONFIG = {
    "bias": "none", "peft_type": "MIXLORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny_llama",
    "r": RANK, "lora_alpha": 4, "lora_dropout": 0.05, "target_modules": TARGETS,
    "expert_lora": {
        "bias": "none", "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny_llama",
        "r": EXPERT_RANK, "lora_alpha": 3, "lora_dropout": 0.1,
    },
    "routing_strategy": "mixlora", "num_experts": EXPERTS, "top_k": 2,
}


def numbers(name: str, shape: tuple[int, int]) -> torch.Tensor:
    """Whole numbers from -32 to 31 over 64, from the generator."""
    count = shape[0] * shape[1]
    return (torch.from_numpy(integers(f"mixlora_files/{name}", count, 64)).float() - 32).div(64).reshape(shape)


def tensors() -> dict[str, torch.Tensor]:
    """The adapter, by the authors' names."""
    found = {}
    for layer in range(TINY.num_hidden_layers):
        for projection in TARGETS:
            rows, cols = TINY.linear(projection)
            site = f"mixlora.layers.{layer}.{PROJECTIONS[projection]}.{projection}"
            inner = PROJECTIONS[projection] == "mlp"
            for place in [f"{site}.experts.{e}" for e in range(EXPERTS)] if inner else [site]:
                rank = EXPERT_RANK if inner else RANK
                for half, shape in (("lora_A", (rank, cols)), ("lora_B", (rows, rank))):
                    name = f"{place}.{half}.weight"
                    found[name] = numbers(name, shape)
        name = f"mixlora.layers.{layer}.mlp.moe_gate.weight"
        found[name] = numbers(name, (EXPERTS, TINY.hidden_size))
    return found


def as_trained(plain: dict[str, torch.Tensor]) -> OrderedDict:
    """The same as a training program may hold it: parameters, half precision, transposed and shifted views, a state with metadata."""
    state = OrderedDict()
    for i, (name, tensor) in enumerate(plain.items()):
        if name.endswith("moe_gate.weight"):
            tensor = torch.nn.Parameter(tensor)
        elif i % 4 == 1:
            tensor = tensor.t().contiguous().t()
        elif i % 4 == 2:
            tensor = torch.cat([torch.full((3,), 9.0), tensor.flatten()])[3:].view(tensor.shape)
        elif i % 8 == 3:
            tensor = tensor.half()
        elif i % 8 == 7:
            tensor = tensor.bfloat16()
        state[name] = tensor
    state._metadata = OrderedDict([("", {"version": 1})])
    return state


def legacy_name(name: str) -> str:
    """What a tensor was called before version 0.2.2."""
    parts = name.split(".")
    if parts[3] != "mlp":
        return name
    if parts[4] == "moe_gate":
        return ".".join([*parts[:3], "gate", "weight"])
    _, projection, _, expert, half = parts[3:8]
    return ".".join([*parts[:3], "experts", expert, LEGACY[projection], half, "weight"])


def folder(name: str, config: dict) -> Path:
    """A folder with its configuration."""
    path = HERE / "mixlora" / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
    return path


def check() -> None:
    """What weblora wrote is what it read, as PyTorch sees both."""
    ours = HERE / "mixlora" / "ours"
    pickled = torch.load(ours / "adapter_model.bin", weights_only=True)
    mapped = torch.load(ours / "adapter_model.bin", weights_only=True, mmap=True)
    stored = load_file(ours / "adapter_model.safetensors")
    plain = tensors()
    for kind, read in (("pickle", pickled), ("mapped pickle", mapped), ("safetensors", stored)):
        if set(read) != set(plain):
            raise SystemExit(f"{kind}: other names: {sorted(set(read) ^ set(plain))[:3]}")
        for name, tensor in plain.items():
            if read[name].dtype != torch.float32 or not torch.equal(read[name], tensor):
                raise SystemExit(f"{kind}: {name} differs")
    config = json.loads((ours / "adapter_config.json").read_text(encoding="utf-8"))
    own = {key: value for key, value in CONFIG["expert_lora"].items() if key in config["expert_lora"]}
    for key, value in {**CONFIG, "expert_lora": own}.items():
        if config[key] != value or type(config[key]) is not type(value):
            raise SystemExit(f"adapter_config.json: {key} is {config[key]!r}, the authors' code writes {value!r}")
    print(f"{len(plain)} tensors and the configuration are right")


def main() -> None:
    if "--check" in sys.argv:
        check()
        return
    plain = tensors()
    torch.save(as_trained(plain), folder("bin", CONFIG) / "adapter_model.bin")
    save_file(plain, folder("safetensors", CONFIG) / "adapter_model.safetensors")
    targets = [LEGACY.get(target, target) for target in TARGETS]
    legacy = {**CONFIG, "routing_strategy": "mixtral", "target_modules": targets}
    torch.save({legacy_name(name): tensor for name, tensor in plain.items()}, folder("legacy", legacy) / "adapter_model.bin")
    switch = {
        **CONFIG, "routing_strategy": "mixlora-switch", "expert_capacity": 7, "sparse_step": None, "router_z_loss_coef": 0.01,
        "router_aux_loss_coef": 0.02,
    }
    del switch["top_k"]
    save_file(plain, folder("switch", switch) / "adapter_model.safetensors")


if __name__ == "__main__":
    main()
