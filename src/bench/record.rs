//! What a benchmark tells: one record per figure, one JSON object each with an `event` key.

use serde::Serialize;

use crate::gpu::device::Facts;

/// One figure, or what it was measured on.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event")]
pub enum Record {
    /// The adapter.
    #[serde(rename = "bench_adapter")]
    Adapter(AdapterRecord),
    /// Its arithmetic ceiling.
    #[serde(rename = "bench_peak")]
    Peak(PeakRecord),
    /// A product with a frozen matrix.
    #[serde(rename = "bench_matmul")]
    Matmul(MatmulRecord),
    /// Any other kernel.
    #[serde(rename = "bench_kernel")]
    Kernel(KernelRecord),
    /// Attention of one long row.
    #[serde(rename = "bench_attention")]
    Attention(AttentionRecord),
    /// How its time and memory grow.
    #[serde(rename = "bench_attention_fit")]
    AttentionFit(AttentionFitRecord),
    /// A whole training step.
    #[serde(rename = "bench_step")]
    Step(StepRecord),
    /// A method's step beside another's.
    #[serde(rename = "bench_compare")]
    Compare(CompareRecord),
    /// Many jobs in one pass over the base.
    #[serde(rename = "bench_jobs")]
    Jobs(JobsRecord),
    /// The feed-forward layer with routed experts.
    MixLora(MixLoraRecord),
    /// A row of a step's profile.
    #[serde(rename = "bench_profile")]
    Profile(ProfileRecord),
}

impl Record {
    /// One line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // strings and numbers only
    }
}

/// The adapter under test.
#[derive(Debug, Clone, Serialize)]
pub struct AdapterRecord {
    /// Its name.
    pub adapter: String,
    /// Driver name and version.
    pub driver: String,
    /// "vulkan", "metal", "dx12", "webgpu".
    pub backend: String,
    /// Smallest and largest subgroup, where subgroup operations can be used.
    pub subgroups: Option<(u32, u32)>,
    /// Of this crate.
    pub version: &'static str,
}

