//! The tokenizer that belongs to an opened model file.

use serde::Deserialize;

use super::gguf_vocab::GgufTokenizer;
use super::tokenizer::Tokenizer;
use crate::formats::{Metadata, ModelFile, SideFiles};
use crate::{Error, Result};

impl GgufTokenizer {
    /// Copies the tokenizer keys out of a GGUF file's metadata.
    ///
    /// # Errors
    /// When a key has another type than it should, or when there is no tokenizer.
    pub fn from_metadata(meta: &Metadata) -> Result<Self> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let id = |name: &str| -> Result<Option<u32>> {
            let found = meta.u64(&key(name))?;
            // An id beyond 32 bits is as wrong as the highest one, which no vocabulary has: the tokenizer names it.
            Ok(found.map(|id| u32::try_from(id).unwrap_or(u32::MAX)))
        };
        let (model, tokens) = (key("model"), key("tokens"));
        Ok(Self {
            model: meta.require(&model, meta.str(&model)?)?.to_owned(),
            pre: meta.str(&key("pre"))?.map(str::to_owned),
            tokens: meta.require(&tokens, meta.strings(&tokens)?)?.to_vec(),
            scores: meta.f32s(&key("scores"))?.unwrap_or_default().to_vec(),
            token_type: meta.i32s(&key("token_type"))?.unwrap_or_default().to_vec(),
            merges: meta.strings(&key("merges"))?.unwrap_or_default().to_vec(),
            bos_token_id: id("bos_token_id")?,
            eos_token_id: id("eos_token_id")?,
            eot_token_id: id("eot_token_id")?,
            unknown_token_id: id("unknown_token_id")?,
            padding_token_id: id("padding_token_id")?,
            add_bos_token: meta.bool(&key("add_bos_token"))?,
            add_eos_token: meta.bool(&key("add_eos_token"))?,
            add_space_prefix: meta.bool(&key("add_space_prefix"))?,
            chat_template: meta.str("tokenizer.chat_template")?.map(str::to_owned),
        })
    }
}

/// What `generation_config.json` says about stopping.
#[derive(Deserialize)]
struct GenerationConfig {
    #[serde(default)]
    eos_token_id: StopIds,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum StopIds {
    #[default]
    None,
    One(u32),
    Many(Vec<u32>),
}

/// One in so many tokens may have another name.
const MOST_RENAMED: usize = 100;

/// What errors call the `tokenizer.json` that is read.
fn file_name(side: &SideFiles) -> &str {
    side.tokenizer_file.as_deref().unwrap_or("tokenizer.json")
}

impl Tokenizer {
    /// The tokenizer of a model: one that was set, or from the metadata of a GGUF file, or from the files beside safetensors weights.
    ///
    /// # Errors
    /// When there is none, or when it is damaged or of an unknown kind.
    pub fn of_model(model: &ModelFile) -> Result<Self> {
        let side = model.side_files();
        if !model.metadata().is_empty() {
            return match &side.tokenizer_json {
                Some(json) => Self::beside_gguf(model, json),
                None => Self::from_gguf(model.name(), GgufTokenizer::from_metadata(model.metadata())?),
            };
        }
        let Some(json) = &side.tokenizer_json else {
            return Err(Error::format(model.name(), "there is no tokenizer.json beside the weights", "download it from the same place"));
        };
        let config = side.tokenizer_config_json.as_ref().map(String::as_bytes);
        let mut tokenizer = Self::from_json(file_name(side), json.as_bytes(), config)?;
        if let Some(template) = &side.chat_template {
            tokenizer = tokenizer.with_chat_template(template.as_str());
        }
        if let Some(text) = &side.generation_config_json {
            let config: GenerationConfig = serde_json::from_str(text).map_err(|e| {
                Error::format("generation_config.json", format!("not valid: {e}"), "use the file that belongs to the model")
            })?;
            tokenizer = match config.eos_token_id {
                StopIds::None => tokenizer,
                StopIds::One(id) => tokenizer.with_stop_ids(&[id]),
                StopIds::Many(ids) => tokenizer.with_stop_ids(&ids),
            };
        }
        Ok(tokenizer)
    }

    /// The tokenizer of a `tokenizer.json` for the weights of a GGUF file, whose metadata fills in what the file does not say.
    fn beside_gguf(model: &ModelFile, json: &str) -> Result<Self> {
        let side = model.side_files();
        let config = side.tokenizer_config_json.as_ref().map(String::as_bytes);
        let mut tokenizer = Self::from_json(file_name(side), json.as_bytes(), config)?;
        if tokenizer.vocab_size() > model.config.vocab_size {
            let problem =
                format!("it has token ids up to {}, the model has {} tokens", tokenizer.vocab_size() - 1, model.config.vocab_size);
            return Err(Error::format(file_name(side), problem, super::tokenizer_check::HINT));
        }
        let meta = model.metadata();
        // The file's own tokenizer may be one that is not known here; its tokens are the same all the same.
        if let Ok(own) = GgufTokenizer::from_metadata(meta) {
            let both = own.tokens.iter().enumerate().filter_map(|(id, token)| Some((id, token, tokenizer.token_text(id as u32)?)));
            let compared: Vec<_> = both.collect();
            let differ: Vec<_> = compared.iter().filter(|(_, token, text)| *token != text).collect();
            // Some control tokens may have got other names.
            if let Some((id, token, text)) = differ.first().filter(|_| MOST_RENAMED * differ.len() > compared.len()) {
                let problem = format!(
                    "{} of its {} tokens are others than the model's: token {id} is {text:?} there and {token:?} in the model",
                    differ.len(),
                    compared.len()
                );
                return Err(Error::format(file_name(side), problem, super::tokenizer_check::HINT));
            }
        }
        let id = |name: &str| -> Result<Option<u32>> {
            let found = meta.u64(&format!("tokenizer.ggml.{name}_token_id"))?;
            Ok(found.and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < tokenizer.vocab_size()))
        };
        let (bos, eos, eot, unk, pad) = (id("bos")?, id("eos")?, id("eot")?, id("unknown")?, id("padding")?);
        let template = match &side.chat_template {
            Some(template) => Some(template.as_str()),
            None if tokenizer.chat_template().is_none() => meta.str("tokenizer.chat_template")?,
            None => None,
        };
        if let Some(template) = template {
            tokenizer = tokenizer.with_chat_template(template);
        }
        let stops: Vec<u32> = eos.into_iter().chain(eot).collect();
        Ok(tokenizer.with_special_ids(bos, eos, unk, pad).with_stop_ids(&stops))
    }
}
