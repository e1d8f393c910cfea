//! Rows to token sequences with a mask of what is trained.
//!
//! | rows | tokens | trained |
//! |---|---|---|
//! | `prompt`/`completion` | encode(prompt) + encode(completion) + eos | completion and eos |
//! | `instruction`/`output` | the same, with the Alpaca prompt | output and eos |
//! | `messages` | the model's chat template over the whole conversation | the assistant's turns with their end-of-turn token |
//! | `text` | encode(text) + eos | everything |
//!
//! A completion is encoded as the continuation that it is: a SentencePiece tokenizer puts no second space before it. The very first
//! token of a row is never a target, since nothing predicts it.

use std::str::FromStr;

use serde_json::{Value, json};

use super::chat::ChatTemplate;
use super::rows::{Content, Row, data};
use super::tokenizer::{EncodeOptions, Tokenizer};
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
}

/// How a data set is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataOptions {
    /// How rows become text.
    pub format: Format,
    /// Train on prompts and on what others say in a conversation, too.
    pub train_on_prompt: bool,
    /// In plain rows, the spelling of a control token is that token (see [`super::tokenizer`]).
    pub parse_special: bool,
    /// Longest row in tokens.
    pub context: usize,
    /// What happens to longer rows.
    pub overlong: Overlong,
}

impl DataOptions {
    /// The defaults for rows of at most `context` tokens.
    pub fn new(context: usize) -> Self {
        Self { format: Format::Auto, train_on_prompt: false, parse_special: false, context, overlong: Overlong::Truncate }
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
}

impl Example {
    /// How many tokens are trained.
    pub fn n_targets(&self) -> usize {
        self.targets.iter().filter(|&&target| target).count()
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

/// What building a data set did; every count is of rows unless said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct DataReport {
    /// Rows in the file.
    pub rows: usize,
    /// Rows cut to the context.
    pub truncated: usize,
    /// Rows left out because no token of them is a target.
    pub dropped: usize,
    /// Conversations of which only the last turn is trained (see [`ChatTemplate::render_with_spans`]).
    pub last_turn_only: usize,
    /// Rows whose own text contains the spelling of a control token.
    pub with_control_text: usize,
    /// Tokens in all examples.
    pub tokens: usize,
    /// Trained tokens in all examples.
    pub targets: usize,
    /// Tokens of the longest example.
    pub longest: usize,
}

/// A data set ready for packing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The examples, in the file's order; never empty.
    pub examples: Vec<Example>,
    /// What was done to get them.
    pub report: DataReport,
}

impl Dataset {
    /// Builds the examples of rows read by [`super::read_rows`]; `file` names them in errors.
    ///
    /// # Errors
    /// When a row cannot be rendered in the asked format, when the model lacks what the format needs (a chat template, an
    /// end-of-sequence token), when a row is too long and that is to be refused, and when no row has a target.
    pub fn build(file: &str, rows: &[Row], tokenizer: &Tokenizer, options: DataOptions) -> Result<Self> {
        let mut builder = Builder::new(file, rows, tokenizer, options)?;
        let mut examples = Vec::with_capacity(rows.len());
        for row in rows {
            examples.extend(builder.example(row)?);
        }
        if examples.is_empty() {
            let problem = format!("none of the {} rows has a token to train on within {} tokens", rows.len(), options.context);
            return Err(data(file, 0, problem, "raise --seq, shorten the prompts, or check the rows with `weblora inspect --data`"));
        }
        Ok(Self { examples, report: builder.report })
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
                let mut candidate = builder.tokens(&Row { number: row.number, content })?;
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

/// What turns rows into examples, one after the other.
struct Builder<'a> {
    file: &'a str,
    tokenizer: &'a Tokenizer,
    options: DataOptions,
    template: Option<ChatTemplate>,
    report: DataReport,
}

impl<'a> Builder<'a> {
    fn new(file: &'a str, rows: &[Row], tokenizer: &'a Tokenizer, options: DataOptions) -> Result<Self> {
        if options.context < 2 {
            return Err(Error::config("seq", format!("{} leaves nothing to predict", options.context), "use at least 2"));
        }
        let chat = match options.format {
            Format::Chat => true,
            Format::Auto => rows.iter().any(|row| matches!(row.content, Content::Messages { .. })),
            Format::Plain | Format::Alpaca => false,
        };
        let template = if chat { Some(ChatTemplate::of(tokenizer)?) } else { None };
        Ok(Self { file, tokenizer, options, template, report: DataReport::default() })
    }

    /// The example of a row, cut to the context; `None` when nothing of it is a target.
    fn example(&mut self, row: &Row) -> Result<Option<Example>> {
        let mut example = self.tokens(row)?;
        self.report.rows += 1;
        self.fit(&mut example)?;
        let targets = example.n_targets();
        if targets == 0 {
            self.report.dropped += 1;
            return Ok(None);
        }
        self.report.tokens += example.tokens.len();
        self.report.targets += targets;
        self.report.longest = self.report.longest.max(example.tokens.len());
        Ok(Some(example))
    }

    fn fit(&mut self, example: &mut Example) -> Result<()> {
        let context = self.options.context;
        if example.tokens.len() > context {
            if self.options.overlong == Overlong::Refuse {
                let problem = format!("the row has {} tokens but the context is {context}", example.tokens.len());
                return Err(data(self.file, example.row, problem, "raise --seq or shorten the row"));
            }
            self.report.truncated += 1;
            example.tokens.truncate(context);
            example.targets.truncate(context);
        }
        Ok(())
    }

