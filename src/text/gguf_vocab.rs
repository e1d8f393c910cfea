//! A tokenizer from the metadata of a GGUF file.

use std::collections::{HashMap, HashSet};

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};
use tokenizers::tokenizer::AddedToken;

use super::spelling::Spelling;
use super::tokenizer::{Continuation, Parts, SpecialIds, Tokenizer};
use super::{pre_tokenizer, spelling};
use crate::{Error, Result};

/// The tokenizer keys of a GGUF file, without their prefix `tokenizer.ggml.`.
#[derive(Debug, Clone, Default)]
pub struct GgufTokenizer {
    /// `model`: "gpt2" (byte-level merges) or "llama" (SentencePiece pieces with scores).
    pub model: String,
    /// `pre`: name of the pre-tokeniser of a "gpt2" vocabulary; absent means "default".
    pub pre: Option<String>,
    /// `tokens`: spelling of each id.
    pub tokens: Vec<String>,
    /// `scores`: one per token, for "llama".
    pub scores: Vec<f32>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; empty when absent.
    pub token_type: Vec<i32>,
    /// `merges`: "left right" in order of rank, for "gpt2".
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos_token_id: Option<u32>,
    /// `eos_token_id`.
    pub eos_token_id: Option<u32>,
    /// `eot_token_id`: end of turn.
    pub eot_token_id: Option<u32>,
    /// `unknown_token_id`.
    pub unknown_token_id: Option<u32>,
    /// `padding_token_id`.
    pub padding_token_id: Option<u32>,
    /// `add_bos_token`.
    pub add_bos_token: Option<bool>,
    /// `add_eos_token`.
    pub add_eos_token: Option<bool>,
    /// `add_space_prefix`: a "llama" vocabulary puts a space before a text; absent means yes.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

/// The `token_type` values that change how a token is read.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// Longest piece of a SentencePiece vocabulary; they are trained with 16 characters at most.
const MAX_PIECE_BYTES: usize = 256;

const HINT: &str = "the file is damaged or was converted wrongly: download or convert it again";

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes; `file` names it in errors.
    ///
    /// # Errors
    /// When the metadata contradicts itself, or names a model or pre-tokeniser that is not known exactly.
    pub fn from_gguf(file: &str, mut meta: GgufTokenizer) -> Result<Self> {
        check(file, &meta)?;
        for (id, token) in meta.tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty()) {
            *token = format!("[EMPTY_{id}]");
        }
        match meta.model.as_str() {
            "gpt2" => byte_level(file, &meta),
            "llama" => sentence_piece(file, &meta),
            other => Err(Error::Unsupported {
                what: format!("the tokenizer model {other:?} (`tokenizer.ggml.model` in {file})"),
                hint: "use a model of the LLaMA family, whose tokenizer is \"gpt2\" or \"llama\"".into(),
            }),
        }
    }
}

fn check(file: &str, meta: &GgufTokenizer) -> Result<()> {
    let n = meta.tokens.len();
    let wrong = |problem: String| Err(Error::format(file, problem, HINT));
    if n == 0 {
        return wrong("`tokenizer.ggml.tokens` is empty or absent".into());
    }
    for (key, len) in [("token_type", meta.token_type.len()), ("scores", meta.scores.len())] {
        if len != 0 && len != n {
            return wrong(format!("`tokenizer.ggml.{key}` has {len} entries but there are {n} tokens"));
        }
    }
    for (key, id) in [
        ("bos", meta.bos_token_id),
        ("eos", meta.eos_token_id),
        ("eot", meta.eot_token_id),
        ("unknown", meta.unknown_token_id),
        ("padding", meta.padding_token_id),
    ] {
        if let Some(id) = id.filter(|&id| id as usize >= n) {
            return wrong(format!("`tokenizer.ggml.{key}_token_id` is {id} but there are {n} tokens"));
        }
    }
    Ok(())
}

