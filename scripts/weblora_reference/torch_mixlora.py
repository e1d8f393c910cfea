"""LLaMA with MixLoRA in plain PyTorch, in any dtype: every expert runs over every row, and its output counts as much as the router says.

Formulas (Li et al. 2024 and the authors' code): p = softmax(x Wg^T), y = sum_e w_e E_e(x), E_e(x) = D_e(silu(G_e(x)) * U_e(x)) with
G, U, D the frozen gate, up and down plus expert e's LoRA. What w is depends on the method; see `weights_of`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .counter import uniform
from .torch_llama import PROJECTIONS, Shape, packed_layout, rmsnorm, rotate, shifted_groups

FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
GATE_BOUND = 0.02 * math.sqrt(3)


@dataclass(frozen=True)
class MixRun:
    """Settings of one run, with the names of the command line."""

    method: str = "mixlora"  # or "mixlora-dynamic", "mixlora-switch"
    experts: int = 4
    top_k: int = 2
    top_p: float = 0.8
    renormalize: bool = False
    expert_capacity: int = 32
    aux_coef: float = 0.01
    z_coef: float = 0.001
    balance: str = "per-layer"  # or "concatenated"
    rank: int = 3
    alpha: float = 6
    expert_rank: int = 0
    expert_alpha: float = 0
    rslora: bool = False
    lora_plus: float = 1.0
    targets: tuple[str, ...] = tuple(PROJECTIONS)
    group: int | None = None
    lr: float = 5e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 0.0
    grad_accum: int = 1
    steps: int = 10
    seed: int = 0

    def settings(self) -> dict:
        """As a run file has them: without the keys of the other methods."""
        own = {"mixlora": ["top_k"], "mixlora-dynamic": ["top_p", "renormalize"], "mixlora-switch": ["expert_capacity", "z_coef"]}
        left_out = {key for method, keys in own.items() if method != self.method for key in keys}
        return {key.replace("_", "-"): value for key, value in vars(self).items() if key not in left_out and value is not None}

    def of_expert(self) -> tuple[int, float]:
        """Rank and scale of the experts' products."""
        rank, alpha = self.expert_rank or self.rank, self.expert_alpha or self.alpha
        return rank, alpha / (math.sqrt(rank) if self.rslora else rank)

    def of_attention(self) -> tuple[int, float]:
        """Rank and scale of the products of q, k, v and o."""
        return self.rank, self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def products(shape: Shape, run: MixRun) -> list[tuple[str, int, tuple[int, int]]]:
    """Name, rank and (out, in) of every low-rank product."""
    found = []
    for site, size in shape.sites(run.targets):
        block, projection = site.rsplit(".", maxsplit=1)
        if projection in FEED_FORWARD:
            found += [(f"{block}.experts.{e}.{projection}", run.of_expert()[0], size) for e in range(run.experts)]
        else:
            found.append((site, run.of_attention()[0], size))
    return found


def initial(shape: Shape, run: MixRun, b_bound: float = 0.0, gate_bound: float = GATE_BOUND) -> dict[str, torch.Tensor]:
    """A Kaiming-uniform, B zero or uniform in `b_bound`, routers uniform with a deviation of 0.02 or in `gate_bound`."""
    start = {}
    for name, rank, (rows, cols) in products(shape, run):
        start[name + ".lora_A"] = torch.from_numpy(uniform(run.seed, name + ".lora_A", (rank, cols), 1 / math.sqrt(cols)))
        start[name + ".lora_B"] = torch.zeros(rows, rank)
        if b_bound:
            start[name + ".lora_B"] = torch.from_numpy(uniform(run.seed, name + ".lora_B", (rows, rank), b_bound))
    for n in range(shape.num_hidden_layers):
        name = f"layers.{n}.mlp.moe_gate"
        start[name] = torch.from_numpy(uniform(run.seed, name, (run.experts, shape.hidden_size), gate_bound))
    return start


