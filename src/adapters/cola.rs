//! Chain of LoRA (COLA): links trained one after the other; at a knot the trained link is frozen and a new one begins.
//!
//! Frozen links stay factors beside the base, so a knot is exact whatever the base is quantised to, and only the newest link has gradients
//! and moments. ReLoRA's ways with the optimizer at a knot and RAC-LoRA (A frozen at its random draw) are settings.

use serde_json::Value;

use super::chain::{ChainConfig, Ends, KnotOptimizer, LinkConfig, LinkInit, LinkSchedule};
use super::config::{AdapterConfig, MAX_RANK};
use super::lora::{LORA_PLUS, RSLORA};
use super::method::{Method, OptionKind, OptionSpec};
use super::params::Storage;
use crate::{Error, Result};

const fn option(key: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { key, kind, default, help }
}

/// Ranks of the links.
pub const LINKS: OptionSpec = option(
    "links",
    OptionKind::Counts,
    "",
    "Ranks of the links, oldest first; without it one of --rank for each knot and one more, or three",
);
const LINK_ALPHAS: OptionSpec =
    option("link-alphas", OptionKind::Numbers, "", "Alphas of the links; without it all links have the scale of the first");
const LINK_LRS: OptionSpec = option("link-lrs", OptionKind::Numbers, "", "Peak learning rates of the links; without it --lr for all");
const KNOTS: OptionSpec = option("knots", OptionKind::Counts, "", "Steps after which a link ends; without it all links are equally long");
const LINK_STEPS: OptionSpec = option("link-steps", OptionKind::Counts, "", "Steps of each link, instead of --knots and --steps");
const LINK_EPOCHS: OptionSpec = option("link-epochs", OptionKind::Counts, "", "Passes over the data of each link, instead of --knots");
const KNOT_PATIENCE: OptionSpec = option(
    "knot-patience",
    OptionKind::Count { min: 0, max: 1 << 40 },
    "0",
    "End a link early after this many evaluations without a lower held-out loss; 0 never",
);
const KNOT_GAP: OptionSpec = option(
    "knot-gap",
    OptionKind::Number { min: 0.0, max: 1.0 },
    "0",
    "End a link early when the Frank-Wolfe gap, measured every --eval-every steps, is below this share of the first one; 0 never",
);
const GAP_RADIUS: OptionSpec = option(
    "gap-radius",
    OptionKind::Number { min: 1e-6, max: 1e6 },
    "1",
    "Nuclear norm per layer within which the gap looks for a better update",
);
const KNOT_OPTIMIZER: OptionSpec = option(
    "knot-optimizer",
    OptionKind::Choice(&["reset", "keep", "magnitude", "random"]),
    "reset",
    "AdamW at a knot: reset moments and step, keep them, or forget --knot-prune of the moments (the smallest, or at random)",
);
const KNOT_PRUNE: OptionSpec =
    option("knot-prune", OptionKind::Number { min: 0.0, max: 1.0 }, "0.9", "Share of the moments that magnitude and random forget");
const LINK_SCHEDULE: OptionSpec = option(
    "link-schedule",
    OptionKind::Choice(&["link", "global", "jagged"]),
    "link",
    "Learning rate: --schedule anew for each link, once over the whole run, or that with a short warm-up after each knot",
);
const LINK_WARMUP: OptionSpec =
    option("link-warmup", OptionKind::Count { min: 1, max: 1 << 40 }, "10", "Steps of the jagged schedule's warm-up after a knot");
const INIT_A: OptionSpec = option(
    "init-a",
    OptionKind::Choice(&["kaiming", "gaussian", "grad-svd"]),
    "kaiming",
    "How a link's A starts: Kaiming-uniform, normal with deviation 1/rank, or the gradient's top right singular vectors",
);
const CHAIN_MODE: OptionSpec =
    option("chain-mode", OptionKind::Choice(&["cola", "rac"]), "cola", "cola trains A and B of a link, rac only B beside a random A");
