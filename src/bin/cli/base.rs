//! A base model with its tokenizer and any number of adapter folders, as `generate` and `eval` open them.

use std::path::{Path, PathBuf};

use clap::Args;
use weblora::adapters::AdapterLayout;
use weblora::config::ModelConfig;
use weblora::formats::ModelFile;
use weblora::model::stretch;
use weblora::text::{ChatOptions, Tokenizer};
use weblora::train::context::ContextConfig;
use weblora::train::start::{angles_of, chat_of, open_adapter, stretch_of};
use weblora::{Error, Result};

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

/// For how long sequences the model's rotary angles are.
#[derive(Debug, Clone, Default, Args)]
pub struct AngleArgs {
    /// Stretch the model's rotary angles for sequences of this many tokens [default: as the adapter was trained].
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
    /// How they are stretched: linear, dynamic, llama3 or yarn [default: as the model's are, else linear].
    #[arg(long, value_name = "NAME", requires = "context")]
    pub rope_scaling: Option<String>,
}

impl AngleArgs {
    /// The model with the angles that were asked for, or those that all of the adapters were trained with.
    fn stretch(&self, model: &ModelConfig, adapters: &[AdapterFiles]) -> Result<ModelConfig> {
        if let Some(context) = self.context {
            let asked = self.rope_scaling.as_deref().map(stretch::Stretch::by_name).transpose()?;
            // As the adapters were trained, where all were in one way.
            let mut own = adapters.iter().map(|files| stretch_of(files.folder(), model, context));
            let first = own.next().flatten();
            let rope_scaling = asked.or(first.filter(|first| own.all(|other| other == Some(*first))));
            return ContextConfig { context: self.context, rope_scaling, ..ContextConfig::default() }.stretch(model);
        }
        let mut found: Option<ModelConfig> = None;
        for files in adapters {
            let own = angles_of(files.folder(), model)?;
            if let Some(first) = found.filter(|first| *first != own) {
                return Err(differing(&first, &own));
            }
            found = Some(own);
        }
        Ok(found.unwrap_or_else(|| model.clone()))
    }
}

/// What adapters that cannot be used together differ in.
fn differing(first: &ModelConfig, other: &ModelConfig) -> Error {
    let problem = "the adapters were trained with different ones";
    let key = if first.context_length() == other.context_length() { "rope-scaling" } else { "context" };
    Error::config(key, problem, "use them one after the other, or give --context and --rope-scaling")
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
    pub fn open(model: &Path, tokenizer: Option<&Path>, adapters: &[PathBuf], strict_base: bool, angles: &AngleArgs) -> Result<Self> {
        let mut file = open_model(model, tokenizer)?;
        let folders = adapters.iter().map(|path| AdapterFiles::read(path)).collect::<Result<Vec<_>>>()?;
        let stretched = angles.stretch(&file.config, &folders)?;
        let words = stretch::in_words(&file.config, &stretched).filter(|_| !folders.is_empty());
        file.config = stretched;
        let tokenizer = Tokenizer::of_model(&file)?;
        let id = pollster::block_on(file.identity())?;
        let mut warnings = file.warnings().to_vec();
        warnings.extend(words.map(|words| {
            format!("the model's angles are stretched, {words}, also where it answers without an adapter: leave out --adapter for the model as it is")
        }));
        let mut base = Self { file, tokenizer, adapters: Vec::new(), chats: Vec::new(), warnings, names: vec!["base".into()] };
        for (path, files) in adapters.iter().zip(folders) {
            let name = path.display().to_string();
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
