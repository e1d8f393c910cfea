//! A MixLoRA folder, read and checked against its model.

use std::collections::BTreeMap;

use super::config::{LoraSettings, MixLoraConfig, strategy_name};
use super::names::Part;
use super::{ExpertSet, Gate, MixLoraAdapter};
use crate::adapters::experts::{Balance, Routing};
use crate::adapters::patterns::Matcher;
use crate::adapters::{Projection, Site};
use crate::config::ModelConfig;
use crate::export::folder::{Folder, HINT_FILE, HINT_FIT, MAX_BLOCKS, NOTE_FILE};
use crate::export::peft::{Note, PeftSite};
use crate::export::weights::{self, Weight};
use crate::{Error, Result};

impl MixLoraAdapter {
    /// Reads a folder and checks it against the model it is to be used with.
    ///
    /// # Errors
    /// When a file is damaged, when the configuration says what is not done here, when a tensor is none of a MixLoRA adapter of this model, when an
    /// expert, a router or the other half of a product is missing, when a shape is another than model and configuration say, or when a number
    /// is NaN or infinite.
    pub fn read(folder: Folder<'_>, model: &ModelConfig) -> Result<Self> {
        Reader::new(folder, Some(model))?.read()
    }

    /// Reads a folder without its model: shapes are the tensors' own.
    ///
    /// # Errors
    /// As [`Self::read`], without what needs a model.
    pub fn read_alone(folder: Folder<'_>) -> Result<Self> {
        Reader::new(folder, None)?.read()
    }
}

/// A folder that is being read.
struct Reader<'a> {
    folder: Folder<'a>,
    model: Option<&'a ModelConfig>,
    config: MixLoraConfig,
}

type Tensors<'a> = BTreeMap<Part, Weight<'a>>;

impl<'a> Reader<'a> {
    fn new(folder: Folder<'a>, model: Option<&'a ModelConfig>) -> Result<Self> {
        Ok(Self { folder, model, config: MixLoraConfig::parse(folder.name, folder.config)? })
    }

    fn error(&self, problem: String, hint: &'static str) -> Error {
        Error::Adapter { adapter: self.folder.name.to_owned(), problem, hint }
    }

    fn damaged(&self, problem: String) -> Error {
        self.error(format!("{}: {problem}", weights::file_of(self.folder.weights)), HINT_FILE)
    }

    fn read(self) -> Result<MixLoraAdapter> {
        let mut tensors = self.tensors()?;
        let (ranks, alphas) = (self.config.rank_pattern.compile("rank_pattern")?, self.config.alpha_pattern.compile("alpha_pattern")?);
        let numbers = (&ranks, &alphas);
        let layers: Vec<usize> = {
            let mut layers: Vec<usize> = tensors.keys().map(|part| part.layer()).collect();
            layers.sort_unstable();
            layers.dedup();
            layers
        };
        let (mut attention, mut experts, mut gates) = (Vec::new(), Vec::new(), Vec::new());
        for &layer in &layers {
            for projection in Projection::ALL {
                let site = Site { layer, projection };
                let halves = [0, 1].map(|half| tensors.remove(&Part::Attention(site, half)));
                attention.extend(self.pair(site, self.config.attention, halves, numbers, &site.to_string())?);
            }
            let before = experts.len();
            for projection in Projection::ALL {
                experts.extend(self.set(Site { layer, projection }, &mut tensors, numbers)?);
            }
            match (tensors.remove(&Part::Gate(layer)), experts.len() > before) {
                (Some(gate), true) => gates.push(self.gate(layer, &gate)?),
                (None, true) => return Err(self.damaged(format!("block {layer} has experts and no router (moe_gate)"))),
                (Some(_), false) => return Err(self.damaged(format!("block {layer} has a router (moe_gate) and no experts"))),
                (None, false) => {}
            }
        }
        if experts.is_empty() {
            return Err(self.damaged("it holds no experts".to_owned()));
        }
        let note: Option<Note> = match self.folder.note {
            Some(bytes) => {
                let read = serde_json::from_slice(bytes);
                Some(read.map_err(|e| self.error(format!("{NOTE_FILE}: cannot be read: {e}"), HINT_FILE))?)
            }
            None => None,
        };
        let whole = self.config.target_modules.iter().all(|name| !name.contains('.'));
        let blocks = match self.model {
            Some(model) => model.num_hidden_layers,
            None if whole => layers.last().map_or(0, |last| last + 1),
            None => usize::MAX,
        };
        Ok(MixLoraAdapter {
            routing: note.as_ref().map_or(self.config.routing, |note| as_noted(self.config.routing, note)),
            attention,
            experts,
            gates,
            rslora: self.config.rslora,
            blocks,
            dropout: (self.config.attention.dropout, self.config.experts.dropout),
            base_name: self.config.base_name,
            note,
        })
    }