const RESTART_ONLY: OptionSpec = option(
    "restart-only",
    OptionKind::Switch,
    "false",
    "A control: knots restart optimizer and rate, and the first link trains to the end",
);
const KNOT_PROBES: OptionSpec = option(
    "knot-probes",
    OptionKind::Count { min: 0, max: 64 },
    "2",
    "Power iterations on the gradient at a knot, two passes each, for the diagnostics and grad-svd; 0 for no diagnostics",
);
const LINK_STORAGE: OptionSpec = option(
    "link-storage",
    OptionKind::Choice(&["f32", "f16"]),
    "f32",
    "How frozen links are kept: f32 is exact; f16 takes half the memory and rounds, by as much as logit_jump says at knots and at the start",
);
/// Ranks of the links that `init-adapter` brought.
pub const INHERITED: OptionSpec =
    option("inherited-ranks", OptionKind::Counts, "", "Ranks of the frozen links that the chain goes on from; --init-adapter sets it");

/// Row of the method table.
pub const COLA: Method = Method {
    name: "cola",
    help: "a chain of LoRA: links trained one after the other, exact on a quantised base",
    options: &[
        LINKS,
        LINK_ALPHAS,
        LINK_LRS,
        KNOTS,
        LINK_STEPS,
        LINK_EPOCHS,
        KNOT_PATIENCE,
        KNOT_GAP,
        GAP_RADIUS,
        KNOT_OPTIMIZER,
        KNOT_PRUNE,
        LINK_SCHEDULE,
        LINK_WARMUP,
        INIT_A,
        CHAIN_MODE,
        RESTART_ONLY,
        KNOT_PROBES,
        LINK_STORAGE,
        INHERITED,
        RSLORA,
        LORA_PLUS,
    ],
    build: |config, model| read(config)?.layout(config, model, 0),
    chain: Some(read),
};

/// The chain that the settings describe.
fn read(config: &AdapterConfig) -> Result<ChainConfig> {
    for (key, patterns) in [("rank-pattern", &config.rank_pattern), ("alpha-pattern", &config.alpha_pattern)] {
        if !patterns.is_empty() {
            return Err(Error::config(key, "a link has one rank and alpha at all its targets", "remove it, or use the method lora"));
        }
    }
    let ends = ends(config)?;
    let ranks = match counts(config, LINKS.key)?.as_slice() {
        [] => vec![config.rank; ends.links().unwrap_or(3)],
        ranks => ranks.iter().map(|&r| r as usize).collect(),
    };
    let inherited: Vec<usize> = counts(config, INHERITED.key)?.into_iter().map(|r| r as usize).collect();
    let most = |key, ranks: &[usize]| match ranks.iter().max() {
        Some(&rank) if rank > MAX_RANK => Err(Error::config(key, format!("a rank of {rank}"), format!("give ranks up to {MAX_RANK}"))),
        _ => Ok(()),
    };
    most(LINKS.key, &ranks)?;
    most(INHERITED.key, &inherited)?;
    let sum = ranks.iter().chain(&inherited).sum::<usize>();
    if sum > MAX_RANK {
        let problem = format!("the ranks of the whole chain add up to {sum}, buffers hold {MAX_RANK}");
        return Err(Error::config(LINKS.key, problem, "use fewer or smaller links, or recompress the adapter that the chain goes on from"));
    }
    if ranks[0] != config.rank {
        let problem = format!("the first link has rank {}, --rank is {}", ranks[0], config.rank);
        return Err(Error::config("rank", problem, "leave out --rank where --links is given"));
    }
    if let Some(links) = ends.links().filter(|&n| n != ranks.len()) {
        let problem = format!("{} has room for {links} links, there are {}", ends.key(), ranks.len());
        return Err(Error::config(LINKS.key, problem, "give one knot less than links, or one entry for each link"));
    }
    let one_each = |key: &'static str, list: Vec<f64>| match list.len() {
        0 => Ok(None),
        n if n == ranks.len() && list.iter().all(|&x| x > 0.0) => Ok(Some(list)),
        n => Err(Error::config(key, format!("has {n} entries for {} links", ranks.len()), "give a positive number for each link")),
    };
    let (alphas, lrs) =
        (one_each(LINK_ALPHAS.key, numbers(config, LINK_ALPHAS.key)?)?, one_each(LINK_LRS.key, numbers(config, LINK_LRS.key)?)?);
    let rslora = config.switch(RSLORA.key)?;
    let divisor = |rank: usize| if rslora { (rank as f64).sqrt() } else { rank as f64 };
    let link = |(j, &rank): (usize, &usize)| LinkConfig {
        rank,
        alpha: alphas.as_ref().map_or(config.alpha / divisor(ranks[0]) * divisor(rank), |list| list[j]),
        lr: lrs.as_ref().map(|list| list[j]),
    };
    let prune = config.number(KNOT_PRUNE.key)?;
    let chain = ChainConfig {
        links: ranks.iter().enumerate().map(link).collect(),
        inherited,
        ends,
        optimizer: match config.text(KNOT_OPTIMIZER.key)? {
            "keep" => KnotOptimizer::Keep,
            "magnitude" => KnotOptimizer::Magnitude(prune),
            "random" => KnotOptimizer::Random(prune),
            _ => KnotOptimizer::Reset,
        },
        schedule: match config.text(LINK_SCHEDULE.key)? {
            "global" => LinkSchedule::Global,
            "jagged" => LinkSchedule::Jagged { warmup: config.number(LINK_WARMUP.key)? as u64 },
            _ => LinkSchedule::Link,
        },
        init: match config.text(INIT_A.key)? {
            "gaussian" => LinkInit::Gaussian,
            "grad-svd" => LinkInit::GradSvd,
            _ => LinkInit::Kaiming,
        },
        storage: if config.text(LINK_STORAGE.key)? == "f16" { Storage::F16 } else { Storage::F32 },
        rac: config.text(CHAIN_MODE.key)? == "rac",
        restart_only: config.switch(RESTART_ONLY.key)?,
        patience: config.number(KNOT_PATIENCE.key)? as u64,
        gap: config.number(KNOT_GAP.key)?,
        gap_radius: config.number(GAP_RADIUS.key)?,
        probes: config.number(KNOT_PROBES.key)? as usize,
        rslora,
        lora_plus: config.number(LORA_PLUS.key)?,
    };
    check(&chain)?;
    Ok(chain)
}

