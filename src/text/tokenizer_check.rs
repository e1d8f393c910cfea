//! Checks a `tokenizer.json` before the `tokenizers` crate reads it. The crate takes much of a file on trust: it unwraps, indexes and
//! allocates by what a file says, and a page cannot catch a panic. So only what models of the LLaMA family have is let through, each
//! part within what the crate can do, and the crate reads what is written here, not the file.

use serde_json::{Map, Value, json};

use super::gguf_vocab::check_merges;
use crate::{Error, Result};

pub(super) const HINT: &str = "use the tokenizer.json that belongs to the model";
const FAMILY: &str = "use a model of the LLaMA family, with its own tokenizer.json";

/// Highest token id plus one; the largest vocabularies in use have some 260,000 tokens.
const IDS: u64 = 1 << 24;
/// How many times longer a text may get by normalising and decoding it.
const GROWTH: usize = 256;
/// How many times longer all `Replace` may make it; those in use write three bytes for a space.
const REPLACED: usize = 16;
/// Longest token of a Unigram model in bytes: each place of a text is compared with tokens up to this length.
const PIECE: usize = 1024;
/// Longest token of other kinds.
const TOKEN: usize = 4096;
/// Deepest nesting of sequences of parts.
const DEPTH: usize = 8;
/// Most parts of one kind.
const PARTS: usize = 64;
/// Longest pattern in bytes.
const PATTERN: usize = 16 << 10;

/// A file that the crate can read, and what its post-processor puts around a text.
pub(super) struct Checked {
    pub(super) json: String,
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
}

/// Checks a file; `file` names it in errors.
pub(super) fn checked(file: &str, bytes: &[u8]) -> Result<Checked> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| wrong(file, format!("not a tokenizer.json: {e}")))?;
    let Value::Object(mut root) = value else { return Err(wrong(file, "not a tokenizer.json: it is no JSON object".into())) };
    let mut part = |name: &str| root.get_mut(name).map_or(Value::Null, Value::take);
    let (model, added) = (part("model"), part("added_tokens"));
    let (normalizer, pre_tokenizer) = (part("normalizer"), part("pre_tokenizer"));
    let (decoder, post_processor) = (part("decoder"), part("post_processor"));
    let check = Check { file };
    check.model(&model)?;
    check.added(&added)?;
    let mut seen = Seen::default();
    check.parts(&normalizer, &NORMALIZERS, 0, &mut seen)?;
    check.parts(&pre_tokenizer, &PRE_TOKENIZERS, 0, &mut Seen::default())?;
    check.parts(&decoder, &DECODERS, 0, &mut Seen::default())?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    check.around(&post_processor, 0, &mut before, &mut after)?;
    // Length is the business of packing, and the tokens around a text are ours to add.
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": if added.is_null() { json!([]) } else { added },
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": decoder,
        "model": model,
    });
    Ok(Checked { json: json.to_string(), before, after })
}

fn wrong(file: &str, problem: String) -> Error {
    Error::format(file, problem, HINT)
}

/// A kind of part: its name, the key of a sequence's list, and the types that are let through.
struct Kind {
    name: &'static str,
    list: &'static str,
    types: &'static [&'static str],
}

const NORMALIZERS: Kind = Kind {
    name: "normalizer",
    list: "normalizers",
    types: &["Prepend", "Replace", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt", "ByteLevel"],
};
const PRE_TOKENIZERS: Kind = Kind {
    name: "pre_tokenizer",
    list: "pretokenizers",
    types: &["ByteLevel", "Metaspace", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"],
};
const DECODERS: Kind =
    Kind { name: "decoder", list: "decoders", types: &["ByteLevel", "Metaspace", "Replace", "Fuse", "Strip", "ByteFallback"] };

/// What the parts of one kind add up to.
struct Seen {
    parts: usize,
    growth: usize,
    /// What `Replace` alone adds up to.
    replaced: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self { parts: 0, growth: 1, replaced: 1 }
    }
}

struct Check<'a> {
    file: &'a str,
}

