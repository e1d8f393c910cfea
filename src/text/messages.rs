//! The conversation of a row: OpenAI's `messages`, ShareGPT's `conversations`, TRL's lists of messages as `prompt` and `completion`.
//!
//! All become messages with a lower-case `role` and a `content` that is a string, as chat templates expect them. Keys whose value is null
//! are dropped wherever they stand, since tables of many rows fill them in; a null `content` is an empty turn.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::row_error::{data, kind};
use crate::settings::distance;
use crate::{Error, Result};

/// Keys of a row that hold a conversation.
pub(super) const KEYS: &[&str] = &["messages", "conversations"];

/// What each role is called; the first is the name that templates know.
const ROLES: &[&[&str]] = &[
    &["system"],
    &["developer"],
    &["user", "human", "prompter"],
    &["assistant", "gpt", "model", "bot", "chatbot", "chatgpt", "bing", "bard", "ai"],
    &["tool", "function", "observation", "function_response", "tool_response"],
    &["ipython"],
];

/// Keys of a message that keep an assistant's turn out of training when they are 0 or false.
const EXCLUDING: &[&str] = &["weight", "train", "loss_mask"];

/// Keys of a message that may stand instead of a `content`.
const CALLS: &[&str] = &["tool_calls", "function_call"];

/// Keys of a message in which a model's reasoning may stand beside its `content`.
pub(super) const REASONING: &[&str] = &["reasoning_content", "reasoning", "thinking"];

/// A conversation, ready for a chat template.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// Objects with `role` and `content`, and whatever else the row gave them.
    pub messages: Vec<Value>,
    /// Tool descriptions, for the chat template.
    pub tools: Option<Value>,
    /// For each message whether it is a turn of the assistant to train on.
    pub trained: Vec<bool>,
}

impl Conversation {
    /// A question and its answer.
    pub(super) fn exchange(prompt: &str, answer: &str) -> Self {
        let messages = vec![json!({"role": "user", "content": prompt}), json!({"role": "assistant", "content": answer})];
        Self { messages, tools: None, trained: vec![false, true] }
    }

    /// Whether message `i` is a turn of the assistant that is not trained.
    pub(super) fn is_excluded(&self, i: usize) -> bool {
        self.messages[i]["role"] == "assistant" && !self.trained[i]
    }

    /// The conversation without the end that has turns of the assistant but none to train on: what nothing is predicted from. With `whole`,
    /// everything is trained, so everything stays.
    pub(super) fn up_to_the_last_target(&self, whole: bool) -> Self {
        let mut talk = self.clone();
        let last = self.trained.iter().rposition(|&trained| trained);
        if let (false, Some(last)) = (whole, last)
            && (last + 1..self.messages.len()).any(|i| self.is_excluded(i))
        {
            talk.messages.truncate(last + 1);
            talk.trained.truncate(last + 1);
        }
        talk
    }

    fn push(&mut self, message: Value, trained: bool) {
        self.messages.push(message);
        self.trained.push(trained);
    }
}

/// Whether a `prompt` or `completion` holds messages: an object, or a list of objects, that have a role.
pub(super) fn are_messages(value: &Value) -> bool {
    let has_role = |item: &Value| item.as_object().is_some_and(|map| find(map, &["role", "from"]).is_some());
    match value {
        Value::Array(items) => items.iter().all(|item| item.is_null() || has_role(item)),
        one => has_role(one),
    }
}

/// Whether messages begin with somebody else than the assistant: with the prompt.
pub(super) fn begins_a_conversation(messages: &Value) -> bool {
    let first = match messages {
        Value::Array(items) => items.iter().find(|item| !item.is_null()),
        one => Some(one),
    };
    let role = first.and_then(Value::as_object).and_then(|map| find(map, &["role", "from"]).and_then(|key| map[&key].as_str()));
    role.is_some_and(|role| !ROLES[3].contains(&role.trim().to_lowercase().as_str()))
}

