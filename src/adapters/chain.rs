//! The chain of a COLA run: what its links are, and where their factors lie while one of them trains.
//!
//! At every site A (and likewise Bt) is one stack of rows: a **slot** of as many rows as the largest link has, whose last rows are the link
//! that trains, then the frozen links, newest first. The rows from that link's first on are one matrix, so one row of the sites table
//! describes the site at every stage, the optimizer always covers the slot, and a knot moves values and rewrites tables but records
//! nothing anew. In that order sums over the rank run as they ran before the knot, with zeros before them: where scales agree, a knot
//! changes no bit of the forward pass, unless frozen links are to be stored as f16, which rounds a link once.

use std::collections::BTreeMap;

use half::f16;

use super::config::AdapterConfig;
use super::init::initial_values;
use super::layout::{AdapterLayout, SiteAdapter};
use super::params::{ALIGN, Init, ParamLayout, ParamSpec, Storage};
use super::patterns::select_sites;
use super::product::Rank;
use super::product::Slice;
use super::site::Site;
use super::{embeddings, norms};
use crate::config::ModelConfig;
use crate::{Error, Result};

/// One link as the settings have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkConfig {
    /// Rank at every site.
    pub rank: usize,
    /// alpha.
    pub alpha: f64,
    /// Peak learning rate; the run's without one.
    pub lr: Option<f64>,
}

/// Where links end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ends {
    /// All are equally long.
    Equal,
    /// After these steps of the run.
    Knots(Vec<u64>),
    /// Each link has so many steps.
    Steps(Vec<u64>),
    /// Each link has so many passes over the data.
    Epochs(Vec<u64>),
}

impl Ends {
    /// The number of links that they are for, where they say.
    pub fn links(&self) -> Option<usize> {
        match self {
            Self::Knots(list) if !list.is_empty() => Some(list.len() + 1),
            Self::Steps(list) | Self::Epochs(list) if !list.is_empty() => Some(list.len()),
            _ => None,
        }
    }

    /// The setting that they come from.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Equal => "links",
            Self::Knots(_) => "knots",
            Self::Steps(_) => "link-steps",
            Self::Epochs(_) => "link-epochs",
        }
    }
}

/// What happens to AdamW's state at a knot. Shares are of each parameter's elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KnotOptimizer {
    /// Moments and step start anew.
    Reset,
    /// Nothing.
    Keep,
    /// The moments of the share with the smallest first moments are forgotten.
    Magnitude(f64),
    /// The moments of a random share are forgotten.
    Random(f64),
}

/// How the learning rate follows the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkSchedule {
    /// The run's schedule once over all steps.
    Global,
    /// The run's schedule anew for each link.
    Link,
    /// As global, with a linear warm-up after each knot to what the schedule has at the warm-up's end (ReLoRA).
    Jagged {
        /// Steps.
        warmup: u64,
    },
}

/// How the A of a link starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkInit {
    /// Uniform within `1/sqrt(in)`, as LoRA's.
    Kaiming,
    /// Normal with deviation `1/rank`, as PEFT's `gaussian`.
    Gaussian,
    /// The top right singular vectors of the gradient, as long as Kaiming's rows are on average.
    GradSvd,
}

/// A chain as the settings describe it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainConfig {
    /// The links to train, at least one.
    pub links: Vec<LinkConfig>,
    /// Ranks of the frozen links before them, oldest first.
    pub inherited: Vec<usize>,
    /// Where links end.
    pub ends: Ends,
    /// What a knot does to AdamW.
    pub optimizer: KnotOptimizer,
    /// The learning rate.
    pub schedule: LinkSchedule,
    /// How A starts.
    pub init: LinkInit,
    /// How frozen links are stored.
    pub storage: Storage,
    /// Only B trains.
    pub rac: bool,
    /// Knots restart optimizer and rate only.
    pub restart_only: bool,
    /// Evaluations without a lower loss after which a link ends early; 0 never.
    pub patience: u64,
    /// Share of the first gap below which a link ends early; 0 never.
    pub gap: f64,
    /// Nuclear norm of the ball that the gap is measured over.
    pub gap_radius: f64,
    /// Power iterations at a knot.
    pub probes: usize,
    /// Scales are alpha / sqrt(rank).
    pub rslora: bool,
    /// Learning rate of B over A's.
    pub lora_plus: f64,
}