impl AdapterRecord {
    pub(super) fn of(facts: &Facts) -> Self {
        Self {
            adapter: facts.name.clone(),
            driver: facts.driver.clone(),
            backend: facts.backend.clone(),
            subgroups: facts.subgroups.then_some(facts.subgroup_sizes),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// f32 multiply-adds in registers, two operations each.
#[derive(Debug, Clone, Serialize)]
pub struct PeakRecord {
    /// Median, in 10⁹ operations a second.
    pub gflops: f64,
    /// Measurements it is the median of.
    pub runs: usize,
}

/// `y[t, n] = x[t, k] Wᵀ` ("forward") or `dx[t, k] = dy[t, n] W` ("backward") with W `[n, k]` in `format`.
#[derive(Debug, Clone, Serialize)]
pub struct MatmulRecord {
    /// "forward" or "backward".
    pub direction: &'static str,
    /// Stored format of W.
    pub format: &'static str,
    /// Rows of the activations.
    pub t: usize,
    /// Outputs of the layer.
    pub n: usize,
    /// Inputs of the layer.
    pub k: usize,
    /// Median time of one product in milliseconds.
    pub ms: f64,
    /// 2 t n k operations, in 10⁹ a second.
    pub gflops: f64,
    /// Median over rounds of the rate divided by the peak measured in the same round.
    pub of_peak: f64,
    /// The kernel variant that the tuner chose.
    pub kernel: String,
    /// Largest error among the outputs that were checked, divided by the sum of the magnitudes that were added.
    pub error: f64,
}

/// One kernel, or the few that make one operation of a block.
#[derive(Debug, Clone, Serialize)]
pub struct KernelRecord {
    /// The operation.
    pub name: &'static str,
    /// Its sizes.
    pub shape: String,
    /// Median time in milliseconds.
    pub ms: f64,
    /// In 10⁹ operations a second.
    pub gflops: f64,
    /// Fraction of the peak, as in [`MatmulRecord`].
    pub of_peak: f64,
    /// The kernel variants that ran.
    pub kernels: Vec<String>,
}

/// Attention of one row, forward and backward, or a whole step over it.
#[derive(Debug, Clone, Serialize)]
pub struct AttentionRecord {
    /// The model whose heads these are, or whose whole step it is.
    pub what: String,
    /// Tokens of the row.
    pub tokens: usize,
    /// `full`, or which groups.
    pub form: &'static str,
    /// Time in milliseconds: a median, or of slow ones the faster of two.
    pub ms: f64,
    /// The same over that of full attention, where that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_full: Option<f64>,
    /// Bytes of all tensors that it needs; of a step all that is planned.
    pub bytes: u64,
}

/// Powers of the tokens that fit time and memory of the longest rows.
#[derive(Debug, Clone, Serialize)]
pub struct AttentionFitRecord {
    /// The model whose heads these are, or whose whole step it is.
    pub what: String,
    /// `full`, or which groups.
    pub form: &'static str,
    /// Of the time.
    pub time_exponent: f64,
    /// Of the bytes.
    pub memory_exponent: f64,
    /// Shortest row from which on it is faster than full attention, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faster_from: Option<usize>,
}

/// A whole optimizer step: upload of the batch, forward, backward, read-back of the losses, AdamW, read-back of the norm.
#[derive(Debug, Clone, Serialize)]
pub struct StepRecord {
    /// The workload.
    pub config: String,
    /// Tokens of a step.
    pub tokens: usize,
    /// Median time of a step in milliseconds.
    pub ms: f64,
    /// Fastest step.
    pub min_ms: f64,
    /// Slowest step.
    pub max_ms: f64,
    /// Steps timed, after a warm-up.
    pub steps: usize,
    /// At the median.
    pub tokens_per_s: f64,
    /// Model operations of a step in 10⁹: 4 a token and weight (2 forward, 2 for input gradients), head included, embedding not.
    pub model_gflop: f64,
    /// Model operations a second over the peak of the same round, median.
    pub of_peak: f64,
    /// Median peak in the same rounds, in 10⁹ operations a second.
    pub peak_gflops: f64,
    /// Kernel launches of forward and backward.
    pub dispatches: usize,
    /// Kernel launches of the update.
    pub update_dispatches: usize,
    /// Submits of forward, backward and update.
    pub submits: usize,
    /// Bytes on the GPU, as planned.
    pub planned_bytes: u64,
    /// Bytes that were then allocated.
    pub allocated_bytes: u64,
    /// Seconds of measuring kernels that were not known yet.
    pub tune_s: f64,
    /// Seconds from there to loaded weights and compiled kernels.
    pub load_s: f64,
    /// Seconds of the first step.
    pub first_step_s: f64,
    /// Mean loss of the first steps in nats.
    pub losses: Vec<f64>,
    /// Whether `losses` were compared with what other programs get from the same weights, and agree.
    pub losses_checked: bool,
}

/// Steps of two methods on one model, in turns.
#[derive(Debug, Clone, Serialize)]
pub struct CompareRecord {
    /// The workload.
    pub config: String,
    /// The method and what it is measured against.
    pub pair: &'static str,
    /// Tokens of a step.
    pub tokens: usize,
    /// Median over rounds of the method's time divided by the other's in the same round.
    pub ratio: f64,
    /// The fastest of the method's steps divided by the fastest of the other's: what is left when the machine does other work, too.
    pub of_fastest: f64,
    /// Smallest ratio of a round.
    pub least: f64,
    /// Largest ratio of a round.
    pub most: f64,
    /// Median time of the method's step in milliseconds.
    pub ms: f64,
    /// Median time of the other's.
    pub baseline_ms: f64,
    /// Rounds, after a warm-up.
    pub rounds: usize,
}

/// A feed-forward layer, forward and backward, with experts or without, in turns.
#[derive(Debug, Clone, Serialize)]
pub struct MixLoraRecord {
    /// Whose widths it has.
    pub shape: &'static str,
    /// Rows of the batch.
    pub tokens: usize,
    /// What adapts it.
    pub form: &'static str,
    /// Median time in milliseconds.
    pub ms: f64,
    /// Median over rounds of its time divided by that of the dense layer with one LoRA of the active rank.
    pub of_dense: f64,
    /// Smallest such ratio of a round.
    pub least: f64,
    /// Largest such ratio of a round.
    pub most: f64,
    /// Bytes of activations and their gradients, as planned.
    pub bytes: u64,
    /// Bytes of these that are kept from a block's forward pass to its backward pass, where nothing is computed again.
    pub kept: u64,
    /// Kernel launches.
    pub dispatches: usize,
    /// Rounds, after a warm-up.
    pub rounds: usize,
}

/// Many jobs of mixed ranks and lengths: one fused step of all of them, a step of each alone, and padded passes, in turns.
#[derive(Debug, Clone, Serialize)]
pub struct JobsRecord {
    /// The workload.
    pub config: String,
    /// How many.
    pub jobs: usize,
    /// Rows of the fused step.
    pub rows: usize,
    /// Rows of the padded passes.
    pub padded_rows: usize,
    /// Median time of the fused step in milliseconds.
    pub fused_ms: f64,
    /// Median over rounds of the sum of the steps alone.
    pub alone_ms: f64,
    /// Median over rounds of the padded passes together.
    pub padded_ms: f64,
    /// Median over rounds of the fused step's time divided by that of the steps alone.
    pub of_alone: f64,
    /// Smallest such ratio of a round.
    pub least: f64,
    /// Largest such ratio of a round.
    pub most: f64,
    /// Median over rounds of the fused step's time divided by that of the padded passes.
    pub of_padded: f64,
    /// Planned bytes of all jobs together.
    pub fused_bytes: u64,
    /// Planned bytes of as many processes with a base each.
    pub separate_bytes: u64,
    /// The first over the second.
    pub of_bytes: f64,
    /// Kernel launches of the fused step.
    pub dispatches: usize,
    /// Kernel launches of the step of one job alone.
    pub dispatches_one: usize,
    /// Rounds, after a warm-up.
    pub rounds: usize,
}

/// GPU time of one step that goes to one kernel, or to one place in the model with all its layers together.
#[derive(Debug, Clone, Serialize)]
pub struct ProfileRecord {
    /// The workload.
    pub config: String,
    /// "all", "kernel" or "label".
    pub by: &'static str,
    /// Kernel name, or label without the layer's number.
    pub name: String,
    /// Milliseconds a step.
    pub ms: f64,
    /// Share of all kernels' time.
    pub share: f64,
    /// Launches a step.
    pub dispatches: usize,
    /// In 10⁹ operations a second.
    pub gflops: f64,
    /// In 10⁹ bytes a second; every byte that a launch touches counts once.
    pub gbytes: f64,
}
