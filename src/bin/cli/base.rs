//! A base model with its tokenizer and any number of adapter folders, as `generate` and `eval` open them.

use std::path::{Path, PathBuf};

use weblora::Result;
use weblora::adapters::AdapterLayout;
use weblora::formats::ModelFile;
use weblora::text::{ChatOptions, Tokenizer};
use weblora::train::start::{chat_of, open_adapter};

use super::files::AdapterFiles;
use super::output::Output;

/// Opens a model, with the tokenizer of another file where one is named.
pub fn open_model(model: &Path, tokenizer: Option<&Path>) -> Result<ModelFile> {
    let mut file = pollster::block_on(ModelFile::open_path(model))?;
    if let Some(path) = tokenizer {
        file.use_tokenizer(path)?;
    }
    Ok(file)
}

/// A model, its tokenizer and adapters that fit it.
pub struct Base {
    /// The opened header.
    pub file: ModelFile,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Names, layouts and values.
    pub adapters: Vec<(AdapterLayout, Vec<f32>)>,
    /// How the adapters' conversations became text.
    pub chats: Vec<ChatOptions>,
    /// What the user should know about the model and the adapters.
    pub warnings: Vec<String>,
    /// What each run over the model is called: "base", then the adapters' folders.
    pub names: Vec<String>,
}

impl Base {
    /// Opens everything; no device yet.
    pub fn open(model: &Path, tokenizer: Option<&Path>, adapters: &[PathBuf], strict_base: bool) -> Result<Self> {
        let file = open_model(model, tokenizer)?;
        let tokenizer = Tokenizer::of_model(&file)?;
        let id = pollster::block_on(file.identity())?;
        let warnings = file.warnings().to_vec();
        let mut base = Self { file, tokenizer, adapters: Vec::new(), chats: Vec::new(), warnings, names: vec!["base".into()] };
        for path in adapters {
            let name = path.display().to_string();
            let files = AdapterFiles::read(path)?;
            let (adapter, warning) = open_adapter(files.folder(), &base.file.config, &id, strict_base)?;
            if adapter.0.changes_nothing(&adapter.1) {
                base.warnings.push(format!("{name} CHANGES NOTHING: every product B A of it is zero"));
            }
            base.adapters.push(adapter);
            base.warnings.extend(warning.map(|warning| format!("{warning} (--strict-base refuses it)")));
            base.chats.push(chat_of(files.folder())?);
            base.names.push(name);
        }
        Ok(base)
    }

    /// Tells what the user should know.
    pub fn warn(&self, output: &mut Output) {
        self.warnings.iter().for_each(|warning| output.warn(warning.clone()));
    }
}
