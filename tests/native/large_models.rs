//! Models that fit no test machine, planned from their header alone: every binding within WebGPU's floor, no overflow, the total printed.

use serde_json::{Map, Value, json};
use weblora::Result;
use weblora::formats::{ByteSource, LocalFuture, ModelFile, SideFiles};
use weblora::gpu::Tuner;
use weblora::gpu::device::PlanLimits;
use weblora::model::Recompute;
use weblora::train::TrainConfig;
use weblora::train::trainer::TrainPlan;

/// A safetensors file of which only the header exists.
struct HeaderOnly {
    header: Vec<u8>,
    len: u64,
}

impl ByteSource for HeaderOnly {
    fn name(&self) -> &str {
        "model.safetensors"
    }
    fn len(&self) -> u64 {
        self.len
    }
    fn read<'a>(&'a self, offset: u64, len: usize) -> LocalFuture<'a, Result<Vec<u8>>> {
        let start = usize::try_from(offset).unwrap();
        assert!(start + len <= self.header.len(), "a plan reads {len} bytes of weights at {offset}");
        Box::pin(std::future::ready(Ok(self.header[start..start + len].to_vec())))
    }
}

/// d, f, blocks, heads, key/value heads, vocabulary, tied head.
type ModelShape = (usize, usize, usize, usize, usize, usize, bool);
const LLAMA_2_7B: ModelShape = (4096, 11008, 32, 32, 32, 32000, false);
const LLAMA_3_2_1B: ModelShape = (2048, 8192, 16, 32, 8, 128_256, true);

fn model((d, f, blocks, heads, kv_heads, vocab, tied): ModelShape) -> ModelFile {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": d, "intermediate_size": f,
        "num_hidden_layers": blocks, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "hidden_act": "silu",
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": tied,
    });
    let kv = d / heads * kv_heads;
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![vocab, d]), ("model.norm.weight".to_owned(), vec![d])];
    if !tied {
        tensors.push(("lm_head.weight".to_owned(), vec![vocab, d]));
    }
    for layer in 0..blocks {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
        for (rest, shape) in [
            ("self_attn.q_proj", vec![d, d]),
            ("self_attn.k_proj", vec![kv, d]),
            ("self_attn.v_proj", vec![kv, d]),
            ("self_attn.o_proj", vec![d, d]),
            ("mlp.gate_proj", vec![f, d]),
            ("mlp.up_proj", vec![f, d]),
            ("mlp.down_proj", vec![d, f]),
            ("input_layernorm", vec![d]),
            ("post_attention_layernorm", vec![d]),
        ] {
            tensors.push((name(rest), shape));
        }
    }
    let mut header = Map::new();
    let mut at = 0u64;
    for (name, shape) in tensors {
        let bytes = 2 * shape.iter().map(|n| *n as u64).product::<u64>();
        header.insert(name, json!({ "dtype": "F16", "shape": shape, "data_offsets": [at, at + bytes] }));
        at += bytes;
    }
    let text = Value::Object(header).to_string().into_bytes();
    let header = [&(text.len() as u64).to_le_bytes()[..], &text].concat();
    let len = header.len() as u64 + at;
    let side = SideFiles { config_json: Some(config.to_string()), ..SideFiles::default() };
    pollster::block_on(ModelFile::open_safetensors(vec![Box::new(HeaderOnly { header, len })], None, side)).unwrap()
}

fn plan(shape: ModelShape, settings: Value) -> (u64, u64) {
    let config = TrainConfig::from_map(settings.as_object().unwrap()).unwrap();
    let plan = TrainPlan::new(&model(shape), &config, None, PlanLimits::FLOOR, &Tuner::none()).unwrap();
    let footprint = plan.planned.footprint();
    for entry in plan.planned.store.entries() {
        assert!(entry.bytes <= PlanLimits::FLOOR.max_binding, "{} has {} bytes", entry.label, entry.bytes);
    }
    eprintln!("{shape:?}: {footprint:?}, {} bytes in all", footprint.total());
    (footprint.total(), footprint.persistent["weights"])
}

