//! LoRA adapters in the folder layout of Hugging Face PEFT: `adapter_config.json`, `adapter_model.safetensors`, and `weblora.json`, our note of
//! which base the adapter belongs to, which PEFT does not look at.
//!
//! A site's tensors are `base_model.model.{module}.lora_A.weight` `[rank, in]` and `….lora_B.weight` `[out, rank]`. Which modules have an
//! adapter, and of what rank, is told by the tensors; the configuration must agree with them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::handed_out::base_name;
use super::peft_config::{PeftConfig, by_pattern, most, target_modules};
use crate::adapters::embeddings::EmbeddingRows;
use crate::adapters::patterns::json_number;
use crate::adapters::{AdapterLayout, Patterns, Site, Slice, norms};
use crate::settings::Map;
use crate::text::templates;
use crate::{Error, Result};

/// One site of a plain LoRA adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftSite {
    /// Where.
    pub site: Site,
    /// Rows of A.
    pub rank: usize,
    /// alpha.
    pub alpha: f64,
    /// A, `[rank, in]`.
    pub a: Vec<f32>,
    /// B, `[out, rank]`.
    pub b: Vec<f32>,
}

impl PeftSite {
    /// What multiplies B A x: alpha / rank, or alpha / sqrt(rank).
    pub fn scale(&self, rslora: bool) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if rslora { rank.sqrt() } else { rank }
    }
}

/// A plain LoRA adapter, ready to be written, or read and checked against a model.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftAdapter {
    /// Its sites, in the model's order; at least one.
    pub sites: Vec<PeftSite>,
    /// Weights of all norms, in the model's order; empty where they are the base's.
    pub norms: Vec<Vec<f32>>,
    /// What is added to the base's embeddings of some tokens.
    pub embeddings: Option<EmbeddingRows>,
    /// Scales are alpha / sqrt(rank).
    pub rslora: bool,
    /// Blocks of the model, with an adapter or without.
    pub blocks: usize,
    /// Dropout of the training that made it.
    pub dropout: f64,
    /// What the base was called.
    pub base_name: Option<String>,
    /// Our note, where there is one.
    pub note: Option<Note>,
}

/// What we know about an adapter that PEFT has no place for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Note {
    /// Version of the program that wrote it.
    pub weblora: String,
    /// Identity of the base weights (`ModelFile::content_hash`).
    pub base_hash: String,
    /// The format of most of the base's weights; empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub base_format: String,
    /// Optimizer steps it was trained for.
    pub steps: u64,
    /// Rows that it was trained on, where they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How the run stretched the model's rotary angles, in words, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub angles: Option<String>,
    /// The settings of the run.
    pub config: Map,
}

impl PeftAdapter {
    /// The adapter whose parameters are in `values`, a flat buffer of `layout.params`. A site with several products becomes their
    /// rank sum: A and scaled B side by side, with alpha such that PEFT's scale is 1. Modules with learnable scales have those in B, and an
    /// alpha that keeps their common scale, so that B is bit for bit what the kernels read.
    pub fn from_layout(layout: &AdapterLayout, values: &[f32], base_name: Option<String>, note: Option<Note>) -> Self {
        let hf = |index: usize| layout.params.specs[index].to_hf(values);
        let site = |adapter: &crate::adapters::SiteAdapter| {
            if let (&[slice], true) = (&adapter.slices[..], adapter.scalings.is_empty()) {
                return PeftSite { site: adapter.site, rank: slice.rank, alpha: slice.alpha, a: hf(slice.a), b: hf(slice.b) };
            }
            let rank: usize = adapter.slices.iter().map(|slice| slice.rank).sum();
            let a = adapter.slices.iter().flat_map(|slice| hf(slice.a)).collect();
            // What multiplies each row of a product's B: one number, or one per output.
            let factors = |(i, slice): (usize, &Slice)| adapter.scalings.get(i).map_or_else(|| vec![slice.scale], |s| hf(*s));
            let parts: Vec<(Vec<f32>, usize, Vec<f32>)> =
                adapter.slices.iter().enumerate().map(|(i, slice)| (hf(slice.b), slice.rank, factors((i, slice)))).collect();
            let out = parts.first().map_or(0, |(b, rank, _)| b.len() / rank);
            let row = |o: usize| {
                parts.iter().flat_map(move |(b, r, factors)| {
                    let factor = factors[if factors.len() == 1 { 0 } else { o }];
                    b[o * r..(o + 1) * r].iter().map(move |x| factor * x)
                })
            };
            let products = adapter.slices.len() as f64;
            let alpha = match (adapter.scalings.first().and(adapter.slices.first()), layout.rslora) {
                (Some(slice), true) => slice.alpha * products.sqrt(),
                (Some(slice), false) => slice.alpha * products,
                (None, true) => (rank as f64).sqrt(),
                (None, false) => rank as f64,
            };
            PeftSite { site: adapter.site, rank, alpha, a, b: (0..out).flat_map(row).collect() }
        };
        let sites = layout.sites.iter().map(site).collect();
        // f32 to f64 would write 0.05 as 0.05000000074505806.
        let dropout = layout.dropout.to_string().parse().unwrap_or_default();
        let norms = layout.norms.iter().map(|param| hf(*param)).collect();
        let embeddings = EmbeddingRows::of(layout, values);
        Self { sites, norms, embeddings, rslora: layout.rslora, blocks: layout.blocks, dropout, base_name, note }
    }

