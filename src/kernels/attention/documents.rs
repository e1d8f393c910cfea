//! The documents of a packed batch and their tiles, as `shaders/attention_documents.wgsl` reads them.

/// Heights of the tiles a table has: 8, 16, 32, 64 and 128 rows. Each kernel variant takes the one it is made for.
const LEVELS: usize = 5;
/// Rows of the lowest tiles.
const LOWEST: u32 = 8;
/// Words of where the tiles of each height begin and how many there are.
const HEADER: usize = 2 * LEVELS;

/// Rows of a packed batch that see each other and nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document {
    /// First row.
    pub first: u32,
    /// One past the last row.
    pub end: u32,
    /// Rows a query sees, itself included; `None`: all before it. The model's own window holds beside it.
    pub window: Option<u32>,
    /// Rows of a group of shifted sparse attention; `None`: full attention.
    pub group: Option<u32>,
}

impl Document {
    /// Rows `first..end`, seen whole.
    pub fn new(first: u32, end: u32) -> Self {
        Self { first, end, window: None, group: None }
    }

    /// Documents of these lengths, one after the other.
    pub fn packed(lengths: &[usize]) -> Vec<Self> {
        let mut first = 0;
        let mut next = |length: &usize| {
            first += *length as u32;
            Self::new(first - *length as u32, first)
        };
        lengths.iter().map(&mut next).collect()
    }

    /// Groups of twice the length or more part nothing, and their positions need not fit 32 bits.
    fn group_word(&self) -> u32 {
        self.group.filter(|group| group / 2 < self.end - self.first).unwrap_or(0)
    }
}

/// Words of the table of a batch of `rows` rows, whatever documents it has.
pub fn table_words(rows: usize) -> usize {
    // In the worst case each row is a document, and a tile of every height.
    HEADER + (4 + 2 * LEVELS) * rows
}

/// The table of a batch: `documents` lie one after the other and cover all its rows.
///
/// # Panics
/// If rows are left out or belong to two documents: their outputs would be undefined.
pub fn table(documents: &[Document]) -> Vec<u32> {
    let mut next = 0;
    for doc in documents {
        assert!(doc.first == next && doc.end > doc.first, "documents leave rows out or overlap at row {next}: {doc:?}");
        assert!(doc.window != Some(0) && doc.group != Some(0), "a window or group of no rows: {doc:?}");
        next = doc.end;
    }
    let mut words = vec![0; HEADER];
    words.extend(documents.iter().flat_map(|doc| [doc.first, doc.end, doc.window.unwrap_or(u32::MAX), doc.group_word()]));
    for level in 0..LEVELS {
        let begin = words.len();
        for (i, doc) in documents.iter().enumerate() {
            let place = (HEADER + 4 * i) as u32;
            words.extend((doc.first..doc.end).step_by((LOWEST << level) as usize).flat_map(|first| [first, place]));
        }
        (words[2 * level], words[2 * level + 1]) = (begin as u32, ((words.len() - begin) / 2) as u32);
    }
    words
}

/// Which of the table's heights `rows` is.
///
/// # Panics
/// On another number: a bug of a kernel variant.
pub(super) fn level(rows: u32) -> u32 {
    let level = (rows / LOWEST).checked_ilog2().filter(|level| LOWEST << level == rows && (*level as usize) < LEVELS);
    level.unwrap_or_else(|| panic!("no tiles of {rows} rows"))
}

/// Workgroups for the tiles of `height` rows of a batch: one each while documents have 64 rows and more on average; beyond that a workgroup
/// takes several, one after the other. Those that find no tile return at once.
pub(super) fn workgroups(rows: u32, height: u32) -> u32 {
    (rows.div_ceil(height) + rows.div_ceil(64)).min(rows).min(65_535)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_begin_with_their_document_and_do_not_cross_it() {
        let words = table(&[Document::new(0, 9), Document { group: Some(2), window: Some(3), ..Document::new(9, 11) }]);
        assert_eq!(words[HEADER..HEADER + 8], [0, 9, u32::MAX, 0, 9, 11, 3, 2]);
        let tiles = |level: usize| &words[words[2 * level] as usize..][..2 * words[2 * level + 1] as usize];
        assert_eq!(tiles(0), [0, 10, 8, 10, 9, 14]);
        assert_eq!(tiles(1), [0, 10, 9, 14]);
        assert_eq!(tiles(4), tiles(1));
        assert!(words.len() <= table_words(11));
    }

    #[test]
    fn a_batch_of_single_rows_has_the_largest_table() {
        let words = table(&Document::packed(&[1; 7]));
        assert_eq!(words.len(), table_words(7));
        assert_eq!((level(8), level(128), workgroups(512, 32), workgroups(3, 8)), (0, 4, 24, 2));
    }

    #[test]
    fn only_groups_that_part_something_are_kept() {
        let word = |length: u32, group| Document { group: Some(group), ..Document::new(5, 5 + length) }.group_word();
        // Shifted by half a group, 10 rows are still parted by groups of 18 and of 19, no more by groups of 20.
        assert_eq!([word(10, 18), word(10, 19), word(10, 20), word(10, u32::MAX)], [18, 19, 0, 0]);
    }

    #[test]
    #[should_panic(expected = "leave rows out")]
    fn rows_of_no_document_are_a_mistake() {
        table(&[Document::new(0, 3), Document::new(4, 6)]);
    }
}
