//! What a knot tells.

use serde::Serialize;

/// A knot, as the event tells it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KnotReport {
    /// The job's name.
    pub job: String,
    /// After this step.
    pub step: u64,
    /// Number of the new link, from 0, counted over inherited links too.
    pub link: u64,
    /// Its rank.
    pub rank: u64,
    /// Why the link before it ended.
    pub reason: String,
    /// Largest change, by the knot, of the log-probability of a target of one fixed batch.
    pub logit_jump: f64,
    /// What the gradient and the links are like, unless probes are off.
    #[serde(flatten)]
    pub diagnostics: Option<KnotDiagnostics>,
}

/// Measured at a knot on one fixed training batch, whose mean loss has the gradient `G` at each adapted weight; `ΔW` are the frozen links.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KnotDiagnostics {
    /// Mean over the sites of `‖G‖₂`, from power iteration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// Frank-Wolfe gap in nats, `Σ_sites max(ρ, ‖ΔW‖_*) ‖G‖₂ + ⟨G, ΔW⟩`: at least 0, and 0 where no update within the nuclear-norm ball of that radius
    /// promises a lower loss to first order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<f64>,
    /// Share of `Σ ‖G‖_F²` in the top directions, as many as the new link has ranks (`‖G‖_F` estimated).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub captured: Option<f64>,
    /// `Σ_sites ⟨G, link⟩` of each frozen link, oldest first: negative where more of it would lower the loss.
    pub along: Vec<f64>,
    /// Mean over the sites of the effective rank of the first 1, 2, … links together.
    pub effective_rank: Vec<f64>,
    /// Mean over the sites of the overlap of the newest frozen link's input directions with those of each earlier link, 0 to 1.
    pub overlap: Vec<f64>,
}
