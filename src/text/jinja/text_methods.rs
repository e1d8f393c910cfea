//! Methods of Python's `str`.

use std::collections::HashSet;

use super::arguments::{Given, int_or};
use super::lexer::is_space;
use super::limits::{Res, fault};
use super::print;
use super::value::{Heap, Value};

/// Calls one of the methods that `str` has.
pub(super) fn call(text: &str, name: &str, given: Given, heap: &Heap) -> Res<Value> {
    heap.budget.scan(text.len())?;
    match name {
        "lower" | "upper" | "casefold" | "capitalize" | "title" | "swapcase" => {
            given.exactly(name, [])?;
            heap.budget.text(text.len().saturating_mul(3))?;
            heap.str(cased(text, name))
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = given.bind(name, ["chars"])?;
            heap.str(strip(text, chars.as_ref(), name != "rstrip", name != "lstrip", heap)?)
        }
        "split" | "rsplit" => {
            let [sep, maxsplit] = given.bind(name, ["sep", "maxsplit"])?;
            let limit = usize::try_from(int_or(maxsplit.as_ref(), -1)?).unwrap_or(usize::MAX);
            match sep {
                None | Some(Value::None) => pieces(split_spaces(text, limit, name == "rsplit", heap)?.into_iter(), heap),
                Some(sep) => split(text, nonempty(&sep)?, limit, name == "rsplit", heap),
            }
        }
        "splitlines" => {
            let [keepends] = given.bind(name, ["keepends"])?;
            pieces(lines(text, keepends.is_some_and(|keep| keep.truth()), heap)?.into_iter(), heap)
        }
        "startswith" | "endswith" | "count" | "find" | "rfind" | "index" | "rindex" => search(text, name, given, heap),
        "replace" => {
            let [old, new, count] = given.bind(name, ["old", "new", "count"])?;
            let (Some(old), Some(new)) = (old, new) else { return Err(fault("replace needs two strings")) };
            replace(text, string(&old)?, string(&new)?, int_or(count.as_ref(), -1)?, heap)
        }
        "partition" | "rpartition" => {
            let [sep] = given.exactly(name, ["sep"])?;
            let sep = nonempty(&sep)?;
            heap.budget.scan(2 * (text.len() + sep.len()))?;
            let parts = match (name, text.find(sep), text.rfind(sep)) {
                ("partition", Some(at), _) | ("rpartition", _, Some(at)) => [&text[..at], sep, &text[at + sep.len()..]],
                ("partition", ..) => [text, "", ""],
                _ => ["", "", text],
            };
            heap.tuple(parts.into_iter().map(|part| heap.str(part)).collect::<Res<_>>()?)
        }
        "removeprefix" | "removesuffix" => {
            let [part] = given.exactly(name, ["part"])?;
            let part = string(&part)?;
            heap.budget.scan(part.len().min(text.len()))?;
            let rest = if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            heap.str(rest.unwrap_or(text))
        }
        "join" => {
            let [items] = given.exactly(name, ["iterable"])?;
            let mut out = String::new();
            for (i, item) in items.items(heap)?.iter().enumerate() {
                if i > 0 {
                    heap.budget.push(&mut out, text)?;
                }
                heap.budget.push(&mut out, string(item)?)?;
            }
            Ok(Value::Str(out.into()))
        }
        "center" | "ljust" | "rjust" | "zfill" => padded(text, name, given, heap),
        "expandtabs" => {
            let [size] = given.bind(name, ["tabsize"])?;
            expand_tabs(text, int_or(size.as_ref(), 8)?, heap)
        }
        "format" => super::printf::str_format(text, given, heap),
        _ => {
            given.exactly(name, [])?;
            Ok(Value::Bool(is(text, name)))
        }
    }
}

pub(super) fn string(value: &Value) -> Res<&str> {
    match value {
        Value::Undefined(what) => Err(fault(&**what)),
        other => other.as_str().ok_or_else(|| fault(format!("expected a string, found a {}", other.type_name()))),
    }
}

fn nonempty(value: &Value) -> Res<&str> {
    match string(value)? {
        "" => Err(fault("empty separator")),
        text => Ok(text),
    }
}

