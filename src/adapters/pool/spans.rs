//! Ranges of a flat buffer, given out by first fit.

use std::ops::Range;

use super::super::params::ALIGN;

/// The free ranges of a buffer, in order and never touching. Sizes are rounded up to [`ALIGN`] words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spans {
    free: Vec<Range<usize>>,
}

impl Spans {
    /// A buffer of `words` words, all free.
    pub fn new(words: usize) -> Self {
        let whole = 0..words;
        Self { free: if whole.is_empty() { Vec::new() } else { vec![whole] } }
    }

    /// The first free range of `words` words, or `None` where no gap is large enough.
    pub fn take(&mut self, words: usize) -> Option<Range<usize>> {
        let len = words.next_multiple_of(ALIGN);
        if len == 0 {
            return Some(0..0);
        }
        let at = self.free.iter().position(|gap| gap.len() >= len)?;
        let taken = self.free[at].start..self.free[at].start + len;
        self.free[at].start = taken.end;
        if self.free[at].is_empty() {
            self.free.remove(at);
        }
        Some(taken)
    }

    /// Gives a range back that [`Self::take`] gave.
    pub fn give_back(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let at = self.free.partition_point(|gap| gap.start < range.start);
        self.free.insert(at, range);
        if at + 1 < self.free.len() && self.free[at].end == self.free[at + 1].start {
            self.free[at].end = self.free.remove(at + 1).end;
        }
        if at > 0 && self.free[at - 1].end == self.free[at].start {
            self.free[at - 1].end = self.free.remove(at).end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_first_and_joined_again() {
        let mut spans = Spans::new(10 * ALIGN);
        let taken: Vec<_> = [1, 2 * ALIGN, ALIGN + 1].map(|n| spans.take(n).expect("room")).into();
        assert_eq!(taken, [0..ALIGN, ALIGN..3 * ALIGN, 3 * ALIGN..5 * ALIGN]);
        assert_eq!(spans.take(6 * ALIGN), None);
        spans.give_back(taken[1].clone());
        assert_eq!(spans.take(ALIGN), Some(ALIGN..2 * ALIGN), "the first gap");
        assert_eq!(spans.take(2 * ALIGN), Some(5 * ALIGN..7 * ALIGN), "the first gap that is large enough");
        for range in [ALIGN..2 * ALIGN, 5 * ALIGN..7 * ALIGN, taken[0].clone(), taken[2].clone()] {
            spans.give_back(range);
        }
        assert_eq!(spans, Spans::new(10 * ALIGN));
        assert_eq!((spans.take(0), Spans::new(0).take(1)), (Some(0..0), None));
    }
}
