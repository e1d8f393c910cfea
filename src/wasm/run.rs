//! The run of an engine: started, stepped, saved, evaluated.

use serde_json::{Value, json};

use super::options::{Adapter, AdapterFiles, Callback, Rows, Start, row_file, row_files};
use super::state::{Base, Job, State, loaded, running};
use crate::config::ModelConfig;
use crate::export::folder::{File, Folder};
use crate::text::ChatOptions;
use crate::train::evaluate::{self, EvalRows, EvalShape};
use crate::train::kernels::KernelChoices;
use crate::train::run::{After, OnDevice};
use crate::train::start::{LaidOut, angles_of, chat_of, fill_in, from_adapter, open_adapter};
use crate::train::trainer::{TrainData, Trainer};
use crate::train::{Checkpoint, Event, Run, TrainConfig};
use crate::{Error, Result};

/// What errors call a checkpoint that came as bytes.
const CHECKPOINT: &str = "the checkpoint";
/// What errors call an adapter that came as files.
pub(super) const ADAPTER: &str = "the given files";
/// Tokens of a pass of `evaluate`.
const EVAL_TOKENS: usize = 1024;

/// The adapter of `files` on `base`, and one sentence where it was trained on another file of it.
pub fn opened(files: &AdapterFiles, base: &Base, strict: bool) -> Result<(LaidOut, Option<String>)> {
    open_adapter(Folder::of(ADAPTER, files)?, &base.file.config, &base.id, strict)
}

/// How the conversations of an adapter's training became text.
pub fn chat(adapter: &Adapter, job: Option<&Job>) -> Result<ChatOptions> {
    match adapter {
        Adapter::Files(files) => chat_of(Folder::of(ADAPTER, files)?),
        Adapter::Current | Adapter::None => Ok(job.map(|job| job.run.config.chat_options()).unwrap_or_default()),
    }
}

/// The model's shape with the rotary angles that belong to what is done: those of the run that has the device, of the adapter's training, or
/// the file's own.
pub fn angles(adapter: &Adapter, job: Option<&mut Job>, base: &Base) -> Result<ModelConfig> {
    match (adapter, job) {
        (Adapter::Files(files), _) => angles_of(Folder::of(ADAPTER, files)?, &base.file.config),
        (_, Some(job)) => Ok(job.trainer.session().base().config.clone()),
        (Adapter::None | Adapter::Current, None) => Ok(base.file.config.clone()),
    }
}

impl State {
    /// Prepares a run; its first events.
    pub async fn start(&mut self, options: Start, progress: &Callback) -> Result<Vec<Event>> {
        let base = loaded(&self.base)?;
        let Start { mut settings, rows, held_out, init_adapter, resume, tune } = options;
        Rows::settle_all(&rows, &mut settings)?;
        settings.insert("quantize".into(), base.quantize.as_str().into());
        let saved = resume.as_deref().map(|bytes| Checkpoint::read(CHECKPOINT, bytes)).transpose()?;
        if let Some(saved) = &saved {
            fill_in(&mut settings, &saved.state.config);
        }
        let (mut config, values) = match &init_adapter {
            None => (TrainConfig::from_map(&settings)?, None),
            Some(files) => {
                let (config, values) = from_adapter(settings, Folder::of(ADAPTER, files)?, &base.file.config, &base.id)?;
                (config, Some(values))
            }
        };
        if let Some(saved) = &saved {
            config.check_resume(&saved.state.config)?;
            config.adapter = config.adapter.with_tokens(saved.state.embedding_tokens.iter().copied());
        }
        if saved.is_none() {
            config.begin_today(&base.tokenizer);
        }
        let (data, mut warnings) = TrainData::read(&config, &base.tokenizer, &row_files(&rows)?, &row_files(&held_out)?)?;
        warnings.extend(values.as_ref().and_then(|start| start.warning.clone()));
        KernelChoices::repeat(saved.as_ref().and_then(|saved| saved.state.kernels.as_ref()), &mut self.tuner);
        let mut plan = self.planned(base, &config, Some(&data))?;
        self.check_size(plan.planned.footprint().total())?;
        // Everything that can be wrong with the settings has been found: the earlier run makes room.
        (self.job, self.fleet, self.writer) = (None, None, None);
        if tune {
            plan.planned.tune(&self.gpu, &mut self.tuner).await?;
        }
        let count = |phase: &'static str| move |done: u64, total: u64| progress.progress(phase, done, total);
        let pipelines = count("pipelines");
        plan.planned.prewarm(&self.gpu, |done, total| pipelines(done as u64, total as u64)).await?;
        let (gpu, weights) = (&self.gpu, count("weights"));
        let mut trainer = Trainer::new(gpu, &base.file, config, data, plan, values, &mut self.tuner, false, weights).await?;
        if let Some(bytes) = &resume {
            trainer.resume(gpu, CHECKPOINT, bytes)?;
        }
        let resident = trainer.session().base().clone();
        if let Some(base) = &mut self.base {
            base.resident = Some(resident);
        }
        let (gpu, run) = (&self.gpu, Run::of(&trainer));
        let events = run.start_events(&mut trainer, gpu, warnings);
        self.job = Some(Job { trainer, run, decoder: None });
        Ok(events)
    }

