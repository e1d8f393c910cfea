//! Rows of a data file: JSON lines, or one JSON array of objects.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::content::{Content, Row};
use super::messages::{self, Reader};
use super::preference;
use super::row_error::{data, kind};
use crate::formats::foreign::instead_of_text;
use crate::{Error, Result};

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
        rows.push(parse(file, number, value)?);
    }
    Ok(rows)
}

fn read_array(file: &str, bytes: &[u8]) -> Result<Vec<Row>> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        data(file, 0, format!("byte 0x{:02X} in line {line} is not UTF-8", bytes[e.valid_up_to()]), "save the file as UTF-8")
    })?;
    let values: Vec<Value> = serde_json::from_str(text).map_err(|e| {
        if let Some((problem, hint)) = half_a_pair(&e) {
            return data(file, 0, format!("line {}: {problem}", e.line()), hint);
        }
        let problem = format!("the JSON array is broken at line {}, column {}: {e}", e.line(), e.column());
        data(file, 0, problem, "correct the file, or give one JSON object per line")
    })?;
    values.into_iter().enumerate().map(|(index, value)| parse(file, index + 1, value)).collect()
}

fn not_json(file: &str, number: usize, e: &serde_json::Error) -> Error {
    if let Some((problem, hint)) = half_a_pair(e) {
        return data(file, number, problem, hint);
    }
    // serde_json appends "at line 1 column c"; the line is the row, so only the column is told.
    let reason = e.to_string();
    let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
    let hint =
        if number == 1 { "give one JSON object per line; convert a table (CSV) or YAML to that" } else { "give one JSON object per line" };
    data(file, number, format!("not valid JSON at column {}: {reason}", e.column()), hint)
}

/// What is wrong with a `\ud800` that stands alone, where that is the error: programs that cut text in UTF-16 write such halves.
fn half_a_pair(e: &serde_json::Error) -> Option<(String, &'static str)> {
    let reason = e.to_string();
    let known = reason.contains("surrogate") || reason.contains("end of hex escape");
    let problem = || format!("the \\u escape before column {} is half of a surrogate pair (\\ud800 to \\udfff), no character", e.column());
    known.then(|| (problem(), "write both halves, as in \\ud83d\\ude00, or the character itself in UTF-8"))
}

fn parse(file: &str, number: usize, value: Value) -> Result<Row> {
    let Value::Object(mut row) = value else {
        return Err(data(file, number, format!("found {}, expected an object", kind(&value)), "give one JSON object per line"));
    };
    let null: Vec<String> = row.iter().filter(|(_, value)| value.is_null()).map(|(key, _)| format!("`{key}`")).collect();
    row.retain(|_, value| !value.is_null());
    let mut reader = Reader::new(file, number);
    let content = content(&mut reader, &mut row, &null)?;
    // A switch that is on leaves nothing out.
    let is_on = |value: &Value| value == &Value::Bool(true) || value.as_f64() == Some(1.0);
    reader.note_look_alikes(row.iter().filter(|(_, value)| !is_on(value)).map(|(key, _)| key));
    let has_words = |key: &&str| row.get(*key).and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
    let unread = SYSTEM.iter().copied().find(|key| has_words(key));
    Ok(Row { number, content, look_alikes: reader.into_look_alikes(), unread })
}

/// Keys of a system text, which only conversations have a place for.
const SYSTEM: &[&str] = &["system", "system_prompt", "system_message"];

/// What a row holds. Takes the keys that it reads out of `row`; `null` are those that were there with the value null.
fn content(reader: &mut Reader<'_>, row: &mut Map<String, Value>, null: &[String]) -> Result<Content> {
    let (file, number) = reader.place();
    if preference::is_preference(row) {
        return preference::sides((file, number), row, |side| content(reader, side, &[]));
    }
    let completion = row.contains_key("prompt") && row.contains_key("completion");
    let instruction = row.contains_key("instruction") && row.contains_key("output");
    let talks: Vec<&'static str> = messages::KEYS.iter().copied().filter(|key| row.contains_key(*key)).collect();
    match (completion, instruction, talks.as_slice()) {
        (true, false, []) if ["prompt", "completion"].iter().any(|key| messages::are_messages(&row[*key])) => {
            if row.contains_key("choices") {
                let problem = "`choices` beside a prompt or completion that is a list of messages".to_owned();
                return Err(data(
                    file,
                    number,
                    problem,
                    "give prompt, completion and choices as texts; --format chat makes a conversation of them",
                ));
            }
            reader.exchange(row).map(Content::Messages)
        }
        (true, false, []) => {
            let (prompt, completion) = (reader.text(row, "prompt")?, reader.text(row, "completion")?);
            let choices = choices(file, number, row, &completion)?;
            Ok(Content::Completion { prompt, completion, choices })
        }
        (false, true, []) => Ok(Content::Instruction {
            instruction: reader.text(row, "instruction")?,
            input: if row.contains_key("input") { reader.text(row, "input")? } else { String::new() },
            output: reader.text(row, "output")?,
        }),
        (false, false, &[key]) => reader.conversation(row, key).map(Content::Messages),
        (false, false, []) if row.contains_key("text") => Ok(Content::Text(reader.text(row, "text")?)),
        (false, false, []) => {
            let keys: Vec<String> = row.keys().map(|key| format!("`{key}`")).collect();
            let mut found = if keys.is_empty() { "no keys".into() } else { format!("the keys {}", keys.join(", ")) };
            if !null.is_empty() {
                found += &format!(" (and null in {})", null.join(", "));
            }
            let problem = format!(
                "{found}, expected prompt and completion, instruction and output, messages, conversations, text, or `chosen` and `rejected`"
            );
            Err(data(file, number, problem, "rename the keys"))
        }
        _ => {
            let problem = "its keys fit more than one of prompt/completion, instruction/output, messages and conversations".to_owned();
            Err(data(file, number, problem, "keep the keys of one shape"))
        }
    }
}

fn choices(file: &str, number: usize, row: &mut Map<String, Value>, completion: &str) -> Result<Option<Vec<String>>> {
    let wrong =
        |problem: String| Err(data(file, number, problem, "give `choices` as a list of different strings, the completion among them"));
    let list = match row.remove("choices") {
        None => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => return wrong(format!("`choices` is {}, expected a list", kind(&other))),
    };
    let mut texts: Vec<String> = Vec::with_capacity(list.len());
    for item in list {
        match item {
            Value::String(text) => texts.push(text),
            other => return wrong(format!("`choices` contains {}, expected strings", kind(&other))),
        }
    }
    let mut seen = HashSet::with_capacity(texts.len());
    if let Some(twice) = texts.iter().find(|text| !seen.insert(text.as_str())) {
        return wrong(format!("`choices` has {twice:?} twice"));
    }
    if texts.len() < 2 {
        return wrong(format!("`choices` has {} entries, expected at least 2", texts.len()));
    }
    let mut seen = HashSet::with_capacity(texts.len());
    if let Some(twice) = texts.iter().find(|text| !seen.insert(text.as_str())) {
        return wrong(format!("`choices` has {twice:?} twice"));
    }
    if !seen.contains(completion) {
        return wrong(format!("the completion {completion:?} is not one of the `choices`"));
    }
    Ok(Some(texts))
}
