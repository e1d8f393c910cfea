//! Template source to tokens, with Jinja2's rules for white space: `trim_blocks`, `lstrip_blocks`, and the signs `-` and `+`.

use std::sync::Arc;

use super::limits::{self, Fault, Res, fault};

/// One token and the line it starts in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) line: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text outside tags, as it will be printed.
    Data(Arc<str>),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(Arc<str>),
    Str(Arc<str>),
    Int(i128),
    Float(f64),
    /// An operator or bracket.
    Op(&'static str),
    End,
}

/// Longest first, so that `**` is not two `*`.
const OPERATORS: &[&str] = &[
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";",
];

/// What Python's `str.isspace` and `\s` call white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The tokens of a template, [`Kind::End`] last.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, (Fault, usize)> {
    if source.len() > limits::SOURCE {
        return Err((fault(format!("the template has {} bytes, the limit is {}", source.len(), limits::SOURCE)), 1));
    }
    // Line breaks of every kind are "\n", and one at the very end does not count.
    let mut text = source.replace("\r\n", "\n").replace('\r', "\n");
    if text.ends_with('\n') {
        text.pop();
    }
    let mut lexer = Lexer { text: &text, at: 0, line: 1, line_starting: true, out: Vec::new() };
    lexer.run().map_err(|e| (e, lexer.line))?;
    let line = lexer.line;
    lexer.out.push(Token { kind: Kind::End, line });
    Ok(lexer.out)
}

struct Lexer<'s> {
    text: &'s str,
    at: usize,
    line: usize,
    /// The last match ended with a line break, or nothing was matched yet.
    line_starting: bool,
    out: Vec<Token>,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.text[self.at..]
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.text[self.at..self.at + bytes];
        self.line += passed.matches('\n').count();
        self.line_starting = passed.ends_with('\n');
        self.at += bytes;
    }

    fn push(&mut self, kind: Kind) {
        self.out.push(Token { kind, line: self.line });
    }

    fn run(&mut self) -> Res<()> {
        loop {
            let rest = self.rest();
            let Some(at) = next_tag(rest) else {
                if !rest.is_empty() {
                    self.push(Kind::Data(rest.into()));
                    self.advance(rest.len());
                }
                return Ok(());
            };
            let opener = &rest[at..at + 2];
            let sign = rest[at + 2..].chars().next().filter(|c| matches!(c, '-' | '+'));
            let data = self.stripped(&rest[..at], sign, opener != "{{");
            if !data.is_empty() {
                self.push(Kind::Data(data.into()));
            }
            let length = 2 + usize::from(sign.is_some());
            match opener {
                "{#" => {
                    self.advance(at + length);
                    self.comment()?;
                }
                "{{" => {
                    self.advance(at + length);
                    self.push(Kind::VariableBegin);
                    self.inside("}}", Kind::VariableEnd)?;
                }
                _ => match raw_begin(&rest[at + length..]) {
                    Some(raw) => {
                        self.advance(at + length + raw);
                        self.raw()?;
                    }
                    None => {
                        self.advance(at + length);
                        self.push(Kind::BlockBegin);
                        self.inside("%}", Kind::BlockEnd)?;
                    }
                },
            }
        }
    }

    /// Text before a tag, without what the tag's sign or `lstrip_blocks` takes from its end.
    fn stripped(&self, data: &'s str, sign: Option<char>, lstrip: bool) -> &'s str {
        match sign {
            Some('-') => data.trim_end_matches(is_space),
            None if lstrip => {
                let line = data.rfind('\n').map_or(0, |at| at + 1);
                let whole_line = line > 0 || self.line_starting;
                if whole_line && data[line..].chars().all(is_space) { &data[..line] } else { data }
            }
            _ => data,
        }
    }

    /// The length of a tag's end at the start of `text`, with the white space that goes with it.
    fn tag_end(text: &str, end: &str) -> Option<usize> {
        let spaces = |text: &str| text.len() - text.trim_start_matches(is_space).len();
        let with_sign = |sign: char| text.strip_prefix(sign).and_then(|rest| rest.strip_prefix(end));
        if let Some(rest) = with_sign('-') {
            return Some(1 + end.len() + spaces(rest));
        }
        if end != "}}" && with_sign('+').is_some() {
            return Some(1 + end.len());
        }
        let rest = text.strip_prefix(end)?;
        Some(end.len() + usize::from(end != "}}" && rest.starts_with('\n')))
    }

    fn comment(&mut self) -> Res<()> {
        let rest = self.rest();
        if rest.is_empty() {
            // As Jinja2 has it, an opener that ends the template is no comment to be closed.
            return Ok(());
        }
        let Some(at) = rest.find("#}") else { return Err(fault("missing end of comment tag")) };
        let at = if rest[..at].ends_with(['-', '+']) { at - 1 } else { at };
        let length = Self::tag_end(&rest[at..], "#}").unwrap_or(2);
        self.advance(at + length);
        Ok(())
    }

    fn raw(&mut self) -> Res<()> {
        let rest = self.rest();
        for (at, _) in rest.match_indices("{%") {
            let inner = &rest[at + 2..];
            let sign = inner.chars().next().filter(|c| matches!(c, '-' | '+'));
            let inner = &inner[usize::from(sign.is_some())..];
            let word = inner.trim_start_matches(is_space);
            let Some(after) = word.strip_prefix("endraw") else { continue };
            let after = after.trim_start_matches(is_space);
            let Some(end) = Self::tag_end(after, "%}") else { continue };
            let data = self.stripped(&rest[..at], sign, true);
            if !data.is_empty() {
                self.push(Kind::Data(data.into()));
            }
            self.advance(rest.len() - after.len() + end);
            return Ok(());
        }
        Err(fault("missing end of raw directive"))
    }

    /// The tokens of a tag up to and with its end.
    fn inside(&mut self, end: &str, end_kind: Kind) -> Res<()> {
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            let rest = self.rest();
            let Some(c) = rest.chars().next() else { return Err(fault(format!("unexpected end of template, expected {end:?}"))) };
            if open.is_empty()
                && let Some(length) = Self::tag_end(rest, end)
            {
                self.push(end_kind);
                self.advance(length);
                return Ok(());
            }
            if is_space(c) {
                self.advance(rest.len() - rest.trim_start_matches(is_space).len());
            } else if c.is_ascii_digit() {
                let (kind, length) = number(rest)?;
                self.push(kind);
                self.advance(length);
            } else if c == '_' || c.is_alphanumeric() {
                let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                if length > limits::NAME {
                    return Err(fault(format!("a name of {length} bytes is longer than the limit of {}", limits::NAME)));
                }
                self.push(Kind::Name(rest[..length].into()));
                self.advance(length);
            } else if c == '"' || c == '\'' {
                let length = string_length(rest, c).ok_or_else(|| fault("a string is not closed"))?;
                self.push(Kind::Str(unescape(&rest[1..length - 1])?.into()));
                self.advance(length);
            } else {
                let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) else {
                    return Err(fault(format!("unexpected character {c:?}")));
                };
                balance(&mut open, op)?;
                self.push(Kind::Op(op));
                self.advance(op.len());
            }
        }
    }
}