/// Reads the conversations of one row.
pub(super) struct Reader<'a> {
    file: &'a str,
    row: usize,
    look_alikes: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, row: usize) -> Self {
        Self { file, row, look_alikes: BTreeSet::new() }
    }

    /// File and row, for errors.
    pub(super) fn place(&self) -> (&'a str, usize) {
        (self.file, self.row)
    }

    pub(super) fn into_look_alikes(self) -> Vec<String> {
        self.look_alikes.into_iter().collect()
    }

    /// Remembers those of the keys that nobody reads but that look like [`EXCLUDING`].
    pub(super) fn note_look_alikes<'k>(&mut self, keys: impl IntoIterator<Item = &'k String>) {
        self.look_alikes.extend(keys.into_iter().filter(|key| looks_excluding(key)).cloned());
    }

    /// The same for those of a message, where a switch under a name such as `label` looks like one, too.
    fn note_look_alike_turns(&mut self, message: &Map<String, Value>) {
        self.note_look_alikes(message.keys());
        let switches = message.iter().filter(|(key, value)| is_switch(value) && has_word(key, SWITCHES));
        self.look_alikes.extend(switches.map(|(key, _)| key.clone()));
    }

    fn error(&self, problem: String, hint: &'static str) -> Error {
        data(self.file, self.row, problem, hint)
    }

    /// The conversation under `key`, with the `tools` and the `system` or `system_prompt` text beside it.
    pub(super) fn conversation(&mut self, row: &mut Map<String, Value>, key: &'static str) -> Result<Conversation> {
        let tools = row.remove("tools");
        let list = row.remove(key).unwrap_or_default();
        let mut talk = Conversation { messages: Vec::new(), tools: tools.map(read_tools), trained: Vec::new() };
        if !matches!(&list, Value::Array(items) if !items.is_empty()) {
            let problem = format!("`{key}` is {}, expected a list of messages", kind(&list));
            return Err(self.error(problem, "see the README's data formats"));
        }
        self.add(&mut talk, key, list, true)?;
        if talk.messages.is_empty() {
            return Err(self.error(format!("`{key}` holds nothing but null"), "give the messages, or remove the row"));
        }
        let begins_with_system = talk.messages.first().is_some_and(|message| message["role"] == "system");
        let system = find(row, &["system", "system_prompt"]).filter(|_| !begins_with_system).and_then(|key| row.remove(&key));
        if let Some(system @ (Value::String(_) | Value::Array(_))) = system {
            let system = self.join("the system text", system)?;
            if !system.is_empty() {
                talk.messages.insert(0, json!({"role": "system", "content": system}));
                talk.trained.insert(0, false);
            }
        }
        Ok(talk)
    }

    /// The conversation of a `prompt` and a `completion` of which at least one holds messages. Only the completion's turns are trained.
    pub(super) fn exchange(&mut self, row: &mut Map<String, Value>) -> Result<Conversation> {
        let tools = row.remove("tools").map(read_tools);
        let mut talk = Conversation { messages: Vec::new(), tools, trained: Vec::new() };
        let mut from = 0;
        for (key, role, trained) in [("prompt", "user", false), ("completion", "assistant", true)] {
            let value = row.remove(key).unwrap_or_default();
            from = talk.messages.len();
            if are_messages(&value) {
                self.add(&mut talk, key, value, trained)?;
            } else {
                let content = self.join(&format!("`{key}`"), value)?;
                talk.push(json!({"role": role, "content": content}), trained);
            }
        }
        if talk.messages[from..].iter().all(|message| message["role"] != "assistant") {
            return Err(self.error("the completion has no message of the assistant".into(), "give the answer the role assistant"));
        }
        Ok(talk)
    }

    /// A text, or a list of text parts, under `key`.
    pub(super) fn text(&mut self, row: &mut Map<String, Value>, key: &'static str) -> Result<String> {
        match row.remove(key) {
            Some(value @ (Value::String(_) | Value::Array(_))) => self.join(&format!("`{key}`"), value),
            other => {
                let problem = format!("`{key}` is {}, expected a string", other.as_ref().map_or("absent", kind));
                Err(self.error(problem, "put the value in quotes"))
            }
        }
    }

    fn add(&mut self, talk: &mut Conversation, key: &'static str, list: Value, train: bool) -> Result<()> {
        let items = match list {
            Value::Array(items) => items,
            one => vec![one],
        };
        for (i, item) in items.into_iter().enumerate().filter(|(_, item)| !item.is_null()) {
            let name = if KEYS.contains(&key) { format!("message {}", i + 1) } else { format!("message {} of the {key}", i + 1) };
            let (message, included) = self.message(&name, item)?;
            let trained = train && included && message["role"] == "assistant";
            talk.push(message, trained);
        }
        Ok(())
    }

    /// A message as templates expect it, and whether its keys leave it in training.
    fn message(&mut self, name: &str, item: Value) -> Result<(Value, bool)> {
        let no_role = |found: &str| {
            data(self.file, self.row, format!("{name} {found}"), "give every message a role: system, user, assistant or tool")
        };
        let Value::Object(mut given) = item else {
            return Err(no_role(&format!("is {}, expected an object with a role", kind(&item))));
        };
        let role = match find(&given, &["role", "from"]).and_then(|key| given.shift_remove(&key)) {
            Some(Value::String(role)) => role,
            _ => return Err(no_role("has no string `role`")),
        };
        let wanted = role.trim().to_lowercase();
        let Some(role) = ROLES.iter().find(|names| names.contains(&wanted.as_str())).map(|names| names[0]) else {
            let problem = format!("{name} has the role {role:?}, expected system, user (or human), assistant (or gpt, model, bot) or tool");
            return Err(self.error(problem, "rename the role, or remove the message"));
        };
        let mut included = true;
        for key in EXCLUDING {
            included &= self.includes(name, key, given.shift_remove(*key))?;
        }
        let content = find(&given, &["content", "value"]).and_then(|key| given.shift_remove(&key));
        let rest = without_nulls(Value::Object(given));
        let mut message = Map::from_iter([("role".to_owned(), role.into())]);
        let others = rest.as_object().cloned().unwrap_or_default();
        let speaks_otherwise = CALLS.iter().any(|key| others.contains_key(*key)) || REASONING.iter().any(|key| others.contains_key(*key));
        let content = match content {
            Some(value) => self.join(name, value)?,
            None if speaks_otherwise => String::new(),
            None => return Err(self.error(format!("{name} has no `content`"), "give every message a content")),
        };
        message.insert("content".into(), content.into());
        self.note_look_alike_turns(&others);
        message.extend(others);
        Ok((Value::Object(message), included))
    }

    /// Whether a key of [`EXCLUDING`] leaves the turn in.
    fn includes(&self, name: &str, key: &str, value: Option<Value>) -> Result<bool> {
        match value {
            None | Some(Value::Null) => Ok(true),
            Some(Value::Bool(on)) => Ok(on),
            Some(Value::Number(n)) if n.as_f64() == Some(0.0) => Ok(false),
            Some(Value::Number(n)) if n.as_f64() == Some(1.0) => Ok(true),
            Some(other) => {
                let problem = format!("{name} has a `{key}` that is {other}, and a turn is trained or not: there is nothing between");
                Err(self.error(problem, "give 0 or 1, true or false"))
            }
        }
    }

    /// The text of a content: a string, null, or parts, whose texts are put together as they are.
    fn join(&self, name: &str, content: Value) -> Result<String> {
        let parts = match content {
            Value::Null => return Ok(String::new()),
            Value::String(text) => return Ok(text),
            Value::Array(parts) => parts,
            part @ Value::Object(_) => vec![part],
            other => {
                let problem = format!("{name} has a `content` that is {}, expected a string", kind(&other));
                return Err(self.error(problem, "put the content in quotes"));
            }
        };
        let mut text = String::new();
        for part in &parts {
            match part {
                Value::Null => {}
                Value::String(words) => text += words,
                Value::Object(part) => text += self.part(name, part)?,
                other => {
                    let problem = format!("{name} has a part that is {}, expected an object with a type", kind(other));
                    return Err(self.error(problem, "give the text as a string"));
                }
            }
        }
        Ok(text)
    }

    fn part<'p>(&self, name: &str, part: &'p Map<String, Value>) -> Result<&'p str> {
        let refuse = |what: String| self.error(format!("{name} has {what}"), "only text can be trained: remove the part, or the row");
        match part.get("type").filter(|kind| !kind.is_null()) {
            Some(Value::String(kind)) if ["text", "input_text", "output_text"].contains(&kind.as_str()) => {}
            None if part.contains_key("text") => {}
            Some(Value::String(kind)) => return Err(refuse(format!("a part of type {kind:?}"))),
            other => return Err(refuse(format!("a part whose type is {}", other.map_or("absent", kind)))),
        }
        match part.get("text") {
            None | Some(Value::Null) => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(refuse(format!("a part of text that is {}, expected a string", kind(other)))),
        }
    }
}