    /// One step and what falls due after it: `StepResult` of the package.
    pub async fn step(&mut self) -> Result<Value> {
        let Job { trainer, run, .. } = running(&mut self.job)?;
        let mut events = Vec::new();
        let mut after = After::default();
        if !run.is_over() {
            let mut tell = |event: Event| {
                events.push(event);
                Ok(())
            };
            after = run.advance(&mut OnDevice { trainer, gpu: &self.gpu }, &mut tell).await?;
            trainer.job_mut().progress = run.progress;
        }
        let (step, total) = (run.done, run.total);
        let After { save, best, diverges, sound } = after;
        let (over, events) = (run.is_over(), json!(events));
        Ok(
            json!({ "events": events, "save": save, "best": best, "diverges": diverges, "sound": sound, "over": over, "step": step, "total": total }),
        )
    }

    /// Ties a knot now; its event.
    pub async fn merge_link(&mut self) -> Result<Event> {
        let Job { trainer, run, .. } = running(&mut self.job)?;
        trainer.job_mut().progress = run.progress;
        let knot = trainer.merge_link(&self.gpu).await?;
        run.progress = trainer.job().progress;
        Ok(Event::Knot(knot))
    }

    /// The event with which the run ends.
    pub fn done(&mut self, seconds: f64) -> Result<Event> {
        Ok(running(&mut self.job)?.run.done_event(seconds, "memory".into()))
    }

    /// The bytes of a checkpoint.
    pub async fn checkpoint(&mut self) -> Result<Vec<u8>> {
        running(&mut self.job)?.trainer.checkpoint(&self.gpu).await
    }

    /// The files of the adapter.
    pub async fn export(&mut self) -> Result<Vec<File>> {
        running(&mut self.job)?.trainer.export(&self.gpu).await
    }

    /// `Evaluation` of the package.
    pub async fn evaluate(&mut self, rows: &Rows, adapter: Adapter, strict: bool) -> Result<Value> {
        let beside = self.run_bytes();
        let base = loaded(&self.base)?;
        let model = angles(&adapter, self.job.as_mut(), base)?;
        // Rows are read and cut as the run does it.
        let mut settings = self.job.as_ref().map(|job| job.run.config.to_map()).unwrap_or_default();
        rows.settle(&mut settings);
        let mut config = TrainConfig::from_map(&settings)?;
        if self.job.is_none() {
            config.seq = model.context_length();
        }
        if let Adapter::Files(files) = &adapter {
            let chat = chat_of(Folder::of(ADAPTER, files)?)?;
            (config.chat_template, config.date) = (chat.template, chat.date);
        }
        config.begin_today(&base.tokenizer);
        let (name, bytes) = row_file(rows)?;
        let rows = EvalRows::read(name, bytes, &base.tokenizer, config.data_options())?;
        let mut warning = None;
        let adapters = match &adapter {
            Adapter::None => Vec::new(),
            Adapter::Files(files) => {
                let (adapter, said) = opened(files, base, strict)?;
                warning = said;
                vec![adapter]
            }
            Adapter::Current => {
                let trainer = &mut running(&mut self.job)?.trainer;
                let layout = trainer.layout().clone();
                vec![(layout, trainer.session().read_values(&self.gpu, 0).await?)]
            }
        };
        let how = EvalShape { tokens: EVAL_TOKENS, quantize: base.format()?, measure: false };
        let planned = evaluate::plan_as(&self.gpu, &base.file, &model, base.resident.as_ref(), &adapters, &rows, how, &self.tuner)?;
        self.check_size(planned.footprint().total() + beside)?;
        let mut session = evaluate::open(&self.gpu, &base.file, planned, &adapters, how, &mut self.tuner, |_, _| {}).await?;
        let resident = session.base().clone();
        let job = (!adapters.is_empty()).then_some(0);
        let (loss, accuracy) = evaluate::evaluate(&mut session, &self.gpu, &rows, job).await?;
        if let Some(base) = &mut self.base {
            base.resident = Some(resident);
        }
        let loss = loss.ok_or_else(|| Error::config("rows", "there is nothing to evaluate", "give at least one row"))?;
        let mut answer = json!({ "loss": loss.loss, "tokens": loss.targets });
        if let Some(warning) = warning {
            answer["warning"] = warning.into();
        }
        if let Some(accuracy) = accuracy {
            answer["accuracy"] = (accuracy.right as f64 / accuracy.rows.max(1) as f64).into();
        }
        Ok(answer)
    }
}
