//! Whether activations are kept for the backward pass or computed again, where that is left open: kept as long as the plan fits.

use serde::{Deserialize, Serialize};

use super::session::Planned;
use crate::gpu::device::PlanLimits;
use crate::model::llama::Recompute;
use crate::settings::Settings;
use crate::{Error, Result};

/// Bytes that a run may plan to keep activations where nobody says how much memory there is: WebGPU does not tell, and nearly every GPU has these.
const UNASKED: u64 = 2 << 30;

/// The setting `recompute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecomputeChoice {
    /// Only where keeping all activations does not fit.
    #[default]
    Auto,
    /// A block's activations are computed again in the backward pass: slower, less memory.
    On,
    /// All activations are kept.
    Off,
}

impl RecomputeChoice {
    const TABLE: &[(&str, Self)] = &[("auto", Self::Auto), ("on", Self::On), ("off", Self::Off)];

    /// Reads it; `true` and `false` stand for `on` and `off`.
    pub(super) fn read(s: &mut Settings<'_>) -> Result<Self> {
        match s.peek("recompute").and_then(serde_json::Value::as_bool) {
            Some(on) => s.flag("recompute", on).map(|on| if on { Self::On } else { Self::Off }),
            None => s.choice("recompute", Self::Auto, Self::TABLE),
        }
    }

    /// Plans with it; where both are open, keeping activations is planned first and taken if `fits` its bytes.
    ///
    /// # Errors
    /// Those of `plan`.
    pub(super) fn choose<P>(self, plan: impl Fn(Recompute) -> Result<P>, fits: impl Fn(&P) -> bool) -> Result<(P, Recompute)> {
        let made = |recompute| plan(recompute).map(|made| (made, recompute));
        match self {
            Self::On => made(Recompute::Blocks),
            Self::Off => made(Recompute::Off),
            Self::Auto => match made(Recompute::Off) {
                Ok(kept) if fits(&kept.0) => Ok(kept),
                // What cannot be bound may be small enough without activations.
                Ok(_) | Err(Error::Limit { .. }) => made(Recompute::Blocks),
                Err(error) => Err(error),
            },
        }
    }
}

/// Bytes up to which activations are kept: the `memory` that the user gives, else what a device with these limits has at least.
pub fn allowed(memory: Option<u64>, limits: PlanLimits) -> u64 {
    memory.unwrap_or(limits.max_buffer.min(UNASKED))
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
                "raise --memory, leave out --train-embeddings, or use a smaller --batch, --seq or --rank"
            } else {
                "raise --memory, or use a smaller --batch, --seq or --rank"
            },
        }),
        _ => Ok(()),
    }
}
