//! What the forward pass keeps changes bytes and time, and no bit: every method trains alike with `--recompute off`, `on` and `nested`.

use serde_json::{Value, json};
use weblora::formats::{ByteSource, Bytes, ModelFile, SideFiles};
use weblora::gpu::device::PlanLimits;
use weblora::gpu::{Gpu, Tuner};
use weblora::model::Recompute;
use weblora::text::Example;
use weblora::train::checkpoint::{Buffers, Checkpoint};
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};
use weblora::train::{StepReport, TrainConfig};

use crate::common::{gpu, noise};

/// Blocks of the model: with nested checkpoints segments of three, three and two.
const BLOCKS: usize = 8;
const VOCAB: usize = 97;
/// Width of the feed-forward layer.
const WIDE: usize = 192;

fn block<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

/// A deep and narrow model of random weights.
fn model() -> ModelFile {
    use safetensors::{Dtype, tensor::TensorView};
    let (d, f, kv) = (32, WIDE, 16);
    let mut shapes =
        vec![("model.embed_tokens".to_owned(), vec![VOCAB, d]), ("model.norm".to_owned(), vec![d]), ("lm_head".to_owned(), vec![VOCAB, d])];
    for layer in 0..BLOCKS {
        let of_block = [
            ("self_attn.q_proj", vec![d, d]),
            ("self_attn.k_proj", vec![kv, d]),
            ("self_attn.v_proj", vec![kv, d]),
            ("self_attn.o_proj", vec![d, d]),
            ("mlp.gate_proj", vec![f, d]),
            ("mlp.up_proj", vec![f, d]),
            ("mlp.down_proj", vec![d, f]),
            ("input_layernorm", vec![d]),
            ("post_attention_layernorm", vec![d]),
        ];
        shapes.extend(of_block.map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)));
    }
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .enumerate()
        .map(|(i, (name, shape))| {
            let drawn = noise(i as u64, shape.iter().product());
            let value = |x: f32| if shape.len() == 1 { 1.0 + 0.1 * x } else { 1.7 * x / (shape[1] as f32).sqrt() };
            let bytes = drawn.into_iter().flat_map(|x| value(x).to_le_bytes()).collect();
            (format!("{name}.weight"), shape, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.safetensors", safetensors::serialize(views, None).unwrap()));
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": d, "intermediate_size": f,
        "num_hidden_layers": BLOCKS, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu",
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
    });
    let side = SideFiles { config_json: Some(config.to_string()), ..SideFiles::default() };
    block(ModelFile::open_safetensors(vec![source], None, side)).unwrap()
}

fn data() -> TrainData {
    let row = |row: u32| {
        let tokens: Vec<u32> = (0..9 + row).map(|i| (5 * i * i + 11 * row + 1) % VOCAB as u32).collect();
        Example { targets: (0..tokens.len()).map(|i| i > 1).collect(), tokens, row: row as usize + 1, rejected: None }
    };
    TrainData { train: (0..7).map(row).collect(), ..TrainData::default() }
}

/// Steps and state of a run, and its planned bytes, which are what it allocates.
fn run(gpu: &Gpu, settings: &Value, mode: Recompute, steps: usize) -> (Vec<StepReport>, Buffers, u64) {
    run_within(gpu, settings, mode, steps, data(), gpu.plan_limits())
}

