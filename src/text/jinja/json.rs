//! The filter `tojson` as Hugging Face defines it: Python's `json.dumps` without HTML escapes, `ensure_ascii=False` by default.

use std::fmt::Write as _;

use super::arguments::Given;
use super::limits::{self, Res, fault};
use super::print;
use super::value::{Heap, Value};

struct Style {
    /// What one level is indented by; `None` writes all on one line.
    indent: Option<String>,
    ensure_ascii: bool,
    sort_keys: bool,
    item_separator: String,
    key_separator: String,
}

/// `value|tojson(ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn tojson(value: &Value, given: Given, heap: &Heap) -> Res<Value> {
    let [ensure_ascii, indent, separators, sort_keys] = given.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let truth = |value: &Option<Value>| value.as_ref().is_some_and(Value::truth);
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => {
            heap.budget.scan(text.len())?;
            Some(text.to_string())
        }
        Some(other) => {
            let width = other.as_int().ok_or_else(|| fault(format!("tojson: indent is a {}, expected a number", other.type_name())))?;
            let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
            if width > limits::INDENT {
                return Err(fault(format!("tojson: indent {width} is above the limit of {}", limits::INDENT)));
            }
            Some(" ".repeat(width))
        }
    };
    let (item_separator, key_separator) = match separators {
        None | Some(Value::None) => ((if indent.is_some() { "," } else { ", " }).to_owned(), ": ".to_owned()),
        Some(pair) => match pair.items(heap)?.as_slice() {
            [Value::Str(item), Value::Str(key)] => {
                heap.budget.scan(item.len() + key.len())?;
                (item.to_string(), key.to_string())
            }
            _ => return Err(fault("tojson: separators are two strings, between items and after keys")),
        },
    };
    let style = Style { indent, ensure_ascii: truth(&ensure_ascii), sort_keys: truth(&sort_keys), item_separator, key_separator };
    let mut out = String::new();
    style.dump(value, 0, &mut out, heap)?;
    Ok(Value::Str(out.into()))
}

impl Style {
    fn dump(&self, value: &Value, level: usize, out: &mut String, heap: &Heap) -> Res<()> {
        heap.budget.steps(1)?;
        match value {
            Value::None => heap.budget.push(out, "null"),
            Value::Bool(value) => heap.budget.push(out, if *value { "true" } else { "false" }),
            Value::Int(value) => heap.budget.push(out, &value.to_string()),
            Value::Float(value) => heap.budget.push(out, &float(*value)),
            Value::Str(text) => self.string(text, out, heap),
            Value::List(items) | Value::Tuple(items) => {
                self.list('[', ']', items.items.iter(), level, out, heap, |item, out| self.dump(item, level + 1, out, heap))
            }
            Value::Dict(dict) => {
                let mut entries: Vec<&(Value, Value)> = dict.entries().iter().collect();
                if self.sort_keys {
                    super::sequences::sort_by(&mut entries, heap, |entry| &entry.0)?;
                }
                self.list('{', '}', entries.into_iter(), level, out, heap, |(key, item), out| {
                    self.string(&key_text(key)?, out, heap)?;
                    heap.budget.push(out, &self.key_separator)?;
                    self.dump(item, level + 1, out, heap)
                })
            }
            other => Err(fault(format!("tojson: an object of type {} is not JSON serializable", other.type_name()))),
        }
    }

    fn list<T>(
        &self,
        open: char,
        close: char,
        items: impl ExactSizeIterator<Item = T>,
        level: usize,
        out: &mut String,
        heap: &Heap,
        mut write: impl FnMut(T, &mut String) -> Res<()>,
    ) -> Res<()> {
        heap.budget.repeat(out, open, 1)?;
        let empty = items.len() == 0;
        for (i, item) in items.enumerate() {
            if i > 0 {
                heap.budget.push(out, &self.item_separator)?;
            }
            self.new_line(level + 1, out, heap)?;
            write(item, out)?;
        }
        if !empty {
            self.new_line(level, out, heap)?;
        }
        heap.budget.repeat(out, close, 1)
    }

    fn new_line(&self, level: usize, out: &mut String, heap: &Heap) -> Res<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        heap.budget.push(out, "\n")?;
        heap.budget.steps(level / 8)?;
        (0..level).try_for_each(|_| heap.budget.push(out, indent))
    }

    fn string(&self, text: &str, out: &mut String, heap: &Heap) -> Res<()> {
        heap.budget.steps(text.len() / 8)?;
        let mut made = String::with_capacity(text.len() + 2);
        made.push('"');
        for c in text.chars() {
            // Writing to a string cannot fail.
            let _ = match c {
                '"' => made.write_str("\\\""),
                '\\' => made.write_str("\\\\"),
                '\n' => made.write_str("\\n"),
                '\r' => made.write_str("\\r"),
                '\t' => made.write_str("\\t"),
                '\x08' => made.write_str("\\b"),
                '\x0c' => made.write_str("\\f"),
                '\0'..='\x1f' => write!(made, "\\u{:04x}", c as u32),
                ' '..='~' => made.write_char(c),
                _ if self.ensure_ascii => {
                    let mut units = [0; 2];
                    c.encode_utf16(&mut units).iter().try_for_each(|unit| write!(made, "\\u{unit:04x}"))
                }
                _ => made.write_char(c),
            };
        }
        made.push('"');
        heap.budget.push(out, &made)
    }
}

fn float(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        print::float(value)
    }
}

fn key_text(key: &Value) -> Res<String> {
    Ok(match key {
        Value::Str(text) => text.to_string(),
        Value::None => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => float(*value),
        other => return Err(fault(format!("tojson: keys must be strings or numbers, not {}", other.type_name()))),
    })
}
