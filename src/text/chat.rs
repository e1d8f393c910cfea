//! Chat templates, rendered as Hugging Face's `apply_chat_template` renders them. Where the assistant speaks in the result is found by
//! [`super::turns`].
//!
//! The variables of a template are Hugging Face's: `messages`, `tools`, `documents`, `add_generation_prompt`, `bos_token`, `eos_token`,
//! `unk_token`, `pad_token`. `strftime_now` is there when a date is given: two runs with one date see the same tokens.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::jinja::{Date, Output, Template};
use super::templates;
use super::tokenizer::Tokenizer;
use crate::{Error, Result};

pub(super) const NAME: &str = "chat_template";

/// How conversations become text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatOptions {
    /// Another template than the model's own: the name of a built-in one ([`templates::NAMES`]), or Jinja.
    pub template: Option<String>,
    /// The day that `strftime_now` tells. Without one the function is undefined, as it is in old versions of transformers.
    pub date: Option<Date>,
}

impl ChatOptions {
    /// The Jinja source that these options and the model give; `None` where neither has one.
    ///
    /// # Errors
    /// When the options' template is neither a known name nor Jinja.
    pub fn source<'a>(&'a self, tokenizer: &'a Tokenizer) -> Result<Option<&'a str>> {
        match &self.template {
            Some(template) => templates::source(template).map(Some),
            None => Ok(tokenizer.chat_template()),
        }
    }

    /// Whether the template asks for the date.
    pub fn asks_for_date(&self, tokenizer: &Tokenizer) -> bool {
        matches!(self.source(tokenizer), Ok(Some(source)) if source.contains("strftime_now"))
    }
}

/// A compiled chat template with the special tokens it may write.
pub struct ChatTemplate {
    template: Template,
    bos_token: Option<String>,
    eos_token: Option<String>,
    unk_token: Option<String>,
    pad_token: Option<String>,
    needs: OnceLock<Needs>,
}

/// What a template expects of a message, found by trying.
#[derive(Debug, Clone, Copy, Default)]
struct Needs {
    /// A list of parts: with a string it would write nothing, or letter by letter.
    parts: bool,
    /// Tool calls are only written where `content` is `None`.
    no_content: bool,
}

/// The tokens of a conversation that ends where the assistant is to speak.
///
/// # Errors
/// When there is no chat template, or it refuses the conversation.
pub fn prompt(tokenizer: &Tokenizer, options: &ChatOptions, messages: &[Value]) -> Result<Vec<u32>> {
    let template = ChatTemplate::with(tokenizer, options)?;
    let text = template.render(messages, None, true)?;
    // The template has written whatever special tokens the model wants; what the messages spell is their own.
    let masked: Vec<Value> = messages.iter().map(|message| tokenizer.mask_message(message)).collect();
    if masked == messages {
        return tokenizer.encode(&text, false);
    }
    let masked = template.render(&masked, None, true)?;
    Ok(tokenizer.encode_masked(&text, &masked)?.into_iter().map(|(id, _)| id).collect())
}

