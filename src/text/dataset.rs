//! Rows to token sequences with a mask of what is trained.
//!
//! | rows | tokens | trained |
//! |---|---|---|
//! | `prompt`/`completion` | encode(prompt) + encode(completion) + eos | completion and eos |
//! | `instruction`/`output` | the same, with the Alpaca prompt | output and eos |
//! | `messages` | the chat template over the whole conversation | the assistant's turns with their end-of-turn token |
//! | `text` | encode(text) + eos | everything |
//! | `chosen`/`rejected` | each as an answer to the same prompt | both answers, for preference training |
//!
//! A row that ends with a token that generation stops at gets no other end.
//!
//! The spelling of a control token in a `text` row is that token: such rows are often rendered already. In a prompt or completion it is
//! only where asked for, in messages never (see [`super::tokenizer`]).
//!
//! A completion is encoded as the continuation that it is: a SentencePiece tokenizer puts no second space before it. The very first
//! token of a row is never a target, since nothing predicts it.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::builder::Builder;
use super::chat::ChatOptions;
use super::report::{DataReport, Noted};
use super::rows::{Content, Row, data};
use super::tokenizer::Tokenizer;
use crate::{Error, Result};

/// How rows become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// By the rows' shape: `messages` with the chat template, instructions with the Alpaca prompt, everything else plain.
    #[default]
    Auto,
    /// `prompt`/`completion` and `text` rows as they are.
    Plain,
    /// The model's chat template; a prompt or instruction becomes the user's message, the answer the assistant's.
    Chat,
    /// The Alpaca prompt around `instruction` and `input`.
    Alpaca,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "plain" => Ok(Self::Plain),
            "chat" => Ok(Self::Chat),
            "alpaca" => Ok(Self::Alpaca),
            other => Err(Error::config("format", format!("{other:?} is unknown"), "use auto, plain, chat or alpaca")),
        }
    }
}

/// What happens to a row longer than the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlong {
    /// Its tail is cut off, and counted in the report.
    #[default]
    Truncate,
    /// It is an error.
    Refuse,
    /// All rows, short ones too, are joined end to end and cut into pieces of that many tokens, which see across the seams: continued
    /// pre-training on long texts.
    Join,
}

/// How a data set is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataOptions {
    /// How rows become text.
    pub format: Format,
    /// How conversations become text.
    pub chat: ChatOptions,
    /// Write the words of the assistant that the chat template would leave out.
    pub keep_reasoning: bool,
    /// Train on prompts and on what others say in a conversation, too.
    pub train_on_prompt: bool,
    /// In prompts and completions, too, the spelling of a control token is that token (see [`super::tokenizer`]).
    pub parse_special: bool,
    /// Longest row in tokens.
    pub context: usize,
    /// What happens to longer rows.
    pub overlong: Overlong,
}

impl DataOptions {
    /// The defaults for rows of at most `context` tokens.
    pub fn new(context: usize) -> Self {
        let (format, chat, overlong) = (Format::Auto, ChatOptions::default(), Overlong::Truncate);
        Self { format, chat, keep_reasoning: false, train_on_prompt: false, parse_special: false, context, overlong }
    }
}

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

/// A data set ready for packing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The examples, in the file's order; never empty.
    pub examples: Vec<Example>,
    /// What was done to get them.
    pub report: DataReport,
    /// By the rows' numbers what was done to single rows and is worth a look.
    pub notes: BTreeMap<usize, Vec<String>>,
}

impl Dataset {
    /// Builds the examples of rows read by [`super::read_rows`]; `file` names them in errors.
    ///
    /// # Errors
    /// When a row cannot be rendered in the asked format, when the model lacks what the format needs (a chat template, an
    /// end-of-sequence token), when a row is too long and that is to be refused, and when no row has a target.
    pub fn build(file: &str, rows: &[Row], tokenizer: &Tokenizer, options: DataOptions) -> Result<Self> {
        let (context, joins) = (options.context, options.overlong == Overlong::Join);
        let options = if joins { DataOptions { context: usize::MAX, ..options } } else { options };
        let mut builder = Builder::new(file, rows, tokenizer, options)?;
        let mut examples = Vec::with_capacity(rows.len());
        for row in rows {
            examples.extend(builder.example(row)?);
        }
        if joins {
            if let Some(pair) = examples.iter().find(|example| example.rejected.is_some()) {
                let problem = "a row with a chosen and a rejected answer cannot be joined to others".to_owned();
                return Err(data(file, pair.row, problem, "leave out --overlong join"));
            }
            examples = join(&examples, context);
        }
        if examples.is_empty() {
            let report = builder.finish().0;
            let mut problem = format!("none of the {} rows has a token to train on within {context} tokens", rows.len());
            let hint = match (&report.dropped_answers, report.excluded_turns) {
                (Noted { count: 0, .. }, 0) => "raise --seq, shorten the prompts, or check the rows with `weblora inspect --data`",
                (Noted { count: 0, .. }, _) => "weight, train or loss_mask leaves turns of the assistant out: leave one in, or raise --seq",
                (Noted { count, row, what }, _) => {
                    let answers = if *count == 1 { "1 answer" } else { &format!("{count} answers") };
                    problem += &format!(": the chat template drops {answers} of the assistant (first in row {row}: {what})");
                    "choose a template that writes them with --chat-template"
                }
            };
            return Err(data(file, 0, problem, hint));
        }
        let (report, notes) = builder.finish();
        Ok(Self { examples, report, notes })
    }

