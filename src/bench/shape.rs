//! Models of well-known shapes whose weights are made when read: nothing is downloaded or stored, and 7B of them are there in seconds.
//!
//! A model is a GGUF file that exists only as a [`ByteSource`]. Its matrices are random blocks with a standard deviation of `1/√in`, so that
//! activations stay near 1; its norms are ones.

use super::scene::random_blocks;
use crate::config::{ModelConfig, RopeScaling};
use crate::formats::gguf_write::{NewTensor, header};
use crate::formats::{ByteSource, LocalFuture, ModelFile, Value, check_range, expected_tensors, gguf_name};
use crate::quant::{F32, QuantFormat};
use crate::{Error, Result, rng};

/// Bytes to which tensors are aligned, as GGUF files are where they do not say.
const ALIGNMENT: u64 = 32;
/// Weights over which the standard deviation of random blocks is measured.
const SAMPLE: usize = 1 << 14;

/// The sizes of a model.
#[derive(Debug, Clone, Copy)]
pub struct ModelShape {
    /// As on the command line.
    pub name: &'static str,
    layers: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    feed_forward: usize,
    vocab: usize,
    theta: f64,
    tied: bool,
}

/// The shapes that can be asked for.
pub static SHAPES: &[ModelShape] = &[
    ModelShape {
        name: "smollm2-135m",
        layers: 30,
        hidden: 576,
        heads: 9,
        kv_heads: 3,
        feed_forward: 1536,
        vocab: 49_152,
        theta: 1e5,
        tied: true,
    },
    ModelShape {
        name: "llama-3.2-1b",
        layers: 16,
        hidden: 2048,
        heads: 32,
        kv_heads: 8,
        feed_forward: 8192,
        vocab: 128_256,
        theta: 5e5,
        tied: true,
    },
    ModelShape {
        name: "llama-2-7b",
        layers: 32,
        hidden: 4096,
        heads: 32,
        kv_heads: 32,
        feed_forward: 11_008,
        vocab: 32_000,
        theta: 1e4,
        tied: false,
    },
];

impl ModelShape {
    /// The shape of that name.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown one, with those there are.
    pub fn by_name(name: &str) -> Result<ModelShape> {
        let names = || SHAPES.iter().map(|shape| shape.name).collect::<Vec<_>>().join(", ");
        SHAPES
            .iter()
            .find(|shape| shape.name == name)
            .copied()
            .ok_or_else(|| Error::config("shape", format!("`{name}` is no known shape"), format!("give one of {}", names())))
    }

    fn config(&self) -> ModelConfig {
        ModelConfig {
            model_type: "llama".into(),
            vocab_size: self.vocab,
            hidden_size: self.hidden,
            intermediate_size: self.feed_forward,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            num_key_value_heads: self.kv_heads,
            head_dim: self.hidden / self.heads,
            rms_norm_eps: 1e-5,
            max_position_embeddings: 8192,
            rope_theta: self.theta,
            rope_scaling: RopeScaling::None,
            tie_word_embeddings: self.tied,
            sliding_window: None,
        }
    }

    /// The model with all matrices in `format`.
    ///
    /// # Errors
    /// [`Error::Config`] where GGUF files have no such format, or rows of the model are no whole number of its blocks.
    pub async fn open(&self, format: &'static QuantFormat) -> Result<ModelFile> {
        if format.ggml_id.is_none() {
            return Err(Error::config("format", format!("{} is no format of GGUF files", format.name), "give q4_0, q4_k, q8_0 or f16"));
        }
        if format.row_bytes(self.hidden).is_none() || format.row_bytes(self.feed_forward).is_none() {
            let problem = format!("rows of {} are no whole number of blocks of {}", self.name, format.name);
            return Err(Error::config("format", problem, "give q4_0, q8_0 or f16"));
        }
        ModelFile::open_gguf(vec![Box::new(Generated::new(self, format))]).await
    }
}

/// The bytes of a GGUF file that is made as it is read.
struct Generated {
    name: String,
    header: Vec<u8>,
    tensors: Vec<GeneratedTensor>,
    len: u64,
}

struct GeneratedTensor {
    begin: u64,
    end: u64,
    format: &'static QuantFormat,
    /// Of the random blocks, and the number that their floating-point fields are multiplied with; `None` for a norm.
    random: Option<(u64, f32)>,
}

impl Generated {
    fn new(shape: &ModelShape, format: &'static QuantFormat) -> Self {
        let config = shape.config();
        let number = |n: usize| Value::U32(n as u32);
        let metadata = [
            ("general.architecture", Value::String("llama".into())),
            ("llama.vocab_size", number(config.vocab_size)),
            ("llama.embedding_length", number(config.hidden_size)),
            ("llama.feed_forward_length", number(config.intermediate_size)),
            ("llama.block_count", number(config.num_hidden_layers)),
            ("llama.attention.head_count", number(config.num_attention_heads)),
            ("llama.attention.head_count_kv", number(config.num_key_value_heads)),
            ("llama.context_length", number(config.max_position_embeddings)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps)),
            ("llama.rope.freq_base", Value::F32(config.rope_theta as f32)),
        ];
        let deviation = deviation(format);
        let mut new = Vec::new();
        let mut random = Vec::new();
        for (hf, shape) in expected_tensors(&config) {
            let name = gguf_name(&hf).unwrap_or(hf);
            let matrix = shape.len() == 2;
            random.push(matrix.then(|| (rng::fnv1a(&name), 1.0 / (deviation * (shape[shape.len() - 1] as f32).sqrt()))));
            new.push(NewTensor { name, shape, format: if matrix { format } else { &F32 } });
        }
        let pairs: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
        let header = header(&pairs, &new, ALIGNMENT);
        let mut at = header.bytes.len() as u64;
        let mut tensors = Vec::new();
        for ((tensor, random), padding) in new.iter().zip(random).zip(&header.padding) {
            let (begin, end) = (at, at + tensor.bytes());
            at = end + *padding as u64;
            tensors.push(GeneratedTensor { begin, end, format: tensor.format, random });
        }
        Self { name: format!("{} {}", shape.name, format.name), header: header.bytes, tensors, len: header.total }
    }
}

