//! Where adapters can sit: the seven linear layers of a block.

use std::fmt;

use crate::config::ModelConfig;

/// One of the seven linear layers of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Projection {
    /// `self_attn.q_proj`, `[q_width, d]`.
    Q,
    /// `self_attn.k_proj`, `[kv_width, d]`.
    K,
    /// `self_attn.v_proj`, `[kv_width, d]`.
    V,
    /// `self_attn.o_proj`, `[d, q_width]`.
    O,
    /// `mlp.gate_proj`, `[f, d]`.
    Gate,
    /// `mlp.up_proj`, `[f, d]`.
    Up,
    /// `mlp.down_proj`, `[d, f]`.
    Down,
}

impl Projection {
    /// All seven, in the order they are applied.
    pub const ALL: [Projection; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Name on the command line: "q".
    pub fn short_name(self) -> &'static str {
        ["q", "k", "v", "o", "gate", "up", "down"][self as usize]
    }

    /// Hugging Face's name: "q_proj".
    pub fn hf_name(self) -> &'static str {
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"][self as usize]
    }

    /// Hugging Face's path within a block: "self_attn.q_proj".
    pub fn path(self) -> &'static str {
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
            [self as usize]
    }

    /// Sizes of the weight, `(outputs, inputs)`.
    pub fn shape(self, model: &ModelConfig) -> (usize, usize) {
        let (d, f, q, kv) = (model.hidden_size, model.intermediate_size, model.q_width(), model.kv_width());
        match self {
            Self::Q => (q, d),
            Self::K | Self::V => (kv, d),
            Self::O => (d, q),
            Self::Gate | Self::Up => (f, d),
            Self::Down => (d, f),
        }
    }
}

/// One linear layer of the model. Its text, `layers.0.self_attn.q_proj`, is the short form of Hugging Face's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// Block, from 0.
    pub layer: usize,
    /// Which of its linear layers.
    pub projection: Projection,
}

impl Site {
    /// Every site of a model, block after block.
    pub fn all(model: &ModelConfig) -> impl Iterator<Item = Site> + use<> {
        (0..model.num_hidden_layers).flat_map(|layer| Projection::ALL.map(|projection| Site { layer, projection }))
    }

    /// The site of that short name; `None` when it names none, or one with a leading zero or sign.
    pub fn parse(name: &str) -> Option<Self> {
        let (layer, path) = name.strip_prefix("layers.")?.split_once('.')?;
        let projection = Projection::ALL.into_iter().find(|p| p.path() == path)?;
        let number: usize = layer.parse().ok()?;
        (number.to_string() == layer).then_some(Self { layer: number, projection })
    }

    /// The site's number in its model, whatever is adapted: layer · 7 + projection. Keys dropout.
    pub fn number(self) -> u32 {
        (self.layer * Projection::ALL.len() + self.projection as usize) as u32
    }

    /// The module's path in Hugging Face's causal language model: `model.layers.0.self_attn.q_proj`.
    pub fn module(self) -> String {
        format!("model.{self}")
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layers.{}.{}", self.layer, self.projection.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nothing_else_parses() {
        for projection in Projection::ALL {
            let site = Site { layer: 12, projection };
            assert_eq!(Site::parse(&site.to_string()), Some(site));
            assert!(projection.path().ends_with(projection.hf_name()));
            assert_eq!(projection.hf_name(), format!("{}_proj", projection.short_name()));
        }
        for wrong in [
            "",
            "layers",
            "layers.0",
            "layers.00.mlp.up_proj",
            "layers.+1.mlp.up_proj",
            "layers.0.mlp.q_proj",
            "model.layers.0.mlp.up_proj",
        ] {
            assert_eq!(Site::parse(wrong), None, "{wrong}");
        }
    }
}
