//! The folder of an adapter: what its files are called, and the files as read.

use crate::{Error, Result};

/// File name of PEFT's configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// File name of the tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// File name of the tensors where PyTorch wrote them.
pub const PICKLE_FILE: &str = "adapter_model.bin";
/// File name of our note.
pub const NOTE_FILE: &str = "weblora.json";
/// File name of a chat template that is not the base's own, as transformers has it.
pub const TEMPLATE_FILE: &str = "chat_template.jinja";
/// File name of a chain's manifest.
pub const CHAIN_FILE: &str = "chain.json";
/// File name of the model card.
pub const CARD_FILE: &str = "README.md";

/// What PEFT puts before the names of tensors.
pub(super) const PREFIX: &str = "base_model.model.";
/// Blocks that an adapter may count where its model is not at hand, far above any model.
pub(super) const MAX_BLOCKS: usize = 1024;
pub(super) const HINT_FIT: &str = "use an adapter that was trained for this model";
pub(super) const HINT_FILE: &str = "save or download the adapter again";

/// A named file and its bytes.
pub type File = (&'static str, Vec<u8>);

/// The files of an adapter folder, as read.
#[derive(Debug, Clone, Copy)]
pub struct Folder<'a> {
    /// What errors call the folder.
    pub name: &'a str,
    /// `adapter_config.json`.
    pub config: &'a [u8],
    /// `adapter_model.safetensors`, or `adapter_model.bin` as PyTorch writes it.
    pub weights: &'a [u8],
    /// `weblora.json`, where there is one.
    pub note: Option<&'a [u8]>,
    /// `chain.json`, where there is one.
    pub chain: Option<&'a [u8]>,
}

impl<'a> Folder<'a> {
    /// The folder called `name` that holds `files`; other files than these are ignored.
    ///
    /// # Errors
    /// When the configuration or the tensors are missing.
    pub fn of(name: &'a str, files: &'a [(String, Vec<u8>)]) -> Result<Self> {
        let find = |wanted: &str| files.iter().find(|(file, _)| file == wanted).map(|(_, bytes)| bytes.as_slice());
        let need = |wanted: &str| {
            let problem = || format!("it has no {wanted}");
            let hint = "pass the files of a folder that PEFT or weblora saved";
            find(wanted).ok_or_else(|| Error::Adapter { adapter: name.to_owned(), problem: problem(), hint })
        };
        let weights = find(WEIGHTS_FILE).or_else(|| find(PICKLE_FILE)).map_or_else(|| need(WEIGHTS_FILE), Ok)?;
        Ok(Self { name, config: need(CONFIG_FILE)?, weights, note: find(NOTE_FILE), chain: find(CHAIN_FILE) })
    }
}
