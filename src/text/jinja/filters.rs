//! Jinja2's filters. Those on sequences are in `sequences.rs`.

use super::arguments::{Given, int_or};
use super::limits::{Res, fault};
use super::run::Run;
use super::text_methods::{self, cased};
use super::value::{Heap, Value};
use super::{json, layout, limits, lookup, markup, operators, print, printf, sequences};

/// The names of all filters, for the test of that name.
#[rustfmt::skip]
pub(super) const NAMES: &[&str] = &[
    "abs", "attr", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape", "filesizeformat", "first", "float",
    "forceescape", "format", "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "pprint", "random",
    "reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "slice", "sort", "string", "striptags", "sum", "title",
    "tojson", "trim", "truncate", "unique", "upper", "urlencode", "urlize", "wordcount", "wordwrap", "xmlattr",
];

impl Run<'_> {
    pub(super) fn filter(&mut self, name: &str, value: Value, given: Given) -> Res<Value> {
        self.heap.budget.steps(1)?;
        match name {
            "map" | "select" | "reject" | "selectattr" | "rejectattr" => return self.picked(name, &value, given),
            "tojson" => return json::tojson(&value, given, &self.heap),
            "format" => return format_filter(&value, given, &self.heap),
            "d" | "default" => {
                let [default, boolean] = given.bind(name, ["default_value", "boolean"])?;
                let replace = value.is_undefined() || (boolean.is_some_and(|b| b.truth()) && !value.truth());
                return Ok(if replace { default.unwrap_or_else(|| Value::Str("".into())) } else { value });
            }
            _ => {}
        }
        if let Some(result) = text_filter(name, &value, given.clone(), &self.heap)? {
            return Ok(result);
        }
        if let Some(result) = number_filter(name, &value, given.clone(), &self.heap)? {
            return Ok(result);
        }
        if let Some(result) = markup::filter(name, &value, given.clone(), &self.heap)? {
            return Ok(result);
        }
        match sequences::filter(name, &value, given, &self.heap)? {
            Some(result) => Ok(result),
            None if name == "random" => Err(fault("the filter \"random\" would make other text each time")),
            None => Err(fault(format!("unknown filter {name:?}"))),
        }
    }

    /// `map`, `select` and their kind, which call a filter or a test for each item.
    fn picked(&mut self, name: &str, value: &Value, given: Given) -> Res<Value> {
        // What is false has no items, also where it cannot be gone over.
        let items = if value.truth() { value.items(&self.heap)? } else { Vec::new() };
        // Each call gets arguments of its own.
        self.heap.budget.steps(items.len().saturating_mul(given.positional.len() + given.named.len()) / 4)?;
        let mut given = given;
        let first = |given: &mut Given| (!given.positional.is_empty()).then(|| given.positional.remove(0));
        if name == "map" {
            if given.positional.is_empty() {
                let [attribute, default] = given.bind(name, ["attribute", "default"])?;
                let attribute = attribute.ok_or_else(|| fault("map requires a filter argument"))?;
                let mut mapped = Vec::new();
                for item in &items {
                    let default = default.as_ref().filter(|v| !matches!(v, Value::None));
                    mapped.push(sequences::path_or(item, &attribute, default, &self.heap)?);
                }
                return self.heap.iterator(mapped);
            }
            let filter = first(&mut given).unwrap_or(Value::None);
            let filter = filter.as_str().ok_or_else(|| fault("map needs a filter's name"))?;
            let mapped = items.into_iter().map(|item| self.filter(filter, item, given.clone())).collect::<Res<_>>()?;
            return self.heap.iterator(mapped);
        }
        let attribute = if name.ends_with("attr") {
            Some(first(&mut given).ok_or_else(|| fault("missing parameter for attribute name"))?)
        } else {
            None
        };
        let test = first(&mut given);
        let wanted = name.starts_with("select");
        let mut chosen = Vec::new();
        for item in items {
            let subject = match &attribute {
                Some(attribute) => sequences::path(&item, attribute, &self.heap)?,
                None => item.clone(),
            };
            let holds = match &test {
                None => subject.truth(),
                Some(test) => {
                    let test = test.as_str().ok_or_else(|| fault(format!("{name} needs a test's name")))?;
                    self.test(test, &subject, given.clone())?
                }
            };
            if holds == wanted {
                chosen.push(item);
            }
        }
        self.heap.iterator(chosen)
    }
}

fn format_filter(value: &Value, given: Given, heap: &Heap) -> Res<Value> {
    let format = print::text(value, heap)?;
    let values = if given.named.is_empty() {
        heap.tuple(given.positional)?
    } else {
        heap.dict(given.named.into_iter().map(|(name, value)| (Value::Str(name), value)))?
    };
    printf::format(&format, &values, heap)
}

