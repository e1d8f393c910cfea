//! The feed-forward layer of a block with routed experts, forward and backward, beside the dense layer with one LoRA of the rank that a token's
//! experts have together, and beside the naive form in which every expert runs a whole feed-forward layer over the rows that chose it.

use serde_json::{Value, json};

use super::probe::{Probe, median};
use super::profile;
use super::record::{MixLoraRecord, Record};
use super::scene::{Scene, noise};
use super::setup::Bench;
use crate::Result;
use crate::adapters::{AdapterConfig, AdapterPool, Projection};
use crate::config::{ModelConfig, RopeScaling};
use crate::gpu::device::PlanLimits;
use crate::gpu::{Plan, Recorder, Store, Tensor};
use crate::kernels::lowrank::Segment;
use crate::kernels::matrix::Matrix;
use crate::model::ffn::{FeedForward, Routing};
use crate::model::inputs::HostBatch;
use crate::model::linear::{Adapter, Linear, LinearSiblings};
use crate::model::weights::Siblings;
use crate::model::{Inputs, RowParts};
use crate::quant::Q4_1;
use crate::settings::Settings;

/// Hidden and feed-forward width of SmolLM2-135M and Llama-3.2-1B.
const SHAPES: [(&str, usize, usize); 2] = [("SmolLM2-135M", 576, 1536), ("Llama-3.2-1B", 2048, 8192)];
/// Rows of a batch.
const ROWS: usize = 512;
const EXPERTS: usize = 8;
const TOP_K: usize = 2;
const RANK: usize = 8;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One LoRA of rank [`TOP_K`] · [`RANK`].
    Dense,
    /// Routed experts beside shared frozen products.
    Routed,
    /// A feed-forward layer an expert. Routing, gathering and adding up are left out, and every expert gets as many rows: less than it would cost.
    Naive,
}

impl Form {
    const ALL: [Form; 3] = [Form::Dense, Form::Routed, Form::Naive];

    fn name(self) -> &'static str {
        ["one LoRA r16", "8 experts r8, top-2", "a layer an expert"][self as usize]
    }

    fn settings(self) -> Value {
        let targets = ["gate", "up", "down"];
        match self {
            Form::Dense => json!({ "rank": TOP_K * RANK, "targets": targets }),
            Form::Routed => json!({ "method": "mixlora", "experts": EXPERTS, "top-k": TOP_K, "rank": RANK, "targets": targets }),
            Form::Naive => json!({ "rank": RANK, "targets": targets }),
        }
    }

    /// Feed-forward layers, and rows of each.
    fn layers(self, rows: usize) -> (usize, usize) {
        if self == Form::Naive { (EXPERTS, rows * TOP_K / EXPERTS) } else { (1, rows) }
    }
}

/// A layer on the device.
struct Layer {
    probe: Probe,
    dispatches: usize,
    bytes: u64,
    kept: u64,
}

/// What a recording of it needs.
struct Parts {
    pool: AdapterPool,
    inputs: Inputs,
    gate_up: Siblings,
    down: Matrix,
    n: Tensor,
    dy: Tensor,
    widths: (usize, usize),
}

pub(super) async fn run(bench: &mut Bench<'_>) -> Result<()> {
    for (model, d, f) in SHAPES {
        let mut layers = Vec::new();
        for form in Form::ALL {
            layers.push(open(bench, form, (d, f)).await?);
        }
        let rounds = bench.rounds();
        let mut times: [Vec<f64>; 3] = Default::default();
        for round in 0..rounds {
            for i in 0..3 {
                // Whoever goes first finds the caches as another left them.
                let which = (i + round) % 3;
                times[which].push(layers[which].probe.seconds(bench.gpu).await?);
            }
        }
        for (form, layer) in Form::ALL.into_iter().zip(&layers) {
            let mut ratios: Vec<f64> = times[form as usize].iter().zip(&times[0]).map(|(own, dense)| own / dense).collect();
            let of_dense = median(&mut ratios);
            (bench.report)(&Record::MixLora(MixLoraRecord {
                shape: model,
                tokens: ROWS,
                form: form.name(),
                ms: median(&mut times[form as usize].clone()) * 1e3,
                of_dense,
                least: ratios.first().copied().unwrap_or_default(),
                most: ratios.last().copied().unwrap_or_default(),
                bytes: layer.bytes,
                kept: layer.kept,
                dispatches: layer.dispatches,
                rounds,
            }))?;
        }
        for (form, layer) in Form::ALL.into_iter().zip(&layers) {
            if !bench.options.profile {
                continue;
            }
            let timings = layer.probe.profile(bench.gpu).await?;
            profile::tell(bench, &format!("{model}, {}", form.name()), &timings)?;
        }
    }
    Ok(())
}

