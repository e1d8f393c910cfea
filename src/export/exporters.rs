//! The table of exporters, and what all of them take and give. To add one: a file here or below, and a row in [`EXPORTERS`].

use serde::Serialize;

use super::merged;
use super::peft::PeftAdapter;
use super::retention::TensorExport;
use crate::formats::{LocalFuture, ModelFile};
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
    pub adapter: &'a PeftAdapter,
    /// The base, for exporters that need it.
    pub model: Option<&'a ModelFile>,
    /// How the weights are to be stored; `None` leaves it to the exporter.
    pub format: Option<&'static QuantFormat>,
}

impl<'a> Request<'a> {
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
}

/// One kind of file or folder that an adapter can become.
pub struct Exporter {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// Whether the base model is needed.
    pub needs_model: bool,
    /// It is one file, not a folder of them.
    pub single_file: bool,
    /// Writes it.
    pub run: for<'a> fn(&'a Request<'a>, &'a mut dyn Sink) -> LocalFuture<'a, Result<Exported>>,
}

/// Every exporter.
pub static EXPORTERS: &[Exporter] = &[
    Exporter {
        name: "peft",
        help: "the adapter alone, as a PEFT folder",
        needs_model: false,
        single_file: false,
        run: |request, sink| Box::pin(async move { peft(request, sink) }),
    },
    Exporter {
        name: "merged-safetensors",
        help: "base and adapter as one float model, a Hugging Face folder (--format f16, bf16 or f32)",
        needs_model: true,
        single_file: false,
        run: |request, sink| Box::pin(merged::safetensors::export(request, sink)),
    },
    Exporter {
        name: "merged-gguf",
        help: "base and adapter as one GGUF file; changed weights in their own format, or in that of --format",
        needs_model: true,
        single_file: true,
        run: |request, sink| Box::pin(merged::gguf::export(request, sink)),
    },
];

/// The exporter of that name.
///
/// # Errors
/// When there is none.
pub fn by_name(name: &str) -> Result<&'static Exporter> {
    EXPORTERS.iter().find(|exporter| exporter.name == name).ok_or_else(|| {
        let names: Vec<&str> = EXPORTERS.iter().map(|exporter| exporter.name).collect();
        Error::config("to", format!("`{name}` is unknown"), format!("use {}", crate::settings::one_of(&names)))
    })
}

fn peft(request: &Request<'_>, sink: &mut dyn Sink) -> Result<Exported> {
    if let Some(format) = request.format {
        return Err(Error::config("format", format!("{} for a PEFT folder, whose factors are f32", format.name), "leave --format out"));
    }
    let mut done = Exported::default();
    for (name, bytes) in request.adapter.to_files(request.name)? {
        write_whole(sink, &mut done, name, &bytes)?;
    }
    Ok(done)
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
