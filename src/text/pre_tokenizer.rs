//! The pre-tokenisers that a GGUF file can name (`tokenizer.ggml.pre`): how text is cut before byte-pair merges.
//!
//! A GGUF file holds only the name; the patterns are those of the models' own `tokenizer.json`. Each pattern cuts every piece left
//! by the one before it into its matches and what lies between them.

use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

use crate::{Error, Result};

/// One family of pre-tokenisers.
struct Family {
    /// The values of `tokenizer.ggml.pre` that mean it.
    names: &'static [&'static str],
    /// Patterns, applied one after the other.
    patterns: &'static [&'static str],
    /// A piece that is itself a token is not merged up from bytes.
    ignore_merges: bool,
    /// Whether texts start with the beginning-of-sequence token when the file does not say.
    add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const FAMILIES: &[Family] = &[
    Family {
        names: &["default"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["gpt-2", "phi-2", "roberta-bpe", "jina-es", "jina-de", "gigachat", "mpt", "olmo", "jais"],
        patterns: &[GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        patterns: &[r"\p{N}", GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Family { names: &["llama-bpe", "llama3", "llama-v3", "falcon3"], patterns: &[LLAMA3], ignore_merges: true, add_bos: true },
    Family { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], patterns: &[LLAMA3], ignore_merges: false, add_bos: false },
    Family { names: &["qwen2", "stablelm2", "megrez", "deepseek-r1-qwen"], patterns: &[QWEN2], ignore_merges: false, add_bos: false },
    Family { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true },
    Family { names: &["falcon"], patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"], ignore_merges: false, add_bos: false },
];

/// A named pre-tokeniser, ready for the byte-level model.
pub(super) struct Pre {
    /// Cuts the text, then spells every byte as one character.
    pub(super) pre_tokenizer: PreTokenizerWrapper,
    /// A piece that is itself a token is not merged up from bytes.
    pub(super) ignore_merges: bool,
    /// Whether texts start with the beginning-of-sequence token when the file does not say.
    pub(super) add_bos: bool,
}

/// The pre-tokeniser of that name; refuses names it does not know exactly.
pub(super) fn by_name(name: &str) -> Result<Pre> {
    let Some(family) = FAMILIES.iter().find(|f| f.names.contains(&name)) else {
        let known: Vec<&str> = FAMILIES.iter().flat_map(|f| f.names.iter().copied()).collect();
        return Err(Error::Unsupported {
            what: format!("the pre-tokeniser {name:?} (`tokenizer.ggml.pre`)"),
            hint: format!("use the model's tokenizer.json, or a model with one of: {}", known.join(", ")),
        });
    };
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    for pattern in family.patterns {
        let split = Split::new(SplitPattern::Regex((*pattern).into()), SplitDelimiterBehavior::Isolated, false)
            .map_err(|e| Error::format("tokenizer.ggml.pre", format!("the pattern of {name} does not compile: {e}"), "please report it"))?;
        steps.push(split.into());
    }
    steps.push(ByteLevel::new(false, false, false).into());
    Ok(Pre { pre_tokenizer: Sequence::new(steps).into(), ignore_merges: family.ignore_merges, add_bos: family.add_bos })
}
