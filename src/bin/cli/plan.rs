//! `weblora plan`: the exact memory of a run, from the model's header alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use weblora::Result;
use weblora::gpu::Tuner;
use weblora::gpu::device::PlanLimits;
use weblora::model::Recompute;
use weblora::train::embeddings;
use weblora::train::recompute::RecomputeChoice;
use weblora::train::trainer::TrainPlan;
use weblora::train::{Event, TrainConfig};

use super::base::open_model;
use super::data;
use super::output::{Output, bytes};
use super::settings::TrainArgs;
use super::train::needed;

/// Runs the verb.
pub fn run(args: &TrainArgs, output: &mut Output) -> Result<()> {
    let mut config = TrainConfig::from_map(&args.settings()?)?;
    let model = open_model(needed("model", config.model.as_ref())?, config.tokenizer.as_deref().map(Path::new))?;
    let read = if config.data.is_empty() { None } else { Some(data::read(&mut config, &model, false)?) };
    let (data, warnings) = read.unzip();
    // The limits every WebGPU device has: what fits in them fits everywhere.
    let plan = TrainPlan::new(&model, &config, data.as_ref(), PlanLimits::FLOOR, &Tuner::none())?;
    let steps = plan.passes.map(|passes| passes.steps);
    let own = plan.passes.iter().flat_map(|passes| passes.warnings().into_iter().chain(config.warnings(passes.steps)));
    let embeddings = embeddings::warning(&plan.layout, &model.config);
    for message in warnings.into_iter().flatten().chain(own).chain(embeddings) {
        output.event(&Event::Warning { job: Some(config.name.clone()), message });
    }
    let footprint = plan.planned.footprint();
    let of_mode = |mode: Recompute| {
        if mode == plan.recompute {
            return Ok(footprint.total());
        }
        let other = TrainConfig { recompute: RecomputeChoice::only(mode), memory: None, ..config.clone() };
        TrainPlan::new(&model, &other, data.as_ref(), PlanLimits::FLOOR, &Tuner::none()).map(|plan| plan.planned.footprint().total())
    };
    let modes: Vec<(Recompute, Result<u64>)> = Recompute::ALL.into_iter().map(|mode| (mode, of_mode(mode))).collect();
    let (micro, update) = plan.planned.dispatches();
    let trainable = plan.layout.params.trainable();
    let largest = plan.planned.store.entries().into_iter().max_by_key(|e| e.bytes);
    let (binding, binding_bytes) = largest.map_or((String::new(), 0), |e| (e.label.clone(), e.bytes));
    let (longest, operations) = plan.planned.longest_dispatch().unwrap_or_default();
    if output.is_json() {
        let by_mode: BTreeMap<&str, Option<u64>> = modes.iter().map(|(mode, bytes)| (mode.name(), bytes.as_ref().ok().copied())).collect();
        return output.print(
            &json!({
                "event": "plan", "model": model.name(), "rows": plan.rows, "steps": steps, "passes": plan.passes, "trainable_parameters": trainable,
                "recompute": plan.recompute, "recompute_bytes": by_mode,
                "planned_bytes": footprint.total(), "persistent": footprint.persistent, "activations": footprint.arenas,
                "params": footprint.params, "dispatches": micro, "update_dispatches": update,
                "largest_buffer": binding, "largest_buffer_bytes": binding_bytes,
                "longest_dispatch": longest, "longest_dispatch_flops": operations,
            })
            .to_string(),
        );
    }
    output.print(&format!("{}: {} tokens a micro-batch, {trainable} trainable parameters", model.name(), plan.rows))?;
    if let Some(passes) = plan.passes {
        output.print(&format!("  {}, {} steps", passes.words(), passes.steps))?;
    }
    for (class, size) in &footprint.persistent {
        output.print(&format!("  {class:12} {:>12}  {size}", bytes(*size)))?;
    }
    output.print(&format!("  {:12} {:>12}  {}", "activations", bytes(footprint.arenas), footprint.arenas))?;
    output.print(&format!("  {:12} {:>12}  {}", "params", bytes(footprint.params), footprint.params))?;
    output.print(&format!("  {:12} {:>12}  {}", "total", bytes(footprint.total()), footprint.total()))?;
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
    output.print(&format!("  largest buffer {binding}, {}; {micro} + {update} dispatches a step", bytes(binding_bytes)))?;
    output.print(&format!("  longest dispatch {longest}, {:.1} GFLOP", operations as f64 / 1e9))
}
