//! How Python prints values: `str`, `repr`, and floats.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::limits::{Res, fault};
use super::value::{Heap, Value};

/// Deepest nesting that is printed; only namespaces, which may hold themselves, get there.
const DEPTH: usize = 300;

/// Python's `str`.
pub(super) fn text<'v>(value: &'v Value, heap: &Heap) -> Res<Cow<'v, str>> {
    match value {
        Value::Str(text) => Ok(Cow::Borrowed(text)),
        Value::Undefined(_) => Ok(Cow::Borrowed("")),
        other => {
            let mut out = String::new();
            repr(other, &mut out, heap, 0)?;
            Ok(Cow::Owned(out))
        }
    }
}

/// Python's `repr`.
pub(super) fn repr(value: &Value, out: &mut String, heap: &Heap, depth: usize) -> Res<()> {
    if depth > DEPTH {
        return Err(fault(format!("a value that is nested deeper than the limit of {DEPTH} is printed; does a namespace hold itself?")));
    }
    heap.budget.steps(1)?;
    let mut push = |text: &str| heap.budget.push(out, text);
    match value {
        Value::Undefined(_) => push("Undefined"),
        Value::None => push("None"),
        Value::Bool(value) => push(if *value { "True" } else { "False" }),
        Value::Int(value) => push(&value.to_string()),
        Value::Float(value) => push(&float(*value)),
        Value::Str(text) => quoted(text, out, heap),
        Value::List(items) => many('[', ']', items.items.iter(), out, heap, |item, out| repr(item, out, heap, depth + 1)),
        Value::Tuple(items) if items.items.len() == 1 => {
            push("(")?;
            repr(&items.items[0], out, heap, depth + 1)?;
            heap.budget.push(out, ",)")
        }
        Value::Tuple(items) => many('(', ')', items.items.iter(), out, heap, |item, out| repr(item, out, heap, depth + 1)),
        Value::Dict(dict) => entries(dict.entries(), out, heap, depth),
        Value::Range(start, end, 1) => push(&format!("range({start}, {end})")),
        Value::Range(start, end, step) => push(&format!("range({start}, {end}, {step})")),
        Value::Namespace(place) => {
            push("<Namespace ")?;
            if let Some(dict) = heap.namespaces.borrow().get(*place) {
                entries(dict.entries(), out, heap, depth)?;
            }
            heap.budget.push(out, ">")
        }
        Value::Iterator(_)
        | Value::Macro(_)
        | Value::Loop(_)
        | Value::Function(_)
        | Value::Method(_)
        | Value::Cycler(..)
        | Value::Joiner(..) => push(&format!("<{}>", value.type_name())),
    }
}

fn entries(entries: &[(Value, Value)], out: &mut String, heap: &Heap, depth: usize) -> Res<()> {
    many('{', '}', entries.iter(), out, heap, |(key, value), out| {
        repr(key, out, heap, depth + 1)?;
        heap.budget.push(out, ": ")?;
        repr(value, out, heap, depth + 1)
    })
}

fn many<T>(
    open: char,
    close: char,
    items: impl Iterator<Item = T>,
    out: &mut String,
    heap: &Heap,
    mut write: impl FnMut(T, &mut String) -> Res<()>,
) -> Res<()> {
    heap.budget.repeat(out, open, 1)?;
    for (i, item) in items.enumerate() {
        if i > 0 {
            heap.budget.push(out, ", ")?;
        }
        write(item, out)?;
    }
    heap.budget.repeat(out, close, 1)
}

/// A string in quotes, with Python's choice of quotes and escapes.
fn quoted(text: &str, out: &mut String, heap: &Heap) -> Res<()> {
    heap.budget.steps(text.len() / 8)?;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut made = String::with_capacity(text.len() + 2);
    made.push(quote);
    for c in text.chars() {
        match c {
            '\n' => made.push_str("\\n"),
            '\r' => made.push_str("\\r"),
            '\t' => made.push_str("\\t"),
            '\\' => made.push_str("\\\\"),
            c if c == quote => {
                made.push('\\');
                made.push(c);
            }
            c if is_printable(c) => made.push(c),
            c => {
                let code = c as u32;
                // Writing to a string cannot fail.
                let _ = match code {
                    0..=0xff => write!(made, "\\x{code:02x}"),
                    0x100..=0xffff => write!(made, "\\u{code:04x}"),
                    _ => write!(made, "\\U{code:08x}"),
                };
            }
        }
    }
    made.push(quote);
    heap.budget.push(out, &made)
}

/// Python's `str.isprintable` of one character.
pub(super) fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // Rust escapes in its debug form what cannot be printed, and a combining mark only at the start.
    let mut text = [b'a'; 5];
    let length = 1 + c.encode_utf8(&mut text[1..]).len();
    let escaped = std::str::from_utf8(&text[..length]).is_ok_and(|text| text.escape_debug().nth(1) == Some('\\'));
    !c.is_whitespace() && !escaped
}

/// A float as Python prints it: the shortest digits that read back the same.
pub(super) fn float(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "nan".into()
        } else if value > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
