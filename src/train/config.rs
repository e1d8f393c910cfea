//! The settings of a training run, with the names of the command line's flags.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::batch::MAX_ROWS;
use super::chain::check_steps;
use super::context::{ContextConfig, Positions};
use super::mixture::Shares;
use super::preference::Dpo;
use super::recompute::RecomputeChoice;
use super::schedule::{Decay, Schedule, Warmup};
use crate::adapters::{AdapterConfig, AdapterLayout, Capacity};
use crate::gpu::clock;
use crate::quant;
use crate::settings::{Map, Settings, one_of};
use crate::text::{ChatOptions, DataOptions, Date, Format, Overlong, Tokenizer, templates};
use crate::{Error, Result};

/// All that a run is made from. It serialises to the map that [`TrainConfig::from_map`] reads, with every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrainConfig {
    /// Name of the job in events; default `main`.
    pub name: String,
    /// The base model: a path, or `hf:owner/repo[/file]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A `tokenizer.json`, or a folder with one, instead of the model's own tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Format that float weights are quantised to when loaded: `none` (the default) or a block format that can be encoded.
    pub quantize: String,
    /// Files of rows to train on; with several, each is a task with its own losses.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_list")]
    pub data: Vec<String>,
    /// How much of each file an epoch gets, one number a file; excludes `data_temperature`. Without either every row comes once an epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_weights: Option<Vec<f64>>,
    /// Files of n rows get shares in proportion to n^(1/T).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_temperature: Option<f64>,
    /// Files of rows to evaluate on; as many as `data`, or any number.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "one_or_list")]
    pub eval_data: Vec<String>,
    /// A PEFT folder whose adapter the run starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_adapter: Option<String>,
    /// Refuse an `init-adapter` that was trained on another file of the base, instead of warning; default false.
    pub strict_base: bool,
    /// Folder for the adapter, the settings and the checkpoint; default `adapter`.
    pub out: String,
    /// Method, rank, targets.
    #[serde(flatten)]
    pub adapter: AdapterConfig,
    /// Optimizer steps; excludes `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Passes over the data; without it and without `steps` one, or as many as make [`super::passes::LEAST_STEPS`] steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Sequences in a micro-batch, which has `batch * seq` tokens; default `batch_rows`, or 4.
    pub batch: usize,
    /// Most rows (documents) in a micro-batch; without it as many as fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_rows: Option<usize>,
    /// Longest row in tokens; default `context`, or 512.
    pub seq: usize,
    /// How far the run looks, and in what groups.
    #[serde(flatten)]
    pub context: ContextConfig,
    /// Micro-batches of one optimizer step; default 1.
    pub grad_accum: usize,
    /// Preference training instead of the loss of tokens.
    #[serde(flatten)]
    pub dpo: Option<Dpo>,
    /// Peak learning rate; default 5e-4: between the 2e-4 that QLoRA takes for 7B models and the 1e-3 that 0.1B ones like.
    pub lr: f64,
    /// What the rate does after the warm-up; default linear, as in Hugging Face's trainer.
    pub schedule: Decay,
    /// Steps of warm-up, or a share of all steps below 1; default 0.03, as in QLoRA.
    pub warmup: Warmup,
    /// Largest norm of all gradients together; 0 clips nothing; default 1.
    pub clip: f64,
    /// AdamW's decoupled weight decay; default 0.
    pub weight_decay: f64,
    /// AdamW's decay of the first moment; default 0.9.
    pub beta1: f64,
    /// AdamW's decay of the second moment; default 0.999.
    pub beta2: f64,
    /// What AdamW adds to the root of the second moment; default 1e-8.
    pub eps: f64,
    /// Seed of initialisation, shuffling, splitting and dropout; default 0.
    pub seed: u64,
    /// Shuffle the rows anew in every epoch; default true.
    pub shuffle: bool,
    /// How rows become text; default by their shape.
    pub format: Format,
    /// The chat template, by name or as Jinja; default the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// The day that chat templates take for today; default the day on which the run begins, where its template asks.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub date: Option<Date>,
    /// Write words of the assistant that the chat template leaves out; default false.
    pub keep_reasoning: bool,
    /// Read control tokens in prompts and completions, too; default false.
    pub parse_special: bool,
    /// Train on prompts too; default false.
    pub train_on_prompt: bool,
    /// What happens to rows longer than `seq`; default: cut, and counted.
    pub overlong: Overlong,
    /// Share of the rows held out for evaluation when there is no `eval-data`; default 0.
    pub eval_split: f64,
    /// Steps between evaluations; 0 (the default) evaluates at the end only.
    pub eval_every: u64,
    /// Evaluations without a lower loss after which the run ends; 0 (the default) never ends it.
    pub patience: u64,
    /// Steps between checkpoints; 0 saves at the end and when interrupted only; default 100.
    pub save_every: u64,
    /// Compute a block's activations again in the backward pass instead of keeping them; default where keeping them does not fit.
    pub recompute: RecomputeChoice,
    /// Most bytes that a run may plan on the GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