impl ChatTemplate {
    /// The chat template of a model.
    ///
    /// # Errors
    /// When the model has none, or when it is not valid Jinja.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        Self::with(tokenizer, &ChatOptions::default())
    }

    /// The template that `options` give, else that of a model.
    ///
    /// # Errors
    /// When there is none, or when it is not valid Jinja.
    pub fn with(tokenizer: &Tokenizer, options: &ChatOptions) -> Result<Self> {
        let Some(source) = options.source(tokenizer)? else {
            return Err(Error::format(
                NAME,
                "this model has no chat template, which conversations need",
                "give one with --chat-template FILE, or chatml, llama3, mistral, gemma or alpaca, and the same to generate",
            ));
        };
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
        let mut template = Self::new(source)?;
        template.bos_token = text(tokenizer.bos());
        template.eos_token = text(tokenizer.eos());
        template.unk_token = text(tokenizer.unk());
        template.pad_token = text(tokenizer.pad());
        if let Some(date) = options.date {
            template.template.set_date(date);
        }
        Ok(template)
    }

    /// Compiles a template that writes no special token of the tokenizer by variable.
    ///
    /// # Errors
    /// When it is not valid Jinja.
    pub fn new(source: &str) -> Result<Self> {
        let template = Template::new(source)?;
        Ok(Self { template, bos_token: None, eos_token: None, unk_token: None, pad_token: None, needs: OnceLock::new() })
    }

    /// Whether the template marks what the model wrote with `{% generation %}`.
    pub(super) fn marks_generation(&self) -> bool {
        self.template.marks_generation()
    }

    /// The text of a conversation. `messages` are objects with at least `role` and `content`; with `add_generation_prompt` the text
    /// ends where the assistant is to speak.
    ///
    /// # Errors
    /// When the template refuses the conversation or needs something that is not there.
    pub fn render(&self, messages: &[Value], tools: Option<&Value>, add_generation_prompt: bool) -> Result<String> {
        Ok(self.render_marked(messages, tools, add_generation_prompt)?.text)
    }

    /// As [`Self::render`], with what the template itself marks as the model's.
    pub(super) fn render_marked(&self, messages: &[Value], tools: Option<&Value>, add_generation_prompt: bool) -> Result<Output> {
        let needs = *self.needs.get_or_init(|| self.find_needs());
        let messages = messages.iter().map(|message| fitted(message, needs)).collect();
        self.render_as_is(messages, tools, add_generation_prompt)
    }

    fn render_as_is(&self, messages: Vec<Value>, tools: Option<&Value>, add_generation_prompt: bool) -> Result<Output> {
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
        self.template.render(variables).map_err(|e| match e {
            Error::Format { file, problem, .. } if problem.contains("strftime_now") => {
                Error::Format { file, problem, hint: "give the day of the run with --date, as in 2024-07-26" }
            }
            other => other,
        })
    }

    /// Tries what the template does with a word: in a string or in a part, and in the name of a tool call beside an empty content or none.
    fn find_needs(&self) -> Needs {
        const WORD: &str = "weblora-probe";
        // The print of a whole list shows its keys, too: then the list was not wanted.
        const KEY: &str = "weblora-key";
        let part = |text: &str| json!([{KEY: "", "type": "text", "text": text}]);
        let writes = |system: Value, messages: Value| {
            let messages = messages.as_array().cloned().unwrap_or_default();
            let alone = self.render_as_is(messages.clone(), None, false);
            // Some templates demand that a system text comes first.
            let output = alone.or_else(|_| {
                let system = json!({"role": "system", "content": system});
                self.render_as_is(std::iter::once(system).chain(messages).collect(), None, false)
            });
            output.is_ok_and(|output| {
                let text = output.text.to_lowercase();
                text.contains(WORD) && !text.contains(KEY)
            })
        };
        let said = |system: Value, content: Value| writes(system, json!([{"role": "user", "content": content}]));
        let parts = !said("?".into(), WORD.into()) && said(part("?"), part(WORD));
        let called = |content: Value| {
            let call = json!({"id": "call00001", "type": "function", "function": {"name": WORD, "arguments": {}}});
            let asked = || if parts { json!([{"type": "text", "text": "?"}]) } else { "?".into() };
            let turn = json!({"role": "assistant", "content": content, "tool_calls": [call]});
            writes(asked(), json!([{"role": "user", "content": asked()}, turn]))
        };
        let no_content = !called("".into()) && called(Value::Null);
        Needs { parts, no_content }
    }
}

/// The message as a template with these needs wants it.
fn fitted(message: &Value, needs: Needs) -> Value {
    let mut message = message.clone();
    let content = message["content"].as_str();
    if needs.no_content && content == Some("") && message.get("tool_calls").is_some() {
        message["content"] = Value::Null;
    } else if let (true, Some(text)) = (needs.parts, content) {
        message["content"] = json!([{"type": "text", "text": text}]);
    }
    message
}