@dataclass
class Routing:
    """What a router did with the rows of one block."""

    logits: torch.Tensor  # [rows, experts]
    p: torch.Tensor  # [rows, experts]
    chosen: torch.Tensor  # [rows, experts], 0 or 1, before the capacity
    weight: torch.Tensor  # [rows, experts], what each expert's output is multiplied by
    dropped: torch.Tensor  # [rows], bool
    gap: float  # how far a probability is from another choice


def weights_of(run: MixRun, logits: torch.Tensor, lengths: list[int]) -> Routing:
    """Choices and weights of the rows, one at a time."""
    p = logits.softmax(-1)
    chosen, weight = torch.zeros_like(p), torch.zeros_like(p)
    dropped = torch.zeros(len(p), dtype=torch.bool)
    document = [d for d, length in enumerate(lengths) for _ in range(length)]
    taken = {}
    gap = math.inf
    for t, row in enumerate(p):
        order = sorted(range(run.experts), key=lambda e: (-row[e].item(), e))
        sorted_p = [row[e].item() for e in order]
        if run.method == "mixlora":
            count = run.top_k
        elif run.method == "mixlora-switch":
            count = 1
        else:
            sums = [sum(sorted_p[: j + 1]) for j in range(run.experts)]
            count = next((j + 1 for j, total in enumerate(sums) if total > run.top_p), run.experts)
            gap = min([gap, *(abs(total - run.top_p) for total in sums[:-1])])
        if count < run.experts:
            gap = min(gap, sorted_p[count - 1] - sorted_p[count])
        mask = torch.zeros_like(row)
        mask[order[:count]] = 1
        chosen[t] = mask
        share = row * mask
        if run.method == "mixlora" or run.renormalize:
            share = share / share.sum()
        if run.method == "mixlora-switch":
            place = (document[t], order[0])
            taken[place] = taken.get(place, 0) + 1
            if taken[place] > run.expert_capacity:
                dropped[t] = True
                share = share * 0
        weight = weight.index_put((torch.tensor([t]),), share[None])
    return Routing(logits, p, chosen, weight, dropped, gap)


