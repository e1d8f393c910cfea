//! Writes small GGUF and safetensors files, honest or lying, for the other tests.

use weblora::formats::{ByteSource, Bytes, LocalFuture, ModelFile, SideFiles};

pub(crate) type Sources = Vec<Box<dyn ByteSource>>;

/// Sizes of the test model: 2 layers, 2 query heads and 1 key/value head of width 4.
pub(crate) const VOCAB: usize = 10;
pub(crate) const HIDDEN: usize = 8;
pub(crate) const FF: usize = 12;
pub(crate) const LAYERS: usize = 2;
pub(crate) const HEAD_DIM: usize = 4;

/// A tensor as the table will describe it; `offset` overrides the honest one.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dims: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
    pub(crate) offset: Option<u64>,
}

/// A GGUF file in parts, each of which a test may bend.
#[derive(Clone)]
pub(crate) struct GgufFile {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) tensor_count: Option<u64>,
    pub(crate) kv_count: Option<u64>,
    /// Key, then type number and value as bytes.
    pub(crate) kv: Vec<(String, Vec<u8>)>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) alignment: usize,
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

pub(crate) fn typed(kind: u32, value: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), value].concat()
}

pub(crate) fn kv_u32(key: &str, v: u32) -> (String, Vec<u8>) {
    (key.into(), typed(4, &v.to_le_bytes()))
}

pub(crate) fn kv_f32(key: &str, v: f32) -> (String, Vec<u8>) {
    (key.into(), typed(6, &v.to_le_bytes()))
}

pub(crate) fn kv_str(key: &str, v: &str) -> (String, Vec<u8>) {
    (key.into(), typed(8, &string(v)))
}

/// An array value: type 9, element type, number of elements, elements.
pub(crate) fn kv_array(key: &str, kind: u32, len: u64, elements: &[u8]) -> (String, Vec<u8>) {
    (key.into(), typed(9, &[&kind.to_le_bytes(), len.to_le_bytes().as_slice(), elements].concat()))
}

impl GgufFile {
    pub(crate) fn empty() -> Self {
        Self { magic: *b"GGUF", version: 3, tensor_count: None, kv_count: None, kv: Vec::new(), tensors: Vec::new(), alignment: 32 }
    }

    /// A whole tiny LLaMA with F32 weights; row `r` of every matrix holds the number `r`, in Hugging Face order.
    pub(crate) fn llama() -> Self {
        let mut file = Self::empty();
        file.kv = vec![
            kv_str("general.architecture", "llama"),
            kv_u32("llama.block_count", LAYERS as u32),
            kv_u32("llama.context_length", 64),
            kv_u32("llama.embedding_length", HIDDEN as u32),
            kv_u32("llama.feed_forward_length", FF as u32),
            kv_u32("llama.attention.head_count", 2),
            kv_u32("llama.attention.head_count_kv", 1),
            kv_f32("llama.attention.layer_norm_rms_epsilon", 1e-5),
        ];
        file.matrix("token_embd.weight", VOCAB, HIDDEN);
        for l in 0..LAYERS {
            for (stem, rows, cols) in [
                ("attn_norm", 0, HIDDEN),
                ("attn_q", 8, HIDDEN),
                ("attn_k", 4, HIDDEN),
                ("attn_v", 4, HIDDEN),
                ("attn_output", HIDDEN, 8),
                ("ffn_norm", 0, HIDDEN),
                ("ffn_gate", FF, HIDDEN),
                ("ffn_up", FF, HIDDEN),
                ("ffn_down", HIDDEN, FF),
            ] {
                file.matrix(&format!("blk.{l}.{stem}.weight"), rows, cols);
            }
        }
        file.matrix("output_norm.weight", 0, HIDDEN);
        file
    }

    /// Adds an F32 tensor; `rows` 0 is a vector.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, cols: usize) {
        let stored = |r: usize| if name.contains("attn_q") || name.contains("attn_k") { interleaved(r) } else { r };
        let data = (0..rows.max(1)).flat_map(|r| [(stored(r) as f32).to_le_bytes()].repeat(cols)).flatten().collect();
        let dims = if rows == 0 { vec![cols as u64] } else { vec![cols as u64, rows as u64] };
        self.tensors.push(Tensor { name: name.into(), dims, kind: 0, data, offset: None });
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|t| t.name == name).expect("a tensor of the test model")
    }

    /// Sets or adds a pair.
    pub(crate) fn set(&mut self, (key, value): (String, Vec<u8>)) -> &mut Self {
        match self.kv.iter_mut().find(|(k, _)| *k == key) {
            Some(pair) => pair.1 = value,
            None => self.kv.push((key, value)),
        }
        self
    }

    pub(crate) fn remove(&mut self, key: &str) -> &mut Self {
        self.kv.retain(|(k, _)| k != key);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.kv_count.unwrap_or(self.kv.len() as u64).to_le_bytes());
        for (key, value) in &self.kv {
            out.extend(string(key));
            out.extend(value);
        }
        let mut at = 0;
        for t in &self.tensors {
            out.extend(string(&t.name));
            out.extend((t.dims.len() as u32).to_le_bytes());
            t.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(t.kind.to_le_bytes());
            out.extend(t.offset.unwrap_or(at).to_le_bytes());
            at += t.data.len().next_multiple_of(self.alignment) as u64;
        }
        for t in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&t.data);
        }
        out
    }

    pub(crate) fn open(&self) -> weblora::Result<ModelFile> {
        open_gguf(vec![self.bytes()])
    }
}

/// HF row of file row `r`, for heads of width 4: written out by hand as a witness.
fn interleaved(r: usize) -> usize {
    r / 4 * 4 + [0, 2, 1, 3][r % 4]
}

pub(crate) fn sources(files: Vec<Vec<u8>>) -> Sources {
    files.into_iter().enumerate().map(|(i, data)| Box::new(Bytes::new(format!("part{i}.gguf"), data)) as Box<dyn ByteSource>).collect()
}

pub(crate) fn open_gguf(files: Vec<Vec<u8>>) -> weblora::Result<ModelFile> {
    pollster::block_on(ModelFile::open_gguf(sources(files)))
}

/// The text of an error that must come.
pub(crate) fn refused<T>(result: weblora::Result<T>) -> String {
    match result {
        Ok(_) => panic!("accepted, an error was expected"),
        Err(e) => e.to_string(),
    }
}

/// `config.json` of the test model with some keys replaced (`null` removes one).
pub(crate) fn config_json(changes: serde_json::Value) -> String {
    let mut config = serde_json::json!({
        "model_type": "llama", "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": FF, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_act": "silu", "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    });
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config.to_string()
}

pub(crate) fn side(config_json: String) -> SideFiles {
    SideFiles { config_json: Some(config_json), ..SideFiles::default() }
}

/// A source that claims any size, holds `head` and then zeros, and refuses reads above one window: nobody may trust a length field.
pub(crate) struct Endless {
    pub(crate) head: Vec<u8>,
    pub(crate) len: u64,
}

impl ByteSource for Endless {
    fn name(&self) -> &str {
        "endless.gguf"
    }
    fn len(&self) -> u64 {
        self.len
    }
    fn read<'a>(&'a self, offset: u64, len: usize) -> LocalFuture<'a, weblora::Result<Vec<u8>>> {
        assert!(len <= 1 << 20, "a read of {len} bytes");
        Box::pin(async move { Ok((offset..offset + len as u64).map(|i| self.head.get(i as usize).copied().unwrap_or(0)).collect()) })
    }
}
