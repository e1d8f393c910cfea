//! `plan`: headers whose shapes lie, of files of any size, with any settings.

use pollster::block_on;
use serde_json::{Value, json};
use weblora::formats::{ByteSource, LocalFuture, ModelFile};
use weblora::gpu::Tuner;
use weblora::gpu::device::PlanLimits;
use weblora::train::TrainConfig;
use weblora::train::trainer::TrainPlan;
use weblora::{Error, Result};

use super::models::write_typed;
use super::runs::setting_words;
use crate::driver::Parser;
use crate::input::{Input, json as json_part};

pub static PLAN: Parser = Parser { name: "plan", seeds, dictionary: setting_words, run: plan };

fn seeds() -> Vec<Input> {
    let shape = |vocab: u64, hidden: u64, ff: u64, heads: u64, kv: u64| json!({ "vocab": vocab, "hidden": hidden, "ff": ff, "layers": 1, "heads": heads, "kv": kv, "width": hidden / heads, "context": 2048, "kind": 0 });
    let of = |shape: Value, settings: Value| vec![json_part(shape.to_string()), json_part(settings.to_string())];
    vec![
        of(shape(256, 64, 96, 4, 2), json!({ "rank": 4, "batch": 2, "seq": 32 })),
        of(shape(49152, 576, 1536, 9, 3), json!({ "rank": 8, "batch": 4, "seq": 512, "recompute": false })),
        of(shape(1024, 128, 256, 2, 1), json!({ "method": "cola", "links": [4, 2], "batch": 1, "seq": 64 })),
        of(shape(1024, 128, 256, 2, 1), json!({ "method": "multilora", "modules": 3, "batch": 1, "seq": 64, "quantize": "q8_0" })),
    ]
}

/// A header in front of as many zeros as it says.
struct Claimed {
    head: Vec<u8>,
}

impl ByteSource for Claimed {
    fn name(&self) -> &str {
        "claimed.gguf"
    }
    fn len(&self) -> u64 {
        u64::MAX >> 1
    }
    fn read<'a>(&'a self, offset: u64, len: usize) -> LocalFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            let from = (offset as usize).min(self.head.len());
            let mut bytes = self.head[from..self.head.len().min(from + len)].to_vec();
            bytes.resize(len, 0);
            Ok(bytes)
        })
    }
}

fn header(shape: &Value) -> Vec<u8> {
    let n = |key: &str| shape[key].as_u64().unwrap_or(1);
    let (q, kv) = (n("heads").saturating_mul(n("width")), n("kv").saturating_mul(n("width")));
    let (d, f, kind) = (n("hidden"), n("ff"), n("kind"));
    let mut tensors = vec![json!(["token_embd.weight", [d, n("vocab")], kind])];
    let layers = n("layers").min(4);
    for layer in 0..layers {
        let of = [
            ("attn_norm", json!([d]), 0),
            ("attn_q", json!([d, q]), kind),
            ("attn_k", json!([d, kv]), kind),
            ("attn_v", json!([d, kv]), kind),
            ("attn_output", json!([q, d]), kind),
            ("ffn_norm", json!([d]), 0),
            ("ffn_gate", json!([d, f]), kind),
            ("ffn_up", json!([d, f]), kind),
            ("ffn_down", json!([f, d]), kind),
        ];
        tensors.extend(of.map(|(stem, dims, kind)| json!([format!("blk.{layer}.{stem}.weight"), dims, kind])));
    }
    tensors.push(json!(["output_norm.weight", [d], 0]));
    let description = json!({
        "version": 3, "data": 0, "tensors": tensors,
        "kv": {
            "general.architecture": [8, "llama"], "llama.block_count": [10, layers], "llama.context_length": [10, n("context")],
            "llama.embedding_length": [10, d], "llama.feed_forward_length": [10, f], "llama.attention.head_count": [10, n("heads")],
            "llama.attention.head_count_kv": [10, n("kv")], "llama.attention.key_length": [10, n("width")],
            "llama.attention.layer_norm_rms_epsilon": [6, 1e-5],
        },
    });
    write_typed(&json_part(description.to_string()))
}

fn plan(input: &Input) -> Result<()> {
    let parse = |i: usize| -> Result<Value> {
        serde_json::from_slice(&input[i].bytes).map_err(|e| Error::format("input", e.to_string(), "write JSON"))
    };
    let (shape, settings) = (parse(0)?, parse(1)?);
    let source: Box<dyn ByteSource> = Box::new(Claimed { head: header(&shape) });
    let model = block_on(ModelFile::open_gguf(vec![source]))?;
    let config = TrainConfig::from_map(&settings.as_object().cloned().unwrap_or_default())?;
    let plan = TrainPlan::new(&model, &config, None, PlanLimits::FLOOR, &Tuner::none())?;
    assert!(plan.planned.footprint().total() > 0);
    Ok(())
}
