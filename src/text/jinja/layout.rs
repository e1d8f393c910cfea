//! Filters that lay text out in lines: `wordwrap` as Python's `textwrap`, `pprint` as its `pprint`.

use std::ops::Range;

use super::arguments::{Given, int_or};
use super::limits::{Res, fault};
use super::value::{Heap, Value};
use super::{print, sequences, text_methods};

/// `wordwrap(width, break_long_words, wrapstring, break_on_hyphens)`
pub(super) fn wordwrap(value: &Value, given: Given, heap: &Heap) -> Res<Value> {
    let [width, long, wrap, hyphens] = given.bind("wordwrap", ["width", "break_long_words", "wrapstring", "break_on_hyphens"])?;
    let text = text_methods::string(value)?;
    let width = usize::try_from(int_or(width.as_ref(), 79)?).unwrap_or(0);
    let truth = |value: Option<Value>| value.is_none_or(|value| value.truth());
    let (long, hyphens) = (truth(long), truth(hyphens));
    let wrap = wrap
        .filter(|wrap| !matches!(wrap, Value::None))
        .map_or(Ok("\n".into()), |wrap| print::text(&wrap, heap).map(|wrap| wrap.into_owned()))?;
    heap.budget.scan(wrap.len())?;
    let mut out = String::new();
    let lines = text_methods::call(text, "splitlines", Given::default(), heap)?.items(heap)?;
    if width == 0 && !lines.is_empty() {
        return Err(fault("wordwrap: the width must be above 0"));
    }
    for (i, line) in lines.iter().filter_map(Value::as_str).enumerate() {
        heap.budget.bytes(line.len().saturating_mul(16))?;
        let chars: Vec<char> = line.chars().collect();
        for (k, part) in lines_of(&chars, width, long, hyphens).into_iter().enumerate() {
            if k > 0 {
                heap.budget.push(&mut out, &wrap)?;
            }
            heap.budget.push(&mut out, &chars[part].iter().collect::<String>())?;
        }
        if i + 1 < lines.len() {
            heap.budget.push(&mut out, &wrap)?;
        }
    }
    heap.str(out)
}

/// The lines that a text without line breaks is wrapped into.
fn lines_of(chars: &[char], width: usize, long: bool, hyphens: bool) -> Vec<Range<usize>> {
    let blank = |chunk: &Range<usize>| chars[chunk.clone()].iter().all(|c| super::lexer::is_space(*c));
    let mut chunks = chunks(chars, hyphens).into_iter().peekable();
    let mut lines: Vec<Range<usize>> = Vec::new();
    while let Some(first) = chunks.peek() {
        if !lines.is_empty() && blank(first) {
            chunks.next();
        }
        let Some(start) = chunks.peek().map(|chunk| chunk.start) else { break };
        let mut last: Option<Range<usize>> = None;
        while let Some(chunk) = chunks.next_if(|chunk| chunk.end - start <= width) {
            last = Some(chunk);
        }
        let end = last.as_ref().map_or(start, |chunk| chunk.end);
        if let Some(chunk) = chunks.peek_mut().filter(|chunk| chunk.len() > width) {
            let space = width - (end - start);
            if long {
                let hyphen = chars[chunk.start..chunk.start + space].iter().rposition(|c| *c == '-').filter(|_| hyphens);
                let hyphen = hyphen.filter(|&at| chars[chunk.start..chunk.start + at].iter().any(|c| *c != '-'));
                let cut = chunk.start + hyphen.map_or(space, |at| at + 1);
                last = Some(chunk.start..cut);
                chunk.start = cut;
            } else if last.is_none() {
                last = chunks.next();
            }
        }
        let Some(last) = last else { continue };
        let end = if blank(&last) { last.start } else { last.end };
        if start < end {
            lines.push(start..end);
        }
    }
    lines
}

/// What a line can be broken between: white space, words, parts of words with hyphens, dashes.
fn chunks(chars: &[char], hyphens: bool) -> Vec<Range<usize>> {
    let is_blank = |at: usize| chars.get(at).is_some_and(|c| "\t\n\x0b\x0c\r ".contains(*c));
    let is_word = |at: usize| chars.get(at).is_some_and(|c| *c == '_' || c.is_alphanumeric());
    let is_letter = |at: Option<usize>| at.is_some_and(|at| is_word(at) && !chars[at].is_ascii_digit());
    let is_hyphen = |at: Option<usize>| at.and_then(|at| chars.get(at)) == Some(&'-');
    let before_dash = |at: usize| is_word(at) || chars.get(at).is_some_and(|c| "!\"'&.,?".contains(*c));
    // Where the run of hyphens ends that a character is in.
    let mut run_end: Vec<usize> = (0..=chars.len()).collect();
    for at in (0..chars.len()).rev().filter(|&at| chars[at] == '-') {
        run_end[at] = run_end[at + 1];
    }
    let dash = |at: usize| at > 0 && before_dash(at - 1) && run_end[at] >= at + 2 && is_word(run_end[at]);
    // A hyphen after two letters, or after a letter, a hyphen and a letter, and before two letters.
    let splits = |at: usize| {
        let back = |n: usize| at.checked_sub(n);
        let before = is_letter(back(1)) && (is_letter(back(2)) || (is_hyphen(back(2)) && is_letter(back(3))));
        let next = at + 1;
        let after = is_letter(Some(next)) && (is_letter(Some(next + 1)) || (is_hyphen(Some(next + 1)) && is_letter(Some(next + 2))));
        chars[at] == '-' && before && after
    };
    let mut found = Vec::new();
    let mut start = 0;
    while start < chars.len() {
        let mut end = start + 1;
        if is_blank(start) {
            while is_blank(end) {
                end += 1;
            }
        } else if hyphens && dash(start) {
            end = run_end[start];
        } else {
            while end < chars.len() && !is_blank(end) && !(hyphens && (splits(end) || dash(end))) {
                end += 1;
            }
            end += usize::from(hyphens && end < chars.len() && !is_blank(end) && splits(end));
        }
        found.push(start..end);
        start = end;
    }
    found
}