/// Refuses what is fine alone and not together.
fn check(chain: &ChainConfig) -> Result<()> {
    let needs_probes = |key, on: bool| match on && chain.probes == 0 {
        true => Err(Error::config(key, format!("needs power iterations, {} is 0", KNOT_PROBES.key), "set --knot-probes to 1 or more")),
        false => Ok(()),
    };
    needs_probes(INIT_A.key, chain.init == LinkInit::GradSvd)?;
    needs_probes(KNOT_GAP.key, chain.gap > 0.0)?;
    let with_rac = |key, on: bool, why: &str| match on && chain.rac {
        true => Err(Error::config(key, why, "use --chain-mode cola")),
        false => Ok(()),
    };
    with_rac(INIT_A.key, chain.init == LinkInit::GradSvd, "rac draws A at random")?;
    with_rac(KNOT_GAP.key, chain.gap > 0.0, "the gap needs gradients of A, which rac has not")
}

/// Where links end: one of three ways to say it, or none.
fn ends(config: &AdapterConfig) -> Result<Ends> {
    let given = [KNOTS.key, LINK_STEPS.key, LINK_EPOCHS.key].map(|key| counts(config, key));
    let [knots, steps, epochs] = given;
    let mut all = vec![(KNOTS.key, Ends::Knots(knots?)), (LINK_STEPS.key, Ends::Steps(steps?)), (LINK_EPOCHS.key, Ends::Epochs(epochs?))];
    all.retain(|(_, ends)| ends.links().is_some());
    if let [(one, _), (other, _), ..] = all[..] {
        return Err(Error::config(other, format!("given together with `{one}`"), "give one of the two"));
    }
    Ok(all.pop().map_or(Ends::Equal, |(_, ends)| ends))
}

fn list(config: &AdapterConfig, key: &'static str) -> Result<Vec<Value>> {
    config.options.get(key).and_then(Value::as_array).cloned().ok_or_else(|| config.missing(key))
}

fn counts(config: &AdapterConfig, key: &'static str) -> Result<Vec<u64>> {
    Ok(list(config, key)?.iter().filter_map(crate::settings::whole).collect())
}

fn numbers(config: &AdapterConfig, key: &'static str) -> Result<Vec<f64>> {
    Ok(list(config, key)?.iter().filter_map(Value::as_f64).collect())
}
