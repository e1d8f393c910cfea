//! What chat templates expect of Python: `json.dumps`, and how `True`, `False` and `None` print.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};

/// Prints a value into the text as Python's `str` does.
pub(super) fn print(out: &mut Output, state: &State, value: &Value) -> Result<(), Error> {
    let word = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(word).map_err(Error::from)
}

/// The filter `tojson` as Hugging Face defines it: `json.dumps` without HTML escapes and with `ensure_ascii=False`.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let json = serde_json::to_value(value).map_err(|e| Error::new(ErrorKind::BadSerialization, format!("tojson: {e}")))?;
    let style = Style { indent, ensure_ascii: ensure_ascii.unwrap_or(false), sort_keys: sort_keys.unwrap_or(false) };
    let mut text = String::new();
    style.dump(&json, 0, &mut text);
    Ok(text)
}

struct Style {
    indent: Option<usize>,
    ensure_ascii: bool,
    sort_keys: bool,
}

impl Style {
    fn dump(&self, value: &serde_json::Value, level: usize, out: &mut String) {
        match value {
            serde_json::Value::Array(items) => {
                self.list('[', ']', items.iter(), level, out, |item, out| self.dump(item, level + 1, out));
            }
            serde_json::Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sort_keys {
                    entries.sort_by_key(|(key, _)| *key);
                }
                self.list('{', '}', entries.into_iter(), level, out, |(key, item), out| {
                    self.string(key, out);
                    out.push_str(": ");
                    self.dump(item, level + 1, out);
                });
            }
            serde_json::Value::String(text) => self.string(text, out),
            other => out.push_str(&other.to_string()),
        }
    }

    fn list<T>(
        &self,
        open: char,
        close: char,
        items: impl ExactSizeIterator<Item = T>,
        level: usize,
        out: &mut String,
        mut write: impl FnMut(T, &mut String),
    ) {
        out.push(open);
        let empty = items.len() == 0;
        for (i, item) in items.enumerate() {
            if i > 0 {
                out.push_str(if self.indent.is_some() { "," } else { ", " });
            }
            self.new_line(level + 1, out);
            write(item, out);
        }
        if !empty {
            self.new_line(level, out);
        }
        out.push(close);
    }

    fn new_line(&self, level: usize, out: &mut String) {
        if let Some(width) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * level));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        // serde_json escapes exactly what json.dumps escapes, DEL excepted by both.
        let quoted = serde_json::Value::String(text.to_owned()).to_string();
        if !self.ensure_ascii {
            out.push_str(&quoted);
            return;
        }
        for c in quoted.chars() {
            if c.is_ascii() {
                out.push(c);
            } else {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            }
        }
    }
}
