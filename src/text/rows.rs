//! Rows of a data file: JSON lines, or one JSON array of objects.

use serde_json::{Map, Value};

use crate::formats::foreign::instead_of_text;
use crate::{Error, Result};

/// One row, as it stands in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// 1-based line of a JSON-lines file, or 1-based place in a JSON array.
    pub number: usize,
    /// What the row holds.
    pub content: Content,
}

/// The shapes a row can have, told by its keys. Other keys are ignored.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// `prompt`, `completion`, and for labelled rows `choices`, of which the completion is one.
    Completion {
        /// What the model is given.
        prompt: String,
        /// What it is to write.
        completion: String,
        /// All the answers it may give; at least two.
        choices: Option<Vec<String>>,
    },
    /// `instruction`, `output`, and `input`, which may be absent or empty.
    Instruction {
        /// The task.
        instruction: String,
        /// What the task is about.
        input: String,
        /// The answer.
        output: String,
    },
    /// `messages`: objects with `role` and `content`; `tools` goes to the chat template.
    Messages {
        /// The conversation, handed to the template as it is.
        messages: Vec<Value>,
        /// Tool descriptions.
        tools: Option<Value>,
    },
    /// `text`: every token is trained.
    Text(String),
}

impl Content {
    /// The shape's name: the keys that tell it.
    pub fn shape(&self) -> &'static str {
        match self {
            Self::Completion { .. } => "prompt/completion",
            Self::Instruction { .. } => "instruction/output",
            Self::Messages { .. } => "messages",
            Self::Text(_) => "text",
        }
    }
}

/// Reads a whole data file; `file` names it in errors. Blank lines are skipped but counted.
///
/// # Errors
/// At the first row that is not UTF-8, not JSON, of no known shape or of wrong types, at the first row of another shape
/// than the first row's, and when there is no row.
pub fn read_rows(file: &str, bytes: &[u8]) -> Result<Vec<Row>> {
    if let Some((kind, hint)) = instead_of_text(bytes) {
        return Err(data(file, 0, format!("it is {kind}"), hint));
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let is_array = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let rows = if is_array { read_array(file, bytes)? } else { read_lines(file, bytes)? };
    let Some(first) = rows.first() else {
        return Err(data(file, 0, "the file has no row".into(), "give one JSON object per line"));
    };
    if let Some(other) = rows.iter().find(|row| row.content.shape() != first.content.shape()) {
        let problem =
            format!("a {} row after the {} row {}; one file holds one shape", other.content.shape(), first.content.shape(), first.number);
        return Err(data(file, other.number, problem, "split the file, one shape in each"));
    }
    Ok(rows)
}

fn read_lines(file: &str, bytes: &[u8]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        let text = std::str::from_utf8(line).map_err(|e| {
            let at = e.valid_up_to();
            data(file, number, format!("byte 0x{:02X} at column {} is not UTF-8", line[at], at + 1), "save the file as UTF-8")
        })?;
        if text.trim().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(text).map_err(|e| not_json(file, number, &e))?;
        rows.push(Row { number, content: parse(file, number, value)? });
    }
    Ok(rows)
}

fn read_array(file: &str, bytes: &[u8]) -> Result<Vec<Row>> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        data(file, 0, format!("byte 0x{:02X} in line {line} is not UTF-8", bytes[e.valid_up_to()]), "save the file as UTF-8")
    })?;
    let values: Vec<Value> = serde_json::from_str(text).map_err(|e| {
        let problem = format!("the JSON array is broken at line {}, column {}: {e}", e.line(), e.column());
        data(file, 0, problem, "correct the file, or give one JSON object per line")
    })?;
    let row = |(index, value)| Ok(Row { number: index + 1, content: parse(file, index + 1, value)? });
    values.into_iter().enumerate().map(row).collect()
}

fn not_json(file: &str, number: usize, e: &serde_json::Error) -> Error {
    // serde_json appends "at line 1 column c"; the line is the row, so only the column is told.
    let reason = e.to_string();
    let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
    data(file, number, format!("not valid JSON at column {}: {reason}", e.column()), "give one JSON object per line")
}

