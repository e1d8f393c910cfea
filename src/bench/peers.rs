//! Two synthetic models that benchmarks of other stacks run too, made byte by byte when asked for: no weight is ever stored.
//!
//! Weight i of tensor number s is a 32-bit hash of `i · 1664525 + s · 1013904223 + 12345`, mapped to a uniform distribution of a given
//! standard deviation. Equal weights give equal losses, so [`Peer::losses`], what PyTorch gets, prove that the work is the same.

use serde_json::json;

use crate::Result;
use crate::adapters::{AdapterLayout, Site};
use crate::formats::{ByteSource, LocalFuture, ModelFile, SideFiles, check_range, expected_tensors, parse_config};

/// Standard deviation of the embedding.
const EMBEDDING_STD: f64 = 0.02;

/// One of the models: full multi-head attention, f32, tied head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub name: &'static str,
    layers: usize,
    hidden: usize,
    heads: usize,
    feed_forward: usize,
    vocab: usize,
    /// Loss before each of the first steps of rank 8, alpha 16, AdamW 1e-3 with decay 0.01.
    pub losses: [f64; 4],
}

/// About a CPU cache's worth: overheads weigh most.
pub(super) const SMALL: Peer =
    Peer { name: "step-s", layers: 2, hidden: 256, heads: 4, feed_forward: 768, vocab: 1024, losses: [6.92912, 6.84970, 6.76277, 6.66798] };

/// The size of SmolLM2-135M.
pub(super) const MEDIUM: Peer = Peer {
    name: "step-m",
    layers: 30,
    hidden: 576,
    heads: 9,
    feed_forward: 1536,
    vocab: 49_152,
    losses: [10.95829, 10.43404, 10.02977, 9.64671],
};

/// Number of a site's weight in the order in which the tensors were numbered: the embedding is 1, and a site's A follows its weight.
fn tensor_number(site: Site) -> u32 {
    2 + 2 * (7 * site.layer as u32 + site.projection as u32)
}

/// Element `i` of tensor `number`.
fn hashed(number: u32, i: u32, std: f64) -> f32 {
    let mut x = i.wrapping_mul(1_664_525).wrapping_add(number.wrapping_mul(1_013_904_223)).wrapping_add(12_345);
    x = (x ^ (x >> 16)).wrapping_mul(2_246_822_519);
    x = (x ^ (x >> 13)).wrapping_mul(3_266_489_917);
    x ^= x >> 16;
    ((f64::from(x) / 4_294_967_296.0 - 0.5) * std * 12f64.sqrt()) as f32
}

impl Peer {
    /// The model as a file that is computed when read.
    pub async fn open(self) -> Result<ModelFile> {
        let config = json!({
            "model_type": "llama", "vocab_size": self.vocab, "hidden_size": self.hidden, "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
            "max_position_embeddings": 2048, "tie_word_embeddings": true,
        })
        .to_string();
        let source: Box<dyn ByteSource> = Box::new(Synthetic::new(self.name, &config)?);
        let side = SideFiles { config_json: Some(config), ..SideFiles::default() };
        ModelFile::open_safetensors(vec![source], None, side).await
    }

    /// The adapter's first values, in a flat buffer: A hashed like the weights, B zero.
    pub fn adapter(self, layout: &AdapterLayout) -> Vec<f32> {
        let mut buffer = vec![0.0; layout.params.words];
        for adapter in &layout.sites {
            for slice in &adapter.slices {
                let a = &layout.params.specs[slice.a];
                let std = (a.shape[1] as f64).powf(-0.5);
                let values: Vec<f32> = (0..a.len() as u32).map(|i| hashed(tensor_number(adapter.site) + 1, i, std)).collect();
                a.put_hf(&values, &mut buffer);
            }
        }
        buffer
    }
}

/// A safetensors file whose data is computed.
struct Synthetic {
    name: &'static str,
    header: Vec<u8>,
    tensors: Vec<Tensor>,
    len: u64,
}

struct Tensor {
    begin: u64,
    end: u64,
    fill: Fill,
}

#[derive(Clone, Copy)]
enum Fill {
    Ones,
    /// Row-major as stored.
    Hashed {
        number: u32,
        std: f64,
    },
    /// Numbered along the columns of the stored `[rows, cols]`: the other stacks keep a layer as `[in, out]`.
    Transposed {
        number: u32,
        std: f64,
        rows: u64,
        cols: u64,
    },
}

