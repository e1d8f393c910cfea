//! What a run will be, known from its settings, its rows and the model's header.

use super::batch::fullest;
use super::chain::link_ends;
use super::config::TrainConfig;
use super::data::TrainData;
use super::passes::Passes;
use super::recompute::{check_memory, fits};
use super::session::{Planned, Shape};
use crate::adapters::AdapterLayout;
use crate::config::ModelConfig;
use crate::formats::ModelFile;
use crate::gpu::Tuner;
use crate::gpu::device::PlanLimits;
use crate::model::Base;
use crate::model::Recompute;
use crate::quant;
use crate::{Error, Result};

/// What a run will be, known before a device is opened.
pub struct TrainPlan {
    /// Declared buffers and planned recordings.
    pub planned: Planned,
    /// The adapter's parameters.
    pub layout: AdapterLayout,
    /// Rows of a micro-batch.
    pub rows: usize,
    /// Which activations are computed again.
    pub recompute: Recompute,
    /// How the run goes through its rows, where they were given.
    pub passes: Option<Passes>,
}

/// Rows of a micro-batch: `batch · seq`, or fewer where the data that can come together is shorter. A multiple of 8.
pub(super) fn micro_rows(config: &TrainConfig, data: Option<&TrainData>) -> usize {
    let asked = config.batch * config.seq;
    let Some(data) = data else { return asked };
    let lengths: Vec<u32> = data.train.iter().map(|example| example.rows() as u32).collect();
    let most = config.batch_rows.unwrap_or(usize::MAX);
    let together = fullest(&lengths, most, config.batch_rows.is_some() && config.shares().is_some()).clamp(1, asked as u64) as usize;
    // A held-out row has to fit, too.
    asked.min(together.next_multiple_of(8)).max(data.largest_held_out())
}

/// Refuses rows that the model does not read.
pub(super) fn check_length(config: &TrainConfig, model: &ModelConfig) -> Result<()> {
    let context = model.context_length();
    if config.seq > context {
        let problem = format!("rows of {} tokens exceed the model's context of {context}", config.seq);
        let hint = format!("use --seq {context} or less, or --context {} to stretch its angles", config.seq);
        return Err(Error::config("seq", problem, hint));
    }
    Ok(())
}

impl TrainPlan {
    /// Plans a run of `config` on the model in `file` within `limits`. Without data the full `batch · seq` is planned.
    ///
    /// # Errors
    /// Whatever makes the run impossible, named by its setting.
    pub fn new(file: &ModelFile, config: &TrainConfig, data: Option<&TrainData>, limits: PlanLimits, tuner: &Tuner) -> Result<TrainPlan> {
        Self::on(None, file, config, data, limits, tuner)
    }

    /// As [`TrainPlan::new`] on a base that is resident; one that does not suit the run's rows is declared anew.
    ///
    /// # Errors
    /// As [`TrainPlan::new`].
    pub fn on(
        resident: Option<&Base>,
        file: &ModelFile,
        config: &TrainConfig,
        data: Option<&TrainData>,
        limits: PlanLimits,
        tuner: &Tuner,
    ) -> Result<TrainPlan> {
        let model = config.context.stretch(&file.config)?;
        check_length(config, &model)?;
        data.map_or(Ok(()), |data| data.check_tokens(&file.config))?;
        // Without rows any token may occur in them.
        let adapter = match data {
            Some(data) => config.adapter.clone().with_tokens(data.tokens()),
            None => config.adapter.clone().with_tokens(0..model.vocab_size as u32),
        };
        let layout = adapter.layout(&model)?;
        let rows = micro_rows(config, data);
        let mut passes = None;
        if let Some(data) = data {
            let packer = data.packer(config, rows)?;
            let steps = passes.insert(Passes::new(config, &packer)?).steps;
            if let Some(chain) = config.adapter.chain()? {
                link_ends(&chain, steps, &packer, config.grad_accum as u64)?;
            }
        }
        let shape = Shape {
            rows,
            positions: data.map_or(0, TrainData::longest_held_out).max(config.context.reach(config.seq)),
            recompute: Recompute::Off,
            quantize: quant::by_name(&config.quantize),
            training: true,
        };
        let base = Base::suiting(resident, file, limits, shape.quantize, rows)?.with_config(model);
        let need = config.need(&layout)?;
        let (planned, recompute) = config.recompute.choose(
            |recompute| {
                let mut planned = Planned::within(base.clone(), need.clone(), Shape { recompute, ..shape }, &[], limits, tuner)?;
                planned.adapters.add(&layout)?;
                Ok(planned)
            },
            |planned, mode| fits(planned.footprint().total(), mode, config.memory, limits),
        )?;
        check_memory(&planned, config.memory)?;
        Ok(TrainPlan { planned, layout, rows, recompute, passes })
    }
}
