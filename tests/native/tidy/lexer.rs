//! Enough of a Rust lexer for the rules: tokens with line numbers, comments apart, strings whole, test-only items marked.

/// A word, a string literal with its quotes, `::`, `=>`, `==`, `!=`, or one other character.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// A file of Rust, taken apart.
pub struct Rust {
    /// Path from the repository's root, with forward slashes.
    pub path: String,
    /// Every token.
    pub all: Vec<Token>,
    /// The tokens that end up in the product: without items under `#[cfg(test)]`.
    pub product: Vec<Token>,
}

impl Rust {
    pub fn new(path: &str, text: &str) -> Self {
        let all = tokens(text);
        Self { path: path.to_owned(), product: without_tests(&all), all }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let end = token_end(&chars, at);
        let piece: String = chars[at..end].iter().collect();
        let comment = piece.starts_with("//") || piece.starts_with("/*");
        if !comment && !piece.trim().is_empty() {
            out.push(Token { text: piece.clone(), line });
        }
        line += piece.matches('\n').count();
        at = end;
    }
    out
}

/// Where the token, comment or white space that starts at `at` ends.
fn token_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let starts = |with: &str| rest.iter().take(with.len()).copied().eq(with.chars());
    if rest[0].is_whitespace() {
        return at + 1;
    }
    if starts("//") {
        return at + rest.iter().position(|&c| c == '\n').unwrap_or(rest.len());
    }
    if starts("/*") {
        return block_comment_end(chars, at);
    }
    if let Some(end) = string_end(chars, at) {
        return end;
    }
    if is_word(rest[0]) {
        return at + rest.iter().position(|&c| !is_word(c)).unwrap_or(rest.len());
    }
    if rest[0] == '\'' {
        return quote_end(chars, at);
    }
    if ["::", "=>", "==", "!="].iter().any(|two| starts(two)) { at + 2 } else { at + 1 }
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) if depth == 1 => return i + 2,
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    i
}

/// The end of the string literal at `at`, if one starts there: "…", b"…", c"…", r#"…"# and their like.
fn string_end(chars: &[char], at: usize) -> Option<usize> {
    let mut i = at;
    while matches!(chars.get(i), Some('b' | 'c' | 'r')) && i - at < 2 {
        i += 1;
    }
    let raw = chars[at..i].contains(&'r');
    let hashes = if raw { chars[i..].iter().take_while(|&&c| c == '#').count() } else { 0 };
    i += hashes;
    if chars.get(i) != Some(&'"') {
        return None;
    }
    i += 1;
    while i < chars.len() {
        match chars[i] {
            '\\' if !raw => i += 2,
            '"' if chars[i + 1..].iter().take_while(|&&c| c == '#').count() >= hashes => return Some(i + 1 + hashes),
            _ => i += 1,
        }
    }
    Some(chars.len())
}

