//! Ten training steps of the tiny LLaMA against PyTorch: every kernel of a step, on this browser's implementation of WebGPU.

use serde_json::{Value, json};
use wasm_bindgen_test::{console_log, wasm_bindgen_test};
use weblora::adapters::{AdapterConfig, initial_buffer, norms};
use weblora::formats::{ByteSource, Bytes, ModelFile};
use weblora::gpu::{Gpu, GpuOptions, Tuner};
use weblora::kernels::lowrank::Segment;
use weblora::model::Recompute;
use weblora::model::inputs::HostBatch;
use weblora::settings::{Map, Settings};
use weblora::train::TrainConfig;
use weblora::train::session::{Hyper, Planned, Shape};

use super::engine::get;

const GGUF: &[u8] = include_bytes!("../golden/tiny_llama/model.gguf");
const GOLDEN: &str = include_str!("../golden/tiny_llama/golden.json");
const MIXLORA: &str = include_str!("../golden/mixlora.json");
const LONGLORA: &str = include_str!("../golden/longlora.json");
/// Relative to the curve in f64, to which the native one is held as well (`tests/golden.rs`). Seen: 5e-7.
const TOLERANCE: f64 = 1e-5;

fn ints(value: &Value) -> Vec<i64> {
    value.as_array().expect("a list").iter().map(|v| v.as_i64().expect("a whole number")).collect()
}

fn batch(value: &Value, rows: usize) -> HostBatch {
    let (tokens, labels) = (ints(&value["tokens"]), ints(&value["labels"]));
    let (mut doc_start, mut positions) = (Vec::new(), Vec::new());
    for length in ints(&value["lengths"]) {
        let start = doc_start.len() as u32;
        doc_start.extend((0..length).map(|_| start));
        positions.extend(0..length as u32);
    }
    let mut ids: Vec<u32> = tokens.iter().map(|t| *t as u32).collect();
    let mut targets: Vec<i32> = labels[1..].iter().map(|l| (*l).max(-1) as i32).collect();
    targets.push(-1);
    while ids.len() < rows {
        doc_start.push(ids.len() as u32);
        positions.push(0);
        ids.push(0);
        targets.push(-1);
    }
    let count = targets.iter().filter(|t| **t >= 0).count();
    HostBatch::new(&ids, &targets, &doc_start, &positions, 1.0 / count as f32)
}

#[wasm_bindgen_test]
async fn ten_steps_equal_pytorch() {
    steps_equal_pytorch(10, &GpuOptions::default()).await;
}

/// Both adapters compute on the CPU and are offered its kernels; these are the ones of people's GPUs. Not in Firefox: its wgpu on lavapipe is what
/// native tests have as well, and takes minutes to compile them.
#[wasm_bindgen_test]
async fn steps_with_the_kernels_of_a_card_equal_pytorch() {
    let agent = get(&get(&js_sys::global(), "navigator"), "userAgent").as_string().expect("a browser");
    if agent.contains("Firefox") {
        return console_log!("left out in {agent}");
    }
    steps_equal_pytorch(3, &GpuOptions { as_card: true, ..GpuOptions::default() }).await;
}

async fn steps_equal_pytorch(steps: usize, options: &GpuOptions) {
    let golden: Value = serde_json::from_str(GOLDEN).expect("the golden file");
    let case = &golden["curves"]["lora"];
    let gpu = Gpu::open(options).await.expect("a WebGPU adapter");
    console_log!("{:?}", gpu.facts());
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", GGUF));
    let file = ModelFile::open_gguf(vec![source]).await.expect("the golden model");
    let map: Map = serde_json::from_value(serde_json::json!({ "rank": 4, "alpha": 8 })).expect("settings");
    let layout = AdapterConfig::read(&mut Settings::new(&map)).expect("settings").layout(&file.config).expect("a layout");
    let batches = golden["batches"].as_array().expect("batches");
    let rows = batches.iter().map(|b| b["tokens"].as_array().map_or(0, Vec::len)).max().expect("a batch");
    let shape = Shape { rows, positions: 64, recompute: Recompute::Blocks, quantize: None, training: true };
    let planned = Planned::new(&file, &[&layout], shape, gpu.plan_limits(), &Tuner::for_device(&gpu)).expect("a plan");
    let mut session = planned.realize(&gpu, &file, |_, _| {}).await.expect("a session");
    session.write_values(&gpu, 0, &initial_buffer(&layout.params, 0)).expect("written");
    for step in 0..steps {
        let host = batch(&batches[step % batches.len()], rows);
        let losses = session.accumulate(&gpu, &host, &[Segment::new(0..rows)]).await.expect("a step");
        let loss = losses.iter().map(|l| f64::from(*l)).sum::<f64>() / losses.len() as f64;
        let hyper = Hyper { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, clip: 0.0, step: step as u64 + 1 };
        let norm = f64::from(session.update(&gpu, &[(0, hyper)]).await.expect("an update")[0]);
        let want = |key: &str| case["f64"][key][step].as_f64().expect("a number");
        console_log!("step {}: loss {loss} ({}), norm {norm} ({})", step + 1, want("loss"), want("grad_norm"));
        assert!((loss - want("loss")).abs() <= TOLERANCE * want("loss"), "loss of step {}", step + 1);
        assert!((norm - want("grad_norm")).abs() <= 10.0 * TOLERANCE * want("grad_norm"), "norm of step {}", step + 1);
    }
}

