//! Row order of q and k: GGUF interleaves the two halves of every head for its rotary kernel; this crate uses Hugging Face's order.

use std::ops::Range;

/// How the rows of a stored matrix correspond to the rows of the HF matrix. Blocks never cross rows, so re-ordering moves bytes and changes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOrder {
    /// As in HF.
    Hf,
    /// File row `2 i + s` of a head of `head_dim` rows is HF row `i + s * head_dim / 2`.
    Interleaved {
        /// Rows of a head, even.
        head_dim: usize,
    },
}

impl RowOrder {
    /// The file row that holds HF row `row`.
    pub fn file_row(self, row: usize) -> usize {
        match self {
            Self::Hf => row,
            Self::Interleaved { head_dim } => {
                let (half, within) = (head_dim / 2, row % head_dim);
                row - within + 2 * (within % half) + within / half
            }
        }
    }

    /// The smallest run of file rows that holds HF rows `rows` (not empty).
    pub fn file_range(self, rows: Range<usize>) -> Range<usize> {
        match self {
            Self::Hf => rows,
            Self::Interleaved { head_dim } => {
                // Only the heads at the two ends can be cut; whole heads between them are contiguous in the file too.
                let whole = |row: usize| row - row % head_dim;
                let (first, last) = (whole(rows.start), whole(rows.end - 1));
                let ends = (rows.start..rows.end.min(first + head_dim)).chain(rows.start.max(last)..rows.end).map(|r| self.file_row(r));
                let (low, high) = ends.fold((usize::MAX, 0), |(low, high), r| (low.min(r), high.max(r)));
                low..high + 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows_of_two_heads_of_six() {
        let order = RowOrder::Interleaved { head_dim: 6 };
        let rows: Vec<usize> = (0..12).map(|r| order.file_row(r)).collect();
        assert_eq!(rows, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn every_range_is_covered_tightly() {
        let order = RowOrder::Interleaved { head_dim: 6 };
        for start in 0..24 {
            for end in start + 1..=24 {
                let rows: Vec<usize> = (start..end).map(|r| order.file_row(r)).collect();
                let range = order.file_range(start..end);
                assert_eq!(Some(&range.start), rows.iter().min(), "{start}..{end}");
                assert_eq!(Some(range.end - 1), rows.iter().max().copied(), "{start}..{end}");
            }
        }
    }
}
