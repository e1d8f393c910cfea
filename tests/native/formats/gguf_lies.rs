//! One test per lie a GGUF file can tell. Each is refused with a sentence that names what was found; none panics or allocates on trust.

use super::build::*;
use super::gguf::split;
use weblora::formats::{ByteSource, Gguf};

/// Bends an honest file; the error must contain every one of `words`.
fn lie(words: &[&str], bend: impl FnOnce(&mut GgufFile)) {
    let mut file = GgufFile::llama();
    bend(&mut file);
    let error = refused(file.open());
    assert!(words.iter().all(|w| error.contains(w)), "{error}\nlacks one of {words:?}");
}

#[test]
fn magic_and_version() {
    lie(&["\"GGUF\" was expected"], |f| f.magic = *b"GGML");
    lie(&["GGUF version 1"], |f| f.version = 1);
    lie(&["GGUF version 4"], |f| f.version = 4);
    lie(&["big-endian"], |f| f.version = 3u32.swap_bytes());
}

#[test]
fn counts() {
    lie(&["tensor count", "at most 65536"], |f| f.tensor_count = Some(u64::MAX));
    lie(&["tensor count", "follow"], |f| f.tensor_count = Some(60_000));
    lie(&["metadata count", "at most 65536"], |f| f.kv_count = Some(1 << 40));
    lie(&["metadata count", "follow"], |f| f.kv_count = Some(60_000));
    let one_more = GgufFile::llama().tensors.len() as u64 + 1; // padding is read as a tensor
    lie(&["part0.gguf"], |f| f.tensor_count = Some(one_more));
    lie(&["part0.gguf"], |f| f.kv_count = Some(9)); // a tensor is read as a pair
}

#[test]
fn keys_and_strings() {
    lie(&["a metadata key", "at most 65535"], |f| f.kv[1].0 = "k".repeat(70_000));
    lie(&["not UTF-8"], |f| f.kv[0].1 = typed(8, &[1u64.to_le_bytes().as_slice(), &[0xff]].concat()));
    lie(&["general.architecture", "at most"], |f| f.kv[0].1 = typed(8, &u64::MAX.to_le_bytes()));
    lie(&["general.architecture", "follow"], |f| f.kv[0].1 = typed(8, &30_000_000u64.to_le_bytes()));
    lie(&["`general.architecture` occurs twice"], |f| f.kv.push(kv_str("general.architecture", "llama")));
}

#[test]
fn value_types() {
    lie(&["unknown value type 13"], |f| f.kv[1].1 = typed(13, &[0; 8]));
    lie(&["unknown element type 99"], |f| f.kv.push(kv_array("a", 99, 1, &[0; 8])));
    lie(&["bool of value 2"], |f| f.kv.push(("b".into(), typed(7, &[2]))));
    lie(&["bool of value 3"], |f| f.kv.push(kv_array("b", 7, 2, &[1, 3])));
}

#[test]
fn arrays() {
    lie(&["a claims", "at most 4194304"], |f| f.kv.push(kv_array("a", 0, u64::MAX, &[])));
    lie(&["claims a length of 4000000", "follow"], |f| f.kv.push(kv_array("a", 8, 4_000_000, &[])));
    let mut nested = [0u32.to_le_bytes().as_slice(), &0u64.to_le_bytes()].concat();
    for _ in 0..5 {
        nested = [9u32.to_le_bytes().as_slice(), &1u64.to_le_bytes(), &nested].concat();
    }
    lie(&["nests arrays deeper than 4"], |f| f.kv.push(("a".into(), typed(9, &nested))));
}

#[test]
fn alignment() {
    for bad in [0, 4, 12, 65_544] {
        lie(&["general.alignment", &bad.to_string()], |f| {
            f.set(kv_u32("general.alignment", bad));
        });
    }
    lie(&["general.alignment", "is a string"], |f| {
        f.set(kv_str("general.alignment", "32"));
    });
}

#[test]
fn tensor_table() {
    lie(&["a tensor name", "at most 64"], |f| f.tensors[0].name = "n".repeat(65));
    lie(&["occurs twice"], |f| f.tensors[1].name = "token_embd.weight".into());
    lie(&["0 dimensions"], |f| f.tensors[0].dims.clear());
    lie(&["5 dimensions"], |f| f.tensors[0].dims = vec![1; 5]);
    lie(&["dimension of size 0"], |f| f.tensors[0].dims[1] = 0);
    lie(&["does not fit"], |f| f.tensors[0].dims = vec![1 << 40, 1 << 40]);
    lie(&["does not fit q4_1 blocks of 32"], |f| f.tensors[0].kind = 3);
    lie(&["unknown type number 1000"], |f| f.tensors[0].kind = 1000);
    lie(&["type IQ2_XXS is not supported", "q4_1"], |f| f.tensors[0].kind = 16);
    lie(&["token_embd.weight", "bytes at offset 1048576"], |f| f.tensors[0].offset = Some(1 << 20));
    lie(&["but the file has"], |f| f.tensors[0].offset = Some(u64::MAX - 31));
    lie(&["multiple of 32"], |f| f.tensors[0].offset = Some(8));
    lie(&["overlap"], |f| f.tensors[1].offset = Some(0));
    lie(&["but the file has"], |f| f.tensors.last_mut().unwrap().data.truncate(4));
}

