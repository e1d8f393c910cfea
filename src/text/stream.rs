//! Tokens to text while they are generated: only whole characters are handed out.

use super::tokenizer::Tokenizer;

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
