//! A tokenizer as the files that transformers reads.

use serde_json::{Value, json};

use super::tokenizer::Tokenizer;
use crate::{Error, Result};

impl Tokenizer {
    /// `tokenizer.json` and `tokenizer_config.json`, for a model whose context has `context` tokens.
    ///
    /// # Errors
    /// When a part of the tokenizer has no JSON form.
    pub fn to_hf_files(&self, context: usize) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let failed =
            |e: String| Error::format("tokenizer", format!("cannot be written: {e}"), "use the tokenizer.json of the original model");
        let text = self.to_json().map_err(|e| failed(e.to_string()))?;
        let mut file: Value = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
        file["post_processor"] = self.template();
        let spelled = |id: Option<u32>| id.and_then(|id| self.token_text(id));
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": context,
            "clean_up_tokenization_spaces": false,
            "add_prefix_space": false,
        });
        for (key, id) in [("bos_token", self.bos()), ("eos_token", self.eos()), ("unk_token", self.unk()), ("pad_token", self.pad())] {
            if let Some(text) = spelled(id) {
                config[key] = text.into();
            }
        }
        if let Some(template) = self.chat_template() {
            config["chat_template"] = template.into();
        }
        let bytes = |value: &Value| format!("{value:#}\n").into_bytes();
        Ok(vec![("tokenizer.json", bytes(&file)), ("tokenizer_config.json", bytes(&config))])
    }

    /// The tokens around a text as a post-processor; null where there are none.
    fn template(&self) -> Value {
        let (before, after) = (self.prefix(), self.suffix());
        if before.is_empty() && after.is_empty() {
            return Value::Null;
        }
        let spelled = |id: &u32| self.token_text(*id).unwrap_or_default();
        let special = |kind: u32| move |id: &u32| json!({"SpecialToken": {"id": spelled(id), "type_id": kind}});
        let around = |piece: &str, kind: u32| -> Vec<Value> {
            let text = json!({"Sequence": {"id": piece, "type_id": kind}});
            before.iter().map(special(kind)).chain([text]).chain(after.iter().map(special(kind))).collect()
        };
        let tokens: serde_json::Map<String, Value> =
            before.iter().chain(after).map(|id| (spelled(id), json!({"id": spelled(id), "ids": [id], "tokens": [spelled(id)]}))).collect();
        let pair = [around("A", 0), around("B", 1)].concat();
        json!({
            "type": "TemplateProcessing",
            "single": around("A", 0),
            "pair": pair,
            "special_tokens": tokens,
        })
    }
}
