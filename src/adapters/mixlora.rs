//! MixLoRA (Li et al. 2024): a router sends each row to a few LoRA experts on the feed-forward layers; attention has plain LoRA.
//!
//! `y = Σ_j w_j E_{e_j}(x)` with `E_e(x) = D_e(silu(G_e(x)) ⊙ U_e(x))`, where G, U and D are the frozen gate, up and down with expert e's
//! `alpha / r · B_e A_e` beside them. Three ways of choosing: top-k (the authors' `mixlora`), top-p (`mixlora-dynamic`), top-1 with a capacity
//! (`mixlora-switch`).

use super::config::AdapterConfig;
use super::experts::{Balance, ExpertSite, Experts, Router, Routing, Strategy};
use super::layout::{AdapterLayout, SiteAdapter};
use super::lora::{LORA_PLUS, RSLORA, ranked_sites_of};
use super::method::{Method, OptionKind, OptionSpec};
use super::params::{Init, ParamLayout, ParamSpec, Storage};
use super::product::{Rank, push_pair};
use super::site::{Projection, Site};
use crate::config::ModelConfig;
use crate::{Error, Result};

/// Most experts of a block.
pub const MAX_EXPERTS: usize = 64;

const EXPERTS: OptionSpec =
    OptionSpec { key: "experts", kind: OptionKind::Count { min: 2, max: MAX_EXPERTS as u64 }, default: "8", help: "Experts in each block" };
const TOP_K: OptionSpec = OptionSpec {
    key: "top-k",
    kind: OptionKind::Count { min: 1, max: MAX_EXPERTS as u64 },
    default: "2",
    help: "Experts that a token gets",
};
const AUX_COEF: OptionSpec = OptionSpec {
    key: "aux-coef",
    kind: OptionKind::Number { min: 0.0, max: 1e3 },
    default: "0.01",
    help: "Coefficient of the loss that balances the experts",
};
const BALANCE: OptionSpec = OptionSpec {
    key: "balance",
    kind: OptionKind::Choice(&["per-layer", "concatenated"]),
    default: "per-layer",
    help: "Balance each block by itself, or all blocks together as the authors' code does",
};
const JITTER: OptionSpec = OptionSpec {
    key: "jitter",
    kind: OptionKind::Number { min: 0.0, max: 0.9 },
    default: "0",
    help: "Multiply the input of router and experts by a random factor in 1 - jitter .. 1 + jitter",
};
const EXPERT_RANK: OptionSpec = OptionSpec {
    key: "expert-rank",
    kind: OptionKind::Count { min: 0, max: super::config::MAX_RANK as u64 },
    default: "0",
    help: "Rank of the experts; 0: as --rank",
};
const EXPERT_ALPHA: OptionSpec = OptionSpec {
    key: "expert-alpha",
    kind: OptionKind::Number { min: 0.0, max: 1e9 },
    default: "0",
    help: "Alpha of the experts; 0: as --alpha",
};
const EXPERT_DROPOUT: OptionSpec = OptionSpec {
    key: "expert-dropout",
    kind: OptionKind::Number { min: -1.0, max: 0.99 },
    default: "-1",
    help: "Dropout of the experts' inputs; -1: as --dropout",
};
const TOP_P: OptionSpec = OptionSpec {
    key: "top-p",
    kind: OptionKind::Number { min: 1e-6, max: 1.0 },
    default: "0.8",
    help: "A token gets the most probable experts until their probabilities exceed this",
};
const TEMPERATURE: OptionSpec = OptionSpec {
    key: "router-temperature",
    kind: OptionKind::Number { min: 0.0, max: 1e3 },
    default: "0",
    help: "Divides the routers' probabilities (after the softmax, as the authors do); 0: not",
};
const RENORMALIZE: OptionSpec = OptionSpec {
    key: "renormalize",
    kind: OptionKind::Switch,
    default: "false",
    help: "The weights of a token's experts sum to one, so that the run starts at the base model; the authors' do not",
};
const CAPACITY: OptionSpec = OptionSpec {
    key: "expert-capacity",
    kind: OptionKind::Count { min: 1, max: 1 << 20 },
    default: "32",
    help: "Tokens of a row that an expert takes in training; further ones skip the feed-forward layer",
};
const Z_COEF: OptionSpec = OptionSpec {
    key: "z-coef",
    kind: OptionKind::Number { min: 0.0, max: 1e3 },
    default: "0.001",
    help: "Coefficient of the loss that keeps the routers' logits small",
};