const FORMATS: &[(&str, Format)] = &[("auto", Format::Auto), ("plain", Format::Plain), ("chat", Format::Chat), ("alpaca", Format::Alpaca)];
const OVERLONG: &[(&str, Overlong)] = &[("truncate", Overlong::Truncate), ("refuse", Overlong::Refuse), ("join", Overlong::Join)];

/// Learning rates that need no remark.
const USUAL_RATES: std::ops::RangeInclusive<f64> = 1e-7..=1e-1;

/// Keys that a resumed run may give anew: they change where things are or when the run looks at itself, or make it longer.
const MAY_CHANGE: &[&str] = &[
    "model",
    "tokenizer",
    "data",
    "eval-data",
    "init-adapter",
    "strict-base",
    "out",
    "steps",
    "epochs",
    "eval-every",
    "save-every",
    "patience",
    "recompute",
    "memory",
];

/// The key that a resumed run may make smaller.
const LR: &str = "lr";

impl TrainConfig {
    /// Reads a run's settings; what is absent gets its default.
    ///
    /// # Errors
    /// Names the key that is unknown, of the wrong type, out of bounds, or at odds with another.
    pub fn from_map(map: &Map) -> Result<Self> {
        let mut settings = Settings::new(map);
        let s = &mut settings;
        let positive = |x: f64| x > 0.0;
        let fraction = |x: f64| (0.0..1.0).contains(&x);
        // What every adapter has is read by AdapterConfig, last, because the keys that are then left are the method's own.
        let (steps, epochs) = (s.count_or_none("steps", 1..=u64::MAX)?, s.count_or_none("epochs", 1..=u64::MAX)?);
        let batch_rows = s.count_or_none("batch-rows", 1..=MAX_ROWS as u64)?.map(|rows| rows as usize);
        let context = ContextConfig::read(s)?;
        let mut config = Self {
            name: s.text("name")?.unwrap_or_else(|| "main".to_owned()),
            model: s.text("model")?,
            tokenizer: s.text("tokenizer")?,
            quantize: read_quantize(s)?,
            data: s.paths("data")?,
            data_weights: s.numbers("data-weights", "positive numbers, one a file, such as [2, 1]", positive)?,
            data_temperature: s.numbers("data-temperature", "a positive number, such as 2", positive)?.map(|t| t[0]),
            eval_data: s.paths("eval-data")?,
            init_adapter: s.text("init-adapter")?,
            strict_base: s.flag("strict-base", false)?,
            out: s.text("out")?.unwrap_or_else(|| "adapter".to_owned()),
            steps,
            epochs,
            batch: s.size("batch", batch_rows.unwrap_or(4), 1..=MAX_ROWS)?,
            batch_rows,
            seq: s.size("seq", context.context.unwrap_or(512), 2..=MAX_ROWS)?,
            context,
            grad_accum: s.size("grad-accum", 1, 1..=1 << 16)?,
            dpo: Dpo::read(s)?,
            lr: s.number("lr", 5e-4, "a positive number, such as 5e-4", positive)?,
            schedule: s.choice("schedule", Decay::default(), Decay::TABLE)?,
            warmup: s.value("warmup").map_or(Ok(Warmup::default()), Warmup::from_json)?,
            clip: s.number("clip", 1.0, "a norm, or 0 to clip nothing", |x| x >= 0.0)?,
            weight_decay: s.number("weight-decay", 0.0, "a number, at least 0", |x| x >= 0.0)?,
            beta1: s.number("beta1", 0.9, "a number from 0 to below 1", fraction)?,
            beta2: s.number("beta2", 0.999, "a number from 0 to below 1", fraction)?,
            eps: s.number("eps", 1e-8, "a positive number, such as 1e-8", positive)?,
            seed: s.count("seed", 0, 0..=u64::MAX)?,
            shuffle: s.flag("shuffle", true)?,
            format: s.choice("format", Format::Auto, FORMATS)?,
            chat_template: read_template(s)?,
            date: s.text("date")?.map(|day| day.parse()).transpose()?,
            keep_reasoning: s.flag("keep-reasoning", false)?,
            parse_special: s.flag("parse-special", false)?,
            train_on_prompt: s.flag("train-on-prompt", false)?,
            overlong: s.choice("overlong", Overlong::Truncate, OVERLONG)?,
            eval_split: s.number("eval-split", 0.0, "a share of the rows below 1", fraction)?,
            eval_every: s.count("eval-every", 0, 0..=u64::MAX)?,
            patience: s.count("patience", 0, 0..=u64::MAX)?,
            save_every: s.count("save-every", 100, 0..=u64::MAX)?,
            recompute: RecomputeChoice::read(s)?,
            memory: s.bytes("memory")?,
            adapter: AdapterConfig::read(s)?,
        };
        if let Some(chain) = config.adapter.chain()? {
            let given = (steps.is_some(), epochs.is_some());
            check_steps(&chain, (&mut config.steps, &mut config.epochs), given, config.eval_every)?;
        }
        config.check_together()?;
        Ok(config)
    }

