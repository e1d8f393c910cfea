//! Jinja2's filters for web pages: addresses, attributes, links.

use super::arguments::{Given, int_or};
use super::limits::{Res, fault};
use super::print;
use super::value::{Heap, Value};

/// Applies a filter of that name, if it is one of these.
pub(super) fn filter(name: &str, value: &Value, given: Given, heap: &Heap) -> Res<Option<Value>> {
    Ok(Some(match name {
        "e" | "escape" | "forceescape" => {
            given.exactly(name, [])?;
            heap.str(escaped(value, heap)?)?
        }
        "urlencode" => {
            given.exactly(name, [])?;
            urlencode(value, heap)?
        }
        "xmlattr" => xmlattr(value, given, heap)?,
        "urlize" => urlize(value, given, heap)?,
        _ => return Ok(None),
    }))
}

fn escaped(value: &Value, heap: &Heap) -> Res<String> {
    let text = print::text(value, heap)?;
    heap.budget.scan(text.len())?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => heap.budget.push(&mut out, "&amp;")?,
            '<' => heap.budget.push(&mut out, "&lt;")?,
            '>' => heap.budget.push(&mut out, "&gt;")?,
            '\'' => heap.budget.push(&mut out, "&#39;")?,
            '"' => heap.budget.push(&mut out, "&#34;")?,
            c => heap.budget.repeat(&mut out, c, 1)?,
        }
    }
    Ok(out)
}

/// A text quoted for an address; a mapping, or pairs, as its query.
fn urlencode(value: &Value, heap: &Heap) -> Res<Value> {
    let mut out = String::new();
    let pairs = match value {
        Value::Str(_) => None,
        Value::Dict(dict) => Some(dict.entries().to_vec()),
        other => match other.iterate(heap)? {
            Some(items) => Some(items.iter().map(|item| pair(item, heap)).collect::<Res<_>>()?),
            None => None,
        },
    };
    let Some(pairs) = pairs else {
        quote(value, false, &mut out, heap)?;
        return heap.str(out);
    };
    for (i, (key, value)) in pairs.iter().enumerate() {
        heap.budget.push(&mut out, if i > 0 { "&" } else { "" })?;
        quote(key, true, &mut out, heap)?;
        heap.budget.push(&mut out, "=")?;
        quote(value, true, &mut out, heap)?;
    }
    heap.str(out)
}

fn pair(item: &Value, heap: &Heap) -> Res<(Value, Value)> {
    match item.items(heap)?.as_slice() {
        [key, value] => Ok((key.clone(), value.clone())),
        other => Err(fault(format!("expected 2 values to unpack, found {}", other.len()))),
    }
}

fn quote(value: &Value, in_query: bool, out: &mut String, heap: &Heap) -> Res<()> {
    let text = print::text(value, heap)?;
    heap.budget.steps(text.len() / 8)?;
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => heap.budget.repeat(out, char::from(byte), 1)?,
            b'/' if !in_query => heap.budget.push(out, "/")?,
            b' ' if in_query => heap.budget.push(out, "+")?,
            other => heap.budget.push(out, &format!("%{other:02X}"))?,
        }
    }
    Ok(())
}

/// The attributes of a tag.
fn xmlattr(value: &Value, given: Given, heap: &Heap) -> Res<Value> {
    let [autospace] = given.bind("xmlattr", ["autospace"])?;
    let Value::Dict(dict) = value else { return Err(fault("xmlattr needs a dict")) };
    let mut out = String::new();
    for (key, value) in dict.entries().iter().filter(|(_, value)| !matches!(value, Value::None | Value::Undefined(_))) {
        let name = super::text_methods::string(key)?;
        if name.contains(|c: char| c == ' ' || ('\t'..='\r').contains(&c) || "/>=".contains(c)) {
            return Err(fault(format!("xmlattr: invalid character in the name {name:?}")));
        }
        let space = if out.is_empty() && autospace.as_ref().is_some_and(|space| !space.truth()) { "" } else { " " };
        heap.budget.push(&mut out, &format!("{space}{}=\"{}\"", escaped(key, heap)?, escaped(value, heap)?))?;
    }
    heap.str(out)
}