/// Row of the method table: top-k routing.
pub const MIXLORA: Method = Method {
    name: "mixlora",
    help: "a router and LoRA experts on the feed-forward layers, plain LoRA on attention",
    options: &[EXPERTS, TOP_K, AUX_COEF, BALANCE, JITTER, EXPERT_RANK, EXPERT_ALPHA, EXPERT_DROPOUT, RSLORA, LORA_PLUS],
    build: |config, model| {
        let (experts, top_k) = (config.number(EXPERTS.key)? as usize, config.number(TOP_K.key)? as usize);
        if top_k > experts {
            let problem = format!("{top_k} of {experts} experts");
            return Err(Error::config(TOP_K.key, problem, format!("give at most {experts}, or more --experts")));
        }
        build(config, model, Routing { strategy: Strategy::TopK, top_k, ..routing(config)? })
    },
    chain: None,
};

/// Row of the method table: top-p routing.
pub const MIXLORA_DYNAMIC: Method = Method {
    name: "mixlora-dynamic",
    help: "MixLoRA in which a token gets as many experts as its router is undecided (top-p)",
    options: &[
        EXPERTS,
        TOP_P,
        TEMPERATURE,
        RENORMALIZE,
        AUX_COEF,
        BALANCE,
        JITTER,
        EXPERT_RANK,
        EXPERT_ALPHA,
        EXPERT_DROPOUT,
        RSLORA,
        LORA_PLUS,
    ],
    build: |config, model| {
        let (top_p, temperature) = (config.number(TOP_P.key)?, config.number(TEMPERATURE.key)?);
        let common = routing(config)?;
        let renormalize = config.switch(RENORMALIZE.key)?;
        build(config, model, Routing { strategy: Strategy::TopP, top_k: common.experts, top_p, temperature, renormalize, ..common })
    },
    chain: None,
};

/// Row of the method table: top-1 routing with a capacity.
pub const MIXLORA_SWITCH: Method = Method {
    name: "mixlora-switch",
    help: "MixLoRA with one expert a token and a capacity for each (Switch)",
    options: &[EXPERTS, CAPACITY, AUX_COEF, Z_COEF, BALANCE, JITTER, EXPERT_RANK, EXPERT_ALPHA, EXPERT_DROPOUT, RSLORA, LORA_PLUS],
    build: |config, model| {
        let (capacity, z_coef) = (config.number(CAPACITY.key)? as usize, config.number(Z_COEF.key)?);
        build(config, model, Routing { strategy: Strategy::Switch, capacity, z_coef, ..routing(config)? })
    },
    chain: None,
};

/// What all three have.
fn routing(config: &AdapterConfig) -> Result<Routing> {
    Ok(Routing {
        strategy: Strategy::TopK,
        experts: config.number(EXPERTS.key)? as usize,
        top_k: 1,
        top_p: 1.0,
        temperature: 0.0,
        renormalize: false,
        capacity: 0,
        jitter: config.number(JITTER.key)?,
        aux_coef: config.number(AUX_COEF.key)?,
        z_coef: 0.0,
        balance: if config.text(BALANCE.key)? == "concatenated" { Balance::Concatenated } else { Balance::PerLayer },
    })
}

