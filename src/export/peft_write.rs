//! Writes the folder of a plain LoRA adapter.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, TensorView};

use super::card::card;
use super::folder::{CARD_FILE, CONFIG_FILE, File, NOTE_FILE, PREFIX, TEMPLATE_FILE, WEIGHTS_FILE};
use super::handed_out::without_folders;
use super::peft::{Note, PeftAdapter};
use super::{peft_embeddings, peft_norms};
use crate::adapters::embeddings::MODULE;
use crate::{Error, Result};

impl PeftAdapter {
    /// The files of the folder, without paths of this machine. `adapter_config.json` is last: a folder that has it is whole.
    ///
    /// # Errors
    /// When a value is not finite, which no program could use.
    pub fn to_files(&self, name: &str) -> Result<Vec<File>> {
        self.files(name, None)
    }

    /// The same, with the whole embedding that PEFT is to use, `[vocab, hidden]`, where it is given.
    ///
    /// # Errors
    /// As [`Self::to_files`].
    pub(super) fn files(&self, name: &str, embedding: Option<&[f32]>) -> Result<Vec<File>> {
        let failed = |problem: String| Error::Adapter { adapter: name.to_owned(), problem, hint: "lower --lr and train again" };
        let mut views = Vec::with_capacity(2 * self.sites.len());
        for site in &self.sites {
            for (which, values, columns) in [("lora_A", &site.a, site.a.len() / site.rank), ("lora_B", &site.b, site.rank)] {
                if let Some(bad) = values.iter().find(|x| !x.is_finite()) {
                    return Err(failed(format!("{}.{which} holds {bad}", site.site)));
                }
                let view = TensorView::new(Dtype::F32, vec![values.len() / columns, columns], bytemuck::cast_slice(values));
                let view = view.map_err(|e| failed(format!("{}.{which}: {e}", site.site)))?;
                views.push((format!("{PREFIX}{}.{which}.weight", site.site.module()), view));
            }
        }
        views.extend(peft_norms::views(&self.norms).map_err(failed)?);
        if let Some(own) = &self.embeddings {
            views.extend(peft_embeddings::views(own).map_err(failed)?);
        }
        let mut config = self.config();
        if let (Some(whole), Some(own)) = (embedding, &self.embeddings) {
            let view = TensorView::new(Dtype::F32, vec![whole.len() / own.width(), own.width()], bytemuck::cast_slice(whole));
            views.push((peft_embeddings::whole_key(), view.map_err(|e| failed(format!("{MODULE}: {e}")))?));
            config.modules_to_save.push(MODULE.to_owned());
        }
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let weights = safetensors::serialize(views, Some(metadata)).map_err(|e| failed(e.to_string()))?;
        let mut files = vec![(WEIGHTS_FILE, weights), (CARD_FILE, card(self).into_bytes())];
        if let Some(note) = &self.note {
            files.push((NOTE_FILE, note_bytes(note).map_err(failed)?));
        }
        if let Some(template) = self.chat_template()? {
            files.push((TEMPLATE_FILE, template.as_bytes().to_vec()));
        }
        files.push((CONFIG_FILE, config.to_bytes()));
        Ok(files)
    }
}

/// The file of a note, without paths of this machine.
pub(super) fn note_bytes(note: &Note) -> std::result::Result<Vec<u8>, String> {
    let note = Note { config: without_folders(&note.config), ..note.clone() };
    let mut text = serde_json::to_string_pretty(&note).map_err(|e| e.to_string())?;
    text.push('\n');
    Ok(text.into_bytes())
}
