//! Tensor names: Hugging Face's (used everywhere in the crate) and GGUF's, and which tensors a LLaMA must have.

use super::rows::RowOrder;
use crate::config::ModelConfig;

/// Tensors of one block: HF name and GGUF name after the block's prefix, without `.weight`.
const BLOCK_TENSORS: [(&str, &str); 9] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// Tensors outside the blocks.
const OUTER_TENSORS: [(&str, &str); 3] =
    [("model.embed_tokens.weight", "token_embd.weight"), ("model.norm.weight", "output_norm.weight"), ("lm_head.weight", "output.weight")];

/// The HF name of a GGUF tensor: `blk.0.attn_q.weight` is `model.layers.0.self_attn.q_proj.weight`. `None` for a tensor that no LLaMA has.
pub fn hf_name(gguf: &str) -> Option<String> {
    if let Some((hf, _)) = OUTER_TENSORS.iter().find(|(_, g)| *g == gguf) {
        return Some((*hf).to_owned());
    }
    let (layer, rest) = gguf.strip_prefix("blk.")?.split_once('.')?;
    let layer = layer_number(layer)?;
    let stem = rest.strip_suffix(".weight")?;
    let (hf, _) = BLOCK_TENSORS.iter().find(|(_, g)| *g == stem)?;
    Some(format!("model.layers.{layer}.{hf}.weight"))
}

/// The GGUF name of an HF tensor, the inverse of [`hf_name`].
pub fn gguf_name(hf: &str) -> Option<String> {
    if let Some((_, gguf)) = OUTER_TENSORS.iter().find(|(h, _)| *h == hf) {
        return Some((*gguf).to_owned());
    }
    let (layer, rest) = hf.strip_prefix("model.layers.")?.split_once('.')?;
    let layer = layer_number(layer)?;
    let stem = rest.strip_suffix(".weight")?;
    let (_, gguf) = BLOCK_TENSORS.iter().find(|(h, _)| *h == stem)?;
    Some(format!("blk.{layer}.{gguf}.weight"))
}

/// A plain decimal without sign or leading zeros, so that no tensor has two names.
fn layer_number(text: &str) -> Option<usize> {
    let n: usize = text.parse().ok()?;
    (n.to_string() == text).then_some(n)
}

/// Every tensor the model must have, with its shape in torch order: embedding, blocks in order, final norm, and the head unless tied.
pub fn expected_tensors(c: &ModelConfig) -> impl Iterator<Item = (String, Vec<usize>)> {
    let (d, f, q, kv) = (c.hidden_size, c.intermediate_size, c.q_width(), c.kv_width());
    let block = BLOCK_TENSORS.map(|(stem, _)| {
        let shape = match stem {
            "self_attn.q_proj" => vec![q, d],
            "self_attn.k_proj" | "self_attn.v_proj" => vec![kv, d],
            "self_attn.o_proj" => vec![d, q],
            "mlp.gate_proj" | "mlp.up_proj" => vec![f, d],
            "mlp.down_proj" => vec![d, f],
            _ => vec![d], // the two norms
        };
        (stem, shape)
    });
    let blocks = (0..c.num_hidden_layers)
        .flat_map(move |l| block.clone().into_iter().map(move |(stem, shape)| (format!("model.layers.{l}.{stem}.weight"), shape)));
    let head = (!c.tie_word_embeddings).then(|| ("lm_head.weight".to_owned(), vec![c.vocab_size, d]));
    std::iter::once(("model.embed_tokens.weight".to_owned(), vec![c.vocab_size, d]))
        .chain(blocks)
        .chain(std::iter::once(("model.norm.weight".to_owned(), vec![d])))
        .chain(head)
}

/// The order of a tensor's rows in a GGUF file: q and k are interleaved for the rotary kernel there, everything else is as in HF.
pub fn gguf_row_order(hf: &str, c: &ModelConfig) -> RowOrder {
    let permuted = [".self_attn.q_proj.weight", ".self_attn.k_proj.weight"].iter().any(|end| hf.ends_with(end));
    if permuted { RowOrder::Interleaved { head_dim: c.head_dim } } else { RowOrder::Hf }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_round() {
        for (hf, gguf) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.12.self_attn.o_proj.weight", "blk.12.attn_output.weight"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("lm_head.weight", "output.weight"),
        ] {
            assert_eq!(hf_name(gguf).as_deref(), Some(hf));
            assert_eq!(gguf_name(hf).as_deref(), Some(gguf));
        }
    }

    #[test]
    fn strange_names_have_no_counterpart() {
        for name in ["blk.01.attn_q.weight", "blk.+1.attn_q.weight", "blk.0.attn_q.bias", "blk.0.ffn_gate_exps.weight", "blk..x", ""] {
            assert_eq!(hf_name(name), None, "{name}");
        }
    }
}