/// The key of `map` that is one of `names`, in their order, in whatever case; one whose value is null only where there is no other.
fn find(map: &Map<String, Value>, names: &[&str]) -> Option<String> {
    let spelled = |name: &str, null: bool| {
        let fits = |key: &&String| key.eq_ignore_ascii_case(name) && map[key.as_str()].is_null() == null;
        map.keys().filter(fits).max_by_key(|key| key.as_str() == name).cloned()
    };
    [false, true].into_iter().find_map(|null| names.iter().find_map(|name| spelled(name, null)))
}

/// Tools, which some files keep as a text that holds JSON.
fn read_tools(tools: Value) -> Value {
    let parsed = tools.as_str().and_then(|text| serde_json::from_str(text).ok()).filter(Value::is_array);
    without_nulls(parsed.unwrap_or(tools))
}

/// The value without the null keys of its objects, at any depth.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// Words of keys that look like [`EXCLUDING`].
const LOOK_ALIKES: &[&str] = &[
    "train",
    "training",
    "trained",
    "trainable",
    "loss",
    "mask",
    "masked",
    "weight",
    "weights",
    "ignore",
    "ignored",
    "exclude",
    "excluded",
    "skip",
    "skipped",
    "supervise",
    "supervised",
    "learn",
    "learned",
    "learnable",
];

