//! What a run tells: one object per event, the same on `--json` lines and in the web API.
//!
//! `{"event":"step","job":"main","step":1,"loss":2.31,…}`. A number that is not finite is `null`, as JSON has no other way.

use serde::{Serialize, Serializer};

use super::chain::KnotReport;
use super::passes::Passes;
use super::preference::PreferenceReport;
use super::routing::RouterReport;
use crate::Error;
use crate::settings::Map;

/// One thing that happened. Steps are optimizer steps, counted from 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run begins or goes on.
    Start {
        /// The job's name.
        job: String,
        /// The settings with all defaults filled in.
        config: Map,
        /// Number of trainable parameters.
        trainable_parameters: u64,
        /// Bytes on the GPU, as planned and then allocated.
        planned_bytes: u64,
        /// The GPU adapter's name.
        adapter: String,
        /// Steps that the whole run takes.
        steps: u64,
        /// How it goes through its rows.
        #[serde(flatten)]
        passes: Passes,
        /// Steps done before, when the run was resumed; else 0.
        resumed_at: u64,
        /// Largest change of a target's log-probability by rounding the links that a chain goes on from, where they are stored as f16.
        #[serde(skip_serializing_if = "Option::is_none")]
        logit_jump: Option<f64>,
    },
    /// An optimizer step is done.
    Step(StepReport),
    /// A held-out loss was measured.
    Eval {
        /// The job's name.
        job: String,
        /// After this step; 0 before the first.
        step: u64,
        /// Mean loss in nats over all targets.
        loss: f64,
        /// Targets it is the mean of.
        tokens: u64,
        /// Mean loss under the run's shifted sparse attention, where `eval-group` asks for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        grouped_loss: Option<f64>,
        /// Share of labelled rows answered right, where there are any.
        #[serde(skip_serializing_if = "Option::is_none")]
        accuracy: Option<f64>,
        /// No earlier loss of this run was as low.
        best: bool,
        /// The same by task, where there is more than one.
        #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "by_task")]
        tasks: Vec<TaskReport>,
        /// The task that does worst: of the lowest accuracy where every task has one, else of the highest loss.
        #[serde(skip_serializing_if = "Option::is_none")]
        worst: Option<String>,
    },
    /// A link of a chain was frozen and the next one begun.
    Knot(KnotReport),
    /// The whole state was saved.
    Checkpoint {
        /// The job's name.
        job: String,
        /// After this step.
        step: u64,
        /// Where.
        path: String,
    },
    /// The run ends before its last step.
    EarlyStop {
        /// The job's name.
        job: String,
        /// After this step.
        step: u64,
        /// Why.
        reason: String,
    },
    /// Several jobs begin over one base.
    Jobs {
        /// How many.
        jobs: u64,
        /// Most rows of a fused step.
        rows: u64,
        /// Bytes on the GPU, as planned and then allocated.
        planned_bytes: u64,
        /// Places for jobs at once.
        places: u64,
        /// Bytes among the planned ones that are free for jobs which are added later.
        spare_bytes: u64,
        /// The GPU adapter's name.
        adapter: String,
    },
    /// One of several jobs goes on where it was when the run was saved.
    Resumed {
        /// The job's name.
        job: String,
        /// Optimizer steps done.
        step: u64,
        /// Optimizer steps in all.
        steps: u64,
        /// `waiting`, `running`, `paused`.
        state: String,
    },
    /// All jobs of a run were saved.
    Saved {
        /// Where.
        path: String,
    },
    /// The scheduler of several jobs decided something.
    Schedule {
        /// The job's name.
        job: String,
        /// What: `admit`, `pause`, `resume`, `evaluate`, `done`, `stop`, `fail`, `refuse`, `note`.
        action: String,
        /// Why, in one sentence.
        reason: String,
    },
    /// One of several jobs cannot go on; the others do.
    JobFailed {
        /// The job's name.
        job: String,
        /// Why, in one sentence.
        reason: String,
    },
    /// Something that the user should know and that stops nothing.
    Warning {
        /// The job's name, when it is about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        job: Option<String>,
        /// One sentence.
        message: String,
    },
    /// The run is over and its adapter saved.
    Done {
        /// The job's name.
        job: String,
        /// Steps done.
        step: u64,
        /// Loss of the last step; `None` when no step was left to do.
        loss: Option<f64>,
        /// Lowest held-out loss, where there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        best_eval: Option<f64>,
        /// Seconds since the run began or was resumed.
        seconds: f64,
        /// Where the adapter is.
        out: String,
    },
    /// The run failed.
    Error {
        /// [`Error::code`].
        code: &'static str,
        /// One sentence.
        message: String,
    },
}

/// One optimizer step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// The job's name.
    pub job: String,
    /// Which step, from 1.
    pub step: u64,
    /// What is minimised, before the update: the mean loss in nats over the step's targets (of DPO over its pairs), and for MixLoRA what balances its
    /// experts.
    pub loss: f64,
    /// The mean loss in nats over the step's targets, where more than that is minimised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ce: Option<f64>,
    /// The balance loss of MixLoRA's experts, before its coefficient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance_loss: Option<f64>,
    /// How the step's pairs did, where the job trains on preferences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preference: Option<PreferenceReport>,
    /// What MixLoRA's routers did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterReport>,
    /// Learning rate of the update, without the multipliers of single parameters.
    pub lr: f64,
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Tokens that went through the model, targets or not.
    pub tokens: u64,
    /// Those, per second of this step.
    pub tokens_per_s: f64,
    /// Mean loss of each task that the step had rows of, where there is more than one.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "losses_by_task")]
    pub tasks: Vec<(String, f64)>,
}

/// How one task's held-out rows did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskReport {
    /// The task.
    #[serde(skip)]
    pub name: String,
    /// Mean loss in nats over its targets.
    pub loss: f64,
    /// Targets it is the mean of.
    pub tokens: u64,
    /// Share of its labelled rows answered right, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

/// `{name: report}`.
fn by_task<S: Serializer>(tasks: &[TaskReport], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(tasks.iter().map(|task| (&task.name, task)))
}

/// `{name: loss}`.
fn losses_by_task<S: Serializer>(tasks: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(tasks.iter().map(|(name, loss)| (name, loss)))
}

impl Event {
    /// The event of a failure.
    pub fn error(error: &Error) -> Self {
        Self::Error { code: error.code(), message: error.to_string() }
    }

    /// The event as one line of JSON, without the line break.
    pub fn to_json(&self) -> String {
        // Only strings, numbers and JSON values: nothing that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default()
    }
}