/// The standard deviation of weights whose blocks are random.
fn deviation(format: &QuantFormat) -> f32 {
    let weights = format.decode_vec(&random_blocks(format, 0, 0..(SAMPLE / format.block) as u64));
    (weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32).sqrt()
}

/// Multiplies the floating-point fields of whole blocks.
fn scale(format: &QuantFormat, blocks: &mut [u8], by: f32) {
    for block in blocks.chunks_exact_mut(format.block_bytes) {
        for field in format.floats {
            field.write(block, field.read(block) * by);
        }
    }
}

impl GeneratedTensor {
    /// Bytes `from..to` of the tensor.
    fn bytes(&self, from: u64, to: u64) -> Vec<u8> {
        let size = self.format.block_bytes as u64;
        let blocks = from / size..to.div_ceil(size);
        let mut bytes = match self.random {
            Some((seed, by)) => {
                let mut bytes = random_blocks(self.format, seed, blocks.clone());
                scale(self.format, &mut bytes, by);
                bytes
            }
            None => blocks.clone().flat_map(|_| 1f32.to_le_bytes()).collect(),
        };
        bytes.truncate((to - blocks.start * size) as usize);
        bytes.drain(..(from - blocks.start * size) as usize);
        bytes
    }
}

impl ByteSource for Generated {
    fn name(&self) -> &str {
        &self.name
    }
    fn len(&self) -> u64 {
        self.len
    }
    fn read<'a>(&'a self, offset: u64, len: usize) -> LocalFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            check_range(&self.name, self.len, offset, len)?;
            let end = offset + len as u64;
            let mut out = vec![0; len];
            let head = self.header.len() as u64;
            if offset < head {
                let part = &self.header[offset as usize..end.min(head) as usize];
                out[..part.len()].copy_from_slice(part);
            }
            for tensor in self.tensors.iter().filter(|t| t.begin < end && offset < t.end) {
                let (from, to) = (offset.max(tensor.begin), end.min(tensor.end));
                let bytes = tensor.bytes(from - tensor.begin, to - tensor.begin);
                out[(from - offset) as usize..][..bytes.len()].copy_from_slice(&bytes);
            }
            Ok(out)
        })
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use crate::quant::{F16, NF4, Q4_0, Q4_K, Q8_0};

    const TINY: ModelShape =
        ModelShape { name: "tiny", layers: 2, hidden: 256, heads: 4, kv_heads: 2, feed_forward: 512, vocab: 32, theta: 1e4, tied: false };

    #[test]
    fn weights_keep_activations_near_one_in_every_format() {
        for format in [&Q4_0, &Q4_K, &Q8_0, &F16] {
            let file = pollster::block_on(TINY.open(format)).expect("opened");
            for (name, cols) in [("model.layers.1.mlp.down_proj.weight", 512), ("lm_head.weight", 256)] {
                let weights = pollster::block_on(file.read_f32(name)).expect("read");
                let deviation = (weights.iter().map(|w| f64::from(w * w)).sum::<f64>() / weights.len() as f64).sqrt();
                let ratio = deviation * f64::from(cols).sqrt();
                assert!((0.8..1.25).contains(&ratio), "{} {name}: {ratio}", format.name);
            }
            assert!(pollster::block_on(file.read_f32("model.norm.weight")).expect("read").iter().all(|w| *w == 1.0));
        }
    }

    #[test]
    fn any_range_of_bytes_is_part_of_the_whole() {
        let source = Generated::new(&TINY, &Q4_0);
        let read = |at: u64, len: usize| pollster::block_on(source.read(at, len)).expect("read");
        let whole = read(0, source.len() as usize);
        for at in (0..whole.len()).step_by(9973) {
            let len = (whole.len() - at).min(611);
            assert_eq!(read(at as u64, len), whole[at..at + len], "{len} bytes at {at}");
        }
        assert!(pollster::block_on(source.read(source.len(), 1)).is_err());
    }

    #[test]
    fn shapes_and_formats_that_do_not_go_together_are_refused() {
        let smollm2 = ModelShape::by_name("smollm2-135m").expect("known");
        for (format, word) in [(&Q4_K, "no whole number"), (&NF4, "no format of GGUF")] {
            let error = pollster::block_on(smollm2.open(format)).err().expect("refused").to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(ModelShape::by_name("llama").expect_err("unknown").to_string().contains("llama-2-7b"));
    }
}