/// What links get.
struct Links {
    attributes: String,
    limit: Option<usize>,
    schemes: Vec<String>,
}

/// Links in place of addresses.
fn urlize(value: &Value, given: Given, heap: &Heap) -> Res<Value> {
    let [limit, nofollow, target, rel, schemes] = given.bind("urlize", ["trim_url_limit", "nofollow", "target", "rel", "extra_schemes"])?;
    let given = |value: Option<Value>| value.filter(|value| !matches!(value, Value::None));
    let rel = given(rel).map_or(Ok(String::new()), |rel| escaped(&rel, heap))?;
    let mut rels: Vec<&str> = rel.split_whitespace().chain(["noopener"]).collect();
    rels.extend(nofollow.is_some_and(|nofollow| nofollow.truth()).then_some("nofollow"));
    rels.sort_unstable();
    rels.dedup();
    let mut attributes = format!(" rel=\"{}\"", rels.join(" "));
    if let Some(target) = given(target) {
        attributes += &format!(" target=\"{}\"", escaped(&target, heap)?);
    }
    let limit = given(limit).map(|limit| int_or(Some(&limit), 0)).transpose()?.map(|limit| usize::try_from(limit).unwrap_or(0));
    let schemes = given(schemes).map_or(Ok(Vec::new()), |schemes| schemes.items(heap))?;
    let schemes: Vec<String> = schemes.iter().map(|scheme| Ok(print::text(scheme, heap)?.into_owned())).collect::<Res<_>>()?;
    if let Some(wrong) = schemes.iter().find(|scheme| !is_scheme(scheme)) {
        return Err(fault(format!("{wrong:?} is not a valid URI scheme prefix")));
    }
    let links = Links { attributes, limit, schemes };
    let text = escaped(value, heap)?;
    let mut out = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let space = rest.len() - rest.trim_start_matches(super::lexer::is_space).len();
        let (space, after) = rest.split_at(space);
        let (word, after) = after.split_at(after.find(super::lexer::is_space).unwrap_or(after.len()));
        heap.budget.push(&mut out, space)?;
        heap.budget.push(&mut out, &links.link(word, heap)?)?;
        rest = after;
    }
    heap.str(out)
}

