//! What the forward pass keeps for the backward pass, and which blocks run forward again (gradient checkpointing).

use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize};

/// How much of the forward pass is kept for the backward pass. Bits are the same in every mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Keep the products of every block.
    Off,
    /// Keep each block's input and run the block forward again: one more forward pass.
    #[serde(rename = "on")]
    Blocks,
    /// Two-level checkpointing: keep the inputs of some blocks. The inputs of those between are computed again when the backward pass comes to
    /// them: up to two more forward passes, and about `√(2 · blocks)` inputs in memory at once.
    Nested,
}

impl Recompute {
    /// All modes, from the fastest to the smallest.
    pub const ALL: [Recompute; 3] = [Recompute::Off, Recompute::Blocks, Recompute::Nested];

    /// As the setting `recompute` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Blocks => "on",
            Self::Nested => "nested",
        }
    }

    /// Cuts `blocks` into segments, in order. The forward pass keeps the input of each segment's first block, and all inputs of the last segment;
    /// those of the others are computed again, segment by segment, last to first.
    pub(super) fn segments(self, blocks: Range<usize>) -> Vec<Range<usize>> {
        if self != Self::Nested || blocks.is_empty() {
            return vec![blocks];
        }
        // While segment i runs again, i + 1 first inputs and the rest of its own are in memory. With at most n of them segment i has n - i
        // blocks, so that n (n + 1) / 2 blocks are possible.
        let count = blocks.len();
        let most = (1..=count).find(|n| n * (n + 1) / 2 >= count).unwrap_or(count);
        let mut segments = Vec::new();
        let held = |number: usize| (0..number).map(|i| most - i).sum::<usize>();
        let number = (1..=most).find(|number| held(*number) >= count).unwrap_or(most);
        // Segments are filled from the last one down: its inputs are not computed again.
        let mut end = blocks.end;
        for i in (0..number).rev() {
            let begin = if i == 0 { blocks.start } else { end.saturating_sub(most - i).max(blocks.start) };
            segments.push(begin..end);
            end = begin;
        }
        segments.reverse();
        segments
    }
}

/// Saved runs of earlier versions have `true` for [`Recompute::Blocks`] and `false` for [`Recompute::Off`].
impl<'de> Deserialize<'de> for Recompute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Switch(bool),
            Name(String),
        }
        let name = match Written::deserialize(deserializer)? {
            Written::Switch(on) => return Ok(if on { Self::Blocks } else { Self::Off }),
            Written::Name(name) => name,
        };
        let known = Self::ALL.into_iter().find(|mode| mode.name() == name);
        known.ok_or_else(|| serde::de::Error::unknown_variant(&name, &["off", "on", "nested"]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most inputs in memory at once, as the backward pass goes through the segments.
    fn peak(segments: &[Range<usize>]) -> usize {
        segments.iter().enumerate().map(|(i, segment)| i + segment.len()).max().unwrap_or(0)
    }

    #[test]
    fn nested_segments_cover_all_blocks_within_the_fewest_inputs() {
        for (count, most) in [(1, 1), (2, 2), (3, 2), (5, 3), (7, 4), (16, 6), (22, 7), (30, 8), (32, 8), (80, 13)] {
            let segments = Recompute::Nested.segments(3..3 + count);
            assert!(segments.iter().all(|segment| !segment.is_empty()), "{segments:?}");
            assert!(segments[0].start == 3 && segments.windows(2).all(|two| two[0].end == two[1].start), "{segments:?}");
            assert_eq!((segments.last().unwrap().end, peak(&segments)), (3 + count, most), "{segments:?}");
        }
        assert_eq!(Recompute::Nested.segments(0..32), [0..7, 7..14, 14..20, 20..25, 25..29, 29..32]);
        assert!(Recompute::Nested.segments(4..4).iter().eq([&(4..4)]));
        assert!(Recompute::Blocks.segments(0..32).iter().eq([&(0..32)]));
    }

    #[test]
    fn saved_switches_are_read() {
        let read = |text: &str| serde_json::from_str::<Recompute>(text);
        for mode in Recompute::ALL {
            assert_eq!(read(&format!("{:?}", mode.name())).unwrap(), mode);
        }
        assert_eq!((read("true").unwrap(), read("false").unwrap()), (Recompute::Blocks, Recompute::Off));
        assert!(read("\"sometimes\"").is_err() && read("2").is_err());
    }
}
