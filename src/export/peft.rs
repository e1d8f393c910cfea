//! LoRA adapters in the folder layout of Hugging Face PEFT: `adapter_config.json`, `adapter_model.safetensors`, and `weblora.json`, our note of
//! which base the adapter belongs to, which PEFT does not look at.
//!
//! A site's tensors are `base_model.model.{module}.lora_A.weight` `[rank, in]` and `….lora_B.weight` `[out, rank]`. Which modules have an
//! adapter, and of what rank, is told by the tensors; the configuration must agree with them.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::card::{CARD_FILE, card};
use super::chain::CHAIN_FILE;
use super::foreign;
use super::handed_out::{base_name, without_folders};
use super::peft_config::{CONFIG_FILE, PeftConfig, by_pattern, most, target_modules};
use super::peft_embeddings::{self, OwnEmbeddings};
use super::peft_norms::{self, OwnNorms, parse_norm};
use super::weights::{self, PICKLE_FILE, Weight};
use crate::adapters::embeddings::{EmbeddingRows, MODULE};
use crate::adapters::patterns::json_number;
use crate::adapters::{AdapterLayout, Patterns, Site, Slice, norms};
use crate::config::ModelConfig;
use crate::settings::Map;
use crate::text::templates;
use crate::{Error, Result};

/// File name of the tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// File name of our note.
pub const NOTE_FILE: &str = "weblora.json";
/// File name of a chat template that is not the base's own, as transformers has it.
pub const TEMPLATE_FILE: &str = "chat_template.jinja";

pub(super) const PREFIX: &str = "base_model.model.";
/// Blocks that an adapter may count where its model is not at hand, far above any model.
pub(super) const MAX_BLOCKS: usize = 1024;
pub(super) const HINT_FIT: &str = "use an adapter that was trained for this model";
pub(super) const HINT_FILE: &str = "save or download the adapter again";

/// A named file and its bytes.
pub type File = (&'static str, Vec<u8>);

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
    /// The settings of the run.
    pub config: Map,
}

/// The files of an adapter folder, as read.
#[derive(Debug, Clone, Copy)]
pub struct Folder<'a> {
    /// What errors call the folder.
    pub name: &'a str,
    /// `adapter_config.json`.
    pub config: &'a [u8],
    /// `adapter_model.safetensors`, or `adapter_model.bin` as PyTorch writes it.
    pub weights: &'a [u8],
    /// `weblora.json`, where there is one.
    pub note: Option<&'a [u8]>,
    /// `chain.json`, where there is one.
    pub chain: Option<&'a [u8]>,
}

impl<'a> Folder<'a> {
    /// The folder called `name` that holds `files`; other files than these are ignored.
    ///
    /// # Errors
    /// When the configuration or the tensors are missing.
    pub fn of(name: &'a str, files: &'a [(String, Vec<u8>)]) -> Result<Self> {
        let find = |wanted: &str| files.iter().find(|(file, _)| file == wanted).map(|(_, bytes)| bytes.as_slice());
        let need = |wanted: &str| {
            let problem = || format!("it has no {wanted}");
            let hint = "pass the files of a folder that PEFT or weblora saved";
            find(wanted).ok_or_else(|| Error::Adapter { adapter: name.to_owned(), problem: problem(), hint })
        };
        let weights = find(WEIGHTS_FILE).or_else(|| find(PICKLE_FILE)).map_or_else(|| need(WEIGHTS_FILE), Ok)?;
        Ok(Self { name, config: need(CONFIG_FILE)?, weights, note: find(NOTE_FILE), chain: find(CHAIN_FILE) })
    }
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

    /// The files of the folder, without paths of this machine. `adapter_config.json` is last: a folder that has it is whole.
    ///
    /// # Errors
    /// When a value is not finite, which no program could use.
    pub fn to_files(&self, name: &str) -> Result<Vec<File>> {
        self.files(name, None)
    }