fn parse(file: &str, number: usize, value: Value) -> Result<Content> {
    let Value::Object(mut row) = value else {
        return Err(data(file, number, format!("found {}, expected an object", kind(&value)), "give one JSON object per line"));
    };
    let completion = row.contains_key("prompt") && row.contains_key("completion");
    let instruction = row.contains_key("instruction") && row.contains_key("output");
    let messages = row.contains_key("messages");
    match (completion, instruction, messages) {
        (true, false, false) => {
            let (prompt, completion) = (string(file, number, &mut row, "prompt")?, string(file, number, &mut row, "completion")?);
            let choices = choices(file, number, &mut row, &completion)?;
            Ok(Content::Completion { prompt, completion, choices })
        }
        (false, true, false) => Ok(Content::Instruction {
            instruction: string(file, number, &mut row, "instruction")?,
            input: if matches!(row.get("input"), None | Some(Value::Null)) {
                String::new()
            } else {
                string(file, number, &mut row, "input")?
            },
            output: string(file, number, &mut row, "output")?,
        }),
        (false, false, true) => conversation(file, number, row),
        (false, false, false) if row.contains_key("text") => Ok(Content::Text(string(file, number, &mut row, "text")?)),
        (false, false, false) => {
            let keys: Vec<String> = row.keys().map(|key| format!("`{key}`")).collect();
            let found = if keys.is_empty() { "no keys".into() } else { format!("the keys {}", keys.join(", ")) };
            let problem = format!("{found}, expected prompt and completion, instruction and output, messages, or text");
            Err(data(file, number, problem, "rename the keys"))
        }
        _ => {
            let problem = "its keys fit more than one of prompt/completion, instruction/output and messages".to_owned();
            Err(data(file, number, problem, "keep the keys of one shape"))
        }
    }
}

fn conversation(file: &str, number: usize, mut row: Map<String, Value>) -> Result<Content> {
    let tools = row.remove("tools").filter(|tools| !tools.is_null());
    let messages = match row.remove("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        other => {
            let found = other.as_ref().map_or("nothing", kind);
            return Err(data(file, number, format!("`messages` is {found}, expected a list of messages"), "see the README's data formats"));
        }
    };
    for (i, message) in messages.iter().enumerate() {
        if !message["role"].is_string() {
            let problem = format!("message {} has no string `role`", i + 1);
            return Err(data(file, number, problem, "give every message a role: system, user or assistant"));
        }
        // Tool calls come with null content, and some models take a list of parts.
        if message.get("content").is_some_and(|content| content.is_number() || content.is_boolean()) {
            let problem = format!("message {} has a `content` that is {}, expected a string", i + 1, kind(&message["content"]));
            return Err(data(file, number, problem, "put the content in quotes"));
        }
        if message.get("content").is_none() && message.get("tool_calls").is_none() {
            return Err(data(file, number, format!("message {} has no `content`", i + 1), "give every message a content"));
        }
    }
    Ok(Content::Messages { messages, tools })
}

fn choices(file: &str, number: usize, row: &mut Map<String, Value>, completion: &str) -> Result<Option<Vec<String>>> {
    let wrong =
        |problem: String| Err(data(file, number, problem, "give `choices` as a list of different strings, the completion among them"));
    let list = match row.remove("choices") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => return wrong(format!("`choices` is {}, expected a list", kind(&other))),
    };
    let mut texts: Vec<String> = Vec::with_capacity(list.len());
    for item in list {
        match item {
            Value::String(text) if texts.contains(&text) => return wrong(format!("`choices` has {text:?} twice")),
            Value::String(text) => texts.push(text),
            other => return wrong(format!("`choices` contains {}, expected strings", kind(&other))),
        }
    }
    if texts.len() < 2 {
        return wrong(format!("`choices` has {} entries, expected at least 2", texts.len()));
    }
    if !texts.iter().any(|text| text == completion) {
        return wrong(format!("the completion {completion:?} is not one of the `choices`"));
    }
    Ok(Some(texts))
}

fn string(file: &str, number: usize, row: &mut Map<String, Value>, key: &str) -> Result<String> {
    match row.remove(key) {
        Some(Value::String(text)) => Ok(text),
        other => {
            let problem = format!("`{key}` is {}, expected a string", other.as_ref().map_or("absent", kind));
            Err(data(file, number, problem, "put the value in quotes"))
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(list) if list.is_empty() => "an empty list",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// An error about a row; row 0 means the whole file.
pub(super) fn data(file: &str, row: usize, problem: String, hint: &'static str) -> Error {
    if row == 0 {
        return Error::format(file, problem, hint);
    }
    Error::Data { file: file.to_owned(), row, problem, hint }
}
