//! The tiny LLaMA against PyTorch + PEFT: losses, every adapter gradient, ten-step curves of each optimizer setting.

use crate::common::gpu;
use serde_json::{Value, json};
use weblora::adapters::{AdapterConfig, initial_buffer};
use weblora::formats::ModelFile;
use weblora::formats::{ByteSource, Bytes};
use weblora::gpu::precision::Precision;
use weblora::gpu::{Gpu, Tuner};
use weblora::kernels::lowrank::Segment;
use weblora::model::Recompute;
use weblora::model::inputs::HostBatch;
use weblora::settings::{Map, Settings};
use weblora::train::session::{Hyper, Planned, Session, Shape};

const GGUF: &[u8] = include_bytes!("../golden/tiny_llama/model.gguf");
const SAFETENSORS: &[u8] = include_bytes!("../golden/tiny_llama/model.safetensors");
const CONFIG: &str = include_str!("../golden/tiny_llama/config.json");
const GOLDEN: &str = include_str!("../golden/tiny_llama/golden.json");
const TENSORS: &[u8] = include_bytes!("../golden/tiny_llama/golden.safetensors");

/// The curves agree to this: f32 sums in another order, amplified by ten optimizer steps.
const CURVE: f64 = 2e-4;
/// The same with operands of products rounded to 11 bits.
const MIXED: f64 = 2e-3;

fn golden() -> Value {
    serde_json::from_str(GOLDEN).unwrap()
}

fn from_gguf() -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", GGUF));
    pollster::block_on(ModelFile::open_gguf(vec![source])).unwrap()
}

fn from_safetensors() -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.safetensors", SAFETENSORS));
    let side = weblora::formats::SideFiles { config_json: Some(CONFIG.into()), ..Default::default() };
    pollster::block_on(ModelFile::open_safetensors(vec![source], None, side)).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// A golden batch; `merged` makes one document of all, the mistake of attention that looks across documents.
fn batch(value: &Value, rows: usize, merged: bool) -> HostBatch {
    let ints = |key: &str| -> Vec<i64> { value[key].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect() };
    let (tokens, labels) = (ints("tokens"), ints("labels"));
    let (mut doc_start, mut positions) = (Vec::new(), Vec::new());
    for length in ints("lengths") {
        let start = doc_start.len() as u32;
        for p in 0..length as u32 {
            doc_start.push(if merged { 0 } else { start });
            positions.push(p);
        }
    }
    let mut ids: Vec<u32> = tokens.iter().map(|t| *t as u32).collect();
    let mut targets: Vec<i32> = labels[1..].iter().map(|l| if *l < 0 { -1 } else { *l as i32 }).collect();
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

fn adapter_config(run: &Value) -> AdapterConfig {
    let map = json!({ "rank": run["rank"], "alpha": run["alpha"], "targets": run["targets"], "rslora": run["rslora"], "lora-plus": run["lora_plus"] });
    let map: Map = map.as_object().unwrap().clone();
    AdapterConfig::read(&mut Settings::new(&map)).unwrap()
}

struct Run {
    session: Session,
    layout: weblora::adapters::AdapterLayout,
    rows: usize,
}

fn open(gpu: &Gpu, file: &ModelFile, run: &Value, rows: usize, recompute: Recompute) -> Run {
    let layout = adapter_config(run).layout(&file.config).unwrap();
    let shape = Shape { rows, positions: 64, recompute, quantize: None, training: true };
    let mut tuner = Tuner::for_device(gpu);
    let session = pollster::block_on(async {
        let mut planned = Planned::new(file, &[&layout], shape, gpu.plan_limits(), &tuner).unwrap();
        if std::env::var_os("WEBLORA_TUNE").is_some() {
            planned.tune(gpu, &mut tuner).await.unwrap();
        }
        let session = planned.realize(gpu, file, |_, _| {}).await.unwrap();
        session.write_values(gpu, 0, &initial_buffer(&layout.params, run["seed"].as_u64().unwrap())).unwrap();
        session
    });
    assert_eq!(session.footprint().total(), session.allocated_bytes(), "planned and allocated bytes");
    Run { session, layout, rows }
}

fn rows_of(golden: &Value) -> usize {
    golden["batches"].as_array().unwrap().iter().map(|b| b["tokens"].as_array().unwrap().len()).max().unwrap()
}

fn mean(losses: &[f32]) -> f64 {
    losses.iter().map(|l| f64::from(*l)).sum::<f64>() / losses.len() as f64
}

fn curve(gpu: &Gpu, file: &ModelFile, golden: &Value, name: &str, recompute: Recompute) -> (Vec<f64>, Vec<f64>) {
    let case = &golden["curves"][name];
    let run = &case["run"];
    let mut r = open(gpu, file, run, rows_of(golden), recompute);
    let batches = golden["batches"].as_array().unwrap();
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for (step, lr) in numbers(&case["lr"]).into_iter().enumerate() {
        let host = batch(&batches[step % batches.len()], r.rows, false);
        let betas = numbers(&run["betas"]);
        let hyper = Hyper {
            clip: run["clip"].as_f64().unwrap_or(0.0),
            lr,
            betas: (betas[0], betas[1]),
            eps: run["eps"].as_f64().unwrap(),
            weight_decay: run["weight_decay"].as_f64().unwrap(),
            step: step as u64 + 1,
        };
        pollster::block_on(async {
            let rows = r.rows;
            losses.push(mean(&r.session.accumulate(gpu, &host, &[Segment::new(0..rows)]).await.unwrap()));
            norms.push(f64::from(r.session.update(gpu, &[(0, hyper)]).await.unwrap()[0]));
        });
    }
    (losses, norms)
}

fn assert_relative(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * w.abs(), "{what}, step {}: {g}, PyTorch says {w}\n got {got:?}\nwant {want:?}", i + 1);
    }
    assert_eq!(got.len(), want.len(), "{what}: number of steps");
}