/// Width of what is pretty-printed.
const WIDTH: usize = 80;

/// `pprint`: Python's print of a value, dicts sorted by key, broken into lines where it is wide.
pub(super) fn pprint(value: &Value, heap: &Heap) -> Res<Value> {
    let mut out = String::new();
    pretty(&by_key(value, heap)?, 0, 0, true, &mut out, heap)?;
    heap.str(out)
}

/// The value with all its dicts in the order of their keys.
fn by_key(value: &Value, heap: &Heap) -> Res<Value> {
    let all = |items: &[Value]| items.iter().map(|item| by_key(item, heap)).collect::<Res<Vec<Value>>>();
    Ok(match value {
        Value::List(items) => heap.list(all(&items.items)?)?,
        Value::Tuple(items) => heap.tuple(all(&items.items)?)?,
        Value::Dict(dict) => {
            let mut entries = dict.entries().to_vec();
            if sequences::sort_by(&mut entries, heap, |(key, _)| key).is_err() {
                // Keys that have no order are ordered by their types.
                entries = dict.entries().to_vec();
                entries.sort_by_key(|(key, _)| key.type_name());
            }
            let entries = entries.into_iter().map(|(key, value)| Ok((key, by_key(&value, heap)?)));
            heap.dict(entries.collect::<Res<Vec<_>>>()?)?
        }
        other => other.clone(),
    })
}

fn repr(value: &Value, heap: &Heap) -> Res<String> {
    let mut out = String::new();
    print::repr(value, &mut out, heap, 0)?;
    Ok(out)
}

/// Writes a value that begins in column `indent` and has `allowance` columns of brackets behind it.
fn pretty(value: &Value, indent: usize, allowance: usize, outermost: bool, out: &mut String, heap: &Heap) -> Res<()> {
    let whole = repr(value, heap)?;
    if whole.chars().count() + indent + allowance <= WIDTH {
        return heap.budget.push(out, &whole);
    }
    let separator = |indent: usize| format!(",\n{}", " ".repeat(indent));
    match value {
        Value::Dict(dict) => {
            heap.budget.push(out, "{")?;
            let n = dict.entries().len();
            for (i, (key, value)) in dict.entries().iter().enumerate() {
                let key = repr(key, heap)?;
                heap.budget.push(out, &format!("{key}: "))?;
                let behind = if i + 1 == n { allowance + 1 } else { 1 };
                pretty(value, indent + key.chars().count() + 3, behind, false, out, heap)?;
                if i + 1 < n {
                    heap.budget.push(out, &separator(indent + 1))?;
                }
            }
            heap.budget.push(out, "}")
        }
        Value::List(items) | Value::Tuple(items) => {
            let n = items.items.len();
            let (open, close) = match value {
                Value::List(_) => ("[", "]"),
                _ => ("(", if n == 1 { ",)" } else { ")" }),
            };
            heap.budget.push(out, open)?;
            for (i, item) in items.items.iter().enumerate() {
                if i > 0 {
                    heap.budget.push(out, &separator(indent + 1))?;
                }
                pretty(item, indent + 1, if i + 1 == n { allowance + close.len() } else { 1 }, false, out, heap)?;
            }
            heap.budget.push(out, close)
        }
        Value::Str(text) => pretty_text(text, indent, allowance, outermost, out, heap),
        _ => heap.budget.push(out, &whole),
    }
}

/// A string as several, one a line; in brackets where it stands alone.
fn pretty_text(text: &str, indent: usize, allowance: usize, alone: bool, out: &mut String, heap: &Heap) -> Res<()> {
    let (indent, allowance) = (indent + usize::from(alone), allowance + usize::from(alone));
    let width = |text: &str| repr(&Value::Str(text.into()), heap).map(|text| (text.chars().count(), text));
    let room = WIDTH.saturating_sub(indent);
    let lines = text_methods::call(text, "splitlines", Given::of(vec![Value::Bool(true)]), heap)?.items(heap)?;
    let mut chunks: Vec<String> = Vec::new();
    for (i, line) in lines.iter().filter_map(Value::as_str).enumerate() {
        let last = i + 1 == lines.len();
        let narrow = |last: bool| if last { room.saturating_sub(allowance) } else { room };
        let (wide, whole) = width(line)?;
        if wide <= narrow(last) {
            chunks.push(whole);
            continue;
        }
        let (mut start, mut end) = (0, 0);
        while end < line.len() {
            let word = line[end..].trim_start_matches(|c| !super::lexer::is_space(c)).trim_start_matches(super::lexer::is_space);
            let next = line.len() - word.len();
            if start < end && width(&line[start..next])?.0 > narrow(last && next == line.len()) {
                chunks.push(width(&line[start..end])?.1);
                start = end;
            }
            end = next;
        }
        chunks.push(width(&line[start..])?.1);
    }
    let bracket = |bracket: &'static str| if alone && chunks.len() > 1 { bracket } else { "" };
    heap.budget.push(out, bracket("("))?;
    heap.budget.push(out, &chunks.join(&format!("\n{}", " ".repeat(indent))))?;
    heap.budget.push(out, bracket(")"))
}