fn text_filter(name: &str, value: &Value, given: Given, heap: &Heap) -> Res<Option<Value>> {
    let text = || {
        let text = print::text(value, heap)?;
        heap.budget.scan(text.len())?;
        Ok(text)
    };
    Ok(Some(match name {
        "lower" | "upper" | "capitalize" => {
            given.exactly(name, [])?;
            heap.str(cased(&text()?, name))?
        }
        "title" => {
            given.exactly(name, [])?;
            heap.str(title(&text()?))?
        }
        "string" | "safe" => {
            given.exactly(name, [])?;
            heap.str(text()?)?
        }
        "trim" => {
            let [chars] = given.bind(name, ["chars"])?;
            heap.str(text_methods::strip(&text()?, chars.as_ref(), true, true, heap)?)?
        }
        "replace" => {
            let [old, new, count] = given.bind(name, ["old", "new", "count"])?;
            let (Some(old), Some(new)) = (old, new) else { return Err(fault("replace needs two strings")) };
            let count = int_or(count.as_ref().filter(|v| !matches!(v, Value::None)), -1)?;
            text_methods::replace(&text()?, &print::text(&old, heap)?, &print::text(&new, heap)?, count, heap)?
        }
        "striptags" => heap.str(strip_tags(&text()?))?,
        "center" => {
            let [width] = given.bind(name, ["width"])?;
            let width = Value::Int(int_or(width.as_ref(), 80)?);
            text_methods::call(&text()?, "center", Given::of(vec![width]), heap)?
        }
        "indent" => indent(text_methods::string(value)?, given, heap)?,
        "truncate" => match value {
            // A short list, or nothing, stays as it is.
            Value::Str(text) => truncate(text, given, heap)?,
            other if other.length(heap)?.is_some() => other.clone(),
            other => truncate(text_methods::string(other)?, given, heap)?,
        },
        "wordwrap" => layout::wordwrap(value, given, heap)?,
        "pprint" => {
            given.exactly(name, [])?;
            layout::pprint(value, heap)?
        }
        "wordcount" => {
            let is_word = |c: char| c == '_' || c.is_alphanumeric();
            Value::Int(text()?.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count() as i128)
        }
        _ => return Ok(None),
    }))
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        start = super::lexer::is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    }
    out
}

fn strip_tags(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let Some(end) = rest[at..].find('>') else { break };
        out.push_str(&rest[..at]);
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    let mut joined = String::with_capacity(out.len());
    for word in out.split(super::lexer::is_space).filter(|word| !word.is_empty()) {
        joined.push_str(if joined.is_empty() { "" } else { " " });
        joined.push_str(word);
    }
    joined
}

fn indent(text: &str, given: Given, heap: &Heap) -> Res<Value> {
    let [width, first, blank] = given.bind("indent", ["width", "first", "blank"])?;
    let indention = match width {
        Some(Value::Str(text)) => {
            heap.budget.scan(text.len())?;
            text.to_string()
        }
        width => {
            let width = usize::try_from(int_or(width.as_ref(), 4)?.max(0)).unwrap_or(usize::MAX);
            if width > limits::INDENT {
                return Err(fault(format!("indent {width} is above the limit of {}", limits::INDENT)));
            }
            " ".repeat(width)
        }
    };
    let truth = |value: Option<Value>| value.is_some_and(|value| value.truth());
    let (first, blank) = (truth(first), truth(blank));
    let ended = format!("{text}\n");
    let lines = Value::Str(ended.into());
    let lines = text_methods::call(lines.as_str().unwrap_or_default(), "splitlines", Given::default(), heap)?.items(heap)?;
    let mut out = String::new();
    for (i, line) in lines.iter().filter_map(Value::as_str).enumerate() {
        if i > 0 {
            heap.budget.push(&mut out, "\n")?;
        }
        if if i == 0 { first } else { blank || !line.is_empty() } {
            heap.budget.push(&mut out, &indention)?;
        }
        heap.budget.push(&mut out, line)?;
    }
    Ok(Value::Str(out.into()))
}

fn truncate(text: &str, given: Given, heap: &Heap) -> Res<Value> {
    let [length, killwords, end, leeway] = given.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let count = |value: Option<Value>, default| Ok(usize::try_from(int_or(value.as_ref(), default)?).unwrap_or(0));
    let (length, leeway) = (count(length, 255)?, count(leeway.filter(|v| !matches!(v, Value::None)), 5)?);
    let end = end.map_or(Ok("...".into()), |end| print::text(&end, heap).map(std::borrow::Cow::into_owned))?;
    heap.budget.scan(text.len() + end.len())?;
    let kept = length.checked_sub(end.chars().count()).ok_or_else(|| fault("truncate: the length is shorter than the end"))?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return heap.str(text);
    }
    let head: String = text.chars().take(kept).collect();
    let head = match head.rsplit_once(' ') {
        Some((words, _)) if !killwords.is_some_and(|kill| kill.truth()) => words,
        _ => &head,
    };
    heap.str(format!("{head}{end}"))
}

