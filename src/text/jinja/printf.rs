//! `'%s' % value` and `'{}'.format(value)`.

use super::arguments::Given;
use super::limits::{Res, fault};
use super::print;
use super::value::{Heap, Value};

/// How one value is written: `-+ 0#`, width, precision and the letter.
#[derive(Default)]
struct Spec {
    left: bool,
    sign: Option<char>,
    zero: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

/// Most digits after the point; no float has more.
const PRECISION: usize = 1100;

/// `format % values`
pub(super) fn format(format: &str, values: &Value, heap: &Heap) -> Res<Value> {
    heap.budget.scan(format.len())?;
    let (items, single) = match values {
        Value::Tuple(items) => (items.items.clone(), false),
        other => (vec![other.clone()], true),
    };
    let mut items = items.iter();
    let mut out = String::new();
    let mut rest = format;
    let mut named = false;
    while let Some(at) = rest.find('%') {
        heap.budget.push(&mut out, &rest[..at])?;
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            heap.budget.push(&mut out, "%")?;
            rest = after;
            continue;
        }
        let mut picked = None;
        if let Some((key, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            let Value::Dict(dict) = values else { return Err(fault("format requires a mapping")) };
            heap.budget.steps(key.len() / 16)?;
            picked = Some(dict.get_str(key).ok_or_else(|| fault(format!("the format names {key:?}, which is not given")))?);
            named = true;
            rest = after;
        }
        let mut next = || items.next().ok_or_else(|| fault("not enough arguments for the format string"));
        let mut spec = Spec::default();
        rest = spec.read(rest, &mut next)?;
        let Some(letter) = rest.chars().next() else { return Err(fault("incomplete format")) };
        rest = &rest[letter.len_utf8()..];
        let value = match picked {
            Some(value) => value,
            None => next()?,
        };
        let text = converted(value, letter, &spec, heap)?;
        spec.pad(&text, &mut out, matches!(letter, 's' | 'r' | 'a' | 'c'), heap)?;
    }
    heap.budget.push(&mut out, rest)?;
    if !named && items.next().is_some() && !(single && matches!(values, Value::Dict(_))) {
        return Err(fault("not all arguments converted during string formatting"));
    }
    Ok(Value::Str(out.into()))
}

impl Spec {
    /// Reads flags, width and precision; returns what follows.
    fn read<'t, 'v>(&mut self, text: &'t str, next: &mut impl FnMut() -> Res<&'v Value>) -> Res<&'t str> {
        let mut rest = text;
        while let Some(flag) = rest.chars().next().filter(|c| matches!(c, '-' | '+' | ' ' | '0' | '#')) {
            match flag {
                '-' => self.left = true,
                '0' => self.zero = true,
                '#' => self.alternate = true,
                '+' => self.sign = Some('+'),
                _ => self.sign = self.sign.or(Some(' ')),
            }
            rest = &rest[1..];
        }
        let mut number = |rest: &mut &'t str| -> Res<usize> {
            if let Some(after) = rest.strip_prefix('*') {
                *rest = after;
                let n = next()?.as_int().ok_or_else(|| fault("* wants int"))?;
                return Ok(usize::try_from(n).unwrap_or(0));
            }
            let (n, after) = digits(rest);
            *rest = after;
            Ok(n)
        };
        self.width = number(&mut rest)?;
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            self.precision = Some(number(&mut rest)?);
        }
        Ok(rest.trim_start_matches(['h', 'l', 'L']))
    }

    fn pad(&self, text: &str, out: &mut String, is_text: bool, heap: &Heap) -> Res<()> {
        let missing = self.width.saturating_sub(text.chars().count());
        if self.left {
            heap.budget.push(out, text)?;
            return heap.budget.repeat(out, ' ', missing);
        }
        if self.zero && !is_text {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-', ' '])));
            heap.budget.push(out, sign)?;
            heap.budget.repeat(out, '0', missing)?;
            return heap.budget.push(out, digits);
        }
        heap.budget.repeat(out, ' ', missing)?;
        heap.budget.push(out, text)
    }

    fn signed(&self, negative: bool, digits: &str) -> String {
        let sign = if negative { "-" } else { self.sign.map_or("", |c| if c == '+' { "+" } else { " " }) };
        format!("{sign}{digits}")
    }
}

/// The number at the start of a text, at most what no limit allows, and the rest.
fn digits(text: &str) -> (usize, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let value = if end == 0 { 0 } else { text[..end].parse().unwrap_or(usize::MAX) };
    (value, &text[end..])
}