#[test]
fn lengths_are_not_trusted_even_when_the_file_is_huge() {
    let open = |head: Vec<u8>| {
        let source: Vec<Box<dyn ByteSource>> = vec![Box::new(Endless { head, len: 1 << 50 })];
        refused(pollster::block_on(Gguf::read(&source)))
    };
    let head = |tensors: u64, kv: u64, rest: &[u8]| {
        [b"GGUF".as_slice(), &3u32.to_le_bytes(), &tensors.to_le_bytes(), &kv.to_le_bytes(), rest].concat()
    };
    assert!(open(head(1 << 40, 0, &[])).contains("at most 65536"));
    assert!(open(head(0, 1 << 40, &[])).contains("at most 65536"));
    assert!(open(head(0, 1, &(1u64 << 40).to_le_bytes())).contains("at most 65535"));
    let value = |v: Vec<u8>| [string("k"), v].concat();
    assert!(open(head(0, 1, &value(typed(8, &(1u64 << 40).to_le_bytes())))).contains("at most 67108864"));
    assert!(open(head(0, 1, &value(kv_array("", 0, 1 << 40, &[]).1))).contains("at most 4194304"));
}

#[test]
fn split_parts() {
    let open = |parts: Vec<GgufFile>| refused(open_gguf(parts.iter().map(GgufFile::bytes).collect()));
    assert!(open(split(3)[..2].to_vec()).contains("it is part 1 of 3 but 2 files were given"));
    assert!(open(vec![]).contains("0 GGUF files given"));
    let mut twice = split(2);
    twice[1] = twice[0].clone();
    assert!(open(twice).contains("out of range or there twice"));
    let mut far = split(2);
    far[1].set(("split.no".into(), typed(2, &9u16.to_le_bytes())));
    assert!(open(far).contains("part number 9 of 2"));
    let mut short = split(2);
    short[0].tensors.pop();
    assert!(open(short).contains("`split.tensors.count` is 20 but the parts hold 19"));
    let mut shared = split(2);
    shared[1].tensors[0] = shared[0].tensors[0].clone();
    assert!(open(shared).contains("`token_embd.weight` is in another part too"));
}

#[test]
fn architectures_are_refused_by_name() {
    for name in ["qwen2", "gemma", "phi3", "mistral3"] {
        lie(&[&format!("architecture \"{name}\" is not supported")], |f| {
            f.set(kv_str("general.architecture", name));
        });
    }
    lie(&["`general.architecture` is missing"], |f| {
        f.remove("general.architecture");
    });
    lie(&["8 experts (Mixtral)"], |f| {
        f.set(kv_u32("llama.expert_count", 8));
    });
    lie(&["GGUF of type \"adapter\""], |f| {
        f.set(kv_str("general.type", "adapter"));
    });
    lie(&["`blk.0.attn_q.bias` is not supported"], |f| f.matrix("blk.0.attn_q.bias", 0, 8));
    lie(&["RoPE scaling \"ntk\""], |f| {
        f.set(kv_str("llama.rope.scaling.type", "ntk"));
    });
    lie(&["value_length"], |f| {
        f.set(kv_u32("llama.attention.value_length", 2));
    });
    lie(&["rope.dimension_count"], |f| {
        f.set(kv_u32("llama.rope.dimension_count", 2));
    });
}

#[test]
fn configurations_that_cannot_be() {
    let set = |key: &'static str, value: u32, words: &[&str]| {
        lie(words, |f| {
            f.set(kv_u32(key, value));
        })
    };
    set("llama.attention.head_count", 0, &["num_attention_heads is 0"]);
    set("llama.attention.head_count_kv", 0, &["num_key_value_heads is 0"]);
    set("llama.attention.head_count", 3, &["8 is no multiple of 3 heads"]);
    set("llama.attention.key_length", 5, &["an even number was expected"]);
    set("llama.attention.key_length", u32::MAX, &["head_dim is 4294967295"]);
    set("llama.block_count", 3, &["model.layers.2.input_layernorm.weight", "is missing"]);
    set("llama.block_count", 1, &["model.layers.1", "not supported"]);
    set("llama.block_count", u32::MAX, &["num_hidden_layers is 4294967295"]);
    set("llama.block_count", 60_000_000, &["60000000 layers are declared"]);
    set("llama.embedding_length", 16, &["has shape"]);
    set("llama.feed_forward_length", 13, &["gate_proj.weight` has shape [12, 8], [13, 8]"]);
    set("llama.vocab_size", 11, &["embed_tokens.weight` has shape [10, 8], [11, 8]"]);
    set("llama.context_length", 0, &["max_position_embeddings is 0"]);
    lie(&["rms_norm_eps"], |f| {
        f.set(kv_f32("llama.attention.layer_norm_rms_epsilon", f32::NAN));
    });
    lie(&["rope_theta"], |f| {
        f.set(kv_f32("llama.rope.freq_base", -1.0));
    });
    lie(&["RoPE scaling has 3 divisors, 2"], |f| f.matrix("rope_freqs.weight", 0, 3));
    lie(&["RoPE scaling has the number 0"], |f| f.matrix("rope_freqs.weight", 0, 2));
    lie(&["one divisor per pair"], |f| f.matrix("rope_freqs.weight", 2, 2));
    lie(&["`llama.rope.scaling.factor` is missing"], |f| {
        f.set(kv_str("llama.rope.scaling.type", "linear"));
    });
}