/// Text in the case that a method is named after.
pub(super) fn cased(text: &str, name: &str) -> String {
    match name {
        "lower" => text.to_lowercase(),
        "casefold" => text.to_lowercase().replace('ß', "ss"),
        "upper" => text.to_uppercase(),
        "capitalize" => {
            let mut chars = text.chars();
            chars.next().map(|first| first.to_uppercase().collect::<String>() + &chars.as_str().to_lowercase()).unwrap_or_default()
        }
        "swapcase" => {
            let swap = |c: char| if c.is_uppercase() { c.to_lowercase().collect::<String>() } else { c.to_uppercase().collect() };
            text.chars().map(swap).collect()
        }
        _ => {
            let mut after_letter = false;
            let mut out = String::with_capacity(text.len());
            for c in text.chars() {
                if after_letter {
                    out.extend(c.to_lowercase());
                } else {
                    out.extend(c.to_uppercase());
                }
                after_letter = c.is_alphabetic();
            }
            out
        }
    }
}

/// Without white space, or without the characters given, at the sides wanted.
pub(super) fn strip<'t>(text: &'t str, chars: Option<&Value>, start: bool, end: bool, heap: &Heap) -> Res<&'t str> {
    let chars: Option<HashSet<char>> = match chars {
        None | Some(Value::None) => None,
        Some(chars) => {
            let chars = string(chars)?;
            heap.budget.steps((text.len() + chars.len()) / 4)?;
            Some(chars.chars().collect())
        }
    };
    let gone = |c: char| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.contains(&c));
    let text = if start { text.trim_start_matches(gone) } else { text };
    Ok(if end { text.trim_end_matches(gone) } else { text })
}

/// A list of texts, each counted before it is made.
fn pieces<'t>(parts: impl Iterator<Item = &'t str>, heap: &Heap) -> Res<Value> {
    let mut list = Vec::new();
    for part in parts {
        heap.budget.piece(size_of::<Value>())?;
        list.push(heap.str(part)?);
    }
    heap.list(list)
}

fn split(text: &str, sep: &str, limit: usize, from_end: bool, heap: &Heap) -> Res<Value> {
    heap.budget.scan(text.len() + sep.len())?;
    if limit == usize::MAX {
        return pieces(text.split(sep), heap);
    }
    if !from_end {
        return pieces(text.splitn(limit + 1, sep), heap);
    }
    let mut parts = Vec::new();
    for part in text.rsplitn(limit + 1, sep) {
        heap.budget.piece(0)?;
        parts.push(part);
    }
    pieces(parts.into_iter().rev(), heap)
}

fn split_spaces<'t>(text: &'t str, limit: usize, from_end: bool, heap: &Heap) -> Res<Vec<&'t str>> {
    let trimmed = |text: &'_ str| -> usize {
        if from_end { text.trim_end_matches(is_space).len() } else { text.len() - text.trim_start_matches(is_space).len() }
    };
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let at = trimmed(rest);
        rest = if from_end { &rest[..at] } else { &rest[at..] };
        if rest.is_empty() {
            break;
        }
        heap.budget.piece(0)?;
        let cut = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = cut.filter(|_| parts.len() < limit) else {
            // At the limit, the other end keeps its spaces.
            parts.push(rest);
            break;
        };
        if from_end {
            let space = rest[at..].chars().next().map_or(1, char::len_utf8);
            parts.push(&rest[at + space..]);
            rest = &rest[..at];
        } else {
            parts.push(&rest[..at]);
            rest = &rest[at..];
        }
    }
    if from_end {
        parts.reverse();
    }
    Ok(parts)
}

fn lines<'t>(text: &'t str, keep_ends: bool, heap: &Heap) -> Res<Vec<&'t str>> {
    let ends = |c: char| matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends) {
        heap.budget.piece(0)?;
        let end = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        lines.push(&rest[..if keep_ends { at + end } else { at }]);
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    Ok(lines)
}

