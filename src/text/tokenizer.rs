//! Text to token ids and back, the same natively and in the browser.
//!
//! # Control tokens written in text
//! A row of data may contain the spelling of a control token, such as `<|im_end|>`. Hugging Face turns it into that token wherever
//! it stands, and [`Tokenizer::encode`] does the same, because a chat template writes its control tokens exactly so; `text` rows, which are
//! often rendered already, are read the same way. In the `prompt` and `completion` of plain rows, though, the text is data: a scraped page
//! that happens to hold `<|im_end|>` must not end the model's turn. There the spelling is encoded as the characters it consists of, unless
//! [`EncodeOptions::parse_special`] is set. What messages say is always data ([`Tokenizer::encode_masked`]).

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::tokenizer::{AddedVocabulary, Model as _, PreTokenizedString, PreTokenizer as _};
use tokenizers::{Encoding, OffsetType};

use super::spelling::{Spelling, spelled_bytes};
use crate::{Error, Result};

/// How [`Tokenizer::encode_with`] reads a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put the tokens around the text that the tokenizer's own settings ask for (often the beginning-of-sequence token).
    pub add_special: bool,
    /// The spelling of a control token is that token; otherwise it is its characters.
    pub parse_special: bool,
    /// The text goes on from earlier text: a SentencePiece tokenizer puts no space before it.
    pub continuation: bool,
}

impl Default for EncodeOptions {
    /// What Hugging Face does with `add_special_tokens=False`.
    fn default() -> Self {
        Self { add_special: false, parse_special: true, continuation: false }
    }
}

/// The control tokens that mean something to a run, by id.
#[derive(Debug, Clone, Default)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unk: Option<u32>,
    pub(super) pad: Option<u32>,
    /// Further tokens that end a turn.
    pub(super) also_stop: Vec<u32>,
}

/// What differs when a text continues another one.
pub(super) struct Continuation {
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) pre_tokenizer: Option<PreTokenizerWrapper>,
}

/// A vocabulary with its rules, its special tokens and its chat template.
pub struct Tokenizer {
    pub(super) inner: tokenizers::Tokenizer,
    /// The added tokens again, with control tokens left as text.
    as_text: AddedVocabulary,
    /// `None` when nothing differs.
    continuation: Option<Continuation>,
    spelling: Spelling,
    vocab_size: usize,
    /// Tokens that `add_special` puts before and after a text.
    before: Vec<u32>,
    after: Vec<u32>,
    special: SpecialIds,
    stop_ids: Vec<u32>,
    chat_template: Option<String>,
    /// Bytes that no token can spell, so that text is refused instead of silently lost.
    unspellable: Vec<u8>,
}

/// What the two builders (GGUF metadata, `tokenizer.json`) put together.
pub(super) struct Parts {
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) continuation: Option<Continuation>,
    pub(super) spelling: Spelling,
    pub(super) vocab_size: usize,
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
    pub(super) special: SpecialIds,
    pub(super) chat_template: Option<String>,
    pub(super) unspellable: Vec<u8>,
}

/// Control tokens that end a turn in the chat formats in use, by spelling; files often name only one of them.
const TURN_ENDS: &[&str] =
    &["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>", "<EOT>"];

impl Tokenizer {
    pub(super) fn from_parts(parts: Parts) -> Self {
        let mut as_text = parts.inner.get_added_vocabulary().clone();
        as_text.set_encode_special_tokens(true);
        let mut stop_ids: Vec<u32> = parts.special.eos.into_iter().chain(parts.special.also_stop.iter().copied()).collect();
        let turn_ends = TURN_ENDS.iter().filter(|text| as_text.is_special_token(text));
        stop_ids.extend(turn_ends.filter_map(|text| parts.inner.token_to_id(text)));
        let mut seen = std::collections::HashSet::new();
        stop_ids.retain(|id| seen.insert(*id));
        Self {
            as_text,
            stop_ids,
            inner: parts.inner,
            continuation: parts.continuation,
            spelling: parts.spelling,
            vocab_size: parts.vocab_size,
            before: parts.before,
            after: parts.after,
            special: parts.special,
            chat_template: parts.chat_template,
            unspellable: parts.unspellable,
        }
    }

