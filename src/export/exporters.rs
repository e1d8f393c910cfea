//! The table of exporters. To add one: a file here or below, and a row in [`EXPORTERS`].

use super::folder::File;
use super::mixlora::write::Container;
use super::peft_embeddings;
use super::request::{Exported, Request, Sink, write_whole};
use super::{gguf_lora, merged};
use crate::formats::LocalFuture;
use crate::{Error, Result};

/// What an exporter makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// A folder with an adapter.
    PeftFolder,
    /// A folder with routers and experts.
    MixLoraFolder,
    /// A file with an adapter.
    GgufAdapter,
    /// A folder with a model.
    ModelFolder,
    /// A file with a model.
    ModelFile,
}

impl Made {
    /// It is one file, not a folder of them.
    pub fn is_file(self) -> bool {
        matches!(self, Self::GgufAdapter | Self::ModelFile)
    }
}

/// One kind of file or folder that an adapter can become.
pub struct Exporter {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// Whether the base model is needed.
    pub needs_model: bool,
    /// What is in it, for who opens it again.
    pub makes: Made,
    /// Writes it.
    pub run: for<'a> fn(&'a Request<'a>, &'a mut dyn Sink) -> LocalFuture<'a, Result<Exported>>,
}

/// Every exporter.
pub static EXPORTERS: &[Exporter] = &[
    Exporter {
        name: "peft",
        help: "the adapter alone, as a PEFT folder",
        needs_model: false,
        makes: Made::PeftFolder,
        run: |request, sink| Box::pin(peft(request, sink)),
    },
    Exporter {
        name: "mixlora",
        help: "routers and experts alone, with the names of MixLoRA's authors, as safetensors",
        needs_model: false,
        makes: Made::MixLoraFolder,
        run: |request, sink| Box::pin(async move { mixlora(request, Container::Safetensors, sink) }),
    },
    Exporter {
        name: "mixlora-bin",
        help: "the same with adapter_model.bin, the PyTorch file that the authors' programs read",
        needs_model: false,
        makes: Made::MixLoraFolder,
        run: |request, sink| Box::pin(async move { mixlora(request, Container::Pickle, sink) }),
    },
    Exporter {
        name: "gguf",
        help: "the adapter alone, as a GGUF file for llama.cpp and Ollama (--format f32, f16 or bf16)",
        needs_model: true,
        makes: Made::GgufAdapter,
        run: |request, sink| Box::pin(gguf_lora::export(request, sink)),
    },
    Exporter {
        name: "merged-safetensors",
        help: "base and adapter as one float model, a Hugging Face folder (--format f16, bf16 or f32)",
        needs_model: true,
        makes: Made::ModelFolder,
        run: |request, sink| Box::pin(merged::safetensors::export(request, sink)),
    },
    Exporter {
        name: "merged-gguf",
        help: "base and adapter as one GGUF file; changed weights in their own format, or in that of --format",
        needs_model: true,
        makes: Made::ModelFile,
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

async fn peft(request: &Request<'_>, sink: &mut dyn Sink) -> Result<Exported> {
    no_format(request, "a PEFT folder")?;
    let adapter = request.plain("a PEFT folder")?;
    let (embedding, told) = match &adapter.embeddings {
        Some(own) => peft_embeddings::whole(own, request.model).await?,
        None => (None, None),
    };
    let mut done = folder(adapter.files(request.name, embedding.as_deref())?, sink)?;
    done.warnings.extend(told);
    if !adapter.norms.is_empty() {
        let text =
            "the adapter's norms are in modules_to_save, which PEFT loads and llama.cpp, vLLM and others leave out: merge them for those";
        done.warnings.push(text.to_owned());
    }
    if let Some(angles) = request.angles()? {
        done.warnings.push(format!("the adapter was trained with rotary angles stretched by {angles}: other programs must be told so"));
    } else if let (None, Some(context)) = (request.model, adapter.note.as_ref().and_then(|note| note.config.get("context"))) {
        done.warnings.push(format!(
            "the adapter was trained for {context} tokens: other programs must be told the rope scaling, where that is longer than the base's context"
        ));
    }
    Ok(done)
}

fn mixlora(request: &Request<'_>, container: Container, sink: &mut dyn Sink) -> Result<Exported> {
    no_format(request, "a MixLoRA folder")?;
    folder(request.adapter.routed(request.name, "a MixLoRA folder")?.to_files(request.name, container)?, sink)
}

fn no_format(request: &Request<'_>, what: &str) -> Result<()> {
    match request.format {
        Some(format) => Err(Error::config("format", format!("{} for {what}, whose factors are f32", format.name), "leave --format out")),
        None => Ok(()),
    }
}

fn folder(files: Vec<File>, sink: &mut dyn Sink) -> Result<Exported> {
    let mut done = Exported::default();
    for (name, bytes) in files {
        write_whole(sink, &mut done, name, &bytes)?;
    }
    Ok(done)
}
