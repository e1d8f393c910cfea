//! A session that only evaluates: rows and labelled rows under a base and any number of adapters.

use super::score::{self, Accuracy, Evaluation};
use super::session::{Planned, Session, Shape};
use crate::adapters::AdapterLayout;
use crate::config::ModelConfig;
use crate::formats::ModelFile;
use crate::gpu::{Gpu, Tuner};
use crate::model::Base;
use crate::model::Recompute;
use crate::quant::QuantFormat;
use crate::text::{DataOptions, Dataset, Example, Labelled, Tokenizer, read_rows};
use crate::{Error, Result};

/// What is scored.
#[derive(Debug, Clone, Default)]
pub struct EvalRows {
    /// Rows whose mean loss is taken.
    pub examples: Vec<Example>,
    /// Rows with choices.
    pub labelled: Vec<Labelled>,
    /// What the user should know about the rows.
    pub warnings: Vec<String>,
}

impl EvalRows {
    /// Reads the rows of a file; `name` names it in errors.
    ///
    /// # Errors
    /// Unusable rows.
    pub fn read(name: &str, bytes: &[u8], tokenizer: &Tokenizer, options: DataOptions) -> Result<Self> {
        let rows = read_rows(name, bytes)?;
        let mut labelled = Dataset::labelled(name, &rows, tokenizer, options.clone())?;
        let Dataset { mut examples, report, .. } = Dataset::build(name, &rows, tokenizer, options)?;
        // Of a pair the chosen answer has a loss, and is right where it is the likelier one.
        for example in &mut examples {
            if let Some(rejected) = example.rejected.take() {
                labelled.push(Labelled { candidates: vec![example.clone(), *rejected], label: 0, row: example.row });
            }
        }
        Ok(Self { examples, labelled, warnings: report.warnings(name) })
    }

    /// Tokens of the longest row, at least 2.
    pub fn longest(&self) -> usize {
        self.labelled.iter().flat_map(|l| &l.candidates).chain(&self.examples).map(|e| e.tokens.len()).max().unwrap_or(2).max(2)
    }
}

/// How an evaluation is made.
#[derive(Debug, Clone, Copy)]
pub struct EvalShape {
    /// Tokens of a pass; fewer where all rows together are shorter, more where one row is longer.
    pub tokens: usize,
    /// Re-encode float projections at load.
    pub quantize: Option<&'static QuantFormat>,
    /// Measure kernels that the tuner does not know.
    pub measure: bool,
}

/// Plans a session for `rows` with `adapters`, which become jobs 0, 1, …, on `resident`, if that is given and suits.
///
/// # Errors
/// A row longer than the model's context; what the device makes impossible.
pub fn plan(
    gpu: &Gpu,
    file: &ModelFile,
    resident: Option<&Base>,
    adapters: &[(AdapterLayout, Vec<f32>)],
    rows: &EvalRows,
    how: EvalShape,
    tuner: &Tuner,
) -> Result<Planned> {
    plan_as(gpu, file, &file.config, resident, adapters, rows, how, tuner)
}

/// As [`plan`], with the rotary angles of `model` instead of the file's.
///
/// # Errors
/// As [`plan`].
pub fn plan_as(
    gpu: &Gpu,
    file: &ModelFile,
    model: &ModelConfig,
    resident: Option<&Base>,
    adapters: &[(AdapterLayout, Vec<f32>)],
    rows: &EvalRows,
    how: EvalShape,
    tuner: &Tuner,
) -> Result<Planned> {
    let (longest, context) = (rows.longest(), model.context_length());
    if longest > context {
        let problem = format!("a row of {longest} tokens exceeds the model's context of {context}");
        let hint = format!("use --seq {context} or less, or --context {longest} to stretch its angles");
        return Err(Error::config("seq", problem, hint));
    }
    let all: usize = rows.examples.iter().map(|e| e.tokens.len()).sum();
    let mut layouts: Vec<AdapterLayout> = adapters.iter().map(|(layout, _)| layout.clone()).collect();
    layouts.iter_mut().for_each(AdapterLayout::freeze);
    let shape = Shape {
        rows: how.tokens.min(all.next_multiple_of(8)).max(longest),
        positions: longest,
        recompute: Recompute::Off,
        quantize: how.quantize,
        training: false,
    };
    let limits = gpu.plan_limits();
    let base = Base::suiting(resident, file, limits, how.quantize, shape.rows)?.with_config(model.clone());
    Planned::on(base, &layouts.iter().collect::<Vec<_>>(), shape, limits, tuner)
}

/// Makes `planned` real and writes its `adapters`, measuring kernels first if `how` says so. `progress` gets bytes of weights done and in all.
///
/// # Errors
/// Out of memory, unreadable weights, a lost device.
pub async fn open(
    gpu: &Gpu,
    file: &ModelFile,
    mut planned: Planned,
    adapters: &[(AdapterLayout, Vec<f32>)],
    how: EvalShape,
    tuner: &mut Tuner,
    progress: impl FnMut(u64, u64),
) -> Result<Session> {
    if how.measure {
        planned.tune(gpu, tuner).await?;
    }
    let session = planned.realize(gpu, file, progress).await?;
    for (job, (_, values)) in adapters.iter().enumerate() {
        session.write_values(gpu, job, values)?;
    }
    Ok(session)
}

/// Mean loss and, where there are labelled rows, accuracy, with the adapter of `job` or with the base alone.
///
/// # Errors
/// A lost device.
pub async fn evaluate(
    session: &mut Session,
    gpu: &Gpu,
    rows: &EvalRows,
    job: Option<usize>,
) -> Result<(Option<Evaluation>, Option<Accuracy>)> {
    let loss = score::mean(session, gpu, &rows.examples, job).await?;
    if rows.labelled.is_empty() {
        return Ok((loss, None));
    }
    Ok((loss, Some(score::accuracy(session, gpu, &rows.labelled, job).await?)))
}
