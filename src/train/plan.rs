//! What a run will be, known from its settings, its rows and the model's header.

use super::batch::Packer;
use super::chain::link_ends;
use super::config::TrainConfig;
use super::data::TrainData;
use super::session::{Planned, Shape};
use crate::adapters::AdapterLayout;
use crate::formats::ModelFile;
use crate::gpu::Tuner;
use crate::gpu::device::PlanLimits;
use crate::model::Base;
use crate::model::llama::Recompute;
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
}

/// Rows of a micro-batch: `batch · seq`, or fewer where all the data together is shorter. A multiple of 8.
pub(super) fn micro_rows(config: &TrainConfig, data: Option<&TrainData>) -> usize {
    let asked = config.batch * config.seq;
    let all = data.map_or(asked, |d| d.train.iter().map(|e| e.tokens.len()).sum::<usize>().max(1));
    // A held-out row has to fit, too.
    asked.min(all.next_multiple_of(8)).max(data.map_or(0, TrainData::longest_held_out))
}

/// Optimizer steps of a run over the packed rows.
pub(super) fn total_steps(config: &TrainConfig, packer: &Packer) -> u64 {
    let micro = config.epochs.map_or(0, |epochs| packer.steps_in(epochs));
    config.steps.unwrap_or_else(|| micro.div_ceil(config.grad_accum as u64)).max(1)
}

impl TrainPlan {
    /// Optimizer steps that the run will take over `data`.
    ///
    /// # Errors
    /// Rows that cannot be packed.
    pub fn steps(&self, config: &TrainConfig, data: &TrainData) -> Result<u64> {
        Ok(total_steps(config, &Packer::new(&data.train, self.rows, config.seed, config.shuffle)?))
    }

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
        let context = file.config.max_position_embeddings;
        if config.seq > context {
            let problem = format!("rows of {} tokens exceed the model's context of {context}", config.seq);
            return Err(Error::config("seq", problem, format!("use --seq {context} or less")));
        }
        let layout = config.adapter.layout(&file.config)?;
        let rows = micro_rows(config, data);
        if let Some(data) = data {
            let packer = data.packer(config, rows)?;
            if let Some(chain) = config.adapter.chain()? {
                link_ends(&chain, total_steps(config, &packer), &packer, config.grad_accum as u64)?;
            }
        }
        let shape = Shape {
            rows,
            positions: data.map_or(0, TrainData::longest_held_out).max(config.seq),
            recompute: if config.recompute { Recompute::Blocks } else { Recompute::Off },
            quantize: quant::by_name(&config.quantize),
            training: true,
        };
        let base = Base::suiting(resident, file, limits, shape.quantize, rows)?;
        let planned = Planned::on(base, &[&layout], shape, limits, tuner)?;
        Ok(TrainPlan { planned, layout, rows })
    }
}
