//! Marks in place of what messages say, and where they come to lie.

use std::ops::Range;

use serde_json::Value;

/// Around the number of a message, in place of its content. Noncharacters, which text for interchange never contains.
pub(super) const PLACE: [char; 2] = ['\u{FDD2}', '\u{FDD3}'];
/// The same for words that the template is not to see.
pub(super) const VERBATIM: [char; 2] = ['\u{FDD4}', '\u{FDD5}'];

/// The content of a message where it is a text.
pub(super) fn content(message: &Value) -> &str {
    message["content"].as_str().unwrap_or_default()
}

pub(super) fn mark([open, close]: [char; 2], i: usize) -> String {
    format!("{open}{i}{close}")
}

/// `mark` with the white space that stands around `text`, which a template may trim.
pub(super) fn around(text: &str, mark: &str) -> String {
    let inner = text.trim_start();
    let lead = &text[..text.len() - inner.len()];
    format!("{lead}{mark}{}", &inner[inner.trim_end().len()..])
}

/// How many bytes two texts have in common at their beginning, whole characters.
pub(super) fn common_beginning(a: &str, b: &str) -> usize {
    let differ = |((at, x), y): &((usize, char), char)| (x != y).then_some(*at);
    let mut pairs = a.char_indices().zip(b.chars());
    pairs.find_map(|pair| differ(&pair)).unwrap_or(a.len().min(b.len()))
}

/// A text, where the words that were filled in lie by number, and ranges of before, moved along.
pub(super) type Filled = (String, Vec<(usize, Range<usize>)>, Vec<Range<usize>>);

/// Replaces marks by the words of their numbers; `None` where a mark is broken or has no words.
pub(super) fn fill_in<'w>(
    text: &str,
    [open, close]: [char; 2],
    words: impl Fn(usize) -> Option<&'w str>,
    ranges: &[Range<usize>],
) -> Option<Filled> {
    let mut out = String::with_capacity(text.len());
    let mut found = Vec::new();
    // Where pieces of the old text begin in the new one.
    let mut shifts = vec![(0, 0)];
    let mut rest = text;
    while let Some(at) = rest.find(open) {
        out.push_str(&rest[..at]);
        let inner = &rest[at + open.len_utf8()..];
        let length = inner.find(close)?;
        let i = inner[..length].parse().ok()?;
        let start = out.len();
        out.push_str(words(i)?);
        found.push((i, start..out.len()));
        rest = &inner[length + close.len_utf8()..];
        shifts.push((text.len() - rest.len(), out.len()));
    }
    out.push_str(rest);
    let moved = |at: usize| {
        let k = shifts.partition_point(|(old, _)| *old <= at) - 1;
        let limit = shifts.get(k + 1).map_or(out.len(), |(_, new)| *new);
        (shifts[k].1 + at - shifts[k].0).min(limit)
    };
    let ranges = ranges.iter().map(|range| moved(range.start)..moved(range.end)).collect();
    Some((out, found, ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_filled_in_and_ranges_move_along() {
        let text = "ab\u{FDD2}0\u{FDD3}c\u{FDD2}1\u{FDD3}";
        let whole = text.len();
        let (filled, found, ranges) = fill_in(text, PLACE, |i| ["xyz", ""].get(i).copied(), &[0..2, 2..9, 9..whole]).expect("whole");
        assert_eq!(filled, "abxyzc");
        assert_eq!(found, [(0, 2..5), (1, 6..6)]);
        assert_eq!(ranges, [0..2, 2..5, 5..6]);
        assert!(fill_in("\u{FDD2}7\u{FDD3}", PLACE, |_| None, &[]).is_none());
        assert!(fill_in("\u{FDD2}7", PLACE, |_| Some(""), &[]).is_none());
    }

    #[test]
    fn common_beginnings_are_whole_characters() {
        assert_eq!(common_beginning("aéx", "aéy"), 3);
        assert_eq!(common_beginning("aé", "aè"), 1);
        assert_eq!(common_beginning("a", "ab"), 1);
    }
}