/// Name of a link, which prefixes its parameters: `link0`.
pub fn link_name(number: usize) -> String {
    format!("link{number}")
}

impl ChainConfig {
    /// Links with factors of their own: one when knots only restart.
    fn held(&self) -> usize {
        if self.restart_only { 1 } else { self.links.len() }
    }

    /// Rows of the slot: the largest link's.
    fn slot(&self) -> usize {
        self.links[..self.held()].iter().map(|link| link.rank).max().unwrap_or(1)
    }

    /// Number, counted over inherited links too, of the link that trains at `stage`.
    pub fn number(&self, stage: usize) -> usize {
        self.inherited.len() + if self.restart_only { 0 } else { stage }
    }

    /// The scale of the link that trains at `stage`.
    pub fn scale(&self, stage: usize) -> f32 {
        let link = self.links[if self.restart_only { 0 } else { stage }];
        Rank { rank: link.rank, alpha: link.alpha, rslora: self.rslora }.scale()
    }

    /// Where everything lies while link `stage` (from 0) trains. Sites, number of words and optimizer groups are the same at every stage.
    ///
    /// Frozen links have the scale of the one that trains: what their own differed by is in their B ([`carry`]).
    ///
    /// # Errors
    /// When a target matches nothing, or a rank is larger than a layer.
    pub fn layout(&self, config: &AdapterConfig, model: &ModelConfig, stage: usize) -> Result<AdapterLayout> {
        let stage = stage.min(self.held() - 1);
        let frozen: Vec<(usize, usize)> = self
            .inherited
            .iter()
            .copied()
            .chain(self.links[..stage].iter().map(|link| link.rank))
            .enumerate()
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let slot = self.slot();
        let most_frozen = self.inherited.iter().sum::<usize>() + self.links[..self.held() - 1].iter().map(|l| l.rank).sum::<usize>();
        let mut params = ParamLayout::default();
        let mut sites = Vec::new();
        for site in select_sites(&config.targets, model)? {
            let (out, inputs) = site.projection.shape(model);
            let most = out.min(inputs);
            if let Some(link) = self.links.iter().find(|link| link.rank > most) {
                let problem = format!("a link of rank {} at {site}, whose weight is {out} x {inputs}", link.rank);
                return Err(Error::config("links", problem, format!("give ranks up to {most}")));
            }
            let mut stack = |half: Half| {
                let begin = params.words;
                let mut indices = vec![params.push(self.spec(half, self.number(stage), site, model, self.links[stage].rank, Some(slot)))];
                indices.extend(frozen.iter().map(|&(number, rank)| params.push(self.spec(half, number, site, model, rank, None))));
                let width = if half == Half::A { inputs } else { out };
                let end = begin + slot * width + most_frozen * self.storage.row_words(width);
                params.words = params.words.max(end.next_multiple_of(ALIGN));
                indices
            };
            let (a, b) = (stack(Half::A), stack(Half::B));
            let ranks = std::iter::once(self.links[stage].rank).chain(frozen.iter().map(|&(_, rank)| rank));
            let scale = self.scale(stage);
            let divisor = |rank: usize| if self.rslora { (rank as f64).sqrt() } else { rank as f64 };
            let first = self.links[stage];
            let slices = ranks
                .zip(a.into_iter().zip(b))
                .map(|(rank, (a, b))| Slice { a, b, rank, alpha: first.alpha / divisor(first.rank) * divisor(rank), scale })
                .collect();
            sites.push(SiteAdapter { site, slices, scalings: Vec::new(), max_rank: slot + most_frozen, max_trained: slot });
        }
        let mut layout = AdapterLayout {
            sites,
            params,
            norms: Vec::new(),
            embeddings: None,
            dropout: config.dropout as f32,
            half: self.storage == Storage::F16,
            rslora: self.rslora,
            blocks: model.num_hidden_layers,
            experts: None,
        };
        if config.train_norms {
            norms::append(&mut layout, model);
        }
        if config.train_embeddings {
            embeddings::append(&mut layout, model.hidden_size, &config.tokens);
        }
        Ok(layout)
    }

