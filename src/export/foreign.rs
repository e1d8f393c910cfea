//! What other adapters hold that these have not: named in full, so that nobody looks for the mistake elsewhere.

use crate::Error;

/// What kinds of tensors say of the training that made them: a part of the name, and words for it.
const KINDS: &[(&str, &str)] = &[
    (".lora_magnitude_vector", "magnitudes of DoRA"),
    (".lora_embedding_", "a LoRA of the token embedding"),
    (".trainable_tokens_", "trained rows of the token embedding"),
    (".lora_B.bias", "trained biases"),
    (".bias", "trained biases"),
    ("lm_head.lora_", "a LoRA of the output head (lm_head)"),
    ("embed_tokens.lora_", "a LoRA of the token embedding"),
    ("embed_tokens.", "a trained token embedding (modules_to_save)"),
    ("lm_head.", "a trained output head (modules_to_save)"),
    (".experts.", "LoRA of experts"),
    ("norm.weight", "trained norms (modules_to_save)"),
    ("layernorm.weight", "trained norms (modules_to_save)"),
];

/// The refusal of an adapter that has `keys` beside its pairs; `None` when none of them is of a known kind.
pub(super) fn refusal<'k>(adapter: &str, keys: impl Iterator<Item = &'k str>) -> Option<Error> {
    let mut found: Vec<&str> = Vec::new();
    for key in keys {
        if let Some((_, words)) = KINDS.iter().find(|(part, _)| key.contains(part)).filter(|(_, words)| !found.contains(words)) {
            found.push(words);
        }
    }
    (!found.is_empty()).then(|| Error::Unsupported {
        what: format!("adapter {adapter}: it holds {} beside its low-rank pairs, which", found.join(", ")),
        hint: "only LoRA of the linear layers q, k, v, o, gate, up and down is; train it again on these alone, without modules_to_save"
            .into(),
    })
}
