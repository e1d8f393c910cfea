//! The ranks that a site has room for.

/// Ranks at one site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ranks {
    /// Largest rank of a job.
    pub rank: usize,
    /// Most ranks of a job that train.
    pub trained: usize,
}

impl Ranks {
    pub(super) fn max(self, other: Ranks) -> Ranks {
        Ranks { rank: self.rank.max(other.rank), trained: self.trained.max(other.trained) }
    }

    /// The next of few sizes: 8, 16, 32 and so on.
    pub(super) fn rounded(self) -> Ranks {
        let size = |rank: usize| rank.max(8).next_power_of_two();
        Ranks { rank: size(self.rank), trained: size(self.trained) }
    }
}