/// The same where the value is a switch.
const SWITCHES: &[&str] =
    &["label", "labels", "include", "included", "target", "keep", "drop", "use", "used", "enabled", "disabled", "active"];

/// Words of keys under which a model's thoughts may stand, besides [`REASONING`].
const THOUGHTS: &[&str] = &[
    "think",
    "thinking",
    "thought",
    "thoughts",
    "analysis",
    "reasoning",
    "rationale",
    "cot",
    "scratchpad",
    "reflection",
    "explanation",
    "monologue",
    "commentary",
    "refusal",
];

/// Words of keys that tell of thoughts, but not what they were.
const ABOUT_THOUGHTS: &[&str] = &["id", "effort", "tokens", "budget", "time", "duration", "count", "length", "signature", "mode"];

/// Whether what stands under a key of a message may be words of the turn, and none of [`REASONING`].
pub(super) fn holds_words(key: &str) -> bool {
    !REASONING.contains(&key) && has_word(key, THOUGHTS) && !has_word(key, ABOUT_THOUGHTS)
}

/// Whether a value says yes or no, or does so for each of several.
fn is_switch(value: &Value) -> bool {
    match value {
        Value::Bool(_) => true,
        Value::Number(n) => [Some(0.0), Some(1.0)].contains(&n.as_f64()),
        Value::Array(items) => !items.is_empty() && items.iter().all(is_switch),
        _ => false,
    }
}

/// Whether one of the words of a key, which may be parted by signs or by capitals, is one of these.
fn has_word(key: &str, words: &[&str]) -> bool {
    let mut spaced = String::new();
    for c in key.chars().take(64) {
        if c.is_uppercase() {
            spaced.push(' ');
        }
        spaced.extend(c.to_lowercase());
    }
    spaced.split(|c: char| !c.is_alphanumeric()).any(|word| words.contains(&word))
}

/// Whether a key looks like one that leaves a turn out of training, and is none.
fn looks_excluding(key: &str) -> bool {
    let plain = key.to_lowercase();
    let letters = |text: &str| {
        let mut letters: Vec<char> = text.chars().take(64).collect();
        letters.sort_unstable();
        letters
    };
    has_word(key, LOOK_ALIKES)
        || EXCLUDING.iter().any(|known| distance(&plain, known) <= known.len() / 5 || letters(&plain) == letters(known))
}
