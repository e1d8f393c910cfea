//! What it costs a chain to keep the links that it goes on from as f16: they are rounded when the run begins.

use crate::formats::ModelFile;
use crate::gpu::{Gpu, Tuner};
use crate::kernels::lowrank::Segment;
use crate::model::inputs::HostBatch;
use crate::train::session::Planned;
use crate::train::start::Unrounded;
use crate::{Error, Result};

/// What rounding the inherited links did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Rounding {
    /// Nothing was rounded.
    #[default]
    Exact,
    /// Largest change of the log-probability of a target of one fixed batch, as at a knot.
    Jump(f64),
    /// It was not measured: links in f32 would have taken more memory than the run.
    Unknown,
}

impl Rounding {
    /// The figure, where there is one.
    pub fn jump(self) -> Option<f64> {
        match self {
            Self::Jump(jump) => Some(jump),
            Self::Exact | Self::Unknown => None,
        }
    }

    /// One sentence where rounding was not measured.
    pub fn warning(self) -> Option<&'static str> {
        let sentence = "the links that the chain goes on from are rounded to f16; by how much that changes the model was not measured, \
                        it takes more memory than the run; --link-storage f32 changes nothing";
        (self == Self::Unknown).then_some(sentence)
    }
}

/// Losses of `batch` with links that nothing rounds, or `None` where that takes more memory than the run that `planned` is, so that a run
/// never needs more than was planned. The base of `planned` must be resident.
///
/// # Errors
/// Unreadable weights, a lost device.
pub(in crate::train) async fn unrounded_losses(
    gpu: &Gpu,
    file: &ModelFile,
    planned: &Planned,
    unrounded: &Unrounded,
    batch: &HostBatch,
    tuner: &Tuner,
) -> Result<Option<Vec<f32>>> {
    let exact = match planned.evaluating(&unrounded.layout, tuner) {
        Ok(exact) if exact.footprint().total() <= planned.footprint().total() => exact,
        Ok(_) | Err(Error::Limit { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut session = exact.realize(gpu, file, |_, _| {}).await?;
    session.write_values(gpu, 0, &unrounded.values)?;
    let rows = Segment::new(0..session.rows());
    session.evaluate(gpu, batch, &[rows]).await.map(Some)
}

/// Largest difference of two lists of losses.
pub(in crate::train) fn largest_change(before: &[f32], after: &[f32]) -> f64 {
    before.iter().zip(after).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}
