//! MixLoRA adapters as their authors have them on disk: `adapter_config.json` ([`config`]) and `adapter_model.safetensors` or
//! `adapter_model.bin` with their names of tensors ([`names`]), beside `weblora.json`, our note.
//!
//! A router chooses experts for every token, so there is no one update of the weights: none of this can be merged into a base, joined with
//! other adapters, or written as plain LoRA.

mod card;
pub mod config;
pub mod names;
mod read;
pub mod write;

use self::config::{LoraSettings, MixLoraConfig};
use super::base;
use super::handed_out::base_name;
use super::peft::{Note, PeftSite};
use super::peft_config::{by_pattern, most, target_modules};
use crate::adapters::experts::{Balance, Routing, Strategy};
use crate::adapters::patterns::json_number;
use crate::adapters::{AdapterLayout, Site, Slice};
use crate::formats::BaseId;
use crate::settings::Map;
use crate::{Error, Result};

/// The experts of one feed-forward layer.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertSet {
    /// Which layer.
    pub site: Site,
    /// One product an expert, all of one rank.
    pub experts: Vec<PeftSite>,
}

/// The router of one block.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// Which block.
    pub layer: usize,
    /// `[experts, d]`.
    pub values: Vec<f32>,
}

/// A MixLoRA adapter, ready to be written, or read and checked against a model.
#[derive(Debug, Clone, PartialEq)]
pub struct MixLoraAdapter {
    /// How rows are routed.
    pub routing: Routing,
    /// Plain LoRA of attention, in the model's order; may be empty.
    pub attention: Vec<PeftSite>,
    /// Layers with experts, in the model's order; at least one.
    pub experts: Vec<ExpertSet>,
    /// Routers of the blocks that have such layers.
    pub gates: Vec<Gate>,
    /// Scales are alpha / sqrt(rank).
    pub rslora: bool,
    /// Blocks of the model, with an adapter or without.
    pub blocks: usize,
    /// Dropout of the training: of attention, of the experts.
    pub dropout: (f64, f64),
    /// What the base was called.
    pub base_name: Option<String>,
    /// Our note, where there is one.
    pub note: Option<Note>,
}

impl MixLoraAdapter {
    /// The adapter whose parameters are in `values`, a flat buffer of `layout.params`; `None` where the layout has no experts.
    pub fn from_layout(layout: &AdapterLayout, values: &[f32], base_name: Option<String>, note: Option<Note>) -> Option<Self> {
        let experts = layout.experts.as_ref()?;
        let hf = |index: usize| layout.params.specs[index].to_hf(values);
        let pair = |site: Site, slice: &Slice| PeftSite { site, rank: slice.rank, alpha: slice.alpha, a: hf(slice.a), b: hf(slice.b) };
        let set = |own: &crate::adapters::experts::ExpertSite| ExpertSet {
            site: own.site,
            experts: own.experts.iter().map(|slice| pair(own.site, slice)).collect(),
        };
        // f32 to f64 would write 0.05 as 0.05000000074505806.
        let decimal = |x: f32| x.to_string().parse().unwrap_or_default();
        Some(Self {
            routing: experts.routing,
            attention: layout.sites.iter().filter_map(|own| Some(pair(own.site, own.slices.first()?))).collect(),
            experts: experts.sites.iter().map(set).collect(),
            gates: experts.routers.iter().map(|router| Gate { layer: router.layer, values: hf(router.param) }).collect(),
            rslora: layout.rslora,
            blocks: layout.blocks,
            dropout: (decimal(layout.dropout), decimal(experts.dropout)),
            base_name,
            note,
        })
    }

    /// The adapter's values in the flat buffer of a run that continues from it.
    ///
    /// # Errors
    /// When the run's sites, experts, ranks or scales are not the adapter's.
    pub fn to_buffer(&self, name: &str, layout: &AdapterLayout) -> Result<Vec<f32>> {
        let differs = |what: &str, theirs: String, ours: String| Error::Adapter {
            adapter: name.to_owned(),
            problem: format!("it has {theirs} {what}, the run {ours}"),
            hint: "leave out --rank, --alpha, --targets, --rslora and the settings of experts to take the adapter's own",
        };
        let Some(experts) = &layout.experts else {
            return Err(Error::Adapter {
                adapter: name.to_owned(),
                problem: "it has routed experts, the run has none".to_owned(),
                hint: "leave out --method to train the adapter on",
            });
        };
        let counts = [
            ("experts in a block", self.routing.experts, experts.routing.experts),
            ("layers with experts", self.experts.len(), experts.sites.len()),
            ("layers of attention", self.attention.len(), layout.sites.len()),
            ("routers", self.gates.len(), experts.routers.len()),
        ];
        if let Some((what, theirs, ours)) = counts.into_iter().find(|(_, theirs, ours)| theirs != ours) {
            return Err(differs(what, theirs.to_string(), ours.to_string()));
        }
        let ours = layout.sites.iter().flat_map(|own| own.slices.iter().map(|slice| (own.site, *slice)));
        let ours = ours.chain(experts.sites.iter().flat_map(|own| own.experts.iter().map(|slice| (own.site, *slice))));
        let mut buffer = vec![0.0; layout.params.words];
        for ((site, slice), theirs) in ours.zip(self.pairs()) {
            if (site, slice.rank, slice.alpha, layout.rslora) != (theirs.site, theirs.rank, theirs.alpha, self.rslora) {
                let words = |site: Site, rank: usize, alpha: f64| format!("{site} with rank {rank} and alpha {alpha}");
                return Err(differs("", words(theirs.site, theirs.rank, theirs.alpha), words(site, slice.rank, slice.alpha)));
            }
            layout.params.specs[slice.a].put_hf(&theirs.a, &mut buffer);
            layout.params.specs[slice.b].put_hf(&theirs.b, &mut buffer);
        }
        for (router, gate) in experts.routers.iter().zip(&self.gates) {
            layout.params.specs[router.param].put_hf(&gate.values, &mut buffer);
        }
        Ok(buffer)
    }

