//! Rendered conversations whose messages spell control tokens: what the template writes is a token, what a message says is letters.

use std::ops::Range;

use serde_json::Value;
use tokenizers::tokenizer::normalizer::Range as Slice;
use tokenizers::tokenizer::{Normalizer as _, PreTokenizedString, Split, Token};
use tokenizers::{OffsetReferential, OffsetType};

use super::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Marks of reasoning, which the assistant itself writes as control tokens where the vocabulary has them as such.
const REASONING: &[&str] = &["<think>", "</think>", "[THINK]", "[/THINK]"];

impl Tokenizer {
    /// A message in whose texts every spelling of a control token is replaced by as many other bytes. Marks of reasoning stay in what the
    /// assistant says.
    pub(super) fn mask_message(&self, message: &Value) -> Value {
        let allowed = if message["role"] == "assistant" { REASONING } else { &[] };
        let Value::Object(map) = message else { return message.clone() };
        map.iter().map(|(key, value)| (key.clone(), self.mask(value, allowed))).collect()
    }

    /// The same for any value.
    pub(super) fn mask_value(&self, value: &Value) -> Value {
        self.mask(value, &[])
    }

    fn mask(&self, value: &Value, allowed: &[&str]) -> Value {
        match value {
            Value::String(text) if self.mentions_special(text) => self.mask_text(text, allowed).into(),
            Value::Array(items) => items.iter().map(|item| self.mask(item, allowed)).collect(),
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), self.mask(value, allowed))).collect(),
            other => other.clone(),
        }
    }

    fn mask_text(&self, text: &str, allowed: &[&str]) -> String {
        let mut spelled: Vec<String> = self.special_spellings().filter(|token| !allowed.contains(token)).map(str::to_owned).collect();
        // The longer first, should one contain another.
        spelled.sort_by_key(|token| std::cmp::Reverse(token.len()));
        spelled.iter().fold(text.to_owned(), |text, token| text.replace(token.as_str(), &"x".repeat(token.len())))
    }

    /// As [`Self::encode_with_ranges`], where only those spellings are control tokens that `masked`, which has the same bytes elsewhere,
    /// spells, too.
    ///
    /// # Errors
    /// When the vocabulary cannot spell the text, or the two texts are not alike.
    pub fn encode_masked(&self, text: &str, masked: &str) -> Result<Vec<(u32, Range<usize>)>> {
        let failed = |e: tokenizers::Error| Error::format("tokenizer", format!("cannot encode the text: {e}"), "use another tokenizer");
        let normalizer = self.inner.get_normalizer();
        let found = self.inner.get_added_vocabulary().extract_and_normalize(normalizer, masked);
        let tokens: Vec<(Range<usize>, u32)> = found
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .filter_map(|(_, (start, end), tokens)| Some((start..end, tokens.as_ref()?.first()?.id)))
            .collect();
        if text.len() != masked.len()
            || tokens.iter().any(|(at, _)| text.get(at.clone()).is_none() || text.get(at.clone()) != masked.get(at.clone()))
        {
            let problem = "a control token stands in the text where a message says something else";
            return Err(Error::format("tokenizer", problem, "remove the spelling of control tokens from the messages"));
        }
        self.check_spellable(text)?;
        let mut pieces = PreTokenizedString::from(text);
        pieces
            .split(|_, whole| {
                let mut parts: Vec<Split> = Vec::with_capacity(2 * tokens.len() + 1);
                let mut at = 0;
                for (range, id) in &tokens {
                    parts.extend(whole.slice(Slice::Original(at..range.start)).map(Split::from));
                    parts.extend(whole.slice(Slice::Original(range.clone())).map(|part| {
                        let token = Token::new(*id, part.get().to_owned(), (0, part.get().len()));
                        Split::from((part, Some(vec![token])))
                    }));
                    at = range.end;
                }
                parts.extend(whole.slice(Slice::Original(at..text.len())).map(Split::from));
                Ok(parts)
            })
            .map_err(failed)?;
        if let Some(normalizer) = normalizer {
            pieces.normalize(|piece| normalizer.normalize(piece)).map_err(failed)?;
        }
        let encoding = self.tokens_of(pieces, self.inner.get_pre_tokenizer(), OffsetType::Byte)?;
        let ranges = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        Ok(encoding.get_ids().iter().copied().zip(ranges).collect())
    }
}
