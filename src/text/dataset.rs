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

use super::builder::Builder;
use super::content::{Content, Row};
use super::data_options::{DataOptions, Overlong};
use super::example::{Example, Labelled};
use super::report::{DataReport, Noted};
use super::row_error::data;
use super::tokenizer::Tokenizer;
use crate::Result;

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
