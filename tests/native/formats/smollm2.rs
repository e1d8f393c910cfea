//! The real SmolLM2-135M-Instruct Q4_1 file, when `WEBLORA_SMOLLM2` points to it.

use std::path::Path;
use weblora::config::RopeScaling;
use weblora::formats::{ByteSource, File, Gguf, ModelFile, RowOrder};

/// `None`, said aloud, when the file is not at hand.
fn path() -> Option<String> {
    let path = std::env::var("WEBLORA_SMOLLM2").ok();
    if path.is_none() {
        eprintln!("skipped: set WEBLORA_SMOLLM2 to SmolLM2-135M-Instruct.Q4_1.gguf");
    }
    path
}

#[test]
fn header() {
    let Some(path) = path() else { return };
    let source: Vec<Box<dyn ByteSource>> = vec![Box::new(File::open(Path::new(&path)).unwrap())];
    let gguf = pollster::block_on(Gguf::read(&source)).unwrap();
    assert_eq!((gguf.version, gguf.metadata.len(), gguf.tensors.len()), (3, 33, 272));
    assert_eq!(gguf.data_offsets, [1_785_664]);
    let m = &gguf.metadata;
    assert_eq!(m.str("tokenizer.ggml.pre").unwrap(), Some("smollm"));
    assert_eq!(m.strings("tokenizer.ggml.tokens").unwrap().map(<[_]>::len), Some(49_152));
    assert_eq!(m.strings("tokenizer.ggml.merges").unwrap().map(<[_]>::len), Some(48_900));
    assert_eq!(m.i32s("tokenizer.ggml.token_type").unwrap().unwrap()[..18], [[3; 17].as_slice(), &[1]].concat());
    assert_eq!(m.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(false));
}

#[test]
fn model() {
    let Some(path) = path() else { return };
    pollster::block_on(async {
        let model = ModelFile::open_path(Path::new(&path)).await.unwrap();
        let c = &model.config;
        assert_eq!((c.vocab_size, c.hidden_size, c.intermediate_size, c.num_hidden_layers), (49_152, 576, 1536, 30));
        assert_eq!((c.num_attention_heads, c.num_key_value_heads, c.head_dim), (9, 3, 64));
        assert_eq!((c.rms_norm_eps, c.rope_theta, c.max_position_embeddings), (1e-5, 100_000.0, 8192));
        assert!(c.tie_word_embeddings && c.rope_scaling == RopeScaling::None && c.sliding_window.is_none());
        assert_eq!(model.tensors().count(), 272);

        let embed = model.tensor("model.embed_tokens.weight").unwrap();
        assert_eq!((embed.format.name, embed.offset, embed.bytes), ("q8_0", 1_785_664, 30_081_024));
        let row = model.read_rows("model.embed_tokens.weight", 0..1).await.unwrap();
        assert_eq!(row.len(), 576 / 32 * 34);
        assert_eq!(row[..8], [0x32, 0x19, 0xd6, 0x0d, 0x13, 0xf7, 0xe5, 0xee]);

        let down = model.tensor("model.layers.0.mlp.down_proj.weight").unwrap();
        assert_eq!((down.format.name, down.offset, down.shape.as_slice()), ("q4_1", 31_868_992, [576, 1536].as_slice()));
        let values = down.format.decode_vec(&model.read_rows(&down.name, 0..1).await.unwrap());
        for (i, expected) in [(0, -0.3308105), (1, 0.3460693), (2, 0.0753174), (3, -0.4661865), (16, -0.6015625), (19, -0.1954346)] {
            assert!((values[i] - expected).abs() < 6e-8, "weight {i}: {}", values[i]); // the golden has seven decimals
        }

        let q = model.tensor("model.layers.3.self_attn.q_proj.weight").unwrap();
        assert_eq!(q.row_order, RowOrder::Interleaved { head_dim: 64 });
        let file = File::open(Path::new(&path)).unwrap();
        let stored = file.read(q.offset, q.bytes as usize).await.unwrap();
        let rows = model.read_rows(&q.name, 64..128).await.unwrap();
        let row = |bytes: &[u8], r: usize| bytes[r * q.row_bytes()..(r + 1) * q.row_bytes()].to_vec();
        for i in 0..32 {
            assert_eq!(row(&rows, i), row(&stored, 64 + 2 * i), "head 1, first half");
            assert_eq!(row(&rows, i + 32), row(&stored, 64 + 2 * i + 1), "head 1, second half");
        }

        let hash = model.content_hash().await.unwrap();
        assert_eq!(hash, model.content_hash().await.unwrap());
        eprintln!("content hash {hash}");
    });
}