/// The same on other rows, within other limits.
fn run_within(
    gpu: &Gpu,
    settings: &Value,
    mode: Recompute,
    steps: usize,
    data: TrainData,
    limits: PlanLimits,
) -> (Vec<StepReport>, Buffers, u64) {
    let mut map = json!({ "batch": 2, "seq": 24, "steps": steps, "lr": 1e-2, "warmup": 0, "recompute": mode });
    map.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let config = TrainConfig::from_map(map.as_object().unwrap()).unwrap();
    let (file, mut tuner) = (model(), Tuner::for_device(gpu));
    let plan = TrainPlan::new(&file, &config, Some(&data), limits, &tuner).unwrap();
    assert_eq!(plan.recompute, mode);
    let bytes = plan.planned.footprint().total();
    let mut trainer = block(Trainer::new(gpu, &file, config, data, plan, None, &mut tuner, false, |_, _| {})).unwrap();
    assert_eq!(bytes, trainer.session().allocated_bytes(), "planned and allocated bytes");
    let mut reports = Vec::new();
    for _ in 0..steps {
        reports.push(block(trainer.step(gpu)).unwrap());
        block(trainer.tie_if_due(gpu)).unwrap();
    }
    let params = trainer.layout().params.clone();
    let saved = block(trainer.checkpoint(gpu)).unwrap();
    (reports, Checkpoint::read("checkpoint", &saved).unwrap().buffers(&params).unwrap(), bytes)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn no_mode_changes_a_bit_of_any_method() {
    let Some(gpu) = gpu() else { return };
    let methods = [
        json!({ "rank": 4, "dropout": 0.2, "grad-accum": 2 }),
        json!({ "rank": 4, "targets": ["q", "down"], "group": 8, "train-norms": true, "train-embeddings": true }),
        json!({ "method": "cola", "links": [3, 2], "knots": [2], "dropout": 0.1 }),
        json!({ "method": "multilora", "modules": 2, "rank": 2 }),
        json!({ "method": "mixlora", "experts": 4, "top-k": 2, "jitter": 0.1, "rank": 2 }),
        json!({ "method": "mixlora-switch", "experts": 4, "expert-capacity": 1.0, "rank": 2 }),
    ];
    for settings in &methods {
        let [off, on, nested] = Recompute::ALL.map(|mode| run(gpu, settings, mode, 4));
        for (mode, run) in [("on", &on), ("nested", &nested)] {
            assert_same(&format!("{settings} {mode}"), run, &off);
        }
        let [kept, inputs, some] = [off.2, on.2, nested.2];
        assert!(some < inputs && inputs < kept, "{settings}: {kept} bytes off, {inputs} on, {some} nested");
        assert!(
            off.0.windows(2).all(|two| two[0].loss != two[1].loss) && off.1.m.iter().any(|m| *m != 0.0),
            "{settings}: nothing is learnt"
        );
    }
}

/// Four documents, two a micro-batch of 256 rows, with ends that are no ends of parts.
fn long_data() -> TrainData {
    let row = |row: u32| {
        let tokens: Vec<u32> = (0..128 - 3 * row).map(|i| (3 * i * i + 7 * i + 13 * row + 1) % VOCAB as u32).collect();
        Example { targets: (0..tokens.len()).map(|i| i > 1).collect(), tokens, row: row as usize + 1, rejected: None }
    };
    TrainData { train: (0..4).map(row).collect(), held_out: vec![row(1)], ..TrainData::default() }
}

fn assert_same(what: &str, got: &(Vec<StepReport>, Buffers, u64), want: &(Vec<StepReport>, Buffers, u64)) {
    for (step, (got, want)) in got.0.iter().zip(&want.0).enumerate() {
        let of = |report: &StepReport| (report.loss.to_bits(), report.grad_norm.to_bits());
        assert_eq!(of(got), of(want), "{what}, step {}: {} and {}", step + 1, got.loss, want.loss);
    }
    for (name, got, want) in [("values", &got.1.values, &want.1.values), ("m", &got.1.m, &want.1.m), ("v", &got.1.v, &want.1.v)] {
        assert!(bits(got) == bits(want), "{what}: {name}");
    }
}

/// The feed-forward layer in parts: with nested checkpoints to take less memory, in any mode where a binding does not hold its activations.
#[test]
fn parts_of_the_rows_have_the_bits_of_the_whole() {
    let Some(gpu) = gpu() else { return };
    let limits = |max_binding: u64| PlanLimits { max_binding, ..gpu.plan_limits() };
    // 256 rows of gate and up fit a binding; in the other of gate alone do not.
    let (wide, narrow) = (limits(512 << 10), limits(4 * 256 * WIDE as u64 - 64));
    for settings in [
        json!({ "rank": 4, "dropout": 0.2, "seq": 128, "train-norms": true }),
        json!({ "method": "cola", "links": [3, 2], "knots": [2], "seq": 128, "targets": ["up", "down"] }),
    ] {
        let within = |mode, limits| run_within(gpu, &settings, mode, 3, long_data(), limits);
        let [whole, nested] = [Recompute::Off, Recompute::Nested].map(|mode| within(mode, wide));
        assert_same(&format!("{settings}, nested"), &nested, &whole);
        let [off, on, nested] = Recompute::ALL.map(|mode| within(mode, narrow));
        assert_same(&format!("{settings}, within less, on"), &on, &off);
        assert_same(&format!("{settings}, within less, nested"), &nested, &off);
        // gate and up are products of their own there.
        for (got, want) in off.0.iter().zip(&whole.0) {
            assert!((got.loss - want.loss).abs() < 1e-5 * want.loss, "{settings}: {} and {}", got.loss, want.loss);
            assert!((got.grad_norm - want.grad_norm).abs() < 1e-5 * want.grad_norm, "{settings}: {} and {}", got.grad_norm, want.grad_norm);
        }
    }
    // Experts' rows lie all over the batch.
    let config = json!({ "method": "mixlora", "experts": 4, "top-k": 2, "rank": 2, "batch": 2, "seq": 128 });
    let config = TrainConfig::from_map(config.as_object().unwrap()).unwrap();
    let refused = TrainPlan::new(&model(), &config, None, narrow, &Tuner::none()).err().unwrap().to_string();
    assert!(refused.contains("the feed-forward layer of 256 tokens") && refused.contains("without experts"), "{refused}");
}

/// What enters a block is computed again by the blocks below it in its segment, and by no others.
#[test]
fn nested_checkpoints_compute_few_blocks_again() {
    let dispatches = |mode: Recompute| {
        let config = TrainConfig::from_map(json!({ "batch": 2, "seq": 24, "rank": 4, "recompute": mode }).as_object().unwrap()).unwrap();
        TrainPlan::new(&model(), &config, None, PlanLimits::FLOOR, &Tuner::none()).unwrap().planned.dispatches().0
    };
    // The products qkv, o, gate and up, down, with two dispatches beside each; the rotation, attention, SwiGLU, two residuals with a norm.
    let forward = 4 + 4 * 2 + 5;
    // Two segments run again, two blocks of each, behind a norm of its own.
    assert_eq!(dispatches(Recompute::Nested) - dispatches(Recompute::Blocks), 2 * (2 * forward + 1));
}
