//! A base model with its tokenizer and any number of adapter folders, as `generate` and `eval` open them.

use std::path::{Path, PathBuf};

use weblora::adapters::{AdapterConfig, AdapterLayout};
use weblora::export::peft::PeftAdapter;
use weblora::formats::ModelFile;
use weblora::quant::{self, QuantFormat};
use weblora::settings::Settings;
use weblora::text::Tokenizer;
use weblora::{Error, Result};

use super::files::AdapterFiles;

/// A model, its tokenizer and adapters that fit it.
pub struct Base {
    /// The opened header.
    pub file: ModelFile,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Names, layouts and values.
    pub adapters: Vec<(AdapterLayout, Vec<f32>)>,
    /// What each run over the model is called: "base", then the adapters' folders.
    pub names: Vec<String>,
}

impl Base {
    /// Opens everything; no device yet.
    pub fn open(model: &Path, adapters: &[PathBuf]) -> Result<Self> {
        let file = pollster::block_on(ModelFile::open_path(model))?;
        let tokenizer = Tokenizer::of_model(&file)?;
        let hash = pollster::block_on(file.content_hash())?;
        let mut base = Self { file, tokenizer, adapters: Vec::new(), names: vec!["base".into()] };
        for path in adapters {
            let name = path.display().to_string();
            let files = AdapterFiles::read(path)?;
            let adapter = PeftAdapter::read(files.folder(), &base.file.config)?;
            adapter.check_base(&name, &hash)?;
            let layout = AdapterConfig::read(&mut Settings::new(&adapter.settings()))?.layout(&base.file.config)?;
            let values = adapter.to_buffer(&name, &layout)?;
            base.adapters.push((layout, values));
            base.names.push(name);
        }
        Ok(base)
    }
}

/// The format that `--quantize` names; `None` for "none".
pub fn quantize(name: &str) -> Result<Option<&'static QuantFormat>> {
    if name == "none" {
        return Ok(None);
    }
    let found = quant::by_name(name).filter(|f| f.encode.is_some());
    found.map(Some).ok_or_else(|| Error::config("quantize", format!("`{name}` is no format to quantise to"), "use nf4, q4_0, q8_0 or none"))
}
