//! Reads the folder of a plain LoRA adapter, and checks it against its model.

use std::collections::BTreeMap;

use super::folder::{Folder, HINT_FILE, HINT_FIT, MAX_BLOCKS, NOTE_FILE, PREFIX, WEIGHTS_FILE};
use super::foreign;
use super::peft::{PeftAdapter, PeftSite};
use super::peft_config::PeftConfig;
use super::peft_embeddings::{self, OwnEmbeddings};
use super::peft_norms::{OwnNorms, parse_norm};
use super::weights::{self, Weight};
use crate::adapters::Site;
use crate::adapters::embeddings::MODULE;
use crate::config::ModelConfig;
use crate::{Error, Result};

impl PeftAdapter {
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

/// The site of a tensor, and 0 for its A, 1 for its B.
fn parse_key(key: &str) -> Option<(Site, usize)> {
    let module = key.strip_prefix(PREFIX)?.strip_prefix("model.")?.strip_suffix(".weight")?;
    let (site, half) = module.rsplit_once('.')?;
    let half = ["lora_A", "lora_B"].iter().position(|name| *name == half)?;
    Some((Site::parse(site)?, half))
}
