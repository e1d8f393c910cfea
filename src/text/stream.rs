//! Tokens to text while they are generated: only whole characters are handed out.

use super::tokenizer::{Spelling, Tokenizer};

/// Collects the bytes of tokens and gives out the text that is complete.
///
/// It decodes a continuation: unlike [`Tokenizer::decode`] it keeps a leading space.
///
/// ```no_run
/// # fn example(tokenizer: &weblora::text::Tokenizer, generated: &[u32]) {
/// let mut stream = weblora::text::StreamDecoder::new(true);
/// let mut text = String::new();
/// for &id in generated {
///     text += &stream.push(tokenizer, id);
/// }
/// text += &stream.finish();
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct StreamDecoder {
    skip_special: bool,
    pending: Vec<u8>,
}

impl StreamDecoder {
    /// A decoder at the start of a continuation; `skip_special` leaves control tokens out of the text.
    pub fn new(skip_special: bool) -> Self {
        Self { skip_special, pending: Vec::new() }
    }

    /// Adds a token and returns the text that became complete, often empty. Bytes that can never become UTF-8 turn into U+FFFD.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if !(self.skip_special && tokenizer.is_special(id)) {
            self.pending.extend(tokenizer.token_bytes(id));
        }
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(all) => {
                    text.push_str(all);
                    self.pending.clear();
                    return text;
                }
                Err(e) => {
                    text.push_str(&String::from_utf8_lossy(&self.pending[..e.valid_up_to()]));
                    let Some(bad) = e.error_len() else {
                        self.pending.drain(..e.valid_up_to());
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.pending.drain(..e.valid_up_to() + bad);
                }
            }
        }
    }

    /// Ends the text: whatever is still incomplete becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }
}

/// The bytes that a token's spelling stands for.
pub(super) fn spelled_bytes(text: &str, spelling: Spelling) -> Vec<u8> {
    match spelling {
        Spelling::ByteLevel => {
            // A character outside the byte alphabet means that the token is not byte-level at all: then it is its own text.
            text.chars().map(byte_of_char).collect::<Option<Vec<u8>>>().unwrap_or_else(|| text.as_bytes().to_vec())
        }
        Spelling::SentencePiece => {
            let hex = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|hex| hex.len() == 2);
            match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(byte) => vec![byte],
                None => text.replace('▁', " ").into_bytes(),
            }
        }
    }
}

/// GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100, U+0101, … in order.
pub(super) fn char_of_byte(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + rank).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn byte_of_char(c: char) -> Option<u8> {
    match c as u32 {
        code @ 0x00..=0xFF => u8::try_from(code).ok().filter(|&b| char_of_byte(b) == c),
        0x100..=0x143 => (0..=255u8).find(|&b| char_of_byte(b) == c),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_a_bijection_with_the_known_corners() {
        for byte in 0..=255 {
            assert_eq!(byte_of_char(char_of_byte(byte)), Some(byte));
        }
        assert_eq!((char_of_byte(b' '), char_of_byte(b'\n'), char_of_byte(0xAD)), ('Ġ', 'Ċ', 'Ń'));
        assert_eq!(byte_of_char(' '), None);
    }

    #[test]
    fn sentencepiece_spelling() {
        assert_eq!(spelled_bytes("▁the", Spelling::SentencePiece), b" the");
        assert_eq!(spelled_bytes("<0x0A>", Spelling::SentencePiece), b"\n");
        assert_eq!(spelled_bytes("<0x0AB>", Spelling::SentencePiece), b"<0x0AB>");
    }
}
