//! What a chat template leaves out of a turn: reasoning, tool calls, words under keys that it does not read.
//!
//! Words that stand in the text may be another's. So a conversation with such fields is rendered once more, with a number of its own in place of each
//! of them: where the template does not write a field, its number is not in the text.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use serde_json::{Map, Value};

use super::chat::ChatTemplate;
use super::messages::{REASONING, holds_words};

/// Something of a turn that is not in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lost {
    /// This word of its content or its reasoning.
    Word(String),
    /// The call of this tool.
    Call(String),
    /// This argument of the call of this tool.
    Argument(String, String),
    /// The words under this key, of which we know only the name.
    Key(String),
}

impl Lost {
    /// Whether one of the two says enough of a turn.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let kind = |lost: &Self| match lost {
            Self::Word(_) => 0,
            Self::Call(_) | Self::Argument(..) => 1,
            Self::Key(_) => 2,
        };
        kind(self) == kind(other) && (kind(self) < 2 || self == other)
    }
}

/// The first word of `content` that `text` lacks. White space does not count, since templates trim; words must stand in order.
pub(super) fn first_lost(text: &str, content: &str) -> Option<Lost> {
    first_missing(text, content)?;
    // A template that writes in capitals leaves nothing out.
    let lost = first_missing(&text.to_lowercase(), &content.to_lowercase())?;
    content.split_whitespace().nth(lost).map(|word| Lost::Word(word.to_owned()))
}

/// Which of the words of `content` is the first that `text` lacks.
fn first_missing(text: &str, content: &str) -> Option<usize> {
    let mut at = 0;
    for (i, word) in content.split_whitespace().enumerate() {
        match text[at..].find(word) {
            Some(found) => at += found + word.len(),
            None => return Some(i),
        }
    }
    None
}

/// All the words of a turn, the reasoning first, in the spelling that reasoning models use.
pub(super) fn all_words(message: &Value) -> String {
    let content = message["content"].as_str().unwrap_or_default().trim();
    match REASONING.iter().find_map(|key| message[*key].as_str()).map(str::trim) {
        Some(reasoning) if !reasoning.is_empty() && !content.contains(reasoning) => format!("<think>\n{reasoning}\n</think>\n\n{content}"),
        _ => content.to_owned(),
    }
}

/// What the template does not write of the fields of the assistant's turns, by turn; `text` is what it makes of them all, and it does not see the
/// contents that are `kept`. Turns with nothing but a plain content are left out.
pub(super) fn unwritten(
    template: &ChatTemplate,
    messages: &[Value],
    tools: Option<&Value>,
    kept: &BTreeMap<usize, String>,
    text: &str,
) -> Vec<(usize, Lost)> {
    let asked: Vec<usize> = (0..messages.len()).filter(|&i| has_fields(&messages[i])).collect();
    if asked.is_empty() {
        return Vec::new();
    }
    let mut probes = Probes::new(text);
    let mut messages = messages.to_vec();
    for i in asked {
        probes.turn = i;
        if let Value::Object(message) = &mut messages[i] {
            probes.replace(message, kept.contains_key(&i));
        }
    }
    // A template that refuses the numbers tells nothing.
    let Ok(text) = template.render(&messages, tools, false) else { return Vec::new() };
    probes.missing_in(&text)
}

/// Whether a message has more than a plain content.
fn has_fields(message: &Value) -> bool {
    let Some(map) = message.as_object().filter(|map| map.get("role").is_some_and(|role| role == "assistant")) else { return false };
    let calls = ["tool_calls", "function_call"].iter().any(|key| map.contains_key(*key));
    let marked = map.get("content").and_then(Value::as_str).is_some_and(|content| content.contains("</") || content.contains("[/"));
    calls || marked || map.keys().any(|key| REASONING.contains(&key.as_str()) || holds_words(key))
}

/// Numbers in place of fields.
struct Probes {
    /// What all the numbers begin with: digits that the text does not contain.
    prefix: String,
    turn: usize,
    /// By number, which turn lost what if it is missing.
    fields: Vec<(usize, Lost)>,
}

impl Probes {
    /// Digits after the prefix, and so how many numbers there are.
    const DIGITS: usize = 6;
    const MOST: usize = 100_000;

    fn new(text: &str) -> Self {
        let prefix = (7_130_000_u32..).map(|n| n.to_string()).find(|prefix| !text.contains(prefix.as_str())).unwrap_or_default();
        Self { prefix, turn: 0, fields: Vec::new() }
    }

    /// The next number; `None` where there are too many.
    fn number(&mut self, lost: Lost) -> Option<String> {
        (self.fields.len() < Self::MOST).then(|| {
            self.fields.push((self.turn, lost));
            format!("{}{:0width$}", self.prefix, self.fields.len() - 1, width = Self::DIGITS)
        })
    }