    /// Token ids of a text as Hugging Face gives them: control tokens in the text are parsed, and `add_special` is
    /// `add_special_tokens`.
    ///
    /// # Errors
    /// When the vocabulary cannot spell the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        self.encode_with(text, EncodeOptions { add_special, ..EncodeOptions::default() })
    }

    /// Token ids of a text, read as `options` say.
    ///
    /// # Errors
    /// When the vocabulary cannot spell the text.
    pub fn encode_with(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        let encoding = self.run(text, options, OffsetType::None)?;
        if !options.add_special {
            return Ok(encoding.get_ids().to_vec());
        }
        let mut ids = self.before.clone();
        ids.extend_from_slice(encoding.get_ids());
        ids.extend_from_slice(&self.after);
        Ok(ids)
    }

    /// Token ids as [`Self::encode`] without special tokens around, each with the bytes of the text it covers. Tokens that are parts of
    /// one character all cover that character.
    ///
    /// # Errors
    /// When the vocabulary cannot spell the text.
    pub fn encode_with_ranges(&self, text: &str) -> Result<Vec<(u32, std::ops::Range<usize>)>> {
        let encoding = self.run(text, EncodeOptions::default(), OffsetType::Byte)?;
        let ranges = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        let found: Vec<_> = encoding.get_ids().iter().copied().zip(ranges).collect();
        // The library counts what a token has beside the text (an end-of-word suffix) as text.
        match found.iter().find(|(_, range)| text.get(range.clone()).is_none()) {
            None => Ok(found),
            Some((id, _)) => {
                let problem = format!("token {id} is said to cover more than the text");
                Err(Error::format("tokenizer", problem, "use the tokenizer.json that belongs to the model"))
            }
        }
    }

    fn run(&self, text: &str, options: EncodeOptions, offsets: OffsetType) -> Result<Encoding> {
        self.check_spellable(text)?;
        let added = if options.parse_special { self.inner.get_added_vocabulary() } else { &self.as_text };
        let (normalizer, pre_tokenizer) = match &self.continuation {
            Some(rest) if options.continuation => (rest.normalizer.as_ref(), rest.pre_tokenizer.as_ref()),
            _ => (self.inner.get_normalizer(), self.inner.get_pre_tokenizer()),
        };
        self.tokens_of(added.extract_and_normalize(normalizer, text), pre_tokenizer, offsets)
    }

    /// Refuses text with bytes that no token can spell.
    pub(super) fn check_spellable(&self, text: &str) -> Result<()> {
        match self.unspellable.iter().find(|byte| text.as_bytes().contains(byte)) {
            None => Ok(()),
            Some(byte) => {
                let problem = format!("the vocabulary has no token for byte 0x{byte:02X}, which the text contains");
                Err(Error::format("tokenizer", problem, "remove such characters from the text or use another model"))
            }
        }
    }

    /// The tokens of a text that is cut at control tokens and normalised.
    pub(super) fn tokens_of(
        &self,
        mut pieces: PreTokenizedString,
        pre_tokenizer: Option<&PreTokenizerWrapper>,
        offsets: OffsetType,
    ) -> Result<Encoding> {
        let failed = |e: tokenizers::Error| Error::format("tokenizer", format!("cannot encode the text: {e}"), "use another tokenizer");
        if let Some(pre_tokenizer) = pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(failed)?;
        }
        let model = self.inner.get_model();
        pieces.tokenize(|piece| model.tokenize(piece.get())).map_err(failed)?;
        pieces.into_encoding(None, 0, offsets).map_err(failed)
    }

    /// Token ids of a text that a user gives as the model is to see it: control tokens are parsed, the tokens that the tokenizer puts before
    /// a text stand there once, be they spelled or not.
    ///
    /// # Errors
    /// When the vocabulary cannot spell the text.
    pub fn encode_raw(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode(text, false)?;
        let spelled = ids.first().is_some_and(|first| self.before.first() == Some(first));
        Ok(if spelled { [ids, self.after.clone()].concat() } else { [self.before.clone(), ids, self.after.clone()].concat() })
    }

    /// The text of these tokens as Hugging Face gives it; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// When an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.check_ids(ids)?;
        let failed = |e: tokenizers::Error| Error::format("tokenizer", format!("cannot decode tokens: {e}"), "use another tokenizer");
        self.inner.decode(ids, skip_special).map_err(failed)
    }

    /// The vocabulary's own spelling of a token, such as `Ġthe`, `▁the` or `<|im_end|>`; `None` when the id has none.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes that a token stands for; a control token gives its spelling, an id without a token gives nothing.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(text) = self.token_text(id) else { return Vec::new() };
        if self.inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id) {
            return text.into_bytes();
        }
        spelled_bytes(&text, self.spelling)
    }

    /// The id spelled so, control tokens included.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// Whether this is a control token: left out of decoded text when asked, and never text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// Whether the text contains the spelling of a control token.
    pub fn mentions_special(&self, text: &str) -> bool {
        self.special_spellings().any(|token| text.contains(token))
    }

    /// The control tokens' spellings.
    pub(super) fn special_spellings(&self) -> impl Iterator<Item = &str> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        added.values().filter(|token| token.special && !token.content.is_empty()).map(|token| token.content.as_str())
    }

    /// One more than the highest token id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Beginning-of-sequence token.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// End-of-sequence token.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// Padding token; the engine itself never needs one.
    pub fn pad(&self) -> Option<u32> {
        self.special.pad
    }

    /// Unknown token.
    pub fn unk(&self) -> Option<u32> {
        self.special.unk
    }

    /// Tokens that end generation: the end of sequence first, then every end of turn.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// Tokens that `add_special` puts before a text.
    pub fn prefix(&self) -> &[u32] {
        &self.before
    }

    /// Tokens that `add_special` puts after a text.
    pub fn suffix(&self) -> &[u32] {
        &self.after
    }

    /// The rules and the vocabulary as `tokenizer.json` has them, without what stands around a text.
    pub(super) fn to_json(&self) -> tokenizers::Result<String> {
        self.inner.to_string(false)
    }

    /// The model's Jinja chat template, as its file gives it.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Uses another chat template, such as the text of a `chat_template.jinja`.
    #[must_use]
    pub fn with_chat_template(mut self, template: impl Into<String>) -> Self {
        self.chat_template = Some(template.into());
        self
    }

    /// Adds tokens that end generation, such as the `eos_token_id` list of a `generation_config.json`.
    #[must_use]
    pub fn with_stop_ids(mut self, ids: &[u32]) -> Self {
        for id in ids {
            if !self.stop_ids.contains(id) {
                self.stop_ids.push(*id);
            }
        }
        self
    }

    /// The ids of special tokens that the tokenizer's own files do not name.
    #[must_use]
    pub(super) fn with_special_ids(mut self, bos: Option<u32>, eos: Option<u32>, unk: Option<u32>, pad: Option<u32>) -> Self {
        let special = &mut self.special;
        for (own, given) in [(&mut special.bos, bos), (&mut special.eos, eos), (&mut special.unk, unk), (&mut special.pad, pad)] {
            *own = own.or(given);
        }
        self
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            None => Ok(()),
            Some(id) => Err(Error::format(
                "tokenizer",
                format!("token id {id} is not below the vocabulary's {}", self.vocab_size),
                "use the tokenizer of the model that made the tokens",
            )),
        }
    }
}
