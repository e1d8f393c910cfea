//! Rows as the model sees them: tokens, and which of them are trained.

/// One row as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Token ids, at most `context`.
    pub tokens: Vec<u32>,
    /// Whether token i is trained, that is, predicted from the tokens before it; as long as `tokens`, never true for the first.
    pub targets: Vec<bool>,
    /// 1-based number of the row it came from.
    pub row: usize,
    /// Of a preference row the answer that is to become less likely than this one, after the same prompt.
    pub rejected: Option<Box<Example>>,
}

impl Example {
    /// How many tokens are trained, without those of a rejected answer.
    pub fn n_targets(&self) -> usize {
        self.targets.iter().filter(|&&target| target).count()
    }

    /// What the model reads of it: itself, and its rejected answer.
    pub fn documents(&self) -> impl Iterator<Item = &Example> {
        std::iter::once(self).chain(self.rejected.as_deref())
    }

    /// The same, each on its own.
    pub fn into_documents(mut self) -> impl Iterator<Item = Example> {
        let rejected = self.rejected.take();
        std::iter::once(self).chain(rejected.map(|rejected| *rejected))
    }

    /// Rows of a batch that it takes: a pair is read by the policy and by the reference.
    pub fn rows(&self) -> usize {
        let own: usize = self.documents().map(|document| document.tokens.len()).sum();
        if self.rejected.is_some() { 2 * own } else { own }
    }

    /// Tokens of its longest document.
    pub fn longest(&self) -> usize {
        self.documents().map(|document| document.tokens.len()).max().unwrap_or(0)
    }
}

/// A labelled row: the same prompt once with each answer. The answer with the highest log-likelihood of its targets is the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// One example per choice, its targets the tokens of the choice alone, without an end-of-sequence or end-of-turn token.
    pub candidates: Vec<Example>,
    /// Index of the right choice.
    pub label: usize,
    /// 1-based number of the row.
    pub row: usize,
}
