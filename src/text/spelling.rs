//! How vocabularies spell bytes.

/// How a vocabulary spells bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2's: each byte is one printable character.
    ByteLevel,
    /// SentencePiece's: `▁` is a space, `<0x0A>` is a byte, everything else is itself.
    SentencePiece,
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