#[test]
fn llama_2_7b_in_4_bits() {
    let (total, weights) = plan(LLAMA_2_7B, json!({ "rank": 8, "batch": 1, "seq": 512, "quantize": "q4_0" }));
    // 6.48 G projection weights at 4.5 bits; embedding and head stay at 16.
    assert!((4_100_000_000..4_300_000_000).contains(&weights), "{weights} bytes of weights");
    assert!(total > weights && total < 6_500_000_000, "{total} bytes");
}

/// Adapters of a large rank: some ten pages, none larger than a binding; and the rank from which one layer's are.
#[test]
fn llama_2_7b_with_rank_256() {
    let settings = |rank: usize| json!({ "rank": rank, "batch": 1, "seq": 512, "quantize": "q4_0" });
    let (total, weights) = plan(LLAMA_2_7B, settings(256));
    let words = 256 * 32 * (4 * (4096 + 4096) + 3 * (4096 + 11008));
    assert!(total > weights + 16 * words, "{total} bytes");
    let config = TrainConfig::from_map(settings(2048).as_object().unwrap()).unwrap();
    let refused = TrainPlan::new(&model(LLAMA_2_7B), &config, None, PlanLimits::FLOOR, &Tuner::none());
    let error = refused.err().unwrap().to_string();
    assert!(error.contains("q_proj, k_proj and v_proj") && error.contains("134217728 bytes") && error.contains("--rank"), "{error}");
}

#[test]
fn llama_3_2_1b_in_16_bits() {
    let (total, weights) = plan(LLAMA_3_2_1B, json!({ "rank": 8, "batch": 4, "seq": 512 }));
    assert!((2_460_000_000..2_490_000_000).contains(&weights), "{weights} bytes of weights");
    assert!(total > weights && total < 4_000_000_000, "{total} bytes");
}

/// Every dispatch costs a GPU some microseconds. A block of a training step with all seven projections adapted has so many, forward and backward:
/// what a third block adds to two.
#[test]
fn a_block_has_few_dispatches() {
    let dispatches = |blocks: usize, recompute: bool| {
        let settings = json!({ "rank": 8, "batch": 1, "seq": 64, "recompute": recompute });
        let config = TrainConfig::from_map(settings.as_object().unwrap()).unwrap();
        let file = model((512, 1536, blocks, 8, 2, 1000, true));
        TrainPlan::new(&file, &config, None, PlanLimits::FLOOR, &Tuner::none()).unwrap().planned.dispatches().0
    };
    let block = |recompute: bool| dispatches(3, recompute) - dispatches(2, recompute);
    // Products: 4 forward, 4 back. Adapters beside each: two forward, six back, where gradients are
    // summed in two passes. Attention: 1 and 3. Rotation: 1 and 1. Norms with residuals: 2 and 4. SwiGLU: 1
    // and 2.
    let kept = (4 + 4) + 4 * (2 + 6) + (1 + 3) + (1 + 1) + (2 + 4) + (1 + 2);
    // Again: the forward pass without the product `down`, what its adapter adds, and the last residual; the first norm is apart.
    assert_eq!((block(false), block(true)), (kept, kept + 15));
}

/// gate and up of 2,048 rows fit a binding each, 90 MB, and not together: they are multiplied apart, where fewer rows go together.
#[test]
fn activations_that_do_not_fit_together_are_apart() {
    let dispatches = |seq: usize| {
        let config = TrainConfig::from_map(json!({ "rank": 8, "batch": 1, "seq": seq, "quantize": "q4_0" }).as_object().unwrap()).unwrap();
        let plan = TrainPlan::new(&model(LLAMA_2_7B), &config, None, PlanLimits::FLOOR, &Tuner::none()).unwrap();
        plan.planned.dispatches().0
    };
    // A product more in each of forward, forward again and backward of 32 blocks, at least.
    assert!(dispatches(2048) >= dispatches(512) + 3 * 32);
}