/// Routers and experts, with a row's experts full and without.
#[wasm_bindgen_test]
async fn ten_steps_of_experts_equal_pytorch() {
    let (golden, batches): (Value, Value) =
        (serde_json::from_str(MIXLORA).expect("the golden file"), serde_json::from_str(GOLDEN).expect("the golden file"));
    let batches = batches["batches"].as_array().expect("batches");
    let rows = batches.iter().map(|b| b["tokens"].as_array().map_or(0, Vec::len)).max().expect("a batch");
    let gpu = Gpu::open(&GpuOptions::default()).await.expect("a WebGPU adapter");
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", GGUF));
    let file = ModelFile::open_gguf(vec![source]).await.expect("the golden model");
    for name in ["top_2_of_4", "switch"] {
        let case = &golden["cases"][name];
        let map: Map = serde_json::from_value(case["settings"].clone()).expect("settings");
        let config = TrainConfig::from_map(&map).expect("settings");
        let layout = config.adapter.layout(&file.config).expect("a layout");
        let shape = Shape { rows, positions: 64, recompute: Recompute::Blocks, quantize: None, training: true };
        let planned = Planned::new(&file, &[&layout], shape, gpu.plan_limits(), &Tuner::for_device(&gpu)).expect("a plan");
        let mut session = planned.realize(&gpu, &file, |_, _| {}).await.expect("a session");
        session.write_values(&gpu, 0, &initial_buffer(&layout.params, config.seed)).expect("written");
        for step in 0..10 {
            let own = batches[step % batches.len()]["tokens"].as_array().map_or(0, Vec::len);
            let mut host = batch(&batches[step % batches.len()], rows);
            host.row_job[own..].fill(u32::MAX);
            let losses = session.accumulate(&gpu, &host, &[Segment::new(0..own)]).await.expect("a step");
            let ce = losses.iter().map(|l| f64::from(*l)).sum::<f64>() / losses.len() as f64;
            let TrainConfig { lr, beta1, beta2, eps, weight_decay, clip, .. } = config;
            let hyper = Hyper { lr, betas: (beta1, beta2), eps, weight_decay, clip, step: step as u64 + 1 };
            let norm = f64::from(session.update(&gpu, &[(0, hyper)]).await.expect("an update")[0]);
            let want = |key: &str| case["curve"][key][step].as_f64().expect("a number");
            console_log!("{name}, step {}: ce {ce} ({}), norm {norm} ({})", step + 1, want("ce"), want("grad_norm"));
            assert!((ce - want("ce")).abs() <= 1e-4 * want("ce"), "{name}: cross-entropy of step {}", step + 1);
            assert!((norm - want("grad_norm")).abs() <= 1e-3 * want("grad_norm"), "{name}: norm of step {}", step + 1);
        }
    }
}

/// Shifted groups, norms and embeddings of the job's own, with the tolerance of the native test (`tests/native/longlora.rs`).
#[wasm_bindgen_test]
async fn ten_steps_of_longlora_equal_pytorch() {
    const CURVE: f64 = 2e-4;
    let (golden, batches): (Value, Value) =
        (serde_json::from_str(LONGLORA).expect("the golden file"), serde_json::from_str(GOLDEN).expect("the golden file"));
    let batches = batches["batches"].as_array().expect("batches");
    let rows = batches.iter().map(|b| b["tokens"].as_array().map_or(0, Vec::len)).max().expect("a batch");
    let tokens = || batches.iter().flat_map(|b| ints(&b["tokens"])).map(|t| t as u32);
    let gpu = Gpu::open(&GpuOptions::default()).await.expect("a WebGPU adapter");
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", GGUF));
    let file = ModelFile::open_gguf(vec![source]).await.expect("the golden model");
    for name in ["group_norms", "group_norms_embeddings"] {
        let (case, run) = (&golden["curves"][name], &golden["curves"][name]["run"]);
        let map = json!({
            "rank": run["rank"], "alpha": run["alpha"], "targets": run["targets"], "train-norms": run["train_norms"],
            "train-embeddings": run["train_embeddings"],
        });
        let map: Map = serde_json::from_value(map).expect("settings");
        let config = AdapterConfig::read(&mut Settings::new(&map)).expect("settings").with_tokens(tokens());
        let layout = config.layout(&file.config).expect("a layout");
        let shape = Shape { rows, positions: 64, recompute: Recompute::Blocks, quantize: None, training: true };
        let planned = Planned::new(&file, &[&layout], shape, gpu.plan_limits(), &Tuner::for_device(&gpu)).expect("a plan");
        let mut session = planned.realize(&gpu, &file, |_, _| {}).await.expect("a session");
        let mut values = initial_buffer(&layout.params, 0);
        norms::fill(&layout, &session.base_norms(&gpu).await.expect("the base's norms"), &mut values);
        session.write_values(&gpu, 0, &values).expect("written");
        let number = |key: &str| run[key].as_f64().unwrap_or(0.0);
        for step in 0..10 {
            let host = batch(&batches[step % batches.len()], rows).grouped(run["group"].as_u64().map(|g| g as u32));
            let losses = session.accumulate(&gpu, &host, &[Segment::new(0..rows)]).await.expect("a step");
            let loss = losses.iter().map(|l| f64::from(*l)).sum::<f64>() / losses.len() as f64;
            let (weight_decay, clip) = (number("weight_decay"), number("clip"));
            let hyper = Hyper { lr: number("lr"), betas: (0.9, 0.999), eps: number("eps"), weight_decay, clip, step: step as u64 + 1 };
            let norm = f64::from(session.update(&gpu, &[(0, hyper)]).await.expect("an update")[0]);
            let want = |key: &str| case[key][step].as_f64().expect("a number");
            console_log!("{name}, step {}: loss {loss} ({}), norm {norm} ({})", step + 1, want("loss"), want("grad_norm"));
            assert!((loss - want("loss")).abs() <= CURVE * want("loss"), "{name}: loss of step {}", step + 1);
            assert!((norm - want("grad_norm")).abs() <= 10.0 * CURVE * want("grad_norm"), "{name}: norm of step {}", step + 1);
        }
    }
}