fn number_filter(name: &str, value: &Value, given: Given, heap: &Heap) -> Res<Option<Value>> {
    let read = || heap.budget.scan(value.as_str().map_or(0, str::len));
    Ok(Some(match name {
        "int" => {
            let [default, base] = given.bind(name, ["default", "base"])?;
            let base = u32::try_from(int_or(base.as_ref(), 10)?).ok().filter(|base| (2..=36).contains(base));
            let base = base.ok_or_else(|| fault("int: the base must be 2 to 36"))?;
            operators::used(&[value]).map_or(Ok(()), Err)?;
            read()?;
            whole(value, base).map_or_else(|| default.unwrap_or(Value::Int(0)), Value::Int)
        }
        "float" => {
            let [default] = given.bind(name, ["default"])?;
            operators::used(&[value]).map_or(Ok(()), Err)?;
            read()?;
            let number = match value {
                Value::Str(text) => parse_float(text),
                other => other.as_float(),
            };
            number.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float)
        }
        "abs" => {
            given.exactly(name, [])?;
            match (value, value.as_int()) {
                (Value::Float(x), _) => Value::Float(x.abs()),
                (_, Some(n)) => Value::Int(n.checked_abs().ok_or_else(|| fault("a number is too large"))?),
                _ => {
                    return Err(
                        operators::used(&[value]).unwrap_or_else(|| fault(format!("bad operand type for abs: '{}'", value.type_name())))
                    );
                }
            }
        }
        "round" => {
            let [precision, method] = given.bind(name, ["precision", "method"])?;
            let precision = int_or(precision.as_ref(), 0)?.clamp(-400, 400) as i32;
            let method = method.map_or(Ok("common".into()), |m| print::text(&m, heap).map(std::borrow::Cow::into_owned))?;
            round(value, precision, &method)?
        }
        "filesizeformat" => {
            let [binary] = given.bind(name, ["binary"])?;
            read()?;
            heap.str(file_size(value, binary.is_some_and(|binary| binary.truth()))?)?
        }
        "attr" => {
            let [attribute] = given.exactly(name, ["name"])?;
            let attribute = print::text(&attribute, heap)?;
            heap.budget.scan(attribute.len())?; // what is missing says its name
            match value {
                // A filter finds attributes, never items.
                Value::Dict(_) if !super::method_names::exists(value, &attribute) => value.missing(&format!("attribute '{attribute}'")),
                _ => lookup::attribute(value, &attribute.into_owned().into(), heap)?,
            }
        }
        _ => return Ok(None),
    }))
}

/// Bytes as people write them.
fn file_size(value: &Value, binary: bool) -> Res<String> {
    let bytes = match value {
        Value::Str(text) => parse_float(text),
        other => other.as_float(),
    };
    let bytes = bytes.ok_or_else(|| operators::used(&[value]).unwrap_or_else(|| fault("filesizeformat needs a number")))?;
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok("1 Byte".into());
    }
    if bytes < base {
        return Ok(format!("{} Bytes", bytes.trunc() as i128));
    }
    let power = (1..8).find(|power| bytes < base.powi(power + 1)).unwrap_or(8);
    let prefixes = if binary { ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"] } else { ["k", "M", "G", "T", "P", "E", "Z", "Y"] };
    Ok(format!("{:.1} {}B", base * bytes / base.powi(power + 1), prefixes[power as usize - 1]))
}

/// Python's `int(value, base)`, or of the float that a text spells.
fn whole(value: &Value, base: u32) -> Option<i128> {
    let truncated = |x: f64| (x.abs() < 1e38).then(|| x.trunc() as i128);
    match value {
        Value::Str(text) => {
            let text = text.trim_matches(super::lexer::is_space);
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            let prefix = match base {
                16 => ["0x", "0X"],
                8 => ["0o", "0O"],
                2 => ["0b", "0B"],
                _ => ["", ""],
            };
            let bare = prefix.iter().find_map(|p| digits.strip_prefix(p)).unwrap_or(digits);
            let fine = bare.starts_with(|c: char| c.is_digit(base)) && !bare.ends_with('_') && !bare.contains("__");
            let parsed = fine.then(|| i128::from_str_radix(&format!("{sign}{}", bare.replace('_', "")), base).ok()).flatten();
            parsed.or_else(|| parse_float(text).and_then(truncated))
        }
        Value::Float(x) => truncated(*x),
        other => other.as_int(),
    }
}

fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(super::lexer::is_space);
    if text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn round(value: &Value, precision: i32, method: &str) -> Res<Value> {
    let scale = 10f64.powi(precision);
    let x = value
        .as_float()
        .ok_or_else(|| operators::used(&[value]).unwrap_or_else(|| fault(format!("type {} cannot be rounded", value.type_name()))))?;
    match (method, value) {
        ("common", Value::Int(_) | Value::Bool(_)) if precision >= 0 => Ok(Value::Int(value.as_int().unwrap_or(0))),
        ("common", _) => {
            // Rust writes a float's exact digits and rounds a tie to even, as Python's `round` does.
            let rounded = if precision >= 0 {
                format!("{x:.*}", precision as usize).parse().unwrap_or(x)
            } else {
                format!("{:.0}", x * scale).parse().unwrap_or(x) / scale
            };
            Ok(if matches!(value, Value::Float(_)) { Value::Float(rounded) } else { Value::Int(rounded as i128) })
        }
        ("ceil", _) => Ok(Value::Float((x * scale).ceil() / scale)),
        ("floor", _) => Ok(Value::Float((x * scale).floor() / scale)),
        _ => Err(fault("the rounding method must be common, ceil or floor")),
    }
}
