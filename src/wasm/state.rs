//! What an engine holds: the device, a base, a run, a writer.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Value, json};

use super::options::{Rows, row_files};
use super::source::{Foreign, JsByteSource};
use crate::config::ModelConfig;
use crate::formats::{BaseId, ByteSource, ModelFile};
use crate::generate::Generator;
use crate::gpu::{Gpu, Tuner};
use crate::model::Recompute;
use crate::model::decoder::Decoder;
use crate::quant::QuantFormat;
use crate::settings::Map;
use crate::text::inspect::RowView;
use crate::text::{DataOptions, Dataset, Example, Tokenizer, read_rows};
use crate::train::fleet::Fleet;
use crate::train::recompute::RecomputeChoice;
use crate::train::session::Session;
use crate::train::trainer::{TrainData, TrainPlan, Trainer};
use crate::train::{Run, TrainConfig, embeddings};
use crate::{Error, Result, demo};

/// Rows that a preview tokenises at most: enough to warn, quick enough to wait for.
const PREVIEWED: usize = 1000;

/// An opened model.
pub struct Base {
    /// Header and sources.
    pub file: ModelFile,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// What adapters remember of it.
    pub id: BaseId,
    /// The setting `quantize` of everything done with it.
    pub quantize: String,
    /// Its weights on the device, once something ran on them; whatever runs next shares them.
    pub resident: Option<crate::model::Base>,
}

impl Base {
    /// The format that float weights are quantised to.
    pub fn format(&self) -> Result<Option<&'static QuantFormat>> {
        TrainConfig::quantize_format(&self.quantize)
    }
}

/// A run with what was built beside it.
pub struct Job {
    /// The trainer.
    pub trainer: Trainer,
    /// Where it stands.
    pub run: Run,
    /// Generates with the run's own weights, once asked for.
    pub decoder: Option<Decoder>,
}

/// A model that generates without a run.
pub struct Writer {
    /// The model with the adapter.
    pub generator: Generator,
    /// Which adapter's files it was opened with.
    pub adapter: Option<u64>,
    /// The model's shape, with the rotary angles that the adapter was trained with.
    pub model: ModelConfig,
}

/// All that an engine holds.
pub struct State {
    /// The device.
    pub gpu: Gpu,
    /// What was measured on it.
    pub tuner: Tuner,
    /// The base, once loaded.
    pub base: Option<Base>,
    /// The run, once started.
    pub job: Option<Job>,
    /// Jobs that train together, once started.
    pub fleet: Option<Fleet>,
    /// What generates text without the run.
    pub writer: Option<Writer>,
    /// Plans beyond this are refused.
    pub max_bytes: Option<u64>,
    /// Set from outside to end the running call.
    pub abort: Rc<Cell<bool>>,
}

/// The base that has to be there. A function of the field, so that the others can be borrowed beside it.
pub fn loaded(base: &Option<Base>) -> Result<&Base> {
    base.as_ref().ok_or_else(|| Error::config("model", "no base is loaded", "call loadBase first"))
}

/// The run that has to be there.
pub fn running(job: &mut Option<Job>) -> Result<&mut Job> {
    job.as_mut().ok_or_else(|| Error::config("adapter", "no run has been started", "call train first"))
}

impl State {
    /// What the GPU is.
    pub fn facts(&self) -> Value {
        let (facts, limits) = (self.gpu.facts(), self.gpu.plan_limits());
        json!({
            "name": facts.name, "backend": facts.backend, "isCpu": facts.is_cpu,
            "maxBinding": limits.max_binding, "maxBuffer": limits.max_buffer,
        })
    }

    /// The device side of the run, or of the jobs.
    fn session(&mut self) -> Option<&mut Session> {
        let jobs = self.fleet.as_mut().map(Fleet::session);
        self.job.as_mut().map(|job| job.trainer.session()).or(jobs)
    }

    /// Bytes of the run's buffers on the GPU.
    pub fn gpu_bytes(&mut self) -> u64 {
        self.session().map_or(0, |session| session.allocated_bytes())
    }

    /// Bytes on the GPU of what the run has beside the base.
    pub fn run_bytes(&mut self) -> u64 {
        self.session().map_or(0, |session| session.own_bytes())
    }

    /// Opens a source, or the embedded model.
    pub async fn load(&mut self, source: Option<JsByteSource>, quantize: Option<String>, tokenizer: Option<String>) -> Result<Value> {
        let quantize = quantize.unwrap_or_else(|| "none".to_owned());
        TrainConfig::quantize_format(&quantize)?;
        let mut file = match source {
            None => demo::model().await?,
            Some(source) => {
                let source: Box<dyn ByteSource> = Box::new(Foreign::new(source, self.abort.clone()));
                ModelFile::open_gguf(vec![source]).await?
            }
        };
        if let Some(json) = tokenizer {
            file.set_tokenizer("tokenizer.json".into(), json, None);
        }
        let tokenizer = Tokenizer::of_model(&file)?;
        let id = file.identity().await?;
        // The old base stays until the new one is known to be good.
        (self.job, self.fleet, self.writer) = (None, None, None);
        let base = self.base.insert(Base { file, tokenizer, id, quantize, resident: None });
        Ok(describe(base))
    }

