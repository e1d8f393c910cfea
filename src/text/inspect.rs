//! A row with its mask, for people to look at: in the terminal (`weblora inspect --data`) and on the page.

use serde::Serialize;

use super::example::Example;
use super::tokenizer::Tokenizer;

/// One token of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// Token id.
    pub id: u32,
    /// What it stands for; bytes that are only a part of a character are written `<0xE2>`.
    pub text: String,
    /// Whether it is trained.
    pub is_target: bool,
    /// Whether it is a control token.
    pub is_special: bool,
}

/// A row, token by token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowView {
    /// 1-based number of the row in its file.
    pub row: usize,
    /// Its tokens, in order.
    pub pieces: Vec<Piece>,
    /// How many of them are trained.
    pub n_targets: usize,
}

impl RowView {
    /// Looks at an example.
    pub fn new(example: &Example, tokenizer: &Tokenizer) -> Self {
        let piece =
            |(&id, &is_target)| Piece { id, text: visible(&tokenizer.token_bytes(id)), is_target, is_special: tokenizer.is_special(id) };
        let pieces = example.tokens.iter().zip(&example.targets).map(piece).collect();
        Self { row: example.row, pieces, n_targets: example.n_targets() }
    }

    /// The row as text for a terminal, one token after the other with `·` between.
    ///
    /// What is trained stands in `⟦ ⟧`; with `ansi` it is also green and the rest is dim. Line breaks are shown as `⏎` and taken.
    pub fn to_terminal(&self, ansi: bool) -> String {
        let (green, dim, reset) = if ansi { ("\x1b[32m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        let control = self.pieces.iter().filter(|piece| piece.is_special).count();
        let mut out =
            format!("row {}: {} tokens, {control} of them control tokens, {} trained\n", self.row, self.pieces.len(), self.n_targets);
        for run in self.pieces.chunk_by(|a, b| a.is_target == b.is_target) {
            let is_target = run[0].is_target;
            let texts: Vec<String> = run.iter().map(|piece| on_screen(&piece.text)).collect();
            out.push_str(if is_target { green } else { dim });
            out.push_str(if is_target { "⟦" } else { "" });
            out.push_str(&texts.join("·"));
            out.push_str(if is_target { "⟧" } else { "" });
            out.push_str(reset);
        }
        out.push('\n');
        out
    }
}

fn visible(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| format!("<0x{byte:02X}>")).collect(),
    }
}

/// Text that cannot steer the terminal: line breaks are marked, other control characters are escaped.
fn on_screen(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("⏎\n"),
            '\t' => out.push('⇥'),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