/// The end of what a single quote starts: a character literal, or just the quote of a lifetime.
fn quote_end(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => chars[at + 3..].iter().position(|&c| c == '\'').map_or(chars.len(), |p| at + 4 + p),
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// Drops every item under an attribute `#[cfg(…test…)]`, and under `#[test]`.
fn without_tests(all: &[Token]) -> Vec<Token> {
    let (mut out, mut i) = (Vec::new(), 0);
    while i < all.len() {
        if all[i].text == "#" && all.get(i + 1).is_some_and(|t| t.text == "[") {
            let end = closing(all, i + 1) + 1;
            let words: Vec<&str> = all[i..end].iter().map(|t| t.text.as_str()).collect();
            let negated = words.windows(3).any(|three| three == ["not", "(", "test"]);
            let test_only = words.contains(&"test") && !negated && (words.contains(&"cfg") || words.len() == 4);
            if test_only {
                i = item_end(all, end);
                continue;
            }
            out.extend_from_slice(&all[i..end]);
            i = end;
        } else {
            out.push(all[i].clone());
            i += 1;
        }
    }
    out
}

/// Index of the bracket that closes the one at `open`, or the last token.
fn closing(all: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (i, token) in all.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    all.len().saturating_sub(1)
}

/// One past the item that starts at `i`: its further attributes, then up to `;` or its braces.
fn item_end(all: &[Token], mut i: usize) -> usize {
    while i < all.len() {
        match all[i].text.as_str() {
            ";" => return i + 1,
            "{" => return closing(all, i) + 1,
            "(" | "[" => i = closing(all, i) + 1,
            _ => i += 1,
        }
    }
    i
}

/// A path with at least two segments, such as `crate::gpu::Device`, as used in the code or in a `use` (braces unfolded).
#[derive(Debug, Clone, PartialEq)]
pub struct UsedPath {
    pub segments: Vec<String>,
    pub line: usize,
}

/// Every path of `tokens`; a `use` with a single segment counts as well.
pub fn paths(tokens: &[Token]) -> Vec<UsedPath> {
    let (mut out, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        // `impl Trait + use<'a>` names what a type captures; it brings nothing in.
        if tokens[i].text == "use" && tokens.get(i + 1).is_none_or(|t| t.text != "<") {
            i = use_tree(tokens, i + 1, &[], &mut out);
        } else if tokens[i].text.starts_with(is_word) && tokens.get(i + 1).is_some_and(|t| t.text == "::") {
            let (line, mut segments) = (tokens[i].line, vec![tokens[i].text.clone()]);
            i += 1;
            while tokens.get(i).is_some_and(|t| t.text == "::") && tokens.get(i + 1).is_some_and(|t| t.text.starts_with(is_word)) {
                segments.push(tokens[i + 1].text.clone());
                i += 2;
            }
            out.push(UsedPath { segments, line });
            i = i.max(1);
        } else {
            i += 1;
        }
    }
    out
}

/// What `pub use` and its kind lend to a module: a name, which `as` may give, and the path that it stands for.
pub fn reexports(tokens: &[Token]) -> Vec<(String, UsedPath)> {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    for i in (0..tokens.len()).filter(|i| text(*i) == "pub") {
        let at = if text(i + 1) == "(" { closing(tokens, i + 1) + 1 } else { i + 1 };
        if text(at) != "use" {
            continue;
        }
        let mut used = Vec::new();
        let end = use_tree(tokens, at + 1, &[], &mut used);
        // Names given with `as`, in the order of the paths' last segments.
        let given: Vec<(&str, &str)> = (at..end).filter(|j| text(*j) == "as").map(|j| (text(j - 1), text(j + 1))).collect();
        for path in used {
            let last = path.segments.iter().rev().find(|segment| *segment != "self").cloned().unwrap_or_default();
            let name = given.iter().find(|(of, _)| *of == last).map_or(last.clone(), |(_, name)| (*name).to_owned());
            found.push((name, path));
        }
    }
    found
}

/// Reads one tree of a `use` from `i` on, below `prefix`; returns the index of what ends it.
fn use_tree(tokens: &[Token], mut i: usize, prefix: &[String], out: &mut Vec<UsedPath>) -> usize {
    let mut segments = prefix.to_vec();
    while let Some(token) = tokens.get(i) {
        match token.text.as_str() {
            "{" => {
                i += 1;
                while tokens.get(i).is_some_and(|t| t.text != "}") {
                    i = use_tree(tokens, i, &segments, out);
                    i += usize::from(tokens.get(i).is_some_and(|t| t.text == ","));
                }
                return i + 1;
            }
            "as" => i += 2,
            "," | ";" | "}" => {
                out.push(UsedPath { segments, line: token.line });
                return i;
            }
            "::" => i += 1,
            name => {
                segments.push(name.to_owned());
                i += 1;
            }
        }
    }
    i
}

#[test]
fn strings_comments_and_lifetimes_are_told_apart() {
    let rust = Rust::new("src/x.rs", "/* a /* b */ wgpu */ let s = r#\"wgpu:: \" \"#; // wgpu\nfn f<'a>(c: &'a str) { '\\''; '\"' }");
    let words: Vec<_> = rust.all.iter().map(|t| t.text.as_str()).collect();
    assert!(!words.contains(&"wgpu"));
    assert!(words.contains(&"r#\"wgpu:: \" \"#"));
    assert_eq!(words.iter().filter(|w| **w == "str").count(), 1);
    assert_eq!(rust.all.last().map(|t| t.line), Some(2));
}

#[test]
fn test_modules_are_not_product() {
    let rust = Rust::new(
        "src/x.rs",
        "fn a() {}\n#[cfg(test)]\n#[rustfmt::skip]\nmod tests { fn b() {} }\n#[cfg(not(test))]\nfn c() {}\n#[cfg(all(test, not(wasm)))]\nmod native { fn d() {} }",
    );
    let words: Vec<_> = rust.product.iter().map(|t| t.text.as_str()).collect();
    assert!(words.contains(&"a") && words.contains(&"c") && !words.contains(&"b") && !words.contains(&"d"), "{words:?}");
}

#[test]
fn use_trees_unfold() {
    let rust = Rust::new("src/x.rs", "use crate::{gpu::{self, Device as D}, error::Error};\nfn f() { std::fs::read(x); }");
    let found: Vec<_> = paths(&rust.all).iter().map(|p| p.segments.join("::")).collect();
    assert_eq!(found, ["crate::gpu::self", "crate::gpu::Device", "crate::error::Error", "std::fs::read"]);
}