def forward(shape: Shape, weights: dict, parameters: dict, run: MixRun, tokens, lengths) -> tuple[torch.Tensor, list[Routing]]:
    """Logits (tokens, vocab) and what the routers did, block after block."""

    def product(name, scale, x):
        if name + ".lora_A" not in parameters:
            return 0
        return scale * F.linear(F.linear(x, parameters[name + ".lora_A"]), parameters[name + ".lora_B"])

    def attention_linear(site, x):
        return x @ weights[site + ".weight"].T + product(site, run.of_attention()[1], x)

    t, hd = len(tokens), shape.head_dim
    heads, kv_heads = shape.num_attention_heads, shape.num_key_value_heads
    positions, visible = packed_layout(lengths)[0], shifted_groups(lengths, heads, run.group)
    routings = []
    x = weights["embed_tokens.weight"][tokens]
    for n in range(shape.num_hidden_layers):
        block = f"layers.{n}."
        h = rmsnorm(x, weights[block + "input_layernorm.weight"], shape.rms_norm_eps)
        q = rotate(attention_linear(block + "self_attn.q_proj", h).view(t, heads, hd), positions, shape.rope_theta)
        k = rotate(attention_linear(block + "self_attn.k_proj", h).view(t, kv_heads, hd), positions, shape.rope_theta)
        v = attention_linear(block + "self_attn.v_proj", h).view(t, kv_heads, hd)
        k, v = (z.repeat_interleave(heads // kv_heads, dim=1) for z in (k, v))
        score = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(hd)
        share = score.masked_fill(~visible, -math.inf).softmax(-1)
        x = x + attention_linear(block + "self_attn.o_proj", torch.einsum("hij,jhd->ihd", share, v).reshape(t, heads * hd))

        h = rmsnorm(x, weights[block + "post_attention_layernorm.weight"], shape.rms_norm_eps)
        routing = weights_of(run, h @ parameters[block + "mlp.moe_gate"].T, lengths)
        routings.append(routing)

        def expert(e, x, block=block):
            def linear(projection, x):
                name, scale = f"{block}mlp.experts.{e}.{projection}", run.of_expert()[1]
                return x @ weights[f"{block}mlp.{projection}.weight"].T + product(name, scale, x)

            return linear("down_proj", F.silu(linear("gate_proj", x)) * linear("up_proj", x))

        y = sum(routing.weight[:, e : e + 1] * expert(e, h) for e in range(run.experts))
        # Switch: what an expert has no room for passes the layer by, times its probability as everything else.
        y = y + routing.dropped[:, None] * routing.p.max(-1, keepdim=True).values * h
        x = x + y
    x = rmsnorm(x, weights["norm.weight"], shape.rms_norm_eps)
    head = weights["embed_tokens.weight" if shape.tie_word_embeddings else "lm_head.weight"]
    return x @ head.T, routings


def balance_loss(run: MixRun, routings: list[Routing]):
    """E * sum_e f_e P_e: f the share of rows that chose expert e, without gradient, P its mean probability."""

    def of(p, chosen):
        return run.experts * (chosen.detach().mean(0) * p.mean(0)).sum()

    if run.balance == "concatenated":
        return of(torch.cat([r.p for r in routings]), torch.cat([r.chosen for r in routings]))
    return sum(of(r.p, r.chosen) for r in routings) / len(routings)


def z_loss(routings: list[Routing]):
    """The mean squared log-sum-exp of the logits, mean over the blocks."""
    return sum(r.logits.logsumexp(-1).pow(2).mean() for r in routings) / len(routings)


@dataclass
class Losses:
    """Of one optimizer step; `loss` is what is minimised."""

    loss: torch.Tensor
    ce: float
    balance_loss: float
    gap: float
    dropped: int


def step_losses(shape: Shape, weights: dict, parameters: dict, run: MixRun, batches: list[dict]) -> Losses:
    """Cross-entropy: mean over all targets of the step; router losses: mean over its micro-batches."""
    targets = sum(sum(label >= 0 for label in batch["labels"][1:]) for batch in batches)
    ce, balance, z, gap, dropped = 0.0, 0.0, 0.0, math.inf, 0
    for batch in batches:
        tokens, labels = torch.tensor(batch["tokens"]), torch.tensor(batch["labels"])
        logits, routings = forward(shape, weights, parameters, run, tokens, batch["lengths"])
        ce = ce + F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum") / targets
        balance = balance + balance_loss(run, routings) / len(batches)
        z = z + z_loss(routings) / len(batches)
        gap = min([gap, *(r.gap for r in routings)])
        dropped += sum(int(r.dropped.sum()) for r in routings)
    loss = ce + run.aux_coef * balance
    if run.method == "mixlora-switch":
        loss = loss + run.z_coef * z
    return Losses(loss, ce.item(), balance.item(), gap, dropped)


def train(shape: Shape, weights: dict, run: MixRun, batches: list[dict], dtype) -> dict:
    """AdamW from the start that `run.seed` gives. Losses are those before each update, norms those before clipping."""
    parameters = {name: value.to(dtype).requires_grad_() for name, value in initial(shape, run).items()}
    fast = [p for name, p in parameters.items() if name.endswith("lora_B")]
    rest = [p for name, p in parameters.items() if not name.endswith("lora_B")]
    groups = [{"params": rest}, {"params": fast, "lr": run.lr * run.lora_plus}]
    optimizer = torch.optim.AdamW(groups, lr=run.lr, betas=(run.beta1, run.beta2), eps=run.eps, weight_decay=run.weight_decay)
    curve = {"loss": [], "ce": [], "balance_loss": [], "grad_norm": [], "gap": [], "dropped": []}
    for step in range(run.steps):
        optimizer.zero_grad()
        micro = [batches[(step * run.grad_accum + i) % len(batches)] for i in range(run.grad_accum)]
        found = step_losses(shape, weights, parameters, run, micro)
        found.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(rest + fast, run.clip or math.inf)
        optimizer.step()
        for key, value in (("loss", found.loss.item()), ("ce", found.ce), ("balance_loss", found.balance_loss),
                           ("grad_norm", norm.item()), ("gap", found.gap), ("dropped", found.dropped)):
            curve[key].append(value)
    return curve
