//! Models that fit no test machine, planned from their header alone: every binding within WebGPU's floor, no overflow, the total printed.

use serde_json::{Map, Value, json};
use weblora::Result;
use weblora::formats::{ByteSource, LocalFuture, ModelFile, SideFiles};
use weblora::gpu::Tuner;
use weblora::gpu::device::PlanLimits;
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

#[test]
fn llama_3_2_1b_in_16_bits() {
    let (total, weights) = plan(LLAMA_3_2_1B, json!({ "rank": 8, "batch": 4, "seq": 512 }));
    assert!((2_460_000_000..2_490_000_000).contains(&weights), "{weights} bytes of weights");
    assert!(total > weights && total < 4_000_000_000, "{total} bytes");
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