impl Fill {
    fn of(name: &str, shape: &[usize]) -> Fill {
        let [rows, cols] = *shape else { return Fill::Ones };
        let site = name.strip_prefix("model.").and_then(|n| n.strip_suffix(".weight")).and_then(Site::parse);
        match site {
            Some(site) => {
                Fill::Transposed { number: tensor_number(site), std: (cols as f64).powf(-0.5), rows: rows as u64, cols: cols as u64 }
            }
            None => Fill::Hashed { number: 1, std: EMBEDDING_STD },
        }
    }

    fn value(self, i: u64) -> f32 {
        match self {
            Fill::Ones => 1.0,
            Fill::Hashed { number, std } => hashed(number, i as u32, std),
            Fill::Transposed { number, std, rows, cols } => hashed(number, (i % cols * rows + i / cols) as u32, std),
        }
    }
}

impl Synthetic {
    fn new(name: &'static str, config: &str) -> Result<Synthetic> {
        let mut end = 0;
        let mut tensors = Vec::new();
        let mut header = serde_json::Map::new();
        for (name, shape) in expected_tensors(&parse_config(name, config)?) {
            let begin = end;
            end += 4 * shape.iter().product::<usize>() as u64;
            tensors.push(Tensor { begin, end, fill: Fill::of(&name, &shape) });
            header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}));
        }
        let text = serde_json::Value::from(header).to_string();
        let header = [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let len = header.len() as u64 + end;
        Ok(Synthetic { name, header, tensors, len })
    }

    /// Bytes `from..to` of the data.
    fn data(&self, from: u64, to: u64, out: &mut Vec<u8>) {
        for tensor in self.tensors.iter().filter(|t| t.begin < to && from < t.end) {
            let (first, last) = (from.max(tensor.begin) - tensor.begin, to.min(tensor.end) - tensor.begin);
            let elements = first / 4..last.div_ceil(4);
            let start = out.len();
            out.extend(elements.flat_map(|i| tensor.fill.value(i).to_le_bytes()));
            out.drain(start..start + (first % 4) as usize);
            out.truncate(start + (last - first) as usize);
        }
    }
}

impl ByteSource for Synthetic {
    fn name(&self) -> &str {
        self.name
    }
    fn len(&self) -> u64 {
        self.len
    }
    fn read<'a>(&'a self, offset: u64, len: usize) -> LocalFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            check_range(self.name, self.len, offset, len)?;
            let (end, head) = (offset + len as u64, self.header.len() as u64);
            let mut out = Vec::with_capacity(len + 8);
            if offset < head {
                out.extend_from_slice(&self.header[offset as usize..end.min(head) as usize]);
            }
            self.data(offset.saturating_sub(head), end.saturating_sub(head), &mut out);
            Ok(out)
        })
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    /// NumPy: `fill(1, 3, 0.02)`, and `fill(2, 256 * 256, 256 ** -0.5).reshape(256, 256).T[1, :2]`, of the other stacks' scripts.
    const EMBEDDING: [f32; 3] = [-0.026243842, 0.00029141334, 0.028547086];
    const QUERY: [f32; 2] = [0.046966936, -0.034024913];

    #[test]
    fn weights_are_those_of_the_other_stacks() {
        let file = pollster::block_on(SMALL.open()).expect("opened");
        let floats = |bytes: Vec<u8>| -> Vec<f32> { bytemuck::pod_collect_to_vec(&bytes) };
        let embedding = floats(pollster::block_on(file.read_rows("model.embed_tokens.weight", 0..1)).expect("read"));
        assert_eq!(embedding[..3], EMBEDDING);
        let q = floats(pollster::block_on(file.read_rows("model.layers.0.self_attn.q_proj.weight", 1..2)).expect("read"));
        assert_eq!(q[..2], QUERY);
        let norm = pollster::block_on(file.read_f32("model.norm.weight")).expect("read");
        assert!(norm.len() == 256 && norm.iter().all(|w| *w == 1.0));
    }

    #[test]
    fn any_range_of_bytes_is_part_of_the_whole() {
        let source = Synthetic::new(
            "tiny",
            &json!({
                "model_type": "llama", "vocab_size": 3, "hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 2, "tie_word_embeddings": true,
            })
            .to_string(),
        )
        .expect("made");
        let read = |at: u64, len: usize| pollster::block_on(source.read(at, len)).expect("read");
        let whole = read(0, source.len() as usize);
        assert_eq!(whole.len() as u64, source.len());
        for at in (0..whole.len()).step_by(7) {
            let len = (whole.len() - at).min(61);
            assert_eq!(read(at as u64, len), whole[at..at + len], "{len} bytes at {at}");
        }
        assert!(pollster::block_on(source.read(source.len(), 1)).is_err());
    }
}