    /// The same, with the whole embedding that PEFT is to use, `[vocab, hidden]`, where it is given.
    ///
    /// # Errors
    /// As [`Self::to_files`].
    pub(super) fn files(&self, name: &str, embedding: Option<&[f32]>) -> Result<Vec<File>> {
        let failed = |problem: String| Error::Adapter { adapter: name.to_owned(), problem, hint: "lower --lr and train again" };
        let mut views = Vec::with_capacity(2 * self.sites.len());
        for site in &self.sites {
            for (which, values, columns) in [("lora_A", &site.a, site.a.len() / site.rank), ("lora_B", &site.b, site.rank)] {
                if let Some(bad) = values.iter().find(|x| !x.is_finite()) {
                    return Err(failed(format!("{}.{which} holds {bad}", site.site)));
                }
                let view = TensorView::new(Dtype::F32, vec![values.len() / columns, columns], bytemuck::cast_slice(values));
                let view = view.map_err(|e| failed(format!("{}.{which}: {e}", site.site)))?;
                views.push((format!("{PREFIX}{}.{which}.weight", site.site.module()), view));
            }
        }
        views.extend(peft_norms::views(&self.norms).map_err(failed)?);
        if let Some(own) = &self.embeddings {
            views.extend(peft_embeddings::views(own).map_err(failed)?);
        }
        let mut config = self.config();
        if let (Some(whole), Some(own)) = (embedding, &self.embeddings) {
            let view = TensorView::new(Dtype::F32, vec![whole.len() / own.width(), own.width()], bytemuck::cast_slice(whole));
            views.push((peft_embeddings::whole_key(), view.map_err(|e| failed(format!("{MODULE}: {e}")))?));
            config.modules_to_save.push(MODULE.to_owned());
        }
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let weights = safetensors::serialize(views, Some(metadata)).map_err(|e| failed(e.to_string()))?;
        let mut files = vec![(WEIGHTS_FILE, weights), (CARD_FILE, card(self).into_bytes())];
        if let Some(note) = &self.note {
            files.push((NOTE_FILE, note_bytes(note).map_err(failed)?));
        }
        if let Some(template) = self.chat_template()? {
            files.push((TEMPLATE_FILE, template.as_bytes().to_vec()));
        }
        files.push((CONFIG_FILE, config.to_bytes()));
        Ok(files)
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

    /// Numbers in its factors.
    pub fn parameters(&self) -> usize {
        self.sites.iter().map(|site| site.a.len() + site.b.len()).sum()
    }

    /// Reads an adapter folder and checks it against the model it is to be used with.
    ///
    /// # Errors
    /// When a file is damaged, when the configuration switches on what plain LoRA has not, when a tensor is no A or B of a linear
    /// layer of this model, lacks its other half, has another shape than model and configuration say, or holds a NaN or infinity.
    pub fn read(folder: Folder<'_>, model: &ModelConfig) -> Result<Self> {
        Self::read_with(folder, Some(model))
    }

    /// Reads an adapter folder without its model: shapes are the tensors' own.
    ///
    /// # Errors
    /// As [`Self::read`], without what needs a model.
    pub fn read_alone(folder: Folder<'_>) -> Result<Self> {
        Self::read_with(folder, None)
    }

    fn read_with(folder: Folder<'_>, model: Option<&ModelConfig>) -> Result<Self> {
        let config = PeftConfig::parse(folder.name, folder.config)?;
        let damaged = |file: &str, problem: String| Error::Adapter {
            adapter: folder.name.to_owned(),
            problem: format!("{file}: {problem}"),
            hint: HINT_FILE,
        };
        let weights_file = weights::file_of(folder.weights);
        let named = weights::read(folder.name, folder.weights, HINT_FILE)?;
        let mut pairs: BTreeMap<Site, [Option<Weight<'_>>; 2]> = BTreeMap::new();
        let mut saved = OwnNorms::default();
        let mut embeddings = OwnEmbeddings::default();
        let has_rows = peft_embeddings::has_rows(named.iter().map(|weight| weight.name.as_str()));
        let of_embeddings = |key: &str| peft_embeddings::is_known(key, has_rows);
        let unknown = |key: &&str| parse_key(key).is_none() && parse_norm(key).is_none() && !of_embeddings(key);
        if let Some(refusal) = foreign::refusal(folder.name, named.iter().map(|weight| weight.name.as_str()).filter(unknown)) {
            return Err(refusal);
        }
        let blocks = model.map_or(MAX_BLOCKS, |model| model.num_hidden_layers);
        for weight in named {
            let key = &weight.name;
            if let Some(norm) = parse_norm(key) {
                let values = weight.values().map_err(|problem| damaged(weights_file, format!("{key} {problem}")))?;
                saved.add(norm, key, values);
                continue;
            }
            if of_embeddings(key) {
                embeddings.add(&weight).map_err(|problem| damaged(weights_file, format!("{key} {problem}")))?;
                continue;
            }
            let Some((site, half)) = parse_key(key).filter(|(site, _)| site.layer < blocks) else {
                let of = if model.is_some() {
                    format!(" of this model ({blocks} blocks)")
                } else {
                    format!(" of a model of up to {blocks} blocks")
                };
                let problem = format!("tensor `{key}` is no lora_A or lora_B of a linear layer{of}");
                return Err(Error::Adapter { adapter: folder.name.to_owned(), problem, hint: HINT_FIT });
            };
            pairs.entry(site).or_default()[half] = Some(weight);
        }
        if pairs.is_empty() {
            return Err(damaged(weights_file, "it holds no tensor".to_owned()));
        }
        let (ranks, alphas) = (config.rank_pattern.compile("rank_pattern")?, config.alpha_pattern.compile("alpha_pattern")?);
        let mut sites = Vec::with_capacity(pairs.len());
        for (site, pair) in pairs {
            let [Some(a), Some(b)] = pair else {
                let half = if pair[0].is_none() { "lora_A" } else { "lora_B" };
                return Err(damaged(weights_file, format!("{site} has no {half}")));
            };
            let module = site.module();
            let rank = ranks.find(&module)?.unwrap_or(config.r as f64);
            let (out, inputs) = match model {
                Some(model) => site.projection.shape(model),
                None => (b.shape.first().copied().unwrap_or(0), a.shape.last().copied().unwrap_or(0)),
            };
            if out == 0 || inputs == 0 {
                return Err(damaged(weights_file, format!("{site} has tensors {:?} and {:?}, which hold no number", a.shape, b.shape)));
            }
            // A rank is compared as it stands in the file: one that is no whole number fits no tensor.
            let values = |which: &str, weight: &Weight<'_>, shape: [f64; 2]| {
                if weight.shape.iter().map(|&n| n as f64).ne(shape) {
                    let problem =
                        format!("{site}.{which} is {:?}; rank {rank} and a weight of {out} x {inputs} were expected", weight.shape);
                    return Err(Error::Adapter { adapter: folder.name.to_owned(), problem, hint: HINT_FIT });
                }
                weight.values().map_err(|problem| damaged(weights_file, format!("{site}.{which} {problem}")))
            };
            let (a, b) = (values("lora_A", &a, [rank, inputs as f64])?, values("lora_B", &b, [out as f64, rank])?);
            sites.push(PeftSite { site, rank: rank as usize, alpha: alphas.find(&module)?.unwrap_or(config.lora_alpha), a, b });
        }
        let parse_note = |bytes| serde_json::from_slice(bytes).map_err(|e| damaged(NOTE_FILE, format!("cannot be read: {e}")));
        let note = folder.note.map(parse_note).transpose()?;
        let blocks = match model {
            Some(model) => model.num_hidden_layers,
            // Names of projections mean all blocks; where paths are named, how many blocks there are is not known.
            None if config.target_modules.iter().all(|name| !name.contains('.')) => {
                sites.iter().map(|s| s.site.layer + 1).max().unwrap_or(0)
            }
            None => usize::MAX,
        };
        let misfit = |problem: String| Error::Adapter { adapter: folder.name.to_owned(), problem, hint: HINT_FIT };
        let (norms, embeddings) = (saved.finish(model).map_err(misfit)?, embeddings.finish(model).map_err(misfit)?);
        let lists = |embedding: bool| config.modules_to_save.iter().any(|name| name.ends_with(MODULE) == embedding);
        if norms.is_empty() && lists(false) || embeddings.is_none() && lists(true) {
            let what = if embeddings.is_none() && lists(true) { "nothing of the embedding" } else { "none of the norms" };
            return Err(damaged(WEIGHTS_FILE, format!("it holds {what} that modules_to_save lists")));
        }
        let base_name = config.base_model_name_or_path;
        Ok(Self { sites, norms, embeddings, rslora: config.use_rslora, blocks, dropout: config.lora_dropout, base_name, note })
    }
}

/// The file of a note, without paths of this machine.
pub(super) fn note_bytes(note: &Note) -> std::result::Result<Vec<u8>, String> {
    let note = Note { config: without_folders(&note.config), ..note.clone() };
    let mut text = serde_json::to_string_pretty(&note).map_err(|e| e.to_string())?;
    text.push('\n');
    Ok(text.into_bytes())
}

/// The Jinja source of the chat template that a note names.
pub(super) fn template_of(note: Option<&Note>) -> Result<Option<&str>> {
    let given = note.and_then(|note| note.config.get("chat-template")).and_then(Value::as_str);
    given.map(templates::source).transpose()
}

/// The site of a tensor, and 0 for its A, 1 for its B.
fn parse_key(key: &str) -> Option<(Site, usize)> {
    let module = key.strip_prefix(PREFIX)?.strip_prefix("model.")?.strip_suffix(".weight")?;
    let (site, half) = module.rsplit_once('.')?;
    let half = ["lora_A", "lora_B"].iter().position(|name| *name == half)?;
    Some((Site::parse(site)?, half))
}