fn balance(open: &mut Vec<&'static str>, op: &str) -> Res<()> {
    match op {
        "(" => open.push(")"),
        "[" => open.push("]"),
        "{" => open.push("}"),
        ")" | "]" | "}" => {
            let expected = open.pop();
            if expected != Some(op) {
                let expected = expected.map(|e| format!(", expected {e:?}")).unwrap_or_default();
                return Err(fault(format!("unexpected {op:?}{expected}")));
            }
        }
        _ => {}
    }
    Ok(())
}

fn next_tag(text: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = text[from..].find('{').map(|at| at + from) {
        if matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// The length of `raw %}` after a block's opener and sign.
fn raw_begin(text: &str) -> Option<usize> {
    let rest = text.trim_start_matches(is_space).strip_prefix("raw")?.trim_start_matches(is_space);
    // No line break is taken after the tag that begins raw text.
    let rest = match rest.strip_prefix("-%}") {
        Some(rest) => rest.trim_start_matches(is_space),
        None => rest.strip_prefix("%}")?,
    };
    Some(text.len() - rest.len())
}

fn string_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Reads a number as Python's literals: `1_000`, `0x1F`, `1.5e-3`.
fn number(text: &str) -> Res<(Kind, usize)> {
    let bytes = text.as_bytes();
    let radix = match bytes.get(1) {
        Some(b'x' | b'X') => 16,
        Some(b'o' | b'O') => 8,
        Some(b'b' | b'B') => 2,
        _ => 10,
    };
    let digits = |from: usize, radix: u32| {
        let is_digit = |&&b: &&u8| b == b'_' || char::from(b).is_digit(radix);
        from + bytes.get(from..).unwrap_or_default().iter().take_while(is_digit).count()
    };
    let too_large = || fault("a number is too large");
    if radix != 10 && bytes[0] == b'0' {
        let end = digits(2, radix);
        let value = i128::from_str_radix(&text[2..end].replace('_', ""), radix).map_err(|_| too_large())?;
        return Ok((Kind::Int(value), end));
    }
    let whole = digits(0, 10);
    let mut end = whole;
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(end + 1, 10);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1 + sign, 10);
        }
    }
    let written = text[..end].replace('_', "");
    if end == whole {
        return Ok((Kind::Int(written.parse().map_err(|_| too_large())?), end));
    }
    Ok((Kind::Float(written.parse().map_err(|_| too_large())?), end))
}

/// Python's escapes in a string literal; an unknown one stays as it is.
fn unescape(text: &str) -> Res<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let rest = chars.as_str();
        let Some(kind) = chars.next() else { return Err(fault("a string ends with a backslash")) };
        let plain = match kind {
            '\n' => continue,
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            '\\' | '\'' | '"' => kind,
            'x' | 'u' | 'U' => {
                let width = if kind == 'x' {
                    2
                } else if kind == 'u' {
                    4
                } else {
                    8
                };
                let hex = rest.get(1..1 + width).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
                let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
                let Some(code) = code else { return Err(fault(format!("\\{kind} in a string is no character"))) };
                chars = rest[1 + width..].chars();
                code
            }
            'N' => return Err(fault("\\N{…} in a string is not known here: write the character itself")),
            '0'..='7' => {
                let digits = rest.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                chars = rest[digits..].chars();
                u32::from_str_radix(&rest[..digits], 8).ok().and_then(char::from_u32).unwrap_or('\0')
            }
            other => {
                out.push('\\');
                other
            }
        };
        out.push(plain);
    }
    Ok(out)
}