    /// All tensors by what they are.
    fn tensors(&self) -> Result<Tensors<'a>> {
        let blocks = self.model.map_or(MAX_BLOCKS, |model| model.num_hidden_layers);
        let mut tensors = BTreeMap::new();
        for weight in weights::read(self.folder.name, self.folder.weights, HINT_FILE)? {
            let name = weight.name.clone();
            if name == "classifier" {
                return Err(Error::Unsupported {
                    what: format!("adapter {}: tensor `classifier`, the head of a classification task,", self.folder.name),
                    hint: "only adapters for causal language models are".to_owned(),
                });
            }
            let Some(part) = Part::parse(&name).filter(|part| part.layer() < blocks) else {
                let problem = format!("tensor `{name}` is none of a MixLoRA adapter of a model of up to {blocks} blocks");
                return Err(self.error(problem, HINT_FIT));
            };
            let experts = self.config.routing.experts;
            if let Part::Expert(_, expert, _) = part
                && expert >= experts
            {
                return Err(self.damaged(format!("tensor `{name}` is of expert {expert}, the configuration has {experts} experts")));
            }
            if tensors.insert(part, weight).is_some() {
                return Err(self.damaged(format!("tensor `{name}` is there under its old name, too")));
            }
        }
        Ok(tensors)
    }

    /// The experts of a site, if it has any.
    fn set(&self, site: Site, tensors: &mut Tensors<'a>, numbers: Numbers<'_>) -> Result<Option<ExpertSet>> {
        let mut experts = Vec::new();
        let mut missing = None;
        for e in 0..self.config.routing.experts {
            let halves = [0, 1].map(|half| tensors.remove(&Part::Expert(site, e, half)));
            match self.pair(site, self.config.experts, halves, numbers, &format!("expert {e} of {site}"))? {
                Some(pair) => experts.push(pair),
                None => missing = missing.or(Some(e)),
            }
        }
        match missing {
            Some(_) if experts.is_empty() => Ok(None),
            Some(e) => Err(self.damaged(format!("{site} has no expert {e}, and others"))),
            None => Ok(Some(ExpertSet { site, experts })),
        }
    }

    /// A product out of its halves; `None` where neither is there.
    fn pair(
        &self,
        site: Site,
        general: LoraSettings,
        halves: [Option<Weight<'a>>; 2],
        numbers: Numbers<'_>,
        what: &str,
    ) -> Result<Option<PeftSite>> {
        let [a, b] = match halves {
            [None, None] => return Ok(None),
            [Some(a), Some(b)] => [a, b],
            [a, _] => return Err(self.damaged(format!("{what} has no {}", if a.is_none() { "lora_A" } else { "lora_B" }))),
        };
        let module = site.module();
        let rank = numbers.0.find(&module)?.unwrap_or(general.r as f64);
        let alpha = numbers.1.find(&module)?.unwrap_or(general.alpha);
        let (out, inputs) = match self.model {
            Some(model) => site.projection.shape(model),
            None => (b.shape.first().copied().unwrap_or(0), a.shape.last().copied().unwrap_or(0)),
        };
        if out == 0 || inputs == 0 {
            return Err(self.damaged(format!("{what} has tensors {:?} and {:?}, which hold no number", a.shape, b.shape)));
        }
        // A rank is compared as it stands in the file: one that is no whole number fits no tensor.
        let values = |which: &str, weight: &Weight<'_>, shape: [f64; 2]| {
            if weight.shape.iter().map(|&n| n as f64).ne(shape) {
                let found = format!("{which} of {what} is {:?}", weight.shape);
                return Err(self.error(format!("{found}; rank {rank} and a weight of {out} x {inputs} were expected"), HINT_FIT));
            }
            weight.values().map_err(|problem| self.damaged(format!("{which} of {what} {problem}")))
        };
        let (a, b) = (values("lora_A", &a, [rank, inputs as f64])?, values("lora_B", &b, [out as f64, rank])?);
        Ok(Some(PeftSite { site, rank: rank as usize, alpha, a, b }))
    }

    fn gate(&self, layer: usize, gate: &Weight<'_>) -> Result<Gate> {
        let experts = self.config.routing.experts;
        let d = self.model.map_or_else(|| gate.shape.last().copied().unwrap_or(0), |model| model.hidden_size);
        if gate.shape != [experts, d] || d == 0 {
            let problem = format!("the router of block {layer} is {:?}; {experts} experts and a width of {d} were expected", gate.shape);
            return Err(self.error(problem, HINT_FIT));
        }
        let values = gate.values().map_err(|problem| self.damaged(format!("the router of block {layer} {problem}")))?;
        Ok(Gate { layer, values })
    }
}

/// Ranks and alphas by pattern.
type Numbers<'p> = (&'p Matcher<'p>, &'p Matcher<'p>);

/// Routing with what only our note says: the settings of the training.
fn as_noted(routing: Routing, note: &Note) -> Routing {
    let text = |key: &str| note.config.get(key).and_then(serde_json::Value::as_str);
    if text("method") != Some(strategy_name(routing.strategy)) {
        return routing;
    }
    let number = |key: &str, own: f64, most: f64| {
        let noted = note.config.get(key).and_then(serde_json::Value::as_f64);
        noted.filter(|x| (0.0..=most).contains(x)).unwrap_or(own)
    };
    Routing {
        aux_coef: number("aux-coef", routing.aux_coef, 1e3),
        z_coef: number("z-coef", routing.z_coef, 1e3),
        jitter: number("jitter", routing.jitter, 0.9),
        balance: if text("balance") == Some("per-layer") { Balance::PerLayer } else { routing.balance },
        ..routing
    }
}
