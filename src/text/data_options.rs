//! How a data set is built.

use std::str::FromStr;

use super::chat::ChatOptions;
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