    /// All products: of attention, then of the experts.
    pub fn pairs(&self) -> impl Iterator<Item = &PeftSite> {
        self.attention.iter().chain(self.experts.iter().flat_map(|set| &set.experts))
    }

    /// One product of every site.
    fn sites(&self) -> impl Iterator<Item = (&PeftSite, bool)> {
        self.attention.iter().map(|site| (site, false)).chain(self.experts.iter().filter_map(|set| Some((set.experts.first()?, true))))
    }

    /// What `adapter_config.json` says of this adapter.
    pub fn config(&self) -> MixLoraConfig {
        let lora = |routed: bool, dropout: f64| {
            let own = || self.sites().filter(|(_, own)| *own == routed).map(|(site, _)| site);
            let r = most(own().map(|site| site.rank as f64)) as usize;
            LoraSettings { r, alpha: most(own().map(|site| site.alpha)), dropout }
        };
        let experts = lora(true, self.dropout.1);
        let attention =
            if self.attention.is_empty() { LoraSettings { dropout: self.dropout.0, ..experts } } else { lora(false, self.dropout.0) };
        let general = |routed: bool| if routed { experts } else { attention };
        let numbers = |own: fn(&PeftSite) -> f64, of: fn(LoraSettings) -> f64| {
            let of_site = |(site, routed): (&PeftSite, bool)| (site.site, own(site), of(general(routed)));
            self.sites().map(of_site).collect::<Vec<_>>()
        };
        let mut sites: Vec<Site> = self.sites().map(|(site, _)| site.site).collect();
        sites.sort();
        MixLoraConfig {
            routing: self.routing,
            attention,
            experts,
            rslora: self.rslora,
            target_modules: target_modules(&sites, self.blocks),
            rank_pattern: by_pattern(&numbers(|site| site.rank as f64, |lora| lora.r as f64)),
            alpha_pattern: by_pattern(&numbers(|site| site.alpha, |lora| lora.alpha)),
            base_name: self.base_name.as_deref().map(base_name),
        }
    }

    /// The settings of a run that continues from this adapter: its method, routing, ranks, alphas and sites.
    pub fn settings(&self) -> Map {
        let (config, r) = (self.config(), &self.routing);
        let patterns = |p| serde_json::to_value(p).unwrap_or_default();
        let mut map = Map::new();
        let mut set = |key: &str, value: serde_json::Value| map.insert(key.to_owned(), value);
        set("method", config::strategy_name(r.strategy).into());
        set("experts", r.experts.into());
        match r.strategy {
            Strategy::TopK => drop(set("top-k", r.top_k.into())),
            Strategy::TopP => {
                set("top-p", json_number(r.top_p));
                set("router-temperature", json_number(r.temperature));
                set("renormalize", r.renormalize.into());
            }
            Strategy::Switch => {
                set("expert-capacity", r.capacity.into());
                set("z-coef", json_number(r.z_coef));
            }
        }
        set("aux-coef", json_number(r.aux_coef));
        set("jitter", json_number(r.jitter));
        set("balance", if r.balance == Balance::Concatenated { "concatenated" } else { "per-layer" }.into());
        set("rank", config.attention.r.into());
        set("alpha", json_number(config.attention.alpha));
        set("expert-rank", config.experts.r.into());
        set("expert-alpha", json_number(config.experts.alpha));
        set("targets", config.target_modules.into());
        set("rslora", self.rslora.into());
        set("rank-pattern", patterns(&config.rank_pattern));
        set("alpha-pattern", patterns(&config.alpha_pattern));
        map
    }

    /// Numbers in attention's products, in the experts', and in the routers.
    pub fn parameters(&self) -> [usize; 3] {
        let of = |site: &PeftSite| site.a.len() + site.b.len();
        let experts = self.experts.iter().flat_map(|set| &set.experts);
        [self.attention.iter().map(of).sum(), experts.map(of).sum(), self.gates.iter().map(|gate| gate.values.len()).sum()]
    }

    /// Whether every product of it is zero.
    pub fn is_zero(&self) -> bool {
        let zero = |values: &[f32]| values.iter().all(|x| *x == 0.0);
        self.pairs().all(|site| zero(&site.b) || zero(&site.a))
    }

    /// What to say of an adapter that [is zero](Self::is_zero).
    pub fn zero_problem(&self) -> Option<String> {
        self.is_zero().then(|| base::all_zero(self.note.as_ref()))
    }

    /// The base that it was trained on, as far as it says.
    pub fn base(&self) -> Option<BaseId> {
        base::noted(self.note.as_ref(), self.base_name.as_deref())
    }

    /// As [`super::peft::PeftAdapter::check_base`].
    ///
    /// # Errors
    /// When both bases are known and differ, and `strict` says that this is no warning.
    pub fn check_base(&self, name: &str, base: &BaseId, strict: bool) -> Result<Option<String>> {
        base::check(self.base(), name, base, strict)
    }
}