    /// The adapter's values in the flat buffer of a run that continues from it.
    ///
    /// # Errors
    /// When the run's sites, ranks or scales are not the adapter's.
    pub fn to_buffer(&self, name: &str, layout: &AdapterLayout) -> Result<Vec<f32>> {
        let differs = |problem: String| Error::Adapter {
            adapter: name.to_owned(),
            problem,
            hint: "leave out --rank, --alpha, --targets and --rslora to take the adapter's own",
        };
        if let Some(site) = layout.sites.iter().find(|site| !site.scalings.is_empty()) {
            return Err(Error::Adapter {
                adapter: name.to_owned(),
                problem: format!("it has only the sum of its modules, and the run trains {} at {}", site.slices.len(), site.site),
                hint: "go on from the checkpoint of its run with --resume, or from this adapter with --method lora",
            });
        }
        if layout.experts.is_some() {
            return Err(Error::Adapter {
                adapter: name.to_owned(),
                problem: "it is plain LoRA, and the run trains routed experts".to_owned(),
                hint: "start them anew without --init-adapter, or train the adapter on with --method lora",
            });
        }
        let mut buffer = vec![0.0; layout.params.words];
        self.put_beside(name, layout, &mut buffer)?;
        if self.sites.len() != layout.sites.len() {
            return Err(differs(format!("it has {} sites, the run has {}", self.sites.len(), layout.sites.len())));
        }
        for (ours, theirs) in layout.sites.iter().zip(&self.sites) {
            let [slice] = ours.slices[..] else {
                return Err(differs(format!("the run has {} products at {}", ours.slices.len(), ours.site)));
            };
            if (ours.site, slice.rank, slice.alpha, layout.rslora) != (theirs.site, theirs.rank, theirs.alpha, self.rslora) {
                let found = format!("{} with rank {} and alpha {}", theirs.site, theirs.rank, theirs.alpha);
                return Err(differs(format!("it has {found}, the run {} with rank {} and alpha {}", ours.site, slice.rank, slice.alpha)));
            }
            layout.params.specs[slice.a].put_hf(&theirs.a, &mut buffer);
            layout.params.specs[slice.b].put_hf(&theirs.b, &mut buffer);
        }
        Ok(buffer)
    }

    /// Puts its norms and embeddings into the buffer of a run that goes on from them; a run may train those where the adapter has none.
    ///
    /// # Errors
    /// When the adapter has some and the run none.
    pub(super) fn put_beside(&self, name: &str, layout: &AdapterLayout, buffer: &mut [f32]) -> Result<()> {
        let refused = |what: &str, hint| {
            let problem = format!("it has {what} of its own, the run trains none");
            Err(Error::Adapter { adapter: name.to_owned(), problem, hint })
        };
        if layout.norms.is_empty() && !self.norms.is_empty() {
            return refused("norms", "leave out train-norms = false to take the adapter's own");
        }
        if self.embeddings.as_ref().is_some_and(|own| !own.fill(layout, buffer)) {
            return refused("embeddings", "leave out train-embeddings = false to take the adapter's own");
        }
        norms::fill(layout, &self.norms, buffer);
        Ok(())
    }