/// A 7B with LongLoRA's settings.
fn long_plan(file: &ModelFile, context: usize, mode: Recompute, limits: PlanLimits) -> Result<TrainPlan> {
    let map = json!({
        "rank": 8, "batch": 1, "context": context, "group-ratio": 0.25, "quantize": "q4_0", "train-norms": true, "recompute": mode,
    });
    TrainPlan::new(file, &TrainConfig::from_map(map.as_object().unwrap()).unwrap(), None, limits, &Tuner::none())
}

/// Bytes of a plan, whose bindings are within `limits`, and operations of its longest dispatch.
fn bytes_and_operations(file: &ModelFile, context: usize, mode: Recompute, limits: PlanLimits) -> (u64, u64) {
    let planned = long_plan(file, context, mode, limits).unwrap().planned;
    let (bound_by, bytes) = planned.largest_binding().unwrap();
    assert!(bytes <= limits.max_binding, "{bound_by} binds {bytes} bytes");
    let (longest, operations) = planned.longest_dispatch().unwrap();
    let total = planned.footprint().total();
    eprintln!("{context} tokens, {}: {total} bytes, {:?} dispatches", mode.name(), planned.dispatches());
    eprintln!("  {bytes} bytes bound by {bound_by}, {operations} operations of {longest}");
    (total, operations)
}

/// A device that binds 2 GiB.
const LARGE: PlanLimits = PlanLimits { max_binding: 2 << 30, max_buffer: 2 << 30 };

/// 7B shapes at 32,768 and 100,000 tokens, where a device binds 2 GiB, and no dispatch that keeps a GPU busy for seconds. At 100,000 an activation of
/// the feed-forward layer is past what 32 bits address: it goes through in parts.
#[test]
fn llama_2_7b_at_long_contexts() {
    let file = model(LLAMA_2_7B);
    let [off, on, nested] = Recompute::ALL.map(|mode| bytes_and_operations(&file, 32768, mode, LARGE));
    assert!(nested.0 < on.0 && on.0 < off.0, "{off:?} {on:?} {nested:?}");
    // The table of docs/longlora.md.
    let about = |(bytes, _): (u64, u64), gigabytes: f64| (bytes as f64 / 1e9 - gigabytes).abs() < 0.01 * gigabytes;
    assert!(about(off, 204.5) && about(on, 31.5) && about(nested, 13.6), "{off:?} {on:?} {nested:?}");
    // A tile of 32 rows, for all heads, that sees all other rows: the least that a dispatch of attention can be.
    let tile = |rows: u64| 2 * 4 * 32 * rows * 32 * 128;
    assert_eq!(nested.1, tile(32768));
    let longer = bytes_and_operations(&file, 100_000, Recompute::Nested, LARGE);
    assert!(about(longer, 31.4) && longer.1 == tile(100_000), "{longer:?}");
}

/// What a device that binds 128 MiB holds: attention has all rows of its keys and values in one binding, 8,192 rows of a 7B. More are refused, and
/// the message says of what.
#[test]
fn llama_2_7b_within_small_bindings() {
    let file = model(LLAMA_2_7B);
    bytes_and_operations(&file, 8192, Recompute::Nested, PlanLimits::FLOOR);
    for context in [8320, 32768] {
        let error = long_plan(&file, context, Recompute::Nested, PlanLimits::FLOOR).err().unwrap().to_string();
        for said in [
            &format!("the hidden states of {context} tokens"),
            "134217728 bytes",
            "a smaller --batch or --seq, or a device that binds more",
        ] {
            assert!(error.contains(said), "{said}: {error}");
        }
    }
}

#[test]
fn embeddings_that_no_binding_holds_are_refused() {
    let settings = |trains: bool| json!({ "rank": 8, "batch": 1, "seq": 512, "quantize": "q4_0", "train-embeddings": trains });
    let plan = |trains: bool| {
        let config = TrainConfig::from_map(settings(trains).as_object().unwrap()).unwrap();
        TrainPlan::new(&model(LLAMA_2_7B), &config, None, PlanLimits::FLOOR, &Tuner::none())
    };
    assert!(plan(false).is_ok());
    let error = plan(true).err().unwrap().to_string();
    assert!(error.contains("trained embeddings") && error.contains("leave out --train-embeddings"), "{error}");
}
