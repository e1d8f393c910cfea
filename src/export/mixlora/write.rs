//! The files of a MixLoRA adapter.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, TensorView};

use super::MixLoraAdapter;
use super::card::card;
use super::names::Part;
use crate::export::folder::CARD_FILE;
use crate::export::folder::CONFIG_FILE;
use crate::export::folder::PICKLE_FILE;
use crate::export::folder::{File, NOTE_FILE, TEMPLATE_FILE, WEIGHTS_FILE};
use crate::export::peft::{PeftSite, template_of};
use crate::export::peft_write::note_bytes;
use crate::formats::pickle;
use crate::{Error, Result};

/// How the tensors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// `adapter_model.safetensors`.
    Safetensors,
    /// `adapter_model.bin`, which the authors' programs read.
    Pickle,
}

impl MixLoraAdapter {
    /// Every tensor with its name and sizes.
    fn tensors(&self) -> Vec<(Part, Vec<usize>, &[f32])> {
        let halves = |site: &PeftSite| [vec![site.rank, site.a.len() / site.rank], vec![site.b.len() / site.rank, site.rank]];
        let mut tensors = Vec::new();
        for site in &self.attention {
            let [a, b] = halves(site);
            tensors.push((Part::Attention(site.site, 0), a, site.a.as_slice()));
            tensors.push((Part::Attention(site.site, 1), b, site.b.as_slice()));
        }
        for set in &self.experts {
            for (e, site) in set.experts.iter().enumerate() {
                let [a, b] = halves(site);
                tensors.push((Part::Expert(set.site, e, 0), a, site.a.as_slice()));
                tensors.push((Part::Expert(set.site, e, 1), b, site.b.as_slice()));
            }
        }
        for gate in &self.gates {
            let experts = self.routing.experts;
            tensors.push((Part::Gate(gate.layer), vec![experts, gate.values.len() / experts], gate.values.as_slice()));
        }
        tensors
    }

    /// The files of the folder, without paths of this machine. `adapter_config.json` is last: a folder that has it is whole.
    ///
    /// # Errors
    /// When a value is not finite, which no program could use.
    pub fn to_files(&self, name: &str, container: Container) -> Result<Vec<File>> {
        let failed = |problem: String| Error::Adapter { adapter: name.to_owned(), problem, hint: "lower --lr and train again" };
        let tensors = self.tensors();
        for (part, _, values) in &tensors {
            if let Some(bad) = values.iter().find(|x| !x.is_finite()) {
                return Err(failed(format!("{} holds {bad}", part.name())));
            }
        }
        let weights = match container {
            Container::Pickle => {
                let named: Vec<_> = tensors.into_iter().map(|(part, shape, values)| (part.name(), shape, values)).collect();
                (PICKLE_FILE, pickle::write(name, &named)?)
            }
            Container::Safetensors => {
                let mut views = Vec::with_capacity(tensors.len());
                for (part, shape, values) in tensors {
                    let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values));
                    views.push((part.name(), view.map_err(|e| failed(format!("{}: {e}", part.name())))?));
                }
                let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
                (WEIGHTS_FILE, safetensors::serialize(views, Some(metadata)).map_err(|e| failed(e.to_string()))?)
            }
        };
        let mut files = vec![weights, (CARD_FILE, card(self).into_bytes())];
        if let Some(note) = &self.note {
            files.push((NOTE_FILE, note_bytes(note).map_err(failed)?));
        }
        if let Some(template) = template_of(self.note.as_ref())? {
            files.push((TEMPLATE_FILE, template.as_bytes().to_vec()));
        }
        files.push((CONFIG_FILE, self.config().to_bytes()));
        Ok(files)
    }
}