#[test]
fn ten_step_curves_equal_pytorch() {
    let Some(gpu) = gpu() else { return };
    let golden = golden();
    let file = from_gguf();
    let names: Vec<String> = golden["curves"].as_object().unwrap().keys().cloned().collect();
    assert!(names.len() >= 5, "curves: {names:?}");
    for name in &names {
        let (losses, norms) = curve(gpu, &file, &golden, name, Recompute::Off);
        let case = &golden["curves"][name]["f64"];
        assert_relative(&format!("{name} loss"), &losses, &numbers(&case["loss"]), CURVE);
        assert_relative(&format!("{name} gradient norm"), &norms, &numbers(&case["grad_norm"]), 10.0 * CURVE);
    }
    // The comparison can fail: another setting's curve is not this one's.
    let (a, b) = (numbers(&golden["curves"]["lora"]["f64"]["loss"]), numbers(&golden["curves"]["weight_decay"]["f64"]["loss"]));
    assert!(a.iter().zip(&b).any(|(a, b)| (a - b).abs() > CURVE * b), "curves are too alike to tell apart");
}

/// Subgroups only change who loads what.
#[test]
fn a_device_without_subgroups_computes_the_same() {
    let options = weblora::gpu::GpuOptions { no_subgroups: true, ..Default::default() };
    let (Some(with), Ok(without)) = (gpu(), pollster::block_on(Gpu::open(&options))) else { return };
    assert!(!without.facts().subgroups);
    let golden = golden();
    let curves = [with, &without].map(|gpu| curve(gpu, &from_gguf(), &golden, "lora", Recompute::Off));
    assert_relative("loss", &curves[1].0, &curves[0].0, CURVE);
    assert_relative("gradient norm", &curves[1].1, &curves[0].1, 10.0 * CURVE);
}

/// Operands in f16, on adapters that have matrix units; others say so.
#[test]
fn mixed_precision_follows_pytorch() {
    let options = weblora::gpu::GpuOptions { precision: Precision::Mixed, ..Default::default() };
    let (Some(exact), mixed) = (gpu(), pollster::block_on(Gpu::open(&options))) else { return };
    let mixed = match mixed {
        Ok(mixed) => mixed,
        Err(error) => {
            let said = error.to_string();
            assert!(said.contains("mixed precision on") && said.contains(&exact.facts().name), "{said}");
            return;
        }
    };
    pollster::block_on(weblora::bench::checked_mixed(&mixed)).unwrap();
    let golden = golden();
    for name in golden["curves"].as_object().unwrap().keys() {
        let (losses, norms) = curve(&mixed, &from_gguf(), &golden, name, Recompute::Off);
        let case = &golden["curves"][name]["f64"];
        assert_relative(&format!("{name} loss in mixed precision"), &losses, &numbers(&case["loss"]), MIXED);
        assert_relative(&format!("{name} gradient norm in mixed precision"), &norms, &numbers(&case["grad_norm"]), 10.0 * MIXED);
        assert_eq!((losses, norms), curve(&mixed, &from_gguf(), &golden, name, Recompute::Blocks), "{name}: recompute");
    }
}

