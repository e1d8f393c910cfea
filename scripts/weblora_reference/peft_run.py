"""transformers + PEFT: build a model from our weights, give it our adapter, train it with torch.optim.AdamW."""

import math
from dataclasses import asdict, dataclass

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from .counter import uniform
from .torch_llama import PROJECTIONS, Shape, packed_layout


@dataclass(frozen=True)
class Run:
    """Settings of one training run, with the names of the command line."""

    rank: int = 4
    alpha: int = 8
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = None
    schedule: str = "constant"  # or "linear": up over `warmup` steps, then down to 0 after the last step
    warmup: int = 0
    steps: int = 10
    lora_plus: float = 1.0  # learning rate of B over that of A
    rslora: bool = False
    targets: tuple[str, ...] = tuple(PROJECTIONS)
    seed: int = 0

    @property
    def scale(self) -> float:
        """What multiplies B A x."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def learning_rate(self, step: int) -> float:
        """The rate of optimizer step `step` (from 0); "linear" is transformers' schedule for one more step of warm-up, from its second step on."""
        if self.schedule == "constant":
            return self.lr
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        return self.lr * (self.steps - step) / (self.steps - self.warmup)

    def describe(self) -> dict:
        """As JSON."""
        return asdict(self)


def initial_adapter(shape: Shape, run: Run, random_b: float = 0.0) -> dict[str, torch.Tensor]:
    """A uniform in 1/sqrt(in) (Kaiming, a = sqrt 5), B zero or, for gradient checks, uniform in `random_b`."""
    adapter = {}
    for site, (rows, cols) in shape.sites(run.targets):
        a, b = site + ".lora_A", site + ".lora_B"
        adapter[a] = torch.from_numpy(uniform(run.seed, a, (run.rank, cols), 1.0 / math.sqrt(cols)))
        adapter[b] = torch.zeros(rows, run.rank)
        if random_b:
            adapter[b] = torch.from_numpy(uniform(run.seed, b, (rows, run.rank), random_b))
    return adapter


def hf_model(shape: Shape, weights: dict) -> LlamaForCausalLM:
    """A frozen float32 LlamaForCausalLM with these weights; refuses missing and surplus names."""
    config = LlamaConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers, num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads, head_dim=shape.head_dim, rms_norm_eps=shape.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tie_word_embeddings, max_position_embeddings=shape.max_position_embeddings,
        bos_token_id=None, eos_token_id=None, pad_token_id=None, attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    state = {name if name.startswith("lm_head") else "model." + name: torch.as_tensor(v) for name, v in weights.items()}
    missing, surplus = model.load_state_dict(state, strict=False)
    allowed = ["lm_head.weight"] if shape.tie_word_embeddings else []
    if surplus or [name for name in missing if name not in allowed]:
        raise SystemExit(f"weights do not fit the model: missing {missing}, surplus {surplus}")
    return model.eval()


def peft_name(ours: str) -> str:
    """PEFT's parameter name of "{site}.lora_A" or "{site}.lora_B"."""
    return f"base_model.model.model.{ours}.default.weight"


def peft_model(model: LlamaForCausalLM, run: Run, adapter: dict[str, torch.Tensor]):
    """The model with a PEFT LoRA holding our initial values."""
    config = LoraConfig(
        r=run.rank, lora_alpha=run.alpha, lora_dropout=0.0, bias="none", use_rslora=run.rslora,
        target_modules=list(run.targets), task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, config)
    parameters = dict(wrapped.named_parameters())
    trainable = {name for name, value in parameters.items() if value.requires_grad}
    if trainable != {peft_name(name) for name in adapter}:
        raise SystemExit("the adapter's names are not the parameters that PEFT trains")
    with torch.no_grad():
        for name, value in adapter.items():
            parameters[peft_name(name)].copy_(value)
    return wrapped


def packed_logits(model, tokens: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Logits (tokens, vocab) of documents packed in one sequence, block-diagonal mask, positions restarting."""
    positions, visible = packed_layout(lengths)
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    return model(input_ids=tokens[None], position_ids=positions[None], attention_mask=mask[None, None]).logits[0]


def train(parameters: dict[str, torch.Tensor], loss_of_step, run: Run) -> dict[str, list[float]]:
    """AdamW over {name: tensor}; `loss_of_step(step)` is differentiated. Losses are those before each update."""
    a = [p for name, p in parameters.items() if "lora_A" in name]
    b = [p for name, p in parameters.items() if "lora_B" in name]
    groups = [{"params": a, "factor": 1.0}, {"params": b, "factor": run.lora_plus}]
    optimizer = torch.optim.AdamW(groups, lr=run.lr, betas=run.betas, eps=run.eps, weight_decay=run.weight_decay)
    curve = {"lr": [], "loss": [], "grad_norm": []}
    for step in range(run.steps):
        for group in optimizer.param_groups:
            group["lr"] = run.learning_rate(step) * group["factor"]
        optimizer.zero_grad()
        loss = loss_of_step(step)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(a + b, math.inf if run.clip is None else run.clip)
        optimizer.step()
        for key, value in (("lr", run.learning_rate(step)), ("loss", loss.item()), ("grad_norm", norm.item())):
            curve[key].append(value)
    return curve