    /// Refuses values that are fine alone and not together.
    fn check_together(&self) -> Result<()> {
        if self.steps.is_some() && self.epochs.is_some() {
            return Err(Error::config("epochs", "given together with `steps`", "give one of the two"));
        }
        if self.batch.checked_mul(self.seq).is_none_or(|tokens| tokens > MAX_ROWS) {
            let problem = format!("batch {} x seq {} is more than {MAX_ROWS} tokens", self.batch, self.seq);
            return Err(Error::config("batch", problem, "use a smaller --batch or --batch-rows and more --grad-accum"));
        }
        self.context.check(self.seq)?;
        if self.data_weights.is_some() && self.data_temperature.is_some() {
            return Err(Error::config("data-temperature", "given together with `data-weights`", "give one of the two"));
        }
        if !self.eval_data.is_empty() && self.eval_split > 0.0 {
            return Err(Error::config("eval-split", "given together with `eval-data`", "give one of the two"));
        }
        let whole_rows = self.overlong != Overlong::Join && self.context.positions == Positions::Row && !self.context.eval_group;
        if self.dpo.is_some() && !whole_rows {
            let hint = "leave out --overlong join, --positions pose and --eval-group, or --loss";
            return Err(Error::config("loss", "compares whole answers as they are read later: not joined, skipped or grouped rows", hint));
        }
        if self.patience > 0 && self.eval_every == 0 {
            return Err(Error::config("patience", "there is no evaluation to wait for", "give --eval-every, too"));
        }
        Ok(())
    }

    /// What is allowed and hardly ever meant, in a run of `total` steps.
    pub fn warnings(&self, total: u64) -> Vec<String> {
        let mut warnings = Vec::new();
        if !USUAL_RATES.contains(&self.lr) {
            let far = if self.lr > *USUAL_RATES.end() { "above" } else { "below" };
            let end = if self.lr > *USUAL_RATES.end() { "the loss usually blows up" } else { "little is learned" };
            warnings.push(format!("the learning rate {:e} is far {far} what adapters are trained with (1e-5 to 1e-2): {end}", self.lr));
        }
        if self.adapter.train_norms {
            warnings
                .push("the norms train, too: PEFT loads them, llama.cpp and vLLM pass them over; export them merged for those".to_owned());
        }
        let warmup = self.warmup.steps(total);
        // A share of one step is that step.
        if warmup >= total.max(2) {
            warnings.push(format!(
                "the warm-up of {warmup} steps is not shorter than the run of {total}: the full learning rate is never reached"
            ));
        }
        warnings
    }