#[test]
fn recompute_and_file_format_change_no_bit() {
    let Some(gpu) = gpu() else { return };
    let golden = golden();
    let kept = curve(gpu, &from_gguf(), &golden, "lora", Recompute::Off);
    assert_eq!(kept, curve(gpu, &from_gguf(), &golden, "lora", Recompute::Blocks), "recompute");
    assert_eq!(kept, curve(gpu, &from_gguf(), &golden, "lora", Recompute::Off), "a second run");
    let float = curve(gpu, &from_safetensors(), &golden, "lora", Recompute::Off);
    assert_relative("safetensors loss", &float.0, &kept.0, CURVE);
}

/// The golden model with `v_proj` and `up_proj` rounded to bf16, stored as f32 like the rest or as bf16: then q, k and v, or gate and up,
/// cannot lie in one matrix.
fn rounded(as_bf16: bool) -> ModelFile {
    use safetensors::{Dtype, SafeTensors, tensor::TensorView};
    let whole = SafeTensors::deserialize(SAFETENSORS).unwrap();
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, view) in whole.tensors() {
        let mut stored = (view.dtype(), view.data().to_vec());
        if name.contains("v_proj") || name.contains("up_proj") {
            assert_eq!(view.dtype(), Dtype::F32);
            let floats = view.data().chunks_exact(4).map(|b| half::bf16::from_f32(f32::from_le_bytes(b.try_into().unwrap())));
            stored = match as_bf16 {
                true => (Dtype::BF16, floats.flat_map(half::bf16::to_le_bytes).collect()),
                false => (Dtype::F32, floats.flat_map(|x| x.to_f32().to_le_bytes()).collect()),
            };
        }
        tensors.push((name, stored.0, view.shape().to_vec(), stored.1));
    }
    let views = tensors.iter().map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    let bytes = safetensors::serialize(views, None).unwrap();
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.safetensors", bytes));
    let side = weblora::formats::SideFiles { config_json: Some(CONFIG.into()), ..Default::default() };
    pollster::block_on(ModelFile::open_safetensors(vec![source], None, side)).unwrap()
}

#[test]
fn projections_of_one_input_are_multiplied_together_or_apart() {
    let Some(gpu) = gpu() else { return };
    let golden = golden();
    let dispatches = |file: &ModelFile| {
        let layout = adapter_config(&golden["curves"]["lora"]["run"]).layout(&file.config).unwrap();
        let shape = Shape { rows: 8, positions: 8, recompute: Recompute::Off, quantize: None, training: true };
        Planned::new(file, &[&layout], shape, gpu.plan_limits(), &Tuner::for_device(gpu)).unwrap().dispatches().0
    };
    let (together, apart) = (rounded(false), rounded(true));
    let layers = together.config.num_hidden_layers;
    // Three more products a layer forward and as many backward, less the lowest layer's q, k, v: nothing below it needs a gradient.
    assert_eq!(dispatches(&apart), dispatches(&together) + 6 * layers - 2);
    let want = curve(gpu, &together, &golden, "lora", Recompute::Off);
    let got = curve(gpu, &apart, &golden, "lora", Recompute::Off);
    assert_relative("loss", &got.0, &want.0, 1e-5);
    assert_relative("gradient norm", &got.1, &want.1, 1e-4);
    // The comparison can fail: rounding alone is seen.
    let exact = curve(gpu, &from_safetensors(), &golden, "lora", Recompute::Off);
    assert!(exact.0.iter().zip(&want.0).any(|(a, b)| (a - b).abs() > 1e-4 * b), "rounding to bf16 is not seen");
}

/// A block's forward pass is recorded again for its backward pass, but for what only its output needs: the product `down` and what the
/// adapter adds to it.
#[test]
fn recompute_does_not_repeat_what_nobody_reads() {
    let file = from_safetensors();
    let mut config = adapter_config(&golden()["curves"]["lora"]["run"]);
    config.targets = ["q", "k", "v", "o", "gate", "up", "down"].map(String::from).into();
    let layout = config.layout(&file.config).unwrap();
    let dispatches = |recompute| {
        let shape = Shape { rows: 8, positions: 8, recompute, quantize: None, training: true };
        Planned::new(&file, &[&layout], shape, weblora::gpu::device::PlanLimits::FLOOR, &Tuner::none()).unwrap().dispatches().0
    };
    // A norm, a residual with a norm, SwiGLU, the rotation, attention; the products qkv, o, gate and up; into and out of the rank
    // beside these; into the rank at down.
    let again = 5 + 3 + 2 * 3 + 1;
    assert_eq!(dispatches(Recompute::Blocks), dispatches(Recompute::Off) + again * file.config.num_hidden_layers);
}