impl Check<'_> {
    fn wrong(&self, problem: String) -> Error {
        wrong(self.file, problem)
    }

    fn unsupported(&self, what: String) -> Error {
        Error::Unsupported { what: format!("{what} ({})", self.file), hint: FAMILY.into() }
    }

    fn type_of<'v>(&self, part: &'v Value, name: &str) -> Result<&'v str> {
        part.get("type").and_then(Value::as_str).ok_or_else(|| self.wrong(format!("`{name}` has no `type`")))
    }

    /// Checks a normalizer, pre-tokenizer or decoder with all the parts in it.
    fn parts(&self, part: &Value, kind: &Kind, depth: usize, seen: &mut Seen) -> Result<()> {
        if part.is_null() {
            return Ok(());
        }
        let name = kind.name;
        let found = self.type_of(part, name)?;
        if found == "Sequence" {
            let Some(Value::Array(parts)) = part.get(kind.list) else {
                return Err(self.wrong(format!("the `Sequence` of `{name}` has no list `{}`", kind.list)));
            };
            if depth >= DEPTH {
                return Err(self.wrong(format!("`{name}` nests more than {DEPTH} sequences")));
            }
            return parts.iter().try_for_each(|part| match part {
                Value::Null => Err(self.wrong(format!("`{name}` has a part that is null"))),
                part => self.parts(part, kind, depth + 1, seen),
            });
        }
        if !kind.types.contains(&found) {
            return Err(self.unsupported(format!("the {name} {found:?}")));
        }
        seen.parts += 1;
        if seen.parts > PARTS {
            return Err(self.wrong(format!("`{name}` has more than {PARTS} parts")));
        }
        let growth = self.one(part, found, name)?;
        seen.growth = seen.growth.saturating_mul(growth);
        if found == "Replace" {
            seen.replaced = seen.replaced.saturating_mul(growth);
            if seen.replaced > REPLACED {
                return Err(self.wrong(format!("the `Replace` of `{name}` make a text more than {REPLACED} times longer")));
            }
        }
        if seen.growth > GROWTH {
            return Err(self.wrong(format!("`{name}` makes a text more than {GROWTH} times longer")));
        }
        Ok(())
    }

    /// Checks one part and returns how many times longer it makes a text at most.
    fn one(&self, part: &Value, found: &str, name: &str) -> Result<usize> {
        let text = |key: &str| part.get(key).and_then(Value::as_str);
        match found {
            "Prepend" => match text("prepend") {
                Some(text) if !text.is_empty() && text.len() <= GROWTH => Ok(1),
                _ => Err(self.wrong(format!("the `Prepend` of `{name}` needs 1 to {GROWTH} bytes to prepend"))),
            },
            "Replace" => {
                let content = text("content").ok_or_else(|| self.wrong(format!("the `Replace` of `{name}` has no `content`")))?;
                let shortest = self.pattern(part, name)?;
                // A decoder may write it between all characters.
                Ok(content.len().div_ceil(shortest).max(1) + usize::from(name == DECODERS.name))
            }
            "Split" => {
                self.pattern(part, name)?;
                Ok(1)
            }
            // A character may become some, and U+FDFA eighteen.
            "NFKC" | "NFKD" => Ok(18),
            "NFC" | "NFD" | "Lowercase" => Ok(3),
            "ByteLevel" if name == "normalizer" => Ok(2),
            // The crate subtracts the `stop` of a decoder from the length of whatever token it meets.
            "Strip" if name == "decoder" && part.get("stop").and_then(Value::as_u64) != Some(0) => {
                Err(self.unsupported("the decoder \"Strip\" with another `stop` than 0".into()))
            }
            _ => Ok(1),
        }
    }

    /// Checks `pattern` and returns the length of its shortest match.
    fn pattern(&self, part: &Value, name: &str) -> Result<usize> {
        let pattern = part.get("pattern").and_then(Value::as_object).and_then(|pattern| pattern.iter().next());
        let (kind, text) = match pattern {
            Some((kind, Value::String(text))) if ["String", "Regex"].contains(&kind.as_str()) => (kind.as_str(), text),
            _ => return Err(self.wrong(format!("a part of `{name}` has no `pattern` with a `String` or `Regex`"))),
        };
        if text.is_empty() || text.len() > PATTERN {
            return Err(self.wrong(format!("a `pattern` of `{name}` has {} bytes, expected 1 to {PATTERN}", text.len())));
        }
        if kind == "String" {
            return Ok(text.len());
        }
        let regex = fancy_regex::Regex::new(text).map_err(|e| self.wrong(format!("a `Regex` of `{name}` is none: {e}")))?;
        // Where a normalizer finds an empty match, the crate loses count of what belongs to which character. Without look-around, what
        // matches an empty text anywhere matches it here.
        let looks_around = ["(?=", "(?!", "(?<=", "(?<!", "\\b", "\\B", "\\K", "\\G"].iter().any(|look| text.contains(look));
        if name == NORMALIZERS.name && (looks_around || regex.is_match("").unwrap_or(true)) {
            return Err(self.unsupported(format!("a `Regex` of `{name}` that looks around or matches an empty text")));
        }
        Ok(1)
    }

    /// Adds what a post-processor puts around a text.
    fn around(&self, part: &Value, depth: usize, before: &mut Vec<u32>, after: &mut Vec<u32>) -> Result<()> {
        if part.is_null() {
            return Ok(());
        }
        let name = "post_processor";
        match self.type_of(part, name)? {
            "ByteLevel" => Ok(()),
            "Sequence" => {
                let parts = part.get("processors").and_then(Value::as_array);
                let parts = parts.ok_or_else(|| self.wrong("the `Sequence` of `post_processor` has no list `processors`".into()))?;
                if depth >= DEPTH || parts.len() > PARTS {
                    return Err(self.wrong(format!("`{name}` has more than {PARTS} parts or nests more than {DEPTH} sequences")));
                }
                parts.iter().try_for_each(|part| self.around(part, depth + 1, before, after))
            }
            "TemplateProcessing" => self.template(part, before, after),
            "BertProcessing" | "RobertaProcessing" => {
                let id = |key: &str| {
                    let id = part.get(key).and_then(|pair| pair.get(1));
                    self.id(id, &format!("post_processor.{key}"))
                };
                before.insert(0, id("cls")?);
                after.push(id("sep")?);
                Ok(())
            }
            other => Err(self.unsupported(format!("the {name} {other:?}"))),
        }
    }

    fn template(&self, part: &Value, before: &mut Vec<u32>, after: &mut Vec<u32>) -> Result<()> {
        let pieces = part.get("single").and_then(Value::as_array);
        let pieces = pieces.ok_or_else(|| self.wrong("`post_processor.single` is no list".into()))?;
        let tokens = part.get("special_tokens").and_then(Value::as_object);
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let mut in_text = false;
        for piece in pieces {
            if piece.get("Sequence").is_some() {
                if std::mem::replace(&mut in_text, true) {
                    return Err(self.unsupported("a post_processor that writes the text twice".into()));
                }
                continue;
            }
            let name = piece.pointer("/SpecialToken/id").and_then(Value::as_str);
            let name = name.ok_or_else(|| self.wrong("a piece of `post_processor.single` is neither a token nor the text".into()))?;
            let ids = tokens.and_then(|tokens| tokens.get(name)).and_then(|token| token.get("ids")).and_then(Value::as_array);
            let ids =
                ids.ok_or_else(|| self.wrong(format!("`post_processor` names the token {name:?}, which is not in its `special_tokens`")))?;
            for id in ids {
                let side = if in_text { &mut right } else { &mut left };
                side.push(self.id(Some(id), "post_processor.special_tokens")?);
            }
        }
        if left.len() + right.len() > PARTS {
            return Err(self.wrong(format!("`post_processor` puts more than {PARTS} tokens around a text")));
        }
        before.splice(0..0, left);
        after.extend(right);
        Ok(())
    }

    fn id(&self, id: Option<&Value>, name: &str) -> Result<u32> {
        let id = id.and_then(Value::as_u64).filter(|&id| id < IDS).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.wrong(format!("`{name}` has no token id, or one above {IDS}")))
    }

    /// Refuses a token that is longer than any in use.
    fn length(&self, token: &str, limit: usize, what: impl Fn() -> String) -> Result<()> {
        if token.len() > limit {
            return Err(self.wrong(format!("{} has {} bytes, at most {limit}", what(), token.len())));
        }
        Ok(())
    }

    fn added(&self, added: &Value) -> Result<()> {
        let tokens = match added {
            Value::Null => return Ok(()),
            Value::Array(tokens) => tokens,
            _ => return Err(self.wrong("`added_tokens` is no list".into())),
        };
        // Where one token takes the spaces after it, another that consists of spaces may be gone when the crate looks for those before it.
        let is = |token: &Value, key: &str| token.get(key).and_then(Value::as_bool).unwrap_or(false);
        let right = |normalized: bool| tokens.iter().any(|token| is(token, "rstrip") && is(token, "normalized") == normalized);
        let (right_plain, right_normalized) = (right(false), right(true));
        for token in tokens {
            let content = token.get("content").and_then(Value::as_str);
            let content = content.ok_or_else(|| self.wrong("a token of `added_tokens` has no `content`".into()))?;
            self.id(token.get("id"), "added_tokens")?;
            self.length(content, TOKEN, || "a token of `added_tokens`".into())?;
            let lost = if is(token, "normalized") { right_normalized } else { right_plain && content.trim().is_empty() };
            if is(token, "lstrip") && lost {
                return Err(self.unsupported(format!("the added token {content:?}, which takes spaces that another token takes")));
            }
        }
        Ok(())
    }

    fn model(&self, model: &Value) -> Result<()> {
        let kind = match model.get("type").and_then(Value::as_str) {
            // Old files leave it out; only a BPE model has merges.
            None if model.get("merges").is_some() => "BPE",
            None => return Err(self.wrong("`model` has no `type`".into())),
            Some(kind) => kind,
        };
        match kind {
            "BPE" => self.byte_pairs(model),
            "Unigram" => self.unigram(model),
            other => Err(self.unsupported(format!("the tokenizer model {other:?}"))),
        }
    }

    fn byte_pairs(&self, model: &Value) -> Result<()> {
        let Some(Value::Object(vocab)) = model.get("vocab") else { return Err(self.wrong("`model.vocab` is no object".into())) };
        for (token, id) in vocab {
            self.id(Some(id), "model.vocab")?;
            self.length(token, TOKEN, || format!("token {id} of `model.vocab`"))?;
        }
        let text = |key: &str| model.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        if text("continuing_subword_prefix").is_some() {
            return Err(self.unsupported("a tokenizer with `continuing_subword_prefix`".into()));
        }
        if let Some(unknown) = text("unk_token").filter(|unknown| !vocab.contains_key(*unknown)) {
            return Err(self.wrong(format!("`model.unk_token` is {unknown:?}, which is not in the vocabulary")));
        }
        if model.get("dropout").and_then(Value::as_f64).is_some_and(|rate| rate != 0.0) {
            return Err(self.unsupported("a tokenizer with `dropout`, which gives other tokens each time".into()));
        }
        self.merges(model, vocab)
    }

    /// Every merge must join two known tokens to a third: the crate would index out of its buffer.
    fn merges(&self, model: &Value, vocab: &Map<String, Value>) -> Result<()> {
        let Some(Value::Array(all)) = model.get("merges") else { return Err(self.wrong("`model.merges` is no list".into())) };
        let mut merges = Vec::with_capacity(all.len());
        for (rank, merge) in all.iter().enumerate() {
            let pair = match merge {
                Value::String(line) => line.split_once(' '),
                Value::Array(pair) => match pair.as_slice() {
                    [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                    _ => None,
                },
                _ => None,
            };
            let (left, right) = pair.ok_or_else(|| self.wrong(format!("merge {rank} is {merge}, expected two tokens")))?;
            if left.is_empty() || right.is_empty() {
                return Err(self.wrong(format!("merge {rank} joins an empty token")));
            }
            merges.push((left.to_owned(), right.to_owned()));
        }
        check_merges(self.file, &merges, |token| vocab.contains_key(token))
    }

    fn unigram(&self, model: &Value) -> Result<()> {
        let vocab = model.get("vocab").and_then(Value::as_array).filter(|vocab| !vocab.is_empty());
        let vocab = vocab.ok_or_else(|| self.wrong("`model.vocab` is no list of tokens, or an empty one".into()))?;
        for (id, entry) in vocab.iter().enumerate() {
            let score = entry.get(1).and_then(Value::as_f64).filter(|score| score.is_finite());
            let token = entry.get(0).and_then(Value::as_str).filter(|token| !token.is_empty());
            if token.is_none() || score.is_none() || entry.as_array().is_none_or(|pair| pair.len() != 2) {
                return Err(self.wrong(format!("entry {id} of `model.vocab` is {entry}, expected a token and its score")));
            }
            self.length(token.unwrap_or_default(), PIECE, || format!("token {id} of `model.vocab`"))?;
        }
        match model.get("unk_id") {
            Some(id) if id.as_u64().is_some_and(|id| id < vocab.len() as u64) => Ok(()),
            _ => Err(self.wrong(format!("`model.unk_id` is no id below {}", vocab.len()))),
        }
    }
}