fn is_scheme(scheme: &str) -> bool {
    let (name, slashes) = scheme.split_at(scheme.find(':').map_or(0, |at| at + 1));
    name.chars().count() > 2
        && name[..name.len() - 1].chars().all(|c| is_word(c) || ".+-".contains(c))
        && ["", "/", "//"].contains(&slashes)
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

impl Links {
    /// A word, as a link if it is one, without the brackets and signs around it.
    fn link(&self, word: &str, heap: &Heap) -> Res<String> {
        heap.budget.steps(word.len() / 4 + self.schemes.len() / 4)?;
        let ends = |text: &str, ends: &[&str]| ends.iter().find(|end| text.ends_with(**end)).map(|end| end.len());
        let begins = |text: &str| ["(", "<", "&lt;"].iter().find(|begin| text.starts_with(**begin)).map(|begin| begin.len());
        let mut start = 0;
        while let Some(length) = begins(&word[start..]) {
            start += length;
        }
        let mut end = word.len();
        while let Some(length) = ends(&word[start..end], &[")", ">", ".", ",", "&gt;"]) {
            end -= length;
        }
        for (open, close) in [("(", ")"), ("<", ">"), ("&lt;", "&gt;")] {
            let opened = word[start..end].matches(open).count();
            if opened > word[start..end].matches(close).count() {
                for _ in 0..opened.min(word[end..].matches(close).count()) {
                    end += word[end..].find(close).map_or(0, |at| at + close.len());
                }
            }
        }
        let middle = &word[start..end];
        let made = self.of(middle).unwrap_or_else(|| middle.to_owned());
        Ok(format!("{}{made}{}", &word[..start], &word[end..]))
    }

    fn of(&self, middle: &str) -> Option<String> {
        let attributes = &self.attributes;
        if is_address(middle) {
            let shown = match self.limit.and_then(|limit| middle.char_indices().nth(limit)) {
                Some((at, _)) => format!("{}...", &middle[..at]),
                None => middle.to_owned(),
            };
            let scheme = if middle.starts_with("https://") || middle.starts_with("http://") { "" } else { "https://" };
            return Some(format!("<a href=\"{scheme}{middle}\"{attributes}>{shown}</a>"));
        }
        if let Some(mail) = middle.strip_prefix("mailto:").filter(|mail| is_mail(mail)) {
            return Some(format!("<a href=\"{middle}\">{mail}</a>"));
        }
        if !middle.starts_with("www.") && !middle.starts_with('@') && !middle.contains(':') && is_mail(middle) {
            return Some(format!("<a href=\"mailto:{middle}\">{middle}</a>"));
        }
        let mut made: Option<String> = None;
        for scheme in &self.schemes {
            let now = made.as_deref().unwrap_or(middle);
            if now != scheme && now.starts_with(scheme.as_str()) {
                made = Some(format!("<a href=\"{now}\"{attributes}>{now}</a>"));
            }
        }
        made
    }
}

fn is_mail(text: &str) -> bool {
    let Some((name, host)) = text.rsplit_once('@') else { return false };
    let Some((before, last)) = host.rsplit_once('.') else { return false };
    let inner = |c: char| is_word(c) || ".-".contains(c);
    !name.is_empty() && before.starts_with(is_word) && before.chars().all(inner) && !last.is_empty() && last.chars().all(is_word)
}

/// Whether a text is an address: with a scheme or `www.`, or with one of the oldest endings.
fn is_address(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let text = lower.as_str();
    let after_scheme = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host_end = |text: &str| text.find(|c: char| !(is_word(c) || "%-.".contains(c))).unwrap_or(text.len());
    if let Some(rest) = after_scheme.or_else(|| text.strip_prefix("www.")) {
        let (host, path) = rest.split_at(host_end(rest));
        if is_path(path) && (is_named(host) || (after_scheme.is_some() && is_ipv4(host))) {
            return true;
        }
    }
    if let Some((inner, path)) = after_scheme.and_then(|rest| rest.strip_prefix('[')).and_then(|rest| rest.split_once(']')) {
        return is_path(path) && is_ipv6(inner);
    }
    let (host, path) = text.split_at(host_end(text));
    let known = ["com", "net", "int", "edu", "gov", "org", "info", "mil"];
    let Some((names, last)) = host.rsplit_once('.') else { return false };
    is_path(path) && known.contains(&last) && names.split('.').all(|name| (2..=63).contains(&name.chars().count()))
}

/// Names with dots between, the last of which is one of letters.
fn is_named(host: &str) -> bool {
    let (names, last) = host.rsplit_once('.').map_or((None, host), |(names, last)| (Some(names), last));
    let letters = (2..=63).contains(&last.len()) && last.bytes().all(|b| b.is_ascii_lowercase());
    let coded = || {
        last.strip_prefix("xn--")
            .is_some_and(|code| (2..=59).contains(&code.chars().count()) && code.chars().all(|c| is_word(c) || c == '%'))
    };
    names.is_none_or(|names| names.split('.').all(|name| !name.is_empty())) && (letters || coded())
}

fn is_ipv4(host: &str) -> bool {
    let parts: Vec<&str> = host.split('.').collect();
    parts.len() == 4 && parts.iter().all(|part| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))
}

fn is_ipv6(inner: &str) -> bool {
    let hex = |text: &str| text.bytes().take(4).take_while(u8::is_ascii_hexdigit).count();
    let mut rest = inner;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = hex(rest);
        let colon = usize::from(rest[digits..].starts_with(':'));
        if digits + colon == 0 || (parts < 2 && colon == 0) {
            return false;
        }
        rest = &rest[digits + colon..];
        parts += 1;
    }
    (2..=8).contains(&parts)
}

/// A port and what is asked for there, or nothing.
fn is_path(text: &str) -> bool {
    let after = match text.strip_prefix(':') {
        Some(port) => {
            let digits = port.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=5).contains(&digits) {
                return false;
            }
            &port[digits..]
        }
        None => text,
    };
    after.is_empty() || after.starts_with(['/', '?', '#'])
}
