//! What every exporter takes and gives: the request, where it writes, what it wrote.

use serde::Serialize;

use super::adapter::Subject;
use super::peft::PeftAdapter;
use super::retention::TensorExport;
use crate::config::ModelConfig;
use crate::formats::ModelFile;
use crate::model::stretch;
use crate::quant::QuantFormat;
use crate::{Error, Result};

/// Where an exporter writes: files one after the other, each in pieces. The caller decides where they go, and that nobody sees half of one.
pub trait Sink {
    /// Starts the next file, which will have `bytes` bytes.
    ///
    /// # Errors
    /// When it cannot be written, such as on a full disk.
    fn begin(&mut self, name: &str, bytes: u64) -> Result<()>;

    /// Appends to it.
    ///
    /// # Errors
    /// As [`Self::begin`].
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Ends it.
    ///
    /// # Errors
    /// As [`Self::begin`].
    fn end(&mut self) -> Result<()>;
}

/// What is to be exported.
pub struct Request<'a> {
    /// What errors call the adapter.
    pub name: &'a str,
    /// The adapter, read against the model where there is one.
    pub adapter: Subject<'a>,
    /// The base, for exporters that need it.
    pub model: Option<&'a ModelFile>,
    /// How the weights are to be stored; `None` leaves it to the exporter.
    pub format: Option<&'static QuantFormat>,
}

impl<'a> Request<'a> {
    /// The plain adapter that `what` is made of.
    ///
    /// # Errors
    /// When it has routed experts.
    pub fn plain(&self, what: &str) -> Result<&'a PeftAdapter> {
        self.adapter.plain(self.name, what)
    }

    /// The base's shape as the adapter was trained for it: with stretched angles where its run had a longer context.
    ///
    /// # Errors
    /// When no base was given, or its angles cannot be stretched so.
    pub fn trained_config(&self) -> Result<ModelConfig> {
        let config = &self.need_model()?.config;
        let note = self.plain("a merged model")?.note.as_ref();
        note.map_or_else(|| Ok(config.clone()), |note| stretch::of_settings(config, &note.config))
    }

    /// How the base's angles were stretched for the adapter, in words; without a base, as far as the adapter's note says so.
    ///
    /// # Errors
    /// As [`Self::trained_config`].
    pub fn angles(&self) -> Result<Option<String>> {
        match self.model {
            Some(model) => Ok(stretch::in_words(&model.config, &self.trained_config()?)),
            None => Ok(self.plain("an adapter")?.note.as_ref().and_then(|note| note.angles.clone())),
        }
    }

    /// The base.
    ///
    /// # Errors
    /// When none was given.
    pub fn need_model(&self) -> Result<&'a ModelFile> {
        self.model.ok_or_else(|| Error::config("model", "is missing", "name the base model that the adapter was trained on"))
    }
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Exported {
    /// Names of the files, in the order they were written.
    pub files: Vec<String>,
    /// Bytes of all files together.
    pub bytes: u64,
    /// The weights that the adapter changed, and how much of each change is in the file.
    pub tensors: Vec<TensorExport>,
    /// What is not in the files and was in the adapter, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The file cannot say how the adapter's rotary angles were stretched.
    #[serde(skip)]
    pub loses_angles: bool,
}

/// Writes a small file at once.
pub(super) fn write_whole(sink: &mut dyn Sink, done: &mut Exported, name: &str, bytes: &[u8]) -> Result<()> {
    sink.begin(name, bytes.len() as u64)?;
    sink.write(bytes)?;
    sink.end()?;
    done.files.push(name.to_owned());
    done.bytes += bytes.len() as u64;
    Ok(())
}
