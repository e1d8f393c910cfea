//! A tokenizer from Hugging Face's `tokenizer.json` and `tokenizer_config.json`.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::tokenizer::{NormalizedString, Normalizer as _};

use super::spelling::Spelling;
use super::tokenizer::{Continuation, Parts, SpecialIds, Tokenizer};
use super::tokenizer_check::{Checked, HINT, checked};
use crate::{Error, Result};

/// End-of-sequence and beginning-of-sequence spellings to look for when there is no `tokenizer_config.json`.
const USUAL_EOS: &[&str] = &["</s>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>"];
const USUAL_BOS: &[&str] = &["<s>", "<|begin_of_text|>"];

impl Tokenizer {
    /// Builds the tokenizer of a `tokenizer.json`; special tokens and the chat template come from `tokenizer_config.json` where
    /// there is one. `file` names the tokenizer in errors.
    ///
    /// # Errors
    /// When a file is not what it should be, or the tokenizer is of a kind that no LLaMA-family model uses.
    pub fn from_json(file: &str, tokenizer_json: &[u8], tokenizer_config: Option<&[u8]>) -> Result<Self> {
        let Checked { json, mut before, mut after } = checked(file, tokenizer_json)?;
        let wrong = |e: tokenizers::Error| Error::format(file, format!("not a tokenizer: {e}"), HINT);
        let inner = tokenizers::Tokenizer::from_bytes(json).map_err(wrong)?;
        check_added(file, &inner)?;
        let config: Config = match tokenizer_config {
            None => Config::default(),
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|e| Error::format("tokenizer_config.json", format!("not valid: {e}"), "use the file that belongs to the model"))?,
        };
        let spelling = spelling(file, &inner)?;
        let known = |texts: &[&str]| texts.iter().find_map(|text| inner.token_to_id(text));
        let given = |token: &Option<SpecialToken>| token.as_ref().and_then(|token| inner.token_to_id(token.text()));
        let special = SpecialIds {
            bos: given(&config.bos_token).or_else(|| known(if tokenizer_config.is_none() { USUAL_BOS } else { &[] })),
            eos: given(&config.eos_token).or_else(|| known(if tokenizer_config.is_none() { USUAL_EOS } else { &[] })),
            unk: given(&config.unk_token),
            pad: given(&config.pad_token),
            also_stop: Vec::new(),
        };
        override_side(&mut before, config.add_bos_token, special.bos);
        override_side(&mut after, config.add_eos_token, special.eos);
        let highest = inner.get_vocab(true).into_values().max();
        let continuation = continuation(&inner);
        Ok(Self::from_parts(Parts {
            inner,
            continuation,
            spelling,
            vocab_size: highest.map_or(0, |id| (id as usize).saturating_add(1)),
            before,
            after,
            special,
            chat_template: config.chat_template.and_then(ChatTemplates::default_one),
            unspellable: Vec::new(),
        }))
    }
}

/// The keys of `tokenizer_config.json` that matter here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    bos_token: Option<SpecialToken>,
    eos_token: Option<SpecialToken>,
    unk_token: Option<SpecialToken>,
    pad_token: Option<SpecialToken>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    chat_template: Option<ChatTemplates>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Token { content: String },
}

impl SpecialToken {
    fn text(&self) -> &str {
        match self {
            Self::Text(content) | Self::Token { content } => content,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ChatTemplates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl ChatTemplates {
    fn default_one(self) -> Option<String> {
        match self {
            Self::One(template) => Some(template),
            Self::Named(all) => all.into_iter().find(|named| named.name == "default").map(|named| named.template),
        }
    }
}

/// Told from the decoder, which undoes the spelling.
fn spelling(file: &str, inner: &tokenizers::Tokenizer) -> Result<Spelling> {
    let decoder = inner.get_decoder().and_then(|decoder| serde_json::to_string(decoder).ok()).unwrap_or_default();
    if decoder.contains("\"ByteLevel\"") {
        Ok(Spelling::ByteLevel)
    } else if decoder.contains("\"Metaspace\"") || decoder.contains('▁') {
        Ok(Spelling::SentencePiece)
    } else {
        Err(Error::Unsupported {
            what: format!("a tokenizer that is neither byte-level nor SentencePiece ({file})"),
            hint: "use a model of the LLaMA family".into(),
        })
    }
}

/// An added token that the normalizer makes empty would be found between all characters.
fn check_added(file: &str, inner: &tokenizers::Tokenizer) -> Result<()> {
    let Some(normalizer) = inner.get_normalizer() else { return Ok(()) };
    for token in inner.get_added_vocabulary().get_added_tokens_decoder().values().filter(|token| token.normalized) {
        let mut text = NormalizedString::from(token.content.as_str());
        if normalizer.normalize(&mut text).is_err() || text.get().is_empty() {
            return Err(Error::format(file, format!("the normalizer leaves nothing of the added token {:?}", token.content), HINT));
        }
    }
    Ok(())
}

/// `add_bos_token` and `add_eos_token` of the configuration win over the post-processor.
fn override_side(side: &mut Vec<u32>, switch: Option<bool>, id: Option<u32>) {
    match (switch, id) {
        (Some(false), _) => side.clear(),
        (Some(true), Some(id)) if side.is_empty() => side.push(id),
        _ => {}
    }
}

/// The normaliser and pre-tokeniser without the space that they put before a text; `None` when they put none.
fn continuation(inner: &tokenizers::Tokenizer) -> Option<Continuation> {
    let normalizer = inner.get_normalizer().and_then(|n| serde_json::to_value(n).ok()).unwrap_or(Value::Null);
    let pre_tokenizer = inner.get_pre_tokenizer().and_then(|p| serde_json::to_value(p).ok()).unwrap_or(Value::Null);
    let (mut new_normalizer, mut new_pre_tokenizer) = (normalizer.clone(), pre_tokenizer.clone());
    without_prefix(&mut new_normalizer);
    without_prefix(&mut new_pre_tokenizer);
    if new_normalizer == normalizer && new_pre_tokenizer == pre_tokenizer {
        return None;
    }
    Some(Continuation {
        normalizer: serde_json::from_value(new_normalizer).ok(),
        pre_tokenizer: serde_json::from_value(new_pre_tokenizer).ok(),
    })
}

/// Rewrites the JSON of a normaliser or pre-tokeniser in place.
fn without_prefix(part: &mut Value) {
    let is = |part: &Value, kind: &str| part.get("type").and_then(Value::as_str) == Some(kind);
    if is(part, "Prepend") {
        *part = Value::Null;
    } else if is(part, "Metaspace") {
        part["prepend_scheme"] = "never".into();
    } else if is(part, "ByteLevel") && part.get("add_prefix_space").is_some() {
        part["add_prefix_space"] = false.into();
    } else if is(part, "Sequence") {
        for key in ["normalizers", "pretokenizers"] {
            if let Some(Value::Array(parts)) = part.get_mut(key) {
                parts.iter_mut().for_each(without_prefix);
                parts.retain(|part| !part.is_null());
            }
        }
    }
}
