//! What building a data set did, and what of that the user should know.

use std::collections::BTreeMap;

use serde::Serialize;

/// How often something happened, and where first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Noted {
    /// How often.
    pub count: usize,
    /// 1-based number of the first row.
    pub row: usize,
    /// What it was there.
    pub what: String,
}

impl Noted {
    /// Counts it once more.
    pub(super) fn add(&mut self, row: usize, what: impl FnOnce() -> String) {
        if self.count == 0 {
            (self.row, self.what) = (row, what());
        }
        self.count += 1;
    }
}

/// What building a data set did; every count is of rows unless said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DataReport {
    /// Rows in the file.
    pub rows: usize,
    /// Rows cut to the context.
    pub truncated: usize,
    /// Rows left out because no token of them is a target.
    pub dropped: usize,
    /// Conversations of which only the last turn is trained (see [`super::turns`]).
    pub last_turn_only: usize,
    /// Conversations whose text is the prompt as generation gives it, followed by the answer (see [`super::turns`]).
    pub prompt_then_answer: usize,
    /// Rows whose own text contains the spelling of a control token, which is read as letters.
    pub with_control_text: usize,
    /// Rows whose own text contains the spelling of a control token, which is read as that token.
    pub with_control_tokens: usize,
    /// Tokens in all examples.
    pub tokens: usize,
    /// Trained tokens in all examples.
    pub targets: usize,
    /// Tokens of the longest example.
    pub longest: usize,
    /// Examples that train a token at which generation stops.
    pub ended: usize,
    /// The tokens at which generation stops, in words.
    pub stops: String,
    /// Turns of the assistant that are left out by `weight`, `train` or `loss_mask`.
    pub excluded_turns: usize,
    /// Trained turns with words that the chat template does not write.
    pub lost_words: Noted,
    /// Trained turns with tool calls, or arguments of them, that the chat template does not write.
    pub lost_calls: Noted,
    /// Keys of trained turns with words that neither the chat template nor we read, and the first row that has them.
    pub unread_words: BTreeMap<String, usize>,
    /// Keys of system texts that are not read, each with the first row that has it.
    pub unread_system: BTreeMap<&'static str, usize>,
    /// Trained turns of which the chat template writes nothing.
    pub dropped_answers: Noted,
    /// Trained turns behind another prompt than generation gives.
    pub other_prompt: Noted,
    /// Trained turns that begin within a token, of which generation gives the beginning as the end of its prompt.
    pub within_token: Noted,
    /// Keys that look as if they were to leave something out of training, and the first row that has them.
    pub look_alikes: BTreeMap<String, usize>,
    /// Control tokens that the chat template spells and the vocabulary does not have.
    pub unknown_tokens: Vec<String>,
}

impl DataReport {
    /// One sentence for everything about the rows of `file` that the user should know.
    pub fn warnings(&self, file: &str) -> Vec<String> {
        let letters = "spelling a control token that is read as letters (--parse-special reads it in prompts and completions; in messages it never is one)";
        let last = "trained on the last turn only: where earlier turns lie cannot be told from what the template writes, or not within some seconds (split \
                    long conversations)";
        let counts = [
            (self.truncated, "cut to --seq tokens"),
            (self.dropped, "left out, having no token to train on"),
            (self.last_turn_only, last),
            (self.with_control_text, letters),
        ];
        let sentence = |(n, what): (usize, &str)| (n > 0).then(|| format!("{file}: {n} of {} rows {what}", self.rows));
        let mut all: Vec<String> = counts.into_iter().filter_map(sentence).collect();
        let noted = |noted: &Noted, what: &str, hint: &str| {
            let Noted { count, row, what: first } = noted;
            (*count > 0).then(|| format!("{file}: {count} assistant turns {what} (first in row {row}: {first}); {hint}"))
        };
        all.extend(noted(
            &self.lost_words,
            "have words that the chat template does not write",
            "--keep-reasoning trains them, another --chat-template may write them",
        ));
        all.extend(noted(
            &self.lost_calls,
            "have tool calls that the chat template does not write, or not in full",
            "choose a template that writes them with --chat-template",
        ));
        all.extend(noted(
            &self.other_prompt,
            "are trained behind another prompt than generation gives",
            "their answers may not come when asked for; another --chat-template may write both alike",
        ));
        all.extend(noted(
            &self.within_token,
            "begin within a token, so that generation gives the end of the prompt in other tokens",
            "their answers may not come when asked for; a --chat-template whose prompt has no space at its end, say, keeps them apart",
        ));
        for (key, row) in &self.unread_words {
            all.push(format!(
                "{file}: the words under {key:?} (first in row {row}) are not read: the chat template does not write them; under reasoning_content \
                 --keep-reasoning does"
            ));
        }
        for (key, row) in &self.unread_system {
            all.push(format!(
                "{file}: the text under {key:?} (first in row {row}) is not read: make it a message of the role system, in rows with `messages`"
            ));
        }
        for (key, row) in &self.look_alikes {
            all.push(format!(
                "{file}: the key {key:?} (first in row {row}) is not read; weight, train or loss_mask in a message leaves its turn out"
            ));
        }
        if !self.unknown_tokens.is_empty() {
            let tokens = self.unknown_tokens.join(" ");
            all.push(format!("{file}: the chat template writes {tokens}, no tokens of this model, so they are trained as letters"));
        }
        if self.targets > 0 && self.ended == 0 {
            let stops = if self.stops.is_empty() { "the tokenizer names none" } else { &self.stops };
            all.push(format!("{file}: no row trains a token that generation stops at ({stops}), so answers will not end by themselves"));
        }
        all
    }
}
