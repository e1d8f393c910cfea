//! `weblora plan`: the exact memory of a run, from the model's header alone.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use serde_json::json;
use weblora::Result;
use weblora::gpu::Tuner;
use weblora::gpu::device::PlanLimits;
use weblora::model::Recompute;
use weblora::settings::read_bytes;
use weblora::train::embeddings;
use weblora::train::recompute::RecomputeChoice;
use weblora::train::trainer::TrainPlan;
use weblora::train::{Event, TrainConfig};

use super::base::open_model;
use super::data;
use super::output::{Output, bytes};
use super::settings::TrainArgs;
use super::train::needed;

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    run: TrainArgs,
    /// Bytes that the device binds at once, as `weblora doctor` shows them [default: 128 MiB, which every WebGPU device does].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_binding: Option<u64>,
}

fn size(text: &str) -> std::result::Result<u64, String> {
    read_bytes(&text.into()).ok_or_else(|| format!("{text:?} is no size such as \"2 GiB\""))
}

impl PlanArgs {
    /// The limits every WebGPU device has, where nothing is said: what fits in them fits everywhere.
    fn limits(&self) -> PlanLimits {
        let floor = PlanLimits::FLOOR;
        let binding = |max_binding: u64| PlanLimits { max_binding, max_buffer: floor.max_buffer.max(max_binding) };
        self.max_binding.map_or(floor, binding)
    }
}

/// Runs the verb.
pub fn run(args: &PlanArgs, output: &mut Output) -> Result<()> {
    let limits = args.limits();
    let mut config = TrainConfig::from_map(&args.run.settings()?)?;
    let model = open_model(needed("model", config.model.as_ref())?, config.tokenizer.as_deref().map(Path::new))?;
    let read = if config.data.is_empty() { None } else { Some(data::read(&mut config, &model, false)?) };
    let (data, warnings) = read.unzip();
    let plan = TrainPlan::new(&model, &config, data.as_ref(), limits, &Tuner::none())?;
    let steps = plan.passes.map(|passes| passes.steps);
    let own = plan.passes.iter().flat_map(|passes| passes.warnings().into_iter().chain(config.warnings(passes.steps)));
    let embeddings = embeddings::warning(&plan.layout, &model.config);
    for message in warnings.into_iter().flatten().chain(own).chain(embeddings) {
        output.event(&Event::Warning { job: Some(config.name.clone()), message });
    }
    let of_mode = |mode: Recompute| {
        if mode == plan.recompute {
            return Ok(plan.planned.footprint().total());
        }
        let other = TrainConfig { recompute: RecomputeChoice::only(mode), memory: None, ..config.clone() };
        TrainPlan::new(&model, &other, data.as_ref(), limits, &Tuner::none()).map(|plan| plan.planned.footprint().total())
    };
    let modes: Vec<(Recompute, Result<u64>)> = Recompute::ALL.into_iter().map(|mode| (mode, of_mode(mode))).collect();
    if !output.is_json() {
        return text(&plan, model.name(), modes, output);
    }
    let footprint = plan.planned.footprint();
    let (micro, update) = plan.planned.dispatches();
    let by_mode: BTreeMap<&str, Option<u64>> = modes.iter().map(|(mode, bytes)| (mode.name(), bytes.as_ref().ok().copied())).collect();
    let (buffer, buffer_bytes) = largest_buffer(&plan);
    let (bound_by, binding_bytes) = plan.planned.largest_binding().unwrap_or_default();
    let (longest, operations) = plan.planned.longest_dispatch().unwrap_or_default();
    output.print(
        &json!({
            "event": "plan", "model": model.name(), "rows": plan.rows, "steps": steps, "passes": plan.passes,
            "trainable_parameters": plan.layout.params.trainable(), "recompute": plan.recompute, "recompute_bytes": by_mode,
            "planned_bytes": footprint.total(), "persistent": footprint.persistent, "activations": footprint.arenas,
            "params": footprint.params, "dispatches": micro, "update_dispatches": update,
            "largest_buffer": buffer, "largest_buffer_bytes": buffer_bytes,
            "largest_binding": bound_by, "largest_binding_bytes": binding_bytes,
            "longest_dispatch": longest, "longest_dispatch_flops": operations,
        })
        .to_string(),
    )
}

/// The largest persistent buffer and its bytes.
fn largest_buffer(plan: &TrainPlan) -> (String, u64) {
    let largest = plan.planned.store.entries().into_iter().max_by_key(|e| e.bytes);
    largest.map_or((String::new(), 0), |e| (e.label.clone(), e.bytes))
}

/// Prints the plan for people, with the bytes of all modes.
fn text(plan: &TrainPlan, model: &str, modes: Vec<(Recompute, Result<u64>)>, output: &mut Output) -> Result<()> {
    let (footprint, trainable) = (plan.planned.footprint(), plan.layout.params.trainable());
    output.print(&format!("{model}: {} tokens a micro-batch, {trainable} trainable parameters", plan.rows))?;
    if let Some(passes) = plan.passes {
        output.print(&format!("  {}, {} steps", passes.words(), passes.steps))?;
    }
    let parts = footprint.persistent.iter().map(|(class, size)| (*class, *size));
    for (what, size) in parts.chain([("activations", footprint.arenas), ("params", footprint.params), ("total", footprint.total())]) {
        output.print(&format!("  {what:12} {:>12}  {size}", bytes(size)))?;
    }
    for (mode, total) in modes {
        let kept = match mode {
            Recompute::Off => "activations are kept",
            Recompute::Blocks => "each block's input is kept",
            Recompute::Nested => "the inputs of some blocks are kept",
        };
        let taken = if mode == plan.recompute { "  (this plan)" } else { "" };
        let total = total.map_or_else(|error| error.to_string(), bytes);
        output.print(&format!("  --recompute {:6}  {total:>12}  {kept}{taken}", mode.name()))?;
    }
    let (micro, update) = plan.planned.dispatches();
    let (buffer, buffer_bytes) = largest_buffer(plan);
    output.print(&format!("  largest buffer {buffer}, {}; {micro} + {update} dispatches a step", bytes(buffer_bytes)))?;
    let (bound_by, binding_bytes) = plan.planned.largest_binding().unwrap_or_default();
    output.print(&format!("  largest binding {}, of {bound_by}", bytes(binding_bytes)))?;
    let (longest, operations) = plan.planned.longest_dispatch().unwrap_or_default();
    output.print(&format!("  longest dispatch {longest}, {:.1} GFLOP", operations as f64 / 1e9))
}
