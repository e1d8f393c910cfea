//! `weblora train`: opens the model, the rows, the device and the output folder, in the order in which mistakes are cheapest to find.

use std::path::Path;

use serde_json::Value;
use weblora::Result;
use weblora::export::folder::File;
use weblora::formats::ModelFile;
use weblora::settings::Map;
use weblora::train::kernels::KernelChoices;
use weblora::train::run::OnDevice;
use weblora::train::start::{Start, fill_in, from_adapter, take_method};
use weblora::train::trainer::{TrainPlan, Trainer};
use weblora::train::{Checkpoint, Progress, Run, TrainConfig};

use super::base::open_model;
use super::data;
use super::device::Device;
use super::files::{self, AdapterFiles, Existing, OutFolder};
use super::output::Output;
use super::settings::TrainArgs;
use super::signals::Stop;
use super::train::{Keeper, drive, needed, write_run_file};

/// Runs the verb.
pub fn run(args: &TrainArgs, output: &mut Output) -> Result<()> {
    let mut map = args.settings()?;
    let saved = if args.resume { Some(Saved::open(&mut map)?) } else { None };
    let mut begun_with = None;
    if let Some(Saved { file, bytes, .. }) = &saved {
        // What the run was started with, where the command line says nothing else.
        let state = &*begun_with.insert(Checkpoint::read(file, bytes)?.state);
        fill_in(&mut map, &state.config);
    }
    if let Some(path) = map.get("init-adapter").and_then(Value::as_str).filter(|_| !args.resume) {
        let files = AdapterFiles::read(Path::new(path))?;
        take_method(&mut map, files.folder())?;
    }
    let first = TrainConfig::from_map(&map)?;
    let model = open_model(needed("model", first.model.as_ref())?, first.tokenizer.as_deref().map(Path::new))?;
    let (mut config, start) = start_from(map, first, &model, args.resume)?;
    if let Some(state) = &begun_with {
        config.check_resume(&state.config)?; // before the model is loaded
        config.adapter = config.adapter.with_tokens(state.embedding_tokens.iter().copied());
    }
    let (data, mut warnings) = data::read(&mut config, &model, args.resume)?;
    let other_base = start.as_ref().and_then(|start| start.warning.as_ref());
    warnings.extend(other_base.map(|warning| format!("{warning} (--strict-base refuses it)")));
    let existing = if args.overwrite { Existing::Overwrite } else { Existing::Refuse };
    if saved.is_none() && existing == Existing::Refuse {
        OutFolder::check_free(Path::new(&config.out))?;
    }
    let mut device = Device::open(&args.device)?;
    KernelChoices::repeat(begun_with.as_ref().and_then(|state| state.kernels.as_ref()), &mut device.tuner);
    let plan = TrainPlan::new(&model, &config, Some(&data), device.gpu.plan_limits(), &device.tuner)?;
    device.warn_of_software();
    // From here on things are written: everything that can be wrong with the settings has been found.
    let mut begun = None;
    let out = match &saved {
        Some(saved) => &saved.out,
        None => begun.insert(OutFolder::open(Path::new(&config.out), existing)?),
    };
    if saved.is_none() {
        write_run_file(&config, out)?;
    }
    let stop = Stop::listen()?;
    let Device { gpu, tuner, measure } = &mut device;
    let trainer = Trainer::new(gpu, &model, config.clone(), data, plan, start, tuner, *measure, output.loading());
    let mut trainer = pollster::block_on(trainer)?;
    if let Some(Saved { file, bytes, .. }) = &saved {
        trainer.resume(gpu, file, bytes)?;
        write_run_file(trainer.config(), out)?;
    }
    device.remember();
    let mut run = Run::of(&trainer);
    for event in run.start_events(&mut trainer, &device.gpu, warnings) {
        output.event(&event);
    }
    let mut engine = OnDevice { trainer: &mut trainer, gpu: &device.gpu };
    pollster::block_on(drive(&mut run, &mut engine, out, output, &stop))
}

/// A run that goes on: its folder, which no other process can write to from now on, and the checkpoint in it.
struct Saved {
    out: OutFolder,
    file: String,
    bytes: Vec<u8>,
}

impl Saved {
    /// Opens the folder that the settings name. It is the run's even where it had another name when the checkpoint was made.
    fn open(map: &mut Map) -> Result<Self> {
        // What else the settings say may be of the method that the run has.
        let named: Map = map.iter().filter(|(key, _)| *key == "out").map(|(key, value)| (key.clone(), value.clone())).collect();
        let name = TrainConfig::from_map(&named)?.out;
        let out = OutFolder::open(Path::new(&name), Existing::Resume)?;
        map.insert("out".into(), name.into());
        let path = out.checkpoint();
        Ok(Self { file: path.display().to_string(), bytes: files::read(&path)?, out })
    }
}

/// With `init-adapter`: the settings with the adapter's own where none were given, and what it brings. A resumed run has all that in its
/// checkpoint.
fn start_from(map: Map, config: TrainConfig, model: &ModelFile, resumed: bool) -> Result<(TrainConfig, Option<Start>)> {
    let Some(path) = config.init_adapter.as_ref().filter(|_| !resumed) else { return Ok((config, None)) };
    let files = AdapterFiles::read(Path::new(path))?;
    let (config, start) = from_adapter(map, files.folder(), &model.config, &pollster::block_on(model.identity())?)?;
    Ok((config, Some(start)))
}

impl Keeper for OnDevice<'_> {
    async fn checkpoint(&mut self, progress: Progress) -> Result<Vec<u8>> {
        self.trainer.job_mut().progress = progress;
        self.trainer.checkpoint(self.gpu).await
    }
    async fn export(&self) -> Result<Vec<File>> {
        self.trainer.export(self.gpu).await
    }
}
