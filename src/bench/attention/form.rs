//! The forms of attention that are compared.

/// Rows of the groups that do not grow with the row.
const GROUP: usize = 512;

/// What is compared with full attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Full,
    /// Groups of a quarter of the row, as LongLoRA has them.
    Quarter,
    /// Groups of [`GROUP`] rows.
    Fixed,
    /// Groups of a quarter as the authors' first form has them: half of the heads are rolled by half a group, and every group is a sequence of its own.
    Rolled,
}

impl Form {
    /// In the order of the tables.
    pub const ALL: [Form; 4] = [Form::Full, Form::Quarter, Form::Fixed, Form::Rolled];

    /// In tables.
    pub fn name(self) -> &'static str {
        ["full", "groups of 1/4", "groups of 512", "1/4, rolled"][self as usize]
    }

    /// Rows of a group of a row of `length`.
    pub fn group(self, length: usize) -> Option<usize> {
        match self {
            Form::Full => None,
            Form::Quarter | Form::Rolled => Some(length / 4),
            Form::Fixed => Some(GROUP),
        }
    }
}