fn converted(value: &Value, letter: char, spec: &Spec, heap: &Heap) -> Res<String> {
    let cut = |text: String| {
        heap.budget.scan(text.len())?;
        Ok(match spec.precision {
            Some(n) => text.chars().take(n).collect(),
            None => text,
        })
    };
    let wrong = |what: &str| fault(format!("%{letter} format: {what} is required, not {}", value.type_name()));
    match letter {
        's' => cut(print::text(value, heap)?.into_owned()),
        'r' | 'a' => {
            let mut out = String::new();
            print::repr(value, &mut out, heap, 0)?;
            cut(out)
        }
        'c' => match value {
            Value::Str(text) if text.chars().count() == 1 => Ok(text.to_string()),
            other => {
                let code = other.as_int().and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32);
                code.map(String::from).ok_or_else(|| wrong("an integer or a character"))
            }
        },
        'd' | 'i' | 'u' => {
            let whole = match value {
                Value::Float(x) if x.abs() < 1e38 => x.trunc() as i128,
                other => other.as_int().ok_or_else(|| wrong("a real number"))?,
            };
            Ok(spec.signed(whole < 0, &whole.unsigned_abs().to_string()))
        }
        'x' | 'X' | 'o' => {
            let whole = value.as_int().ok_or_else(|| wrong("an integer"))?;
            let digits = radix(whole.unsigned_abs(), letter, spec.alternate);
            Ok(spec.signed(whole < 0, &digits))
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let x = value.as_float().ok_or_else(|| wrong("a real number"))?;
            Ok(spec.signed(x.is_sign_negative() && !x.is_nan(), &float(x.abs(), letter, spec.precision.unwrap_or(6), spec.alternate)?))
        }
        _ => Err(fault(format!("unsupported format character {letter:?}"))),
    }
}

fn radix(value: u128, letter: char, prefixed: bool) -> String {
    match (letter, prefixed) {
        ('x', false) => format!("{value:x}"),
        ('x', true) => format!("{value:#x}"),
        ('X', false) => format!("{value:X}"),
        ('X', true) => format!("0X{value:X}"),
        ('o', false) => format!("{value:o}"),
        ('o', true) => format!("{value:#o}"),
        ('b', false) => format!("{value:b}"),
        _ => format!("{value:#b}"),
    }
}

/// A float that is not negative, as C's `printf` writes it.
fn float(x: f64, letter: char, precision: usize, keep_zeros: bool) -> Res<String> {
    if precision > PRECISION {
        return Err(fault(format!("a precision of {precision} is above the limit of {PRECISION}")));
    }
    if !x.is_finite() {
        let word = if x.is_nan() { "nan" } else { "inf" };
        return Ok(if letter.is_ascii_uppercase() { word.to_uppercase() } else { word.into() });
    }
    let scientific = |precision: usize| {
        let text = format!("{x:.precision$e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        (mantissa.to_owned(), exponent.parse::<i32>().unwrap_or(0))
    };
    let with_exponent = |mantissa: &str, exponent: i32| format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    let text = match letter.to_ascii_lowercase() {
        'f' => format!("{x:.precision$}"),
        'e' => {
            let (mantissa, exponent) = scientific(precision);
            with_exponent(&mantissa, exponent)
        }
        _ => {
            let precision = precision.max(1);
            let (mantissa, exponent) = scientific(precision - 1);
            let trim = |text: &str| match text {
                text if keep_zeros || !text.contains('.') => text.to_owned(),
                text => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            };
            if exponent < -4 || exponent >= precision as i32 {
                with_exponent(&trim(&mantissa), exponent)
            } else {
                let places = usize::try_from(precision as i32 - 1 - exponent).unwrap_or(0);
                trim(&format!("{x:.places$}"))
            }
        }
    };
    Ok(if letter.is_ascii_uppercase() { text.to_uppercase() } else { text })
}

/// `format.format(…)`: fields by place or name, with attributes and items, `!r`, and the usual specifications.
pub(super) fn str_format(format: &str, given: Given, heap: &Heap) -> Res<Value> {
    let mut out = String::new();
    let mut rest = format;
    let mut automatic = 0;
    while let Some(at) = rest.find(['{', '}']) {
        heap.budget.push(&mut out, &rest[..at])?;
        let brace = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            heap.budget.push(&mut out, brace)?;
            rest = after;
            continue;
        }
        let Some((field, after)) = rest.split_once('}').filter(|_| brace == "{") else {
            return Err(fault(format!("single '{brace}' in a format string")));
        };
        rest = after;
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (path, conversion) = field.split_once('!').unwrap_or((field, ""));
        let value = field_value(path, &given, &mut automatic, heap)?;
        let value = match conversion {
            "" => value,
            "r" | "a" => {
                let mut text = String::new();
                print::repr(&value, &mut text, heap, 0)?;
                heap.str(text)?
            }
            "s" => heap.str(print::text(&value, heap)?)?,
            other => return Err(fault(format!("unknown conversion {other:?} in a format string"))),
        };
        formatted(&value, spec, &mut out, heap)?;
    }
    heap.budget.push(&mut out, rest)?;
    Ok(Value::Str(out.into()))
}