    /// One factor of one link; with `slot` it is the one that trains, else it is frozen and follows the link before it.
    fn spec(&self, half: Half, number: usize, site: Site, model: &ModelConfig, rank: usize, slot: Option<usize>) -> ParamSpec {
        let (out, inputs) = site.projection.shape(model);
        let a = half == Half::A;
        let init = match (a, self.init) {
            (false, _) => Init::Zeros,
            (true, LinkInit::Gaussian) => Init::Normal { deviation: 1.0 / rank as f64 },
            (true, _) => Init::Uniform { bound: 1.0 / (inputs as f64).sqrt() },
        };
        ParamSpec {
            name: format!("{}.{site}.lora_{}", link_name(number), if a { "A" } else { "B" }),
            shape: if a { vec![rank, inputs] } else { vec![out, rank] },
            transposed: !a,
            offset: 0,
            adjacent: slot.is_none(),
            padding: slot.map_or(0, |slot| (slot - rank) * if a { inputs } else { out }),
            init,
            lr_multiplier: if a { 1.0 } else { self.lora_plus },
            weight_decay: true,
            trainable: slot.is_some() && !(a && self.rac),
            storage: if slot.is_some() { Storage::F32 } else { self.storage },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    A,
    B,
}

/// The values of `old`'s buffer in the places of `new`, by name; parameters that are new get their initial values. Where the scale of a site
/// changes, the quotient goes into the B of the products that stay, so that each adds what it added (exactly, if the quotient is a
/// power of two). A link that is stored as f16 from now on is rounded.
///
/// # Errors
/// When a number is too large for f16.
///
/// # Panics
/// When `values` is no buffer of `old`.
pub fn carry(old: &AdapterLayout, new: &AdapterLayout, values: &[f32], seed: u64) -> Result<Vec<f32>> {
    let places: BTreeMap<&str, &ParamSpec> = old.params.specs.iter().map(|spec| (spec.name.as_str(), spec)).collect();
    let mut buffer = vec![0.0; new.params.words];
    for (was, site) in old.sites.iter().zip(&new.sites) {
        let scale = |adapter: &SiteAdapter| adapter.slices.first().map_or(1.0, |slice| f64::from(slice.scale));
        let quotient = (scale(was) / scale(site)) as f32;
        for slice in &site.slices {
            for (index, factor) in [(slice.a, 1.0), (slice.b, quotient)] {
                let spec = &new.params.specs[index];
                let moved = places.get(spec.name.as_str()).map(|place| place.to_hf(values).iter().map(|x| x * factor).collect());
                let moved = moved.unwrap_or_else(|| initial_values(spec, seed));
                check_range(spec, &moved)?;
                spec.put_hf(&moved, &mut buffer);
            }
        }
    }
    let embeddings = |layout: &AdapterLayout| layout.embeddings.as_ref().map(|own| own.param);
    for (was, now) in old.norms.iter().copied().chain(embeddings(old)).zip(new.norms.iter().copied().chain(embeddings(new))) {
        new.params.specs[now].put_hf(&old.params.specs[was].to_hf(values), &mut buffer);
    }
    Ok(buffer)
}

/// Refuses what f16 would make infinite.
///
/// # Errors
/// Names the parameter and the number.
pub fn check_range(spec: &ParamSpec, values: &[f32]) -> Result<()> {
    match values.iter().find(|x| spec.storage == Storage::F16 && x.abs() > f16::MAX.to_f32()) {
        Some(x) => {
            let problem = format!("f16 holds numbers up to {}, `{}` has {x}", f16::MAX, spec.name);
            Err(Error::config("link-storage", problem, "keep links as f32, or train with a lower --lr or more --weight-decay"))
        }
        None => Ok(()),
    }
}