    /// The labelled rows of a file for scoring; rows without `choices` are left out.
    ///
    /// # Errors
    /// As [`Self::build`]; a row whose choice does not fit in the context is refused, since a cut choice cannot be scored.
    pub fn labelled(file: &str, rows: &[Row], tokenizer: &Tokenizer, options: DataOptions) -> Result<Vec<Labelled>> {
        let options = DataOptions { train_on_prompt: false, overlong: Overlong::Refuse, ..options };
        let mut builder = Builder::new(file, rows, tokenizer, options)?;
        let mut labelled = Vec::new();
        for row in rows {
            let Content::Completion { prompt, completion, choices: Some(choices) } = &row.content else { continue };
            let mut candidates = Vec::with_capacity(choices.len());
            for choice in choices {
                let content = Content::Completion { prompt: prompt.clone(), completion: choice.clone(), choices: None };
                let mut candidate = builder.tokens(row.number, &content)?;
                without_end(&mut candidate, tokenizer.stop_ids());
                builder.fit(&mut candidate)?;
                if candidate.n_targets() == 0 {
                    let problem = format!("the choice {choice:?} has no token that can be scored");
                    return Err(data(file, row.number, problem, "give every choice at least one visible character"));
                }
                candidates.push(candidate);
            }
            let label = choices.iter().position(|choice| choice == completion).unwrap_or_default();
            labelled.push(Labelled { candidates, label, row: row.number });
        }
        Ok(labelled)
    }
}

/// The rows end to end, cut into pieces of `context` tokens; a piece without a target is left out.
fn join(rows: &[Example], context: usize) -> Vec<Example> {
    let all: Vec<(u32, bool, usize)> =
        rows.iter().flat_map(|row| row.tokens.iter().zip(&row.targets).map(|(token, target)| (*token, *target, row.row))).collect();
    let piece = |part: &[(u32, bool, usize)]| Example {
        tokens: part.iter().map(|(token, ..)| *token).collect(),
        // Nothing stands before the first.
        targets: part.iter().enumerate().map(|(i, (_, target, _))| i > 0 && *target).collect(),
        row: part.first().map_or(0, |(.., row)| *row),
        rejected: None,
    };
    all.chunks(context.max(2)).map(piece).filter(|piece| piece.n_targets() > 0).collect()
}

/// Cuts the end-of-sequence or end-of-turn token and all after it from a scored answer.
fn without_end(example: &mut Example, stop_ids: &[u32]) {
    let first = example.targets.iter().position(|&target| target).unwrap_or(example.tokens.len());
    let end = example.tokens[first..].iter().position(|id| stop_ids.contains(id)).map_or(example.tokens.len(), |at| first + at);
    let last = example.targets[..end].iter().rposition(|&target| target).map_or(0, |at| at + 1);
    example.tokens.truncate(last);
    example.targets.truncate(last);
}

/// The Alpaca prompt, up to where the answer begins.
pub fn alpaca_prompt(instruction: &str, input: &str) -> String {
    if input.is_empty() {
        return format!(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Response:\n"
        );
    }
    format!(
        "Below is an instruction that describes a task, paired with an input that provides further context. \
         Write a response that appropriately completes the request.\n\n\
         ### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_joined_and_cut_into_pieces() {
        let row = |row: usize, n: u32| Example {
            tokens: (0..n).map(|i| 100 * row as u32 + i).collect(),
            targets: (0..n).map(|i| i > 0).collect(),
            row,
            rejected: None,
        };
        let pieces = join(&[row(1, 5), row(2, 2), row(3, 4)], 4);
        let tokens: Vec<&[u32]> = pieces.iter().map(|piece| piece.tokens.as_slice()).collect();
        assert_eq!(tokens, [&[100, 101, 102, 103][..], &[104, 200, 201, 300], &[301, 302, 303]]);
        assert_eq!(pieces[1].targets, [false, false, true, false]);
        assert_eq!((pieces[1].row, pieces[2].row, pieces.len()), (1, 3, 3));
        assert!(join(&[row(1, 1)], 4).is_empty());
    }
}
