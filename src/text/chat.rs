//! Chat templates, rendered as Hugging Face's `apply_chat_template` renders them, and where the assistant speaks in the result.
//!
//! The variables of a template are Hugging Face's: `messages`, `tools`, `documents`, `add_generation_prompt`, `bos_token`, `eos_token`,
//! `unk_token`, `pad_token`. One thing is left out on purpose: `strftime_now`, because two runs with one seed must see the same tokens.
//! Templates that test for it use their fixed date.

use std::ops::Range;

use serde_json::Value;

use super::jinja::{Output, Template};
use super::tokenizer::Tokenizer;
use crate::{Error, Result};

const NAME: &str = "chat_template";

/// A compiled chat template with the special tokens it may write.
pub struct ChatTemplate {
    template: Template,
    bos_token: Option<String>,
    eos_token: Option<String>,
    unk_token: Option<String>,
    pad_token: Option<String>,
}

/// The tokens of a conversation that ends where the assistant is to speak.
///
/// # Errors
/// When the model has no chat template, or its template refuses the conversation.
pub fn prompt(tokenizer: &Tokenizer, messages: &[Value]) -> Result<Vec<u32>> {
    let text = ChatTemplate::of(tokenizer)?.render(messages, None, true)?;
    // The template has written whatever special tokens the model wants.
    tokenizer.encode(&text, false)
}

/// A rendered conversation and the bytes of it that the assistant wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The whole text, ready for [`Tokenizer::encode_with_ranges`].
    pub text: String,
    /// Byte ranges of the assistant's turns, in order, end-of-turn token included.
    pub spans: Vec<Range<usize>>,
    /// Earlier turns could not be found in the text, so only the last one is in `spans`.
    pub last_turn_only: bool,
}

impl ChatTemplate {
    /// The chat template of a model.
    ///
    /// # Errors
    /// When the model has none, or when it is not valid Jinja.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        let Some(source) = tokenizer.chat_template() else {
            return Err(Error::format(
                NAME,
                "this model has no chat template, which chat rows need",
                "use --format plain or alpaca, or a model tuned for chat (\"Instruct\")",
            ));
        };
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
        let mut template = Self::new(source)?;
        template.bos_token = text(tokenizer.bos());
        template.eos_token = text(tokenizer.eos());
        template.unk_token = text(tokenizer.unk());
        template.pad_token = text(tokenizer.pad());
        Ok(template)
    }

    /// Compiles a template that writes no special token of the tokenizer by variable.
    ///
    /// # Errors
    /// When it is not valid Jinja.
    pub fn new(source: &str) -> Result<Self> {
        let template = Template::new(source)?;
        Ok(Self { template, bos_token: None, eos_token: None, unk_token: None, pad_token: None })
    }

    /// The text of a conversation. `messages` are objects with at least `role` and `content`; with `add_generation_prompt` the text
    /// ends where the assistant is to speak.
    ///
    /// # Errors
    /// When the template refuses the conversation or needs something that is not there.
    pub fn render(&self, messages: &[Value], tools: Option<&Value>, add_generation_prompt: bool) -> Result<String> {
        Ok(self.render_marked(messages, tools, add_generation_prompt)?.text)
    }

    fn render_marked(&self, messages: &[Value], tools: Option<&Value>, add_generation_prompt: bool) -> Result<Output> {
        let Self { bos_token, eos_token, unk_token, pad_token, .. } = self;
        let mut variables = vec![
            ("messages", messages.into()),
            ("tools", tools.cloned().unwrap_or(Value::Null)),
            ("documents", Value::Null),
            ("add_generation_prompt", add_generation_prompt.into()),
        ];
        // A token that the model does not have is undefined, not None, as in Hugging Face's special_tokens_map.
        let tokens = [("bos_token", bos_token), ("eos_token", eos_token), ("unk_token", unk_token), ("pad_token", pad_token)];
        variables.extend(tokens.into_iter().filter_map(|(name, text)| Some((name, text.clone()?.into()))));
        self.template.render(variables)
    }

    /// The text of a conversation and where in it the assistant speaks.
    ///
    /// A template with `{% generation %}` says so itself. With any other, turn i lies between the text of the messages before it, with the
    /// generation prompt, and the text of the messages up to it. That holds only if those texts are prefixes of the whole, which is
    /// checked; templates that rewrite earlier turns (some drop old reasoning) break it, and then only the last turn is
    /// given, which is what such a model would be asked to write.
    ///
    /// # Errors
    /// When the template refuses the conversation, when not even the last turn is found, or when the messages contain the two
    /// noncharacters that mark generation tags.
    pub fn render_with_spans(&self, messages: &[Value], tools: Option<&Value>) -> Result<Rendered> {
        let Output { text, generated } = self.render_marked(messages, tools, false)?;
        if self.template.marks_generation() {
            return Ok(Rendered { text, spans: generated, last_turn_only: false });
        }
        let turns: Vec<usize> = (0..messages.len()).filter(|&i| messages[i]["role"] == "assistant").collect();
        let found: Vec<Option<Range<usize>>> = turns.iter().map(|&i| self.turn(&text, messages, tools, i)).collect();
        if found.iter().all(Option::is_some) {
            return Ok(Rendered { text, spans: found.into_iter().flatten().collect(), last_turn_only: false });
        }
        match (turns.last(), found.last()) {
            // The last turn may end the text: then no later text has to be a prefix.
            (Some(_), Some(Some(last))) => Ok(Rendered { text, spans: vec![last.clone()], last_turn_only: true }),
            _ => Err(Error::format(
                NAME,
                "the assistant's turn cannot be found in the rendered text, because the template renders it differently within the conversation",
                "mark the turn with {% generation %} in the template, or give rows as prompt/completion with --format plain",
            )),
        }
    }

    /// Where message `i` lies in `whole`; `None` when the prefix texts are no prefixes.
    fn turn(&self, whole: &str, messages: &[Value], tools: Option<&Value>, i: usize) -> Option<Range<usize>> {
        let end = if i + 1 == messages.len() {
            whole.len()
        } else {
            let upto = self.render(&messages[..=i], tools, false).ok()?;
            whole.starts_with(&upto).then_some(upto.len())?
        };
        let prompt = self.render(&messages[..i], tools, true).unwrap_or_default();
        if !prompt.is_empty() && whole.starts_with(&prompt) && prompt.len() < end {
            return Some(prompt.len()..end);
        }
        // The generation prompt can differ from what the whole conversation holds, and a template may refuse an empty
        // conversation: then the turn starts at its own words, after the text of the messages before it.
        let before = if i == 0 { String::new() } else { self.render(&messages[..i], tools, false).ok()? };
        let words = messages[i]["content"].as_str().map(str::trim).filter(|words| !words.is_empty())?;
        let room = whole.strip_prefix(before.as_str())?.get(..end.checked_sub(before.len())?)?;
        room.find(words).map(|at| before.len() + at..end)
    }
}