    /// A word with the next number in place of `words`, between the same white space.
    fn word(&mut self, words: &str, lost: Lost) -> String {
        let inner = words.trim();
        match (!inner.is_empty()).then(|| self.number(lost)).flatten() {
            Some(number) => words.replacen(inner, &format!("weblora{number}"), 1),
            None => words.to_owned(),
        }
    }

    /// Puts numbers into a message; a content that is `kept` is the template's to put somewhere, as one word.
    fn replace(&mut self, message: &mut Map<String, Value>, kept: bool) {
        // Reasoning may stand in the content and beside it, and is to be written once.
        let mut thoughts: Vec<(String, String)> = Vec::new();
        if let Some(Value::String(content)) = message.get_mut("content") {
            *content = if kept { self.word(content, first_word(content)) } else { self.content(content, &mut thoughts) };
        }
        for (key, value) in message.iter_mut() {
            match value {
                Value::String(words) if REASONING.contains(&key.as_str()) => {
                    let known = thoughts.iter().find(|(own, _)| own == words.trim()).map(|(_, word)| word.clone());
                    let word = known.unwrap_or_else(|| self.word(words, first_word(words)));
                    thoughts.push((words.trim().to_owned(), word.clone()));
                    *words = word;
                }
                Value::String(_) | Value::Array(_) | Value::Object(_) if holds_words(key) => {
                    self.leaves(value, &|_| Lost::Key(key.clone()), "")
                }
                Value::Array(calls) if key == "tool_calls" => calls.iter_mut().for_each(|call| self.call(call)),
                call if key == "tool_calls" || key == "function_call" => self.call(call),
                _ => {}
            }
        }
    }

    /// A content with a word for each stretch between marks such as `<think>`, by which templates take it apart.
    fn content(&mut self, content: &str, thoughts: &mut Vec<(String, String)>) -> String {
        let mut out = String::with_capacity(content.len());
        let mut rest = content;
        loop {
            let mark = next_mark(rest);
            let (words, mark) = mark.map_or((rest, ""), |mark| (&rest[..mark.end], &rest[mark]));
            let words = &words[..words.len() - mark.len()];
            let word = self.word(words, first_word(words));
            if mark.starts_with("</") || mark.starts_with("[/") {
                thoughts.push((words.trim().to_owned(), word.trim().to_owned()));
            }
            out.push_str(&word);
            out.push_str(mark);
            rest = &rest[words.len() + mark.len()..];
            if mark.is_empty() {
                return out;
            }
        }
    }

    /// A call: `{"function": {"name": …, "arguments": …}}`, or what stands in it.
    fn call(&mut self, call: &mut Value) {
        let call = if call.get("function").is_some_and(Value::is_object) { &mut call["function"] } else { call };
        let name = call["name"].as_str().unwrap_or_default().to_owned();
        match call {
            Value::Object(call) => {
                for (key, value) in call.iter_mut() {
                    match (key.as_str(), value) {
                        ("name", Value::String(name)) => *name = self.word(name, Lost::Call(name.clone())),
                        ("arguments" | "parameters" | "input", value) => {
                            self.arguments(value, &|key| Lost::Argument(name.clone(), key.to_owned()));
                        }
                        _ => {}
                    }
                }
            }
            Value::String(text) => *text = self.word(text, Lost::Call(text.chars().take(40).collect())),
            _ => {}
        }
    }

    /// The arguments of a call, which may be JSON in a text.
    fn arguments(&mut self, value: &mut Value, lost: &dyn Fn(&str) -> Lost) {
        let inner =
            value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok()).filter(|inner| inner.is_object() || inner.is_array());
        match inner {
            Some(mut inner) => {
                self.leaves(&mut inner, lost, "");
                *value = inner.to_string().into();
            }
            None => self.leaves(value, lost, ""),
        }
    }

    /// Numbers in place of all the texts, numbers and booleans in a value, of the same type as far as a number can be; `key` is the outermost key above.
    fn leaves(&mut self, value: &mut Value, lost: &dyn Fn(&str) -> Lost, key: &str) {
        match value {
            Value::String(text) => *text = self.word(text, lost(key)),
            Value::Bool(_) | Value::Number(_) => {
                let fraction = if value.is_f64() { ".5" } else { "" };
                let number = self.number(lost(key)).and_then(|number| serde_json::from_str(&format!("{number}{fraction}")).ok());
                *value = number.unwrap_or_else(|| value.take());
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.leaves(item, lost, key)),
            Value::Object(map) => {
                for (own, value) in map.iter_mut() {
                    self.leaves(value, lost, if key.is_empty() { own } else { key });
                }
            }
            Value::Null => {}
        }
    }

    /// What is lost where the text has not all of the numbers.
    fn missing_in(&self, text: &str) -> Vec<(usize, Lost)> {
        let number = |at: usize| text.get(at + self.prefix.len()..at + self.prefix.len() + Self::DIGITS)?.parse::<usize>().ok();
        let found: HashSet<usize> = text.match_indices(self.prefix.as_str()).filter_map(|(at, _)| number(at)).collect();
        // Of words that may be anything a part that is written will do.
        let is_read = |field: &(usize, Lost)| matches!(field.1, Lost::Key(_)) && found.iter().any(|n| self.fields.get(*n) == Some(field));
        self.fields.iter().enumerate().filter(|(n, field)| !found.contains(n) && !is_read(field)).map(|(_, field)| field.clone()).collect()
    }
}