    /// The first `limit` rows as the model will see them.
    pub fn preview(&self, rows: &Rows, settings: Option<Map>, limit: usize) -> Result<Value> {
        let base = loaded(&self.base)?;
        let mut settings = settings.unwrap_or_default();
        rows.settle(&mut settings);
        let mut config = TrainConfig::from_map(&settings)?;
        config.begin_today(&base.tokenizer);
        let options = config.data_options();
        let mut all = read_rows(rows.name(), rows.bytes()?)?;
        let total = all.len();
        all.truncate(PREVIEWED);
        let mut warnings = Dataset::build(rows.name(), &all, &base.tokenizer, options.clone())?.report.warnings(rows.name());
        if total > PREVIEWED {
            warnings.push(format!("{}: only the first {PREVIEWED} of {total} rows were looked at", rows.name()));
        }
        all.truncate(limit);
        let context = options.context;
        let mut shown = Vec::with_capacity(all.len());
        let whole = Dataset::build(rows.name(), &all, &base.tokenizer, DataOptions { context: usize::MAX, ..options })?;
        for mut example in whole.examples.into_iter().flat_map(Example::into_documents) {
            let truncated = example.tokens.len() > context;
            example.tokens.truncate(context);
            example.targets.truncate(context);
            let view = RowView::new(&example, &base.tokenizer);
            let tokens: Vec<Value> =
                view.pieces.iter().map(|p| json!({ "text": p.text, "trained": p.is_target, "control": p.is_special })).collect();
            shown.push(json!({ "index": view.row, "tokens": tokens, "truncated": truncated, "notes": whole.notes.get(&view.row).cloned().unwrap_or_default() }));
        }
        Ok(json!({ "rows": shown, "total": total, "warnings": warnings }))
    }

    /// What a run would take.
    pub fn plan(&self, settings: Option<Map>, rows: &[Rows]) -> Result<Value> {
        let base = loaded(&self.base)?;
        let mut settings = settings.unwrap_or_default();
        settings.insert("quantize".into(), base.quantize.as_str().into());
        let mut data = None;
        if !rows.is_empty() {
            Rows::settle_all(rows, &mut settings)?;
            let mut config = TrainConfig { eval_every: 0, ..TrainConfig::from_map(&settings)? };
            config.begin_today(&base.tokenizer);
            data = Some(TrainData::read(&config, &base.tokenizer, &row_files(rows)?, &[])?.0);
        }
        let config = TrainConfig::from_map(&settings)?;
        let plan = match self.planned(base, &config, data.as_ref()) {
            Ok(plan) => plan,
            // What the device cannot hold is an answer, not a failure.
            Err(error @ Error::Limit { .. }) => {
                let layout = config.adapter.layout(&base.file.config)?;
                return Ok(json!({
                    "totalBytes": 0, "byPurpose": {}, "trainable": layout.params.trainable(), "dispatches": 0,
                    "rows": config.batch * config.seq, "fits": false, "reason": error.to_string(),
                }));
            }
            Err(error) => return Err(error),
        };
        let footprint = plan.planned.footprint();
        let mut by_purpose: BTreeMap<&str, u64> = footprint.persistent.clone();
        by_purpose.extend([("activations", footprint.arenas), ("params", footprint.params)]);
        let refused = self.check_size(footprint.total()).err();
        let mut answer = json!({
            "totalBytes": footprint.total(), "byPurpose": by_purpose, "trainable": plan.layout.params.trainable(),
            "dispatches": plan.planned.dispatches().0, "rows": plan.rows, "recompute": plan.recompute,
            "fits": refused.is_none(),
        });
        if let Some(error) = refused {
            answer["reason"] = error.to_string().into();
        }
        if let Some(passes) = plan.passes {
            answer["steps"] = passes.steps.into();
            answer["passes"] = json!({
                "rows": passes.rows, "rowsPerStep": passes.rows_per_step, "tokensPerStep": passes.tokens_per_step,
                "stepsPerEpoch": passes.steps_per_epoch, "epochs": passes.epochs, "words": passes.words(),
            });
            let own = embeddings::warning(&plan.layout, &base.file.config);
            answer["warnings"] = passes.warnings().into_iter().chain(config.warnings(passes.steps)).chain(own).collect::<Vec<_>>().into();
        }
        Ok(answer)
    }

    /// Plans a run; where nobody chose, activations are kept as far as the caller's limit allows.
    pub fn planned(&self, base: &Base, config: &TrainConfig, data: Option<&TrainData>) -> Result<TrainPlan> {
        let plan =
            |config: &TrainConfig| TrainPlan::on(base.resident.as_ref(), &base.file, config, data, self.gpu.plan_limits(), &self.tuner);
        let mut made = plan(config)?;
        let taken = made.recompute;
        for mode in Recompute::ALL.into_iter().skip_while(|mode| *mode != taken).skip(1) {
            if config.recompute != RecomputeChoice::Auto || self.check_size(made.planned.footprint().total()).is_ok() {
                break;
            }
            made = plan(&TrainConfig { recompute: RecomputeChoice::only(mode), ..config.clone() })?;
        }
        Ok(made)
    }

    /// Refuses plans beyond the caller's limit.
    pub fn check_size(&self, bytes: u64) -> Result<()> {
        match self.max_bytes {
            Some(most) if bytes > most => Err(Error::OutOfMemory { what: format!("a run within {most} bytes"), bytes }),
            _ => Ok(()),
        }
    }
}

/// `BaseInfo` of the package.
fn describe(base: &Base) -> Value {
    let (file, config) = (&base.file, &base.file.config);
    json!({
        "name": file.name(), "architecture": config.model_type, "format": base.id.format,
        "parameters": file.tensors().map(|t| t.shape.iter().map(|&n| n as u64).product::<u64>()).sum::<u64>(),
        "bytes": file.tensors().map(|t| t.bytes).sum::<u64>(),
        "layers": config.num_hidden_layers, "hidden": config.hidden_size, "vocab": config.vocab_size,
        "context": config.max_position_embeddings, "contentHash": base.id.hash, "chatTemplate": base.tokenizer.chat_template().is_some(),
    })
}
