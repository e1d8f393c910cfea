//! Names of the tensors of a MixLoRA adapter, as its authors have them.
//!
//! ```text
//! mixlora.layers.{i}.self_attn.{q|k|v|o}_proj.lora_{A|B}.weight
//! mixlora.layers.{i}.mlp.moe_gate.weight                                                [experts, d]
//! mixlora.layers.{i}.mlp.{gate|up|down}_proj.experts.{e}.lora_{A|B}.weight
//! ```
//!
//! Before version 0.2.2 they were `mixlora.layers.{i}.gate.weight` and `mixlora.layers.{i}.experts.{e}.{projection}.lora_{A|B}.weight`, with the
//! projection's name or `w1_proj` (gate), `w2_proj` (down), `w3_proj` (up).

use crate::adapters::mixlora::routed;
use crate::adapters::{Projection, Site};

const PREFIX: &str = "mixlora.";
const SUFFIX: &str = ".weight";
const HALVES: [&str; 2] = ["lora_A", "lora_B"];
const LEGACY: [(&str, Projection); 3] = [("w1_proj", Projection::Gate), ("w2_proj", Projection::Down), ("w3_proj", Projection::Up)];

/// What a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A (0) or B (1) of attention.
    Attention(Site, usize),
    /// A (0) or B (1) of an expert.
    Expert(Site, usize, usize),
    /// The router of a block.
    Gate(usize),
}

impl Part {
    /// The block it is of.
    pub fn layer(self) -> usize {
        match self {
            Self::Attention(site, _) | Self::Expert(site, ..) => site.layer,
            Self::Gate(layer) => layer,
        }
    }

    /// The authors' name.
    pub fn name(self) -> String {
        match self {
            Self::Attention(site, half) => format!("{PREFIX}{site}.{}{SUFFIX}", HALVES[half]),
            Self::Expert(site, expert, half) => format!("{PREFIX}{site}.experts.{expert}.{}{SUFFIX}", HALVES[half]),
            Self::Gate(layer) => format!("{PREFIX}layers.{layer}.mlp.moe_gate{SUFFIX}"),
        }
    }

    /// The part of that name, present or legacy; `None` when it names none.
    pub fn parse(name: &str) -> Option<Self> {
        let path: Vec<&str> = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split('.').collect();
        let half = |name: &str| HALVES.iter().position(|half| *half == name);
        let feed_forward = |name: &str| {
            let legacy = LEGACY.iter().find(|(legacy, _)| *legacy == name).map(|(_, projection)| *projection);
            legacy.or_else(|| Projection::ALL.into_iter().find(|p| routed(*p) && p.hf_name() == name))
        };
        match path[..] {
            ["layers", layer, "mlp", "moe_gate"] | ["layers", layer, "gate"] => Some(Self::Gate(number(layer)?)),
            ["layers", layer, "self_attn", projection, which] => {
                let site = Site::parse(&format!("layers.{layer}.self_attn.{projection}"))?;
                Some(Self::Attention(site, half(which)?))
            }
            ["layers", layer, "mlp", projection, "experts", expert, which] => {
                let site = Site::parse(&format!("layers.{layer}.mlp.{projection}"))?;
                Some(Self::Expert(site, number(expert)?, half(which)?))
            }
            ["layers", layer, "experts", expert, projection, which] => {
                let site = Site { layer: number(layer)?, projection: feed_forward(projection)? };
                Some(Self::Expert(site, number(expert)?, half(which)?))
            }
            _ => None,
        }
    }
}

/// A whole number without a sign or leading zeros.
fn number(text: &str) -> Option<usize> {
    text.parse::<usize>().ok().filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_legacy_ones_are_read() {
        let of = |layer, projection| Site { layer, projection };
        let cases = [
            (Part::Attention(of(3, Projection::Q), 0), "mixlora.layers.3.self_attn.q_proj.lora_A.weight"),
            (Part::Expert(of(0, Projection::Down), 12, 1), "mixlora.layers.0.mlp.down_proj.experts.12.lora_B.weight"),
            (Part::Gate(7), "mixlora.layers.7.mlp.moe_gate.weight"),
        ];
        for (part, name) in cases {
            assert_eq!((part.name().as_str(), Part::parse(name)), (name, Some(part)));
        }
        let legacy = [
            ("mixlora.layers.7.gate.weight", Part::Gate(7)),
            ("mixlora.layers.0.experts.1.w1_proj.lora_A.weight", Part::Expert(of(0, Projection::Gate), 1, 0)),
            ("mixlora.layers.0.experts.1.w2_proj.lora_B.weight", Part::Expert(of(0, Projection::Down), 1, 1)),
            ("mixlora.layers.0.experts.1.w3_proj.lora_A.weight", Part::Expert(of(0, Projection::Up), 1, 0)),
            ("mixlora.layers.0.experts.1.up_proj.lora_A.weight", Part::Expert(of(0, Projection::Up), 1, 0)),
        ];
        for (name, part) in legacy {
            assert_eq!(Part::parse(name), Some(part), "{name}");
        }
        for wrong in [
            "classifier",
            "mixlora.layers.0.mlp.gate_proj.lora_A.weight",
            "mixlora.layers.0.mlp.q_proj.experts.0.lora_A.weight",
            "mixlora.layers.0.experts.0.q_proj.lora_A.weight",
            "mixlora.layers.0.self_attn.q_proj.experts.0.lora_A.weight",
            "mixlora.layers.00.mlp.moe_gate.weight",
            "mixlora.layers.0.mlp.up_proj.experts.+1.lora_A.weight",
            "mixlora.layers.0.mlp.up_proj.experts.1.lora_C.weight",
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        ] {
            assert_eq!(Part::parse(wrong), None, "{wrong}");
        }
    }
}