/// Whether a projection has experts instead of one product.
pub(crate) fn routed(projection: Projection) -> bool {
    matches!(projection, Projection::Gate | Projection::Up | Projection::Down)
}

fn build(config: &AdapterConfig, model: &ModelConfig, routing: Routing) -> Result<AdapterLayout> {
    for (key, is_on, what) in [("train-norms", config.train_norms, "norms"), ("train-embeddings", config.train_embeddings, "embeddings")] {
        if is_on {
            let problem = format!("is on, and method `{}` trains no {what}: its files have no place for them", config.method);
            return Err(Error::config(key, problem, "leave it out, or use another method"));
        }
    }
    let (rslora, ratio) = (config.switch(RSLORA.key)?, config.number(LORA_PLUS.key)?);
    let or = |key: &'static str, none: f64, other: f64| config.number(key).map(|own| if own == none { other } else { own });
    let own = AdapterConfig {
        rank: or(EXPERT_RANK.key, 0.0, config.rank as f64)? as usize,
        alpha: or(EXPERT_ALPHA.key, 0.0, config.alpha)?,
        ..config.clone()
    };
    let mut params = ParamLayout::default();
    let mut sites = Vec::new();
    for (site, rank, alpha) in ranked_sites_of(config, model, "rank", &|site| !routed(site.projection))? {
        sites.push(SiteAdapter::new(
            site,
            vec![push_pair(&mut params, &site.to_string(), site, model, Rank { rank, alpha, rslora }, ratio)],
        ));
    }
    let dropout = or(EXPERT_DROPOUT.key, -1.0, config.dropout)?;
    if dropout < 0.0 {
        let hint = "give a probability below 1, or -1 for that of --dropout";
        return Err(Error::config(EXPERT_DROPOUT.key, format!("{dropout} is none"), hint));
    }
    let mut experts = Experts { routing, routers: Vec::new(), sites: Vec::new(), dropout: dropout as f32 };
    let key = if own.rank == config.rank { "rank" } else { EXPERT_RANK.key };
    for (site, rank, alpha) in ranked_sites_of(&own, model, key, &|site| routed(site.projection))? {
        let push = |e| push_pair(&mut params, &expert_name(site, e), site, model, Rank { rank, alpha, rslora }, ratio);
        experts.sites.push(ExpertSite { site, experts: (0..routing.experts).map(push).collect() });
    }
    if experts.sites.is_empty() {
        return Err(Error::config(
            "targets",
            "none of gate, up and down",
            format!("method `{}` needs one of them; use method `lora`", config.method),
        ));
    }
    let mut layers: Vec<usize> = experts.sites.iter().map(|expert| expert.site.layer).collect();
    layers.dedup();
    // After the factors, so that the optimizer meets few groups.
    experts.routers = layers.into_iter().map(|layer| Router { layer, param: params.push(gate(layer, routing.experts, model)) }).collect();
    let dropout = config.dropout as f32;
    Ok(AdapterLayout {
        sites,
        params,
        norms: Vec::new(),
        embeddings: None,
        dropout,
        half: false,
        rslora,
        blocks: model.num_hidden_layers,
        experts: Some(experts),
    })
}

/// `layers.0.mlp.experts.3.gate_proj`.
pub fn expert_name(site: Site, expert: usize) -> String {
    format!("layers.{}.mlp.experts.{expert}.{}", site.layer, site.projection.hf_name())
}

/// A router, whose deviation at the start is 0.02.
fn gate(layer: usize, experts: usize, model: &ModelConfig) -> ParamSpec {
    ParamSpec {
        name: format!("layers.{layer}.mlp.moe_gate"),
        shape: vec![experts, model.hidden_size],
        transposed: false,
        offset: 0,
        adjacent: false,
        padding: 0,
        init: Init::Uniform { bound: 0.02 * 3f64.sqrt() },
        lr_multiplier: 1.0,
        weight_decay: true,
        trainable: true,
        storage: Storage::F32,
    }
}