fn first_word(words: &str) -> Lost {
    Lost::Word(words.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Where the next mark such as `<think>`, `[/THINK]` or `<|channel|>` stands.
fn next_mark(text: &str) -> Option<Range<usize>> {
    text.match_indices(['<', '[']).find_map(|(at, open)| {
        let close = if open == "<" { '>' } else { ']' };
        let inner = &text[at + 1..];
        let end = inner.char_indices().take(42).find(|(_, c)| !(c.is_ascii_alphanumeric() || "/|_-".contains(*c)))?;
        (end.0 > 0 && end.1 == close).then(|| at..at + end.0 + 2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lost_words_are_found_and_white_space_does_not_count() {
        let content = "<think>\nadd\n</think>\n\nIt is 4.";
        assert_eq!(first_lost("It is 4.", content), Some(Lost::Word("<think>".into())));
        assert_eq!(first_lost("<think> add </think>It is  4.", content), None);
        assert_eq!(first_lost("b a", "a b"), Some(Lost::Word("b".into())), "the order counts");
    }

    #[test]
    fn reasoning_beside_the_content_comes_first() {
        assert_eq!(all_words(&json!({"content": " a ", "reasoning": "why\n"})), "<think>\nwhy\n</think>\n\na");
        assert_eq!(all_words(&json!({"content": "<think>why</think>a", "thinking": "why"})), "<think>why</think>a");
    }

    #[test]
    fn words_in_other_letters_are_not_lost() {
        assert_eq!(first_lost("<A> YES SIR </A>", "yes sir"), None);
        assert_eq!(first_lost("<A> YES </A>", "yes Sir"), Some(Lost::Word("Sir".into())));
    }

    #[test]
    fn numbers_take_the_place_of_every_field() {
        let mut message = json!({"content": " <think>\nwhy\n</think>\n a", "thinking": "why", "note": "n", "thought": "t", "tool_calls": [
            {"id": "i", "function": {"name": "f", "arguments": "{\"a\": [\"x\", 1, 1.5, true, \"\"], \"b\": {\"c\": \"d\"}}"}}]});
        let mut probes = Probes::new("7130000");
        probes.replace(message.as_object_mut().expect("an object"), false);
        let number = |n: u32| format!("7130001{n:06}");
        let word = |n: u32| format!("weblora{}", number(n));
        assert_eq!(message["content"], format!(" <think>\n{}\n</think>\n {}", word(0), word(1)));
        assert_eq!((message["thinking"].as_str(), message["note"].as_str()), (Some(word(0).as_str()), Some("n")));
        assert_eq!(message["thought"], word(2));
        let function = &message["tool_calls"][0]["function"];
        assert_eq!(function["name"], word(3));
        let arguments = format!(r#"{{"a":["{}",{},{}.5,{},""],"b":{{"c":"{}"}}}}"#, word(4), number(5), number(6), number(7), word(8));
        assert_eq!(function["arguments"], arguments);
        let written: String = [0, 1, 2, 3, 5, 6, 7].iter().map(|n| number(*n) + " ").collect();
        let argument = |key: &str| (0, Lost::Argument("f".into(), key.into()));
        assert_eq!(probes.missing_in(&written), [argument("a"), argument("b")]);
    }

    #[test]
    fn marks_are_told_from_other_brackets() {
        let found = |text: &'static str| next_mark(text).map(|mark| &text[mark]);
        assert_eq!(found("a < b [ c <think>"), Some("<think>"));
        assert_eq!(found("[/THINK]"), Some("[/THINK]"));
        assert_eq!(found("<>[] <a b> <é>"), None);
        assert_eq!(found("x<|channel|>"), Some("<|channel|>"));
    }
}