fn byte_level(file: &str, meta: &GgufTokenizer) -> Result<Tokenizer> {
    let pre = pre_tokenizer::by_name(meta.pre.as_deref().unwrap_or("default"))?;
    let vocab = first_ids(&meta.tokens);
    let joined = |(id, token): &(usize, &String)| matches!(meta.token_type.get(*id), None | Some(1)) && token.chars().nth(1).is_some();
    if let (true, Some((id, token))) = (meta.merges.is_empty(), meta.tokens.iter().enumerate().find(joined)) {
        let problem = format!(
            "`tokenizer.ggml.merges` is absent or empty, so no text can become token {id} ({token:?}) and every byte would be a token"
        );
        return Err(Error::format(file, problem, "download or convert it again, or give the model's tokenizer.json with --tokenizer"));
    }
    let mut merges = Vec::with_capacity(meta.merges.len());
    for (rank, merge) in meta.merges.iter().enumerate() {
        // A token may itself start with a space, so the separator is looked for after the first character.
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let Some(at) = merge[first..].find(' ').map(|at| at + first) else {
            return Err(Error::format(file, format!("merge {rank} is {merge:?}, expected two tokens with a space between"), HINT));
        };
        merges.push((merge[..at].to_owned(), merge[at + 1..].to_owned()));
    }
    check_merges(file, &merges, |token| vocab.contains_key(token))?;
    let unspellable = (0..=0xF4).filter(|&b| !vocab.contains_key(spelling::char_of_byte(b).to_string().as_str())).collect();
    let model = BPE::builder().vocab_and_merges(owned(&vocab), merges).ignore_merges(pre.ignore_merges);
    let mut inner = tokenizers::Tokenizer::new(build(file, model)?);
    inner.with_pre_tokenizer(Some(pre.pre_tokenizer));
    inner.with_decoder(Some(ByteLevel::default()));
    finish(file, meta, Assembled { inner, continuation: None, spelling: Spelling::ByteLevel, unspellable, add_bos: pre.add_bos })
}