    /// The settings of a run that continues from this adapter: its ranks, alphas and sites.
    pub fn settings(&self) -> Map {
        let config = self.config();
        let patterns = |p: &Patterns| serde_json::to_value(p).unwrap_or(Value::Null);
        let mut map = Map::new();
        map.insert("rank".into(), config.r.into());
        map.insert("alpha".into(), json_number(config.lora_alpha));
        map.insert("targets".into(), config.target_modules.into());
        map.insert("rslora".into(), config.use_rslora.into());
        if !self.norms.is_empty() {
            map.insert("train-norms".into(), true.into());
        }
        if self.embeddings.is_some() {
            map.insert("train-embeddings".into(), true.into());
        }
        map.insert("rank-pattern".into(), patterns(&config.rank_pattern));
        map.insert("alpha-pattern".into(), patterns(&config.alpha_pattern));
        map
    }

    /// What `adapter_config.json` says of this adapter. The rank and alpha of most sites are the general ones, the others go by pattern.
    pub fn config(&self) -> PeftConfig {
        let r = most(self.sites.iter().map(|site| site.rank as f64)) as usize;
        let lora_alpha = most(self.sites.iter().map(|site| site.alpha));
        let sites: Vec<Site> = self.sites.iter().map(|site| site.site).collect();
        PeftConfig {
            r,
            lora_alpha,
            lora_dropout: self.dropout,
            use_rslora: self.rslora,
            rank_pattern: by_pattern(&self.numbers(r as f64, |site| site.rank as f64)),
            alpha_pattern: by_pattern(&self.numbers(lora_alpha, |site| site.alpha)),
            target_modules: target_modules(&sites, self.blocks),
            modules_to_save: if self.norms.is_empty() { Vec::new() } else { norms::MODULES.map(str::to_owned).to_vec() },
            base_model_name_or_path: self.base_name.as_deref().map(base_name),
        }
    }

    /// Its sites with a number of each and the general one.
    fn numbers(&self, general: f64, number: impl Fn(&PeftSite) -> f64) -> Vec<(Site, f64, f64)> {
        self.sites.iter().map(|site| (site.site, number(site), general)).collect()
    }

    /// The Jinja source of the chat template that the adapter was trained with, where that was not the base's own.
    ///
    /// # Errors
    /// When its note names a template that there is not.
    pub fn chat_template(&self) -> Result<Option<&str>> {
        template_of(self.note.as_ref())
    }

    /// The same adapter with other sites.
    pub(super) fn with(&self, sites: Vec<PeftSite>, note: Option<Note>) -> Self {
        let (norms, embeddings) = (self.norms.clone(), self.embeddings.clone());
        Self { sites, norms, embeddings, base_name: self.base_name.clone(), note, ..*self }
    }

    /// The largest rank of a site.
    pub fn max_rank(&self) -> usize {
        self.sites.iter().map(|site| site.rank).max().unwrap_or(0)
    }

    /// Numbers that it holds, in its factors and beside them.
    pub fn parameters(&self) -> usize {
        let factors: usize = self.sites.iter().map(|site| site.a.len() + site.b.len()).sum();
        factors + self.beside().iter().map(|(_, numbers)| numbers).sum::<usize>()
    }

    /// What it has beside its factors: its name and how many numbers.
    pub fn beside(&self) -> Vec<(&'static str, usize)> {
        let norms = self.norms.iter().map(Vec::len).sum();
        let embeddings = self.embeddings.as_ref().map_or(0, |own| own.delta.len());
        [("norms", norms), ("embeddings", embeddings)].into_iter().filter(|(_, numbers)| *numbers > 0).collect()
    }

    /// How many of its numbers are beside its factors, for people; nothing where none are.
    pub fn beside_words(&self) -> String {
        let beside: Vec<String> = self.beside().iter().map(|(what, numbers)| format!("{numbers} in {what}")).collect();
        if beside.is_empty() { String::new() } else { format!(" ({})", beside.join(", ")) }
    }
}

/// The Jinja source of the chat template that a note names.
pub(super) fn template_of(note: Option<&Note>) -> Result<Option<&str>> {
    let given = note.and_then(|note| note.config.get("chat-template")).and_then(Value::as_str);
    given.map(templates::source).transpose()
}
