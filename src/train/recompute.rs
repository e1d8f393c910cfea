//! Whether activations are kept for the backward pass or computed again, where that is left open: as much is kept as the plan has room for.

use serde::{Deserialize, Serialize};

use super::session::Planned;
use crate::gpu::device::PlanLimits;
use crate::model::Recompute;
use crate::settings::Settings;
use crate::{Error, Result};

/// Bytes that a run may plan to keep activations where nobody says how much memory there is: WebGPU does not tell, and nearly every GPU has these.
const UNASKED: u64 = 2 << 30;

/// The setting `recompute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecomputeChoice {
    /// The first of off, on and nested that fits.
    #[default]
    Auto,
    /// A block's activations are computed again in the backward pass from its input, which is kept: slower, less memory.
    On,
    /// The inputs of some blocks are kept, those between are computed again too: slower still, least memory.
    Nested,
    /// All activations are kept.
    Off,
}

impl RecomputeChoice {
    const TABLE: &[(&str, Self)] = &[("auto", Self::Auto), ("on", Self::On), ("off", Self::Off), ("nested", Self::Nested)];

    /// Reads it; `true` and `false` stand for `on` and `off`.
    pub(super) fn read(s: &mut Settings<'_>) -> Result<Self> {
        match s.peek("recompute").and_then(serde_json::Value::as_bool) {
            Some(on) => s.flag("recompute", on).map(|on| if on { Self::On } else { Self::Off }),
            None => s.choice("recompute", Self::Auto, Self::TABLE),
        }
    }

    /// The mode alone.
    pub fn only(mode: Recompute) -> Self {
        match mode {
            Recompute::Off => Self::Off,
            Recompute::Blocks => Self::On,
            Recompute::Nested => Self::Nested,
        }
    }

    /// The modes that it leaves open, from the fastest to the smallest.
    fn modes(self) -> &'static [Recompute] {
        match self {
            Self::Auto => &Recompute::ALL,
            Self::Off => &[Recompute::Off],
            Self::On => &[Recompute::Blocks],
            Self::Nested => &[Recompute::Nested],
        }
    }

    /// Plans with the first of the open modes whose plan `fits`, else with the last.
    ///
    /// # Errors
    /// Those of `plan`.
    pub(super) fn choose<P>(self, plan: impl Fn(Recompute) -> Result<P>, fits: impl Fn(&P, Recompute) -> bool) -> Result<(P, Recompute)> {
        let (last, others) = self.modes().split_last().unwrap_or((&Recompute::Nested, &[]));
        for mode in others {
            match plan(*mode) {
                Ok(made) if fits(&made, *mode) => return Ok((made, *mode)),
                // What cannot be bound may be small enough with fewer activations.
                Ok(_) | Err(Error::Limit { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        plan(*last).map(|made| (made, *last))
    }
}

/// Whether a run of `bytes` in `mode` is within the `memory` that the user gives. Without, all activations are kept up to what a device with these
/// limits has at least, and each block's input always.
pub(super) fn fits(bytes: u64, mode: Recompute, memory: Option<u64>, limits: PlanLimits) -> bool {
    let otherwise = if mode == Recompute::Off { unasked(limits) } else { u64::MAX };
    bytes <= memory.unwrap_or(otherwise)
}

/// Bytes that are taken without asking: what a device with these limits has at least.
pub(super) fn unasked(limits: PlanLimits) -> u64 {
    limits.max_buffer.min(UNASKED)
}

/// Refuses a plan beyond the memory that the user allows.
pub(super) fn check_memory(planned: &Planned, memory: Option<u64>) -> Result<()> {
    let bytes = planned.footprint().total();
    match memory {
        Some(memory) if bytes > memory => Err(Error::Limit {
            what: "the run".into(),
            needed: format!("{bytes} bytes"),
            allowed: format!("{memory} bytes (memory)"),
            hint: if planned.adapters.capacity().embeddings {
                "raise memory, leave out train-embeddings, or use a smaller batch, seq or rank"
            } else {
                "raise memory, or use a smaller batch, seq or rank"
            },
        }),
        _ => Ok(()),
    }
}