fn sentence_piece(file: &str, meta: &GgufTokenizer) -> Result<Tokenizer> {
    if meta.scores.is_empty() {
        return Err(Error::format(file, "`tokenizer.ggml.scores` is absent, which a \"llama\" tokenizer needs", HINT));
    }
    // Every place at which a piece can be cut is looked at, so its length counts twice.
    if let Some((id, token)) = meta.tokens.iter().enumerate().find(|(id, token)| token.len() > MAX_PIECE_BYTES && is_joinable(meta, *id)) {
        let problem = format!("token {id} of the \"llama\" vocabulary has {} bytes, at most {MAX_PIECE_BYTES} were expected", token.len());
        return Err(Error::format(file, problem, HINT));
    }
    let vocab = first_ids(&meta.tokens);
    let byte_fallback = (0..=255u8).all(|b| vocab.contains_key(format!("<0x{b:02X}>").as_str()));
    let unknown = meta.unknown_token_id.map(|id| meta.tokens[id as usize].clone());
    if !byte_fallback && unknown.is_none() {
        let problem = "the \"llama\" vocabulary has neither all byte tokens nor an unknown token, so text could be lost";
        return Err(Error::format(file, problem, HINT));
    }
    let merges = merges_from_scores(meta, &vocab);
    let mut model = BPE::builder().vocab_and_merges(owned(&vocab), merges).byte_fallback(byte_fallback).fuse_unk(true);
    if let Some(unknown) = unknown {
        model = model.unk_token(unknown);
    }
    let mut inner = tokenizers::Tokenizer::new(build(file, model)?);
    let internal = |e: tokenizers::Error| Error::format(file, format!("the tokenizer cannot be built: {e}"), HINT);
    let spaces = NormalizerWrapper::from(Replace::new(" ", "▁").map_err(internal)?);
    let prefix = meta.add_space_prefix.unwrap_or(true);
    let mut decoders: Vec<DecoderWrapper> = vec![Replace::new("▁", " ").map_err(internal)?.into()];
    decoders.push(ByteFallback::new().into());
    decoders.push(Fuse::new().into());
    let mut continuation = None;
    let mut normalizers = vec![spaces.clone()];
    if prefix {
        normalizers.insert(0, Prepend::new("▁".into()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
        continuation = Some(Continuation { normalizer: Some(spaces), pre_tokenizer: None });
    }
    inner.with_normalizer(Some(Normalizers::new(normalizers))).map_err(internal)?;
    inner.with_decoder(Some(Decoders::new(decoders)));
    finish(file, meta, Assembled { inner, continuation, spelling: Spelling::SentencePiece, unspellable: Vec::new(), add_bos: true })
}

/// The two kinds of tokenizer, before their special tokens.
struct Assembled {
    inner: tokenizers::Tokenizer,
    continuation: Option<Continuation>,
    spelling: Spelling,
    unspellable: Vec<u8>,
    add_bos: bool,
}

fn finish(file: &str, meta: &GgufTokenizer, made: Assembled) -> Result<Tokenizer> {
    let mut inner = made.inner;
    // Whatever ends or starts a sequence is a control token even where the file's types forget to say so.
    let always: HashSet<u32> = [meta.bos_token_id, meta.eos_token_id, meta.eot_token_id].into_iter().flatten().collect();
    let added = meta.tokens.iter().enumerate().filter_map(|(id, token)| {
        let kind = meta.token_type.get(id).copied().unwrap_or(1);
        let special = always.contains(&(id as u32)) || kind == CONTROL || kind == UNKNOWN;
        (special || kind == USER_DEFINED).then(|| AddedToken::from(token.clone(), special).normalized(false))
    });
    inner.add_tokens(added).map_err(|e| Error::format(file, format!("its special tokens contradict each other: {e}"), HINT))?;
    let around = |switch: bool, id: Option<u32>| if switch { id.into_iter().collect() } else { Vec::new() };
    Ok(Tokenizer::from_parts(Parts {
        inner,
        continuation: made.continuation,
        spelling: made.spelling,
        unspellable: made.unspellable,
        vocab_size: meta.tokens.len(),
        before: around(meta.add_bos_token.unwrap_or(made.add_bos), meta.bos_token_id),
        after: around(meta.add_eos_token.unwrap_or(false), meta.eos_token_id),
        special: SpecialIds {
            bos: meta.bos_token_id,
            eos: meta.eos_token_id,
            unk: meta.unknown_token_id,
            pad: meta.padding_token_id,
            also_stop: meta.eot_token_id.into_iter().collect(),
        },
        chat_template: meta.chat_template.clone(),
    }))
}

/// Whether a token may be joined from others: it is text.
fn is_joinable(meta: &GgufTokenizer, id: usize) -> bool {
    !matches!(meta.token_type.get(id), Some(&(UNKNOWN | CONTROL | BYTE)))
}

/// The merges that make byte-pair encoding choose what SentencePiece would: a piece may be joined from any two pieces, and
/// pieces with a higher score are joined first.
fn merges_from_scores(meta: &GgufTokenizer, vocab: &HashMap<&str, u32>) -> Vec<(String, String)> {
    let mut pieces: Vec<usize> = (0..meta.tokens.len()).filter(|&id| is_joinable(meta, id)).collect();
    pieces.sort_by(|&a, &b| meta.scores[b].total_cmp(&meta.scores[a]));
    let mut merges = Vec::new();
    for id in pieces {
        let piece = meta.tokens[id].as_str();
        if vocab[piece] as usize != id {
            continue; // a second copy of the same text can never be chosen
        }
        let cuts = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        let mut halves: Vec<_> = cuts.filter(|(left, right)| vocab.contains_key(left) && vocab.contains_key(right)).collect();
        halves.sort_by_key(|(left, right)| (vocab[left], vocab[right]));
        merges.extend(halves.into_iter().map(|(left, right)| (left.to_owned(), right.to_owned())));
    }
    merges
}

/// Every merge must join two known tokens to a third.
pub(super) fn check_merges(file: &str, merges: &[(String, String)], known: impl Fn(&str) -> bool) -> Result<()> {
    let mut joined = String::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if let Some(missing) = [left.as_str(), right.as_str(), joined.as_str()].into_iter().find(|token| !known(token)) {
            return Err(Error::format(file, format!("merge {rank} (\"{left} {right}\") uses {missing:?}, which is not a token"), HINT));
        }
    }
    Ok(())
}

/// Ids by spelling; where a spelling comes twice, the first one counts.
fn first_ids(tokens: &[String]) -> HashMap<&str, u32> {
    let mut vocab = HashMap::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        vocab.entry(token.as_str()).or_insert(id as u32);
    }
    vocab
}

fn owned(vocab: &HashMap<&str, u32>) -> Vocab {
    vocab.iter().map(|(token, &id)| ((*token).to_owned(), id)).collect()
}

fn build(file: &str, model: BpeBuilder) -> Result<BPE> {
    model.build().map_err(|e| Error::format(file, format!("the tokenizer cannot be built: {e}"), HINT))
}