    /// All tokens of a row with their mask.
    fn tokens(&mut self, row: &Row) -> Result<Example> {
        let number = row.number;
        let mut example = match (&row.content, self.options.format) {
            (Content::Text(text), Format::Auto | Format::Plain) => self.plain(number, "", text)?,
            (Content::Completion { prompt, completion, .. }, Format::Auto | Format::Plain) => self.plain(number, prompt, completion)?,
            (Content::Instruction { instruction, input, output }, Format::Auto | Format::Alpaca) => {
                self.plain(number, &alpaca_prompt(instruction, input), output)?
            }
            (Content::Messages { messages, tools }, Format::Auto | Format::Chat) => self.chat(number, messages, tools.as_ref())?,
            (Content::Completion { prompt, completion, .. }, Format::Chat) => self.chat(number, &exchange(prompt, completion), None)?,
            (Content::Instruction { instruction, input, output }, Format::Chat) => {
                let prompt = if input.is_empty() { instruction.clone() } else { format!("{instruction}\n\n{input}") };
                self.chat(number, &exchange(&prompt, output), None)?
            }
            (content, format) => {
                let problem = format!("a {} row does not fit --format {}", content.shape(), format!("{format:?}").to_lowercase());
                return Err(data(self.file, number, problem, "use --format auto"));
            }
        };
        if self.options.train_on_prompt {
            example.targets.fill(true);
        }
        if let Some(first) = example.targets.first_mut() {
            *first = false;
        }
        Ok(example)
    }

    fn plain(&mut self, row: usize, prompt: &str, completion: &str) -> Result<Example> {
        let tokenizer = self.tokenizer;
        let Some(eos) = tokenizer.eos() else {
            let problem = "the tokenizer names no end-of-sequence token, with which a trained row must end";
            return Err(Error::format("tokenizer", problem, "add the model's tokenizer_config.json"));
        };
        if tokenizer.mentions_special(prompt) || tokenizer.mentions_special(completion) {
            self.report.with_control_text += 1;
        }
        let options = EncodeOptions { add_special: false, parse_special: self.options.parse_special, continuation: false };
        let place = |e| self.at_row(row, e);
        let mut tokens = tokenizer.prefix().to_vec();
        tokens.extend(tokenizer.encode_with(prompt, options).map_err(place)?);
        // A text row has no prompt, so its text is a beginning of its own and not a continuation.
        let continuation = !prompt.is_empty();
        let answer = tokenizer.encode_with(completion, EncodeOptions { continuation, ..options }).map_err(place)?;
        let mut targets = vec![false; tokens.len()];
        tokens.extend(answer);
        if tokens.len() == targets.len() || tokens.last() != Some(&eos) {
            tokens.push(eos);
        }
        targets.resize(tokens.len(), true);
        Ok(Example { tokens, targets, row })
    }

    fn chat(&mut self, row: usize, messages: &[Value], tools: Option<&Value>) -> Result<Example> {
        let Some(template) = &self.template else {
            return Err(data(self.file, row, "a conversation without a chat template".into(), "use --format chat"));
        };
        let rendered = template.render_with_spans(messages, tools).map_err(|e| self.at_row(row, e))?;
        let pieces = self.tokenizer.encode_with_ranges(&rendered.text).map_err(|e| self.at_row(row, e))?;
        let mut tokens: Vec<u32> = pieces.iter().map(|(id, _)| *id).collect();
        let mut targets = vec![false; tokens.len()];
        let stop_ids = self.tokenizer.stop_ids();
        for span in &rendered.spans {
            let inside: Vec<usize> = (0..tokens.len()).filter(|&i| pieces[i].1.start < span.end && span.start < pieces[i].1.end).collect();
            // The turn ends with its end-of-turn token; the line break that templates put after it is not the assistant's.
            let end = inside.iter().rposition(|&i| stop_ids.contains(&tokens[i])).map_or(inside.len(), |at| at + 1);
            inside[..end].iter().for_each(|&i| targets[i] = true);
            let ends_text = rendered.text[span.end..].trim().is_empty();
            let unended = !inside.iter().any(|&i| stop_ids.contains(&tokens[i]));
            if ends_text && unended && !inside.is_empty() {
                // The template leaves the last turn open: end it, or the model never learns to stop.
                tokens.truncate(inside[inside.len() - 1] + 1);
                targets.truncate(tokens.len());
                tokens.extend(self.tokenizer.eos());
                targets.resize(tokens.len(), true);
                break;
            }
        }
        if messages.iter().any(|m| m["content"].as_str().is_some_and(|content| self.tokenizer.mentions_special(content))) {
            self.report.with_control_text += 1;
        }
        if rendered.last_turn_only {
            self.report.last_turn_only += 1;
        }
        Ok(Example { tokens, targets, row })
    }

    /// Says in which row something went wrong.
    fn at_row(&self, row: usize, e: Error) -> Error {
        match e {
            Error::Format { file, problem, hint } => data(self.file, row, format!("{file}: {problem}"), hint),
            other => other,
        }
    }
}

fn exchange(prompt: &str, answer: &str) -> Vec<Value> {
    // Plain prompts and completions carry the space or line break between them; a template brings its own.
    vec![json!({"role": "user", "content": prompt.trim()}), json!({"role": "assistant", "content": answer.trim()})]
}
