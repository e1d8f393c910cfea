//! Trainable norms: a job's own weights of every RMSNorm of the model, as LongLoRA trains them beside its low-rank products.

use super::layout::AdapterLayout;
use super::params::{Init, ParamSpec, Storage};
use crate::config::ModelConfig;

/// Hugging Face's names of the modules, as PEFT lists them under `modules_to_save`.
pub const MODULES: [&str; 3] = ["input_layernorm", "post_attention_layernorm", "norm"];

/// Number of the norm before attention in block `layer`; the one before the feed-forward layer follows.
pub fn of_layer(layer: usize) -> usize {
    2 * layer
}

/// Number of the final norm of a model of `blocks` blocks: one past all others.
pub fn last(blocks: usize) -> usize {
    2 * blocks
}

/// Short names of all norms, in the order of their numbers: `layers.0.input_layernorm`, …, `norm`.
pub fn names(blocks: usize) -> impl Iterator<Item = String> {
    let of_block = |layer: usize| [MODULES[0], MODULES[1]].map(|name| format!("layers.{layer}.{name}"));
    (0..blocks).flat_map(of_block).chain([MODULES[2].to_owned()])
}

/// The number of the norm whose module path in Hugging Face's causal language model is `module`, among those of `blocks` blocks; the final
/// norm is `None`.
pub fn parse(module: &str) -> Option<Option<usize>> {
    let name = module.strip_prefix("model.")?;
    if name == MODULES[2] {
        return Some(None);
    }
    let (layer, name) = name.strip_prefix("layers.")?.split_once('.')?;
    let which = MODULES[..2].iter().position(|known| *known == name)?;
    let number: usize = layer.parse().ok()?;
    (number.to_string() == layer).then(|| number.checked_mul(2)?.checked_add(which)).flatten().map(Some)
}

/// Adds the weights of all norms to a layout, after everything else. They decay as norms do: not at all.
pub(super) fn append(layout: &mut AdapterLayout, model: &ModelConfig) {
    let spec = |name: String| ParamSpec {
        name,
        shape: vec![model.hidden_size],
        transposed: false,
        offset: 0,
        adjacent: false,
        padding: 0,
        // Until the base's weights are known.
        init: Init::Ones,
        lr_multiplier: 1.0,
        weight_decay: false,
        trainable: true,
        storage: Storage::F32,
    };
    layout.norms = names(model.num_hidden_layers).map(|name| layout.params.push(spec(name))).collect();
}

/// Puts these weights, in the model's order, into their places in an adapter's buffer; a layout without norms has none.
pub fn fill(layout: &AdapterLayout, norms: &[Vec<f32>], values: &mut [f32]) {
    for (param, norm) in layout.norms.iter().zip(norms) {
        layout.params.specs[*param].put_hf(norm, values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbered_in_the_models_order() {
        let all: Vec<String> = names(2).collect();
        assert_eq!(all.len(), last(2) + 1);
        for (i, name) in all.iter().enumerate() {
            let expected = if i == last(2) { None } else { Some(i) };
            assert_eq!(parse(&format!("model.{name}")), Some(expected), "{name}");
        }
        assert_eq!(all[of_layer(1)], "layers.1.input_layernorm");
        for wrong in ["norm", "model.layers.0.norm", "model.layers.00.input_layernorm", "model.layers.0.mlp", "model.embed_tokens"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
