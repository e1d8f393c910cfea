//! `weblora train`: opens the model, the rows, the device and the output folder, in the order in which mistakes are cheapest to find.

use std::path::Path;

use weblora::Result;
use weblora::export::chain::{Chain, Link};
use weblora::export::peft::{File, PeftAdapter};
use weblora::formats::ModelFile;
use weblora::settings::Map;
use weblora::train::chain::KnotReport;
use weblora::train::score::HeldOut;
use weblora::train::trainer::{TrainPlan, Trainer};
use weblora::train::{Checkpoint, Event, Progress, StepReport, TrainConfig};

use super::data;
use super::device::Device;
use super::files::{self, AdapterFiles, Existing, OutFolder};
use super::output::Output;
use super::settings::TrainArgs;
use super::signals::Stop;
use super::train::{Engine, Run, needed, write_run_file};

/// Runs the verb.
pub fn run(args: &TrainArgs, output: &mut Output) -> Result<()> {
    let mut map = args.settings()?;
    let saved = if args.resume { Some(read_checkpoint(&map)?) } else { None };
    let mut begun_with = None;
    if let Some((file, bytes)) = &saved {
        // What the run was started with, where the command line says nothing else.
        let settings = &*begun_with.insert(Checkpoint::read(file, bytes)?.state.config);
        for (key, value) in settings.clone() {
            if !(map.contains_key(&key) || key == "steps" && map.contains_key("epochs") || key == "epochs" && map.contains_key("steps")) {
                map.insert(key, value);
            }
        }
    }
    let first = TrainConfig::from_map(&map)?;
    let model = pollster::block_on(ModelFile::open_path(needed("model", first.model.as_ref())?))?;
    let Start { config, values, links } = start_values(map, first, &model, args.resume)?;
    if let Some(settings) = &begun_with {
        config.check_resume(settings)?; // before the run file is replaced
    }
    let (data, warnings) = data::read(&config, &model)?;
    let existing = match (args.resume, args.overwrite) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Overwrite,
        _ => Existing::Refuse,
    };
    if existing == Existing::Refuse {
        OutFolder::check_free(Path::new(&config.out))?;
    }
    let mut device = Device::open(&args.device)?;
    let plan = TrainPlan::new(&model, &config, Some(&data), device.gpu.plan_limits(), &device.tuner)?;
    // From here on things are written: everything that can be wrong with the settings has been found.
    let out = OutFolder::open(Path::new(&config.out), existing)?;
    write_run_file(&config, &out)?;
    let stop = Stop::listen()?;
    let Device { gpu, tuner, measure } = &mut device;
    let trainer = Trainer::new(gpu, &model, config.clone(), data, plan, values, tuner, *measure, |_, _| {});
    let mut trainer = pollster::block_on(trainer)?;
    if let Some((file, bytes)) = &saved {
        trainer.resume(gpu, file, bytes)?;
    } else if !links.is_empty() {
        trainer.inherit(links)?;
    }
    device.remember();
    output.event(&Event::Start {
        job: config.name.clone(),
        config: config.to_map(),
        trainable_parameters: trainer.layout().params.trainable() as u64,
        planned_bytes: trainer.session().footprint().total(),
        adapter: device.gpu.facts().name.clone(),
        steps: trainer.total_steps(),
        resumed_at: trainer.step_number(),
    })?;
    for message in warnings {
        output.event(&Event::Warning { job: Some(config.name.clone()), message })?;
    }
    let (total, done, progress, held_out) = (trainer.total_steps(), trainer.step_number(), trainer.progress, trainer.has_held_out());
    let mut run = Run { config: &config, total, done, progress, held_out, out: &out };
    pollster::block_on(run.drive(&mut OnDevice { trainer, device: &device }, output, &stop))
}

/// The checkpoint in the folder that the settings name: its path and bytes.
fn read_checkpoint(map: &Map) -> Result<(String, Vec<u8>)> {
    let out = TrainConfig::from_map(map)?.out;
    let path = OutFolder::open(Path::new(&out), Existing::Resume)?.checkpoint();
    Ok((path.display().to_string(), files::read(&path)?))
}

/// What a run starts from.
struct Start {
    config: TrainConfig,
    /// The adapter's values, where not the usual ones.
    values: Option<Vec<f32>>,
    /// The links that a chain goes on from.
    links: Vec<Link>,
}

/// With `init-adapter`: the settings with the adapter's own where none were given, and the adapter's values. A method with a chain goes on
/// from it with a new link. A resumed run has all that in its checkpoint.
fn start_values(mut map: Map, config: TrainConfig, model: &ModelFile, resumed: bool) -> Result<Start> {
    let Some(path) = config.init_adapter.clone().filter(|_| !resumed) else {
        return Ok(Start { config, values: None, links: Vec::new() });
    };
    let files = AdapterFiles::read(Path::new(&path))?;
    let adapter = PeftAdapter::read(files.folder(), &model.config)?;
    adapter.check_base(&path, &pollster::block_on(model.content_hash())?)?;
    let mut take = |settings: Map| {
        for (key, value) in settings {
            map.entry(key).or_insert(value);
        }
        TrainConfig::from_map(&map)
    };
    if config.adapter.chain()?.is_none() {
        let config = take(adapter.settings())?;
        let values = adapter.to_buffer(&path, &config.adapter.layout(&model.config)?)?;
        return Ok(Start { config, values: Some(values), links: Vec::new() });
    }
    let chain = Chain::read(&path, adapter, files.chain())?;
    let config = take(chain.settings())?;
    let values = chain.to_buffer(&path, &config.adapter.layout(&model.config)?, config.seed)?;
    Ok(Start { config, values: Some(values), links: chain.manifest().links })
}

/// A trainer with the device it runs on.
struct OnDevice<'d> {
    trainer: Trainer,
    device: &'d Device,
}

impl Engine for OnDevice<'_> {
    async fn step(&mut self) -> Result<StepReport> {
        self.trainer.step(&self.device.gpu).await
    }
    async fn evaluate(&mut self) -> Result<Option<HeldOut>> {
        self.trainer.evaluate(&self.device.gpu).await
    }
    async fn knot(&mut self, progress: Progress) -> Result<Option<(KnotReport, Progress)>> {
        self.trainer.progress = progress;
        let knot = self.trainer.tie_if_due(&self.device.gpu).await?;
        Ok(knot.map(|knot| (knot, self.trainer.progress)))
    }
    async fn checkpoint(&mut self, progress: Progress) -> Result<Vec<u8>> {
        self.trainer.progress = progress;
        self.trainer.checkpoint(&self.device.gpu).await
    }
    async fn export(&self) -> Result<Vec<File>> {
        self.trainer.export(&self.device.gpu).await
    }
}