fn field_value(path: &str, given: &Given, automatic: &mut usize, heap: &Heap) -> Res<Value> {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    heap.budget.steps(1 + given.named.len() / 4)?;
    let (name, mut rest) = path.split_at(end);
    let place = if name.is_empty() {
        *automatic += 1;
        Some(*automatic - 1)
    } else {
        name.parse::<usize>().ok()
    };
    let found = match place {
        Some(place) => given.positional.get(place),
        None => given.named.iter().find(|(own, _)| **own == *name).map(|(_, value)| value),
    };
    let mut value = found.cloned().ok_or_else(|| fault(format!("a format string names {name:?}, which is not given")))?;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            value = super::lookup::attribute(&value, &after[..end].into(), heap)?;
            rest = &after[end..];
        } else {
            let Some((key, after)) = rest[1..].split_once(']') else { return Err(fault("expected ']' in a format string")) };
            let key = key.parse().map_or_else(|_| Value::Str(key.into()), Value::Int);
            value = super::lookup::item(&value, &key, heap)?;
            rest = after;
        }
    }
    Ok(value)
}

/// Writes a value by a specification such as `>8.3f`.
pub(super) fn formatted(value: &Value, spec: &str, out: &mut String, heap: &Heap) -> Res<()> {
    let mut rest = spec;
    let is_align = |c: char| matches!(c, '<' | '>' | '^' | '=');
    let mut chars = spec.chars();
    let (first, second) = (chars.next(), chars.next());
    let (mut fill, mut align) = (' ', None);
    if let (Some(c), Some(sign)) = (first, second.filter(|&c| is_align(c))) {
        (fill, align) = (c, Some(sign));
        rest = &rest[c.len_utf8() + 1..];
    } else if let Some(sign) = first.filter(|&c| is_align(c)) {
        align = Some(sign);
        rest = &rest[1..];
    }
    let mut parsed = Spec::default();
    rest = parsed.read(rest, &mut || Err(fault("'*' in a format string")))?;
    if parsed.zero && align.is_none() {
        (fill, align) = ('0', Some('='));
    }
    let comma = rest.starts_with([',', '_']).then(|| &rest[..1]);
    rest = &rest[comma.map_or(0, str::len)..];
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = digits(after);
        parsed.precision = Some(precision);
        rest = after;
    }
    let mut letters = rest.chars();
    let letter = match (letters.next(), letters.next(), value) {
        (Some(letter), None, _) => letter,
        (None, _, Value::Int(_)) => 'd',
        (None, _, Value::Float(_)) if parsed.precision.is_some() => 'g',
        (None, ..) => 's',
        _ => return Err(fault(format!("invalid format specifier {spec:?}"))),
    };
    let is_number =
        matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)) && !(letter == 's' && matches!(value, Value::Bool(_)));
    let mut text = match letter {
        'b' => parsed.signed(value.as_int().unwrap_or(0) < 0, &radix(value.as_int().unwrap_or(0).unsigned_abs(), 'b', parsed.alternate)),
        '%' => {
            let x = value.as_float().ok_or_else(|| fault("% needs a number"))? * 100.0;
            parsed.signed(x < 0.0, &(float(x.abs(), 'f', parsed.precision.unwrap_or(6), false)? + "%"))
        }
        _ => converted(value, letter, &parsed, heap)?,
    };
    if let Some(comma) = comma {
        text = grouped(&text, comma);
    }
    let missing = parsed.width.saturating_sub(text.chars().count());
    let sign = usize::from(is_number && text.starts_with(['+', '-', ' ']));
    let (before, after) = match align.unwrap_or(if is_number { '>' } else { '<' }) {
        '<' => (0, missing),
        '^' => (missing / 2, missing - missing / 2),
        '=' => {
            heap.budget.push(out, &text[..sign])?;
            text.drain(..sign);
            (missing, 0)
        }
        _ => (missing, 0),
    };
    heap.budget.repeat(out, fill, before)?;
    heap.budget.push(out, &text)?;
    heap.budget.repeat(out, fill, after)
}

fn grouped(text: &str, comma: &str) -> String {
    let start = text.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
    let end = text[start..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |at| start + at);
    let mut out = text[..start].to_owned();
    for (i, c) in text[start..end].chars().enumerate() {
        if i > 0 && (end - start - i).is_multiple_of(3) {
            out.push_str(comma);
        }
        out.push(c);
    }
    out + &text[end..]
}