/// `startswith`, `endswith`, `count`, `find` and their kind, with Python's optional start and end.
fn search(text: &str, name: &str, given: Given, heap: &Heap) -> Res<Value> {
    let [part, start, end] = given.bind(name, ["part", "start", "end"])?;
    let part = part.ok_or_else(|| fault(format!("{name} needs a string")))?;
    let whole = Value::Str(text.into());
    let length = whole.length(heap)?.unwrap_or(0) as i128;
    let from = match int_or(start.as_ref().filter(|v| !matches!(v, Value::None)), 0)? {
        from if from < 0 => (from + length).max(0),
        from => from,
    };
    let window = if start.is_some() || end.is_some() { super::lookup::slice(&whole, [start, end, None], heap)? } else { whole };
    let text = window.as_str().unwrap_or_default();
    if let ("startswith" | "endswith", Value::Tuple(parts)) = (name, &part) {
        for part in &parts.items {
            let part = string(part)?;
            heap.budget.steps(1 + part.len().min(text.len()) / 64)?;
            if if name == "startswith" { text.starts_with(part) } else { text.ends_with(part) } {
                return Ok(Value::Bool(true));
            }
        }
        return Ok(Value::Bool(false));
    }
    let part = string(&part)?;
    heap.budget.scan(text.len() + part.len())?;
    let found = match name {
        "startswith" => return Ok(Value::Bool(from <= length && text.starts_with(part))),
        "endswith" => return Ok(Value::Bool(from <= length && text.ends_with(part))),
        "count" if part.is_empty() => return Ok(Value::Int(if from <= length { text.chars().count() as i128 + 1 } else { 0 })),
        "count" => return Ok(Value::Int(text.matches(part).count() as i128)),
        "find" | "index" => text.find(part),
        _ => text.rfind(part),
    };
    match found.filter(|_| from <= length) {
        Some(at) => Ok(Value::Int(from + text[..at].chars().count() as i128)),
        None if name.ends_with("index") => Err(fault("substring not found")),
        None => Ok(Value::Int(-1)),
    }
}

/// Python's `replace`: an empty `old` is found before every character and at the end.
pub(super) fn replace(text: &str, old: &str, new: &str, count: i128, heap: &Heap) -> Res<Value> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    heap.budget.scan(2 * (text.len() + old.len()))?;
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() }.min(count);
    heap.budget.text(text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(Value::Str(text.replacen(old, new, count).into()))
}

fn padded(text: &str, name: &str, given: Given, heap: &Heap) -> Res<Value> {
    let [width, fill] = given.bind(name, ["width", "fillchar"])?;
    let fill = match &fill {
        None => ' ',
        Some(fill) => {
            let mut chars = string(fill)?.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => c,
                _ => return Err(fault("the fill character must be exactly one character long")),
            }
        }
    };
    let width = usize::try_from(int_or(width.as_ref(), 0)?).unwrap_or(0);
    let missing = width.saturating_sub(text.chars().count());
    let mut out = String::new();
    match name {
        "zfill" => {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            heap.budget.push(&mut out, sign)?;
            heap.budget.repeat(&mut out, '0', missing)?;
            heap.budget.push(&mut out, digits)?;
        }
        _ => {
            let left = match name {
                "ljust" => 0,
                "rjust" => missing,
                _ => missing / 2 + (missing & width & 1),
            };
            heap.budget.repeat(&mut out, fill, left)?;
            heap.budget.push(&mut out, text)?;
            heap.budget.repeat(&mut out, fill, missing - left)?;
        }
    }
    Ok(Value::Str(out.into()))
}

fn expand_tabs(text: &str, size: i128, heap: &Heap) -> Res<Value> {
    let size = usize::try_from(size).unwrap_or(0);
    let mut out = String::new();
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' if size == 0 => {}
            '\t' => {
                heap.budget.repeat(&mut out, ' ', size - column % size)?;
                column = 0;
            }
            _ => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') { 0 } else { (column + 1) % size.max(1) };
            }
        }
    }
    heap.str(out)
}

/// Python's `str.is…`.
fn is(text: &str, name: &str) -> bool {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    let cased = |wanted: fn(char) -> bool, other: fn(char) -> bool| text.chars().any(wanted) && !text.chars().any(other);
    match name {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => text.is_ascii(),
        "isdecimal" | "isdigit" => all(|c| c.is_numeric() && c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric())),
        "isnumeric" => all(char::is_numeric),
        "islower" => cased(char::is_lowercase, char::is_uppercase),
        "isupper" => cased(char::is_uppercase, char::is_lowercase),
        "isspace" => all(is_space),
        "isprintable" => text.chars().all(print::is_printable),
        _ => text.chars().any(char::is_alphabetic) && cased_title(text),
    }
}

fn cased_title(text: &str) -> bool {
    let mut after_letter = false;
    text.chars().all(|c| {
        let fits = if c.is_uppercase() {
            !after_letter
        } else if c.is_lowercase() {
            after_letter
        } else {
            true
        };
        after_letter = c.is_uppercase() || c.is_lowercase();
        fits
    })
}