async fn open(bench: &mut Bench<'_>, form: Form, widths: (usize, usize)) -> Result<Layer> {
    let (count, rows) = form.layers(ROWS);
    let mut scene = Scene::default();
    let parts = declare(&mut scene, form, widths, rows)?;
    let body = |rec: &mut Recorder| record(rec, &parts, count, rows);
    bench.tune(&body).await?;
    let planned = |count: usize| {
        let mut recorder = Recorder::new(bench.tuner);
        record(&mut recorder, &parts, count, rows);
        Plan::new(recorder, bench.gpu.plan_limits())
    };
    let of_arenas = |plan: &Plan| plan.arenas.iter().sum::<u64>();
    let plan = planned(count)?;
    let (dispatches, bytes) = (plan.dispatches(), of_arenas(&plan));
    // What another block adds is what waits for its backward pass.
    let kept = of_arenas(&planned(2 * count)?).saturating_sub(bytes);
    let store = scene.allocate(bench.gpu).await?;
    fill(bench, &store, &parts, rows)?;
    let mut probe = Probe::new(bench.gpu, bench.tuner, store, &body).await?;
    // What the driver compiles late.
    probe.seconds(bench.gpu).await?;
    Ok(Layer { probe, dispatches, bytes, kept })
}

fn declare(scene: &mut Scene, form: Form, (d, f): (usize, usize), rows: usize) -> Result<Parts> {
    let config = ModelConfig {
        model_type: "llama".into(),
        vocab_size: 8,
        hidden_size: d,
        intermediate_size: f,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        head_dim: 64,
        rms_norm_eps: 1e-5,
        max_position_embeddings: rows,
        rope_theta: 1e4,
        rope_scaling: RopeScaling::None,
        tie_word_embeddings: true,
        sliding_window: None,
    };
    let settings = form.settings().as_object().cloned().unwrap_or_default();
    let layout = AdapterConfig::read(&mut Settings::new(&settings))?.layout(&config)?;
    let gate_up = Matrix { members: vec![f, f], ..scene.matrix(&Q4_1, 2 * f, d)? };
    let down = scene.matrix(&Q4_1, d, f)?;
    let (n, dy) = (scene.noise("n", rows * d)?, scene.noise("dy", rows * d)?);
    let inputs = Inputs::declare(&mut scene.store, rows, false)?;
    let pool = AdapterPool::of(&[&layout], &config, &mut scene.store, inputs.row_job, PlanLimits::FLOOR)?;
    Ok(Parts { pool, inputs, gate_up: Siblings::Joint(gate_up), down, n, dy, widths: (d, f) })
}

/// One document, all of it the job's, and parameters that send rows to all experts.
fn fill(bench: &Bench<'_>, store: &Store, parts: &Parts, rows: usize) -> Result<()> {
    let (gpu, Parts { pool, inputs, .. }) = (bench.gpu, parts);
    pool.upload(gpu, store)?;
    let positions: Vec<u32> = (0..rows as u32).collect();
    let targets: Vec<i32> = (0..rows).map(|i| if i + 1 < rows { 1 } else { -1 }).collect();
    inputs.upload(gpu, store, &HostBatch::new(&vec![1; rows], &targets, &vec![0; rows], &positions, 1.0))?;
    store.write(gpu, pool.jobs, &[Segment::new(0..rows)])?;
    let values: Vec<f32> = noise("values", pool.allocation(0).values).into_iter().map(|x| 0.05 * x).collect();
    pool.value_slices(0).into_iter().try_for_each(|(words, tensor)| store.write(gpu, tensor, &values[words]))
}

/// Records `count` layers forward, then all of them backward.
fn record(rec: &mut Recorder, parts: &Parts, count: usize, rows: usize) {
    let Parts { pool, inputs, gate_up, down, n, dy, widths } = parts;
    let adapter = |which: Projection| Adapter { site: pool.site(0, which, rows), name: which.path(), carry: None };
    let layer = || FeedForward {
        gate_up: LinearSiblings {
            weights: gate_up,
            adapters: vec![adapter(Projection::Gate), adapter(Projection::Up)],
            name: "mlp.gate_up_proj",
            carries: Vec::new(),
        },
        down: Linear { weight: down, adapter: adapter(Projection::Down) },
        experts: pool.experts(0, rows, inputs.documents, true),
        rows,
        parts: RowParts::WHOLE,
        widths: *widths,
    };
    let mut saved = Vec::with_capacity(count);
    for i in 0..count {
        let y = rec.transient(&format!("y.{i}"), rows * widths.0);
        saved.push(layer().forward(rec, *n, y, Routing::New));
    }
    pool.record_balance(rec, rows);
    for (i, saved) in saved.into_iter().enumerate().rev() {
        let dn = rec.transient(&format!("dn.{i}"), rows * widths.0);
        layer().backward(rec, &saved, *n, *dy, dn);
    }
}