    /// The settings with every default filled in, as a run file has them.
    pub fn to_map(&self) -> Map {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            // A struct of strings, numbers and maps serialises to an object.
            _ => Map::new(),
        }
    }

    /// The format that a value of `quantize` names; `None` for "none".
    ///
    /// # Errors
    /// When nothing can be quantised to it.
    pub fn quantize_format(name: &str) -> Result<Option<&'static quant::QuantFormat>> {
        let found = encodable().find(|format| format.name == name);
        match found {
            None if name != NO_FORMAT => {
                let names: Vec<&str> = encodable().map(|f| f.name).chain([NO_FORMAT]).collect();
                Err(Error::config("quantize", format!("is \"{name}\""), format!("give {}", one_of(&names))))
            }
            found => Ok(found),
        }
    }

    /// The schedule of a run of `total` optimizer steps.
    pub fn schedule(&self, total: u64) -> Schedule {
        Schedule { lr: self.lr, decay: self.schedule, warmup: self.warmup.steps(total), total }
    }

    /// How much of each data file an epoch gets, where that is not simply every row once.
    pub fn shares(&self) -> Option<Shares> {
        let weights = self.data_weights.clone().map(Shares::Weights);
        weights.or_else(|| self.data_temperature.map(Shares::Temperature))
    }

    /// What recordings must have for a run of `layout`.
    ///
    /// # Errors
    /// A reference that the run has not.
    pub fn need(&self, layout: &AdapterLayout) -> Result<Capacity> {
        let links = self.dpo.map_or(Ok(0), |dpo| dpo.reference_links(&self.adapter))?;
        let one = Capacity::of(layout);
        Ok(Capacity { pairs: self.dpo.is_some(), jobs: one.jobs + usize::from(links > 0), ..one })
    }

    /// How rows become examples.
    pub fn data_options(&self) -> DataOptions {
        DataOptions {
            format: self.format,
            chat: self.chat_options(),
            keep_reasoning: self.keep_reasoning,
            train_on_prompt: self.train_on_prompt,
            parse_special: self.parse_special,
            context: self.seq,
            overlong: self.overlong,
        }
    }

    /// Sets the date to today where none is given and the chat template asks for it.
    pub fn begin_today(&mut self, tokenizer: &Tokenizer) {
        if self.date.is_none() && self.chat_options().asks_for_date(tokenizer) {
            self.date = Some(Date::of_unix_time(clock::unix_seconds()));
        }
    }

    /// How conversations become text.
    pub fn chat_options(&self) -> ChatOptions {
        ChatOptions { template: self.chat_template.clone(), date: self.date }
    }

    /// Refuses to go on with other settings than `saved`, those of the checkpoint: the result would be that of neither run.
    ///
    /// # Errors
    /// Names the first key that differs and may not.
    pub fn check_resume(&self, saved: &Map) -> Result<()> {
        let now = self.to_map();
        let keys = now.keys().chain(saved.keys().filter(|key| !now.contains_key(*key)));
        for key in keys.filter(|key| !MAY_CHANGE.contains(&key.as_str())) {
            let text = |map: &Map| map.get(key).map_or_else(|| "not set".to_owned(), Value::to_string);
            if now.get(key) != saved.get(key) && !(key == LR && self.smaller_lr(saved).is_some()) {
                let problem = format!("is {} but the checkpoint was made with {}", text(&now), text(saved));
                let hint = match key.as_str() {
                    LR => "give a smaller one or leave it out when resuming, or start anew without --resume",
                    _ => "leave it out when resuming, or start anew without --resume",
                };
                return Err(Error::config(key.as_str(), problem, hint));
            }
        }
        Ok(())
    }

    /// The learning rate of `saved`, if this one is smaller: the one change that a run that diverged may go on with.
    pub(super) fn smaller_lr(&self, saved: &Map) -> Option<f64> {
        saved.get(LR)?.as_f64().filter(|before| self.lr < *before)
    }
}

/// One path as a text, several as a list.
fn one_or_list<S: Serializer>(paths: &[String], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match paths {
        [only] => only.serialize(serializer),
        many => many.serialize(serializer),
    }
}

// serde's signature for `serialize_with`.
#[expect(clippy::ref_option)]
fn as_text<S: Serializer>(date: &Option<Date>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    date.map(|date| date.to_string()).serialize(serializer)
}

fn read_template(s: &mut Settings<'_>) -> Result<Option<String>> {
    let template = s.text("chat-template")?;
    template.as_deref().map(templates::source).transpose()?;
    Ok(template)
}

/// `quantize` when nothing is.
const NO_FORMAT: &str = "none";

/// The block formats that can be encoded.
fn encodable() -> impl Iterator<Item = &'static quant::QuantFormat> {
    quant::FORMATS.iter().copied().filter(|f| f.encode.is_some() && f.block > 1)
}

fn read_quantize(s: &mut Settings<'_>) -> Result<String> {
    let name = s.text("quantize")?.unwrap_or_else(|| NO_FORMAT.to_owned());
    TrainConfig::quantize_format(&name).map(|_| name)
}