#[test]
fn every_gradient_equals_pytorch() {
    let Some(gpu) = gpu() else { return };
    let golden = golden();
    let case = &golden["gradient_case"];
    let tensors = safetensors::SafeTensors::deserialize(TENSORS).unwrap();
    for file in [from_gguf(), from_safetensors()] {
        let mut r = open(gpu, &file, &case["run"], rows_of(&golden), Recompute::Blocks);
        let mut values = initial_buffer(&r.layout.params, 0);
        let bound = case["b_bound"].as_f64().unwrap();
        for spec in &r.layout.params.specs {
            if spec.name.ends_with("lora_B") {
                spec.put_hf(&weblora::rng::fill_uniform(&format!("0/{}", spec.name), spec.len(), bound), &mut values);
            }
            let first: Vec<f32> = numbers(&case["first_values"][&spec.name]).iter().map(|v| *v as f32).collect();
            assert_eq!(spec.to_hf(&values)[..3], first, "{} is not what the golden file was made with", spec.name);
        }
        let batch_value = &golden["batches"][case["batch"].as_u64().unwrap() as usize];
        let host = batch(batch_value, r.rows, false);
        let job = [Segment::new(0..r.rows)];
        let (loss, merged, plain, grads) = pollster::block_on(async {
            let plain = mean(&r.session.evaluate(gpu, &host, &job).await.unwrap());
            r.session.write_values(gpu, 0, &values).unwrap();
            let loss = mean(&r.session.accumulate(gpu, &host, &job).await.unwrap());
            let grads = r.session.read_grads(gpu, 0).await.unwrap();
            let merged = mean(&r.session.evaluate(gpu, &batch(batch_value, r.rows, true), &job).await.unwrap());
            assert_eq!(mean(&r.session.evaluate(gpu, &host, &job).await.unwrap()), loss, "evaluation and training disagree");
            (loss, merged, plain, grads)
        });
        let close = |a: f64, b: f64| (a - b).abs() < 2e-5 * b.abs();
        assert!(close(plain, case["loss_without_adapter"].as_f64().unwrap()), "base loss {plain}");
        assert!(close(loss, case["loss"].as_f64().unwrap()), "loss {loss}");
        for (name, wrong) in golden["negatives"].as_object().unwrap() {
            assert!(!close(loss, wrong.as_f64().unwrap()), "the comparison would accept {name}");
        }
        assert!(!close(merged, loss), "documents that see each other must change the loss");
        for spec in &r.layout.params.specs {
            let view = tensors.tensor(&format!("grad.{}", spec.name)).unwrap();
            let want: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
            let scale = want.iter().fold(0f32, |m, v| m.max(v.abs()));
            crate::common::assert_close(&spec.name, &spec.to_hf(&grads), &want, 2e-5 * scale, 1e-4);
        }
    }
}

#[test]
fn what_no_kernel_is_written_for_is_refused_before_anything_is_allocated() {
    let source: Box<dyn ByteSource> =
        Box::new(Bytes::new("model.safetensors", &include_bytes!("../golden/odd_llama/model.safetensors")[..]));
    let side =
        weblora::formats::SideFiles { config_json: Some(include_str!("../golden/odd_llama/config.json").into()), ..Default::default() };
    let file = pollster::block_on(ModelFile::open_safetensors(vec![source], None, side)).unwrap();
    let layout = adapter_config(&golden()["curves"]["lora"]["run"]).layout(&file.config).unwrap();
    let shape = Shape { rows: 8, positions: 8, recompute: Recompute::Off, quantize: None, training: true };
    let error = Planned::new(&file, &[&layout], shape, weblora::gpu::device::PlanLimits::FLOOR, &Tuner::none()).err().unwrap();
    assert_eq!(error.code(), "unsupported", "{error}");
    assert!(error.to_string().contains("head width of 6"), "{error}");
}

#[test]
fn a_foreign_tokenizer_is_noticed() {
    let Some(gpu) = gpu() else { return };
    let golden = golden();
    let mut r = open(gpu, &from_gguf(), &golden["curves"]["lora"]["run"], rows_of(&golden), Recompute::Off);
    let mut host = batch(&golden["batches"][0], r.rows, false);
    host.tokens[3] = 97;
    let error = pollster::block_on(r.session.accumulate(gpu, &host, &[Segment::new(0..r.rows)])).unwrap_err();
    assert!(error.to_string().contains("token 97 is past the model's vocabulary of 97"), "{error}");
}
