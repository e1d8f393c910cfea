//! Finds the files of a model from one path.

use super::foreign::{TELLING, instead_of_model};
use super::gguf::{MAGIC, MAX_SPLITS};
use super::model_file::{ModelFile, SideFiles};
use super::safetensors::parse_index;
use super::source::{ByteSource, File, list_folder, read_optional};
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Endings of PyTorch checkpoints, which are zips.
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

const INDEX: &str = "model.safetensors.index.json";

impl ModelFile {
    /// Opens a GGUF file (any part of a split one), a `.safetensors` file with `config.json` beside it, or a folder with either.
    pub async fn open_path(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return open_folder(path).await;
        }
        let file = File::open(path)?;
        let first = file.read(0, TELLING.min(file.len() as usize)).await?;
        if first.starts_with(&MAGIC) {
            return Self::open_gguf(open_all(&split_parts(path)?)?).await;
        }
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        // The length that a safetensors file begins with may look like anything; its header follows.
        let is_safetensors = extension == "safetensors" && first.get(8) == Some(&b'{');
        let foreign = instead_of_model(&first).filter(|_| !is_safetensors && !PICKLES.contains(&extension.as_str()));
        if let Some((kind, hint)) = foreign {
            return Err(Error::format(path.display().to_string(), format!("it is {kind}"), hint));
        }
        match extension.as_str() {
            "safetensors" => open_shards(path).await,
            "gguf" => Self::open_gguf(vec![Box::new(file)]).await, // says what it found instead of the magic number
            pickle if PICKLES.contains(&pickle) => Err(Error::Unsupported {
                what: format!("{}: a PyTorch pickle", path.display()),
                hint: "convert it to safetensors or GGUF".into(),
            }),
            _ => Err(Error::format(
                path.display().to_string(),
                "neither a GGUF file nor a .safetensors file",
                "pass a .gguf file, a .safetensors file or a folder with config.json",
            )),
        }
    }

    /// Takes the tokenizer of a `tokenizer.json`, or of a folder with one, instead of the model's own; a `tokenizer_config.json` and a
    /// `chat_template.jinja` beside it are read too.
    pub fn use_tokenizer(&mut self, path: &Path) -> Result<()> {
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let Some(json) = read_optional(&path)? else {
            return Err(Error::format(path.display().to_string(), "there is no such file", "give the path of a tokenizer.json"));
        };
        self.set_tokenizer(path.display().to_string(), json, read_optional(&path.with_file_name("tokenizer_config.json"))?);
        self.set_chat_template(read_optional(&path.with_file_name("chat_template.jinja"))?);
        Ok(())
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

fn open_all(paths: &[PathBuf]) -> Result<Vec<Box<dyn ByteSource>>> {
    paths.iter().map(|p| Ok(Box::new(File::open(p)?) as Box<dyn ByteSource>)).collect()
}

/// All parts of the split model that `path` is a part of, by the naming rule `NAME-00001-of-00003.gguf`; else the path alone.
fn split_parts(path: &Path) -> Result<Vec<PathBuf>> {
    let alone = || Ok(vec![path.to_owned()]);
    let Some((stem, count)) = path.file_name().and_then(|n| n.to_str()).and_then(split_name) else { return alone() };
    let parts: Vec<PathBuf> = (1..=count).map(|no| path.with_file_name(format!("{stem}-{no:05}-of-{count:05}.gguf"))).collect();
    match parts.iter().find(|p| !p.is_file()) {
        Some(missing) => Err(Error::format(
            path.display().to_string(),
            format!("it is one of {count} parts but {} is not there", missing.display()),
            "put all parts into one folder",
        )),
        None => Ok(parts),
    }
}

/// Stem and number of parts of `stem-00001-of-00003.gguf`.
fn split_name(name: &str) -> Option<(&str, usize)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, no) = rest.rsplit_once('-')?;
    let number = |text: &str| if text.len() == 5 { text.parse::<usize>().ok() } else { None };
    let (no, count) = (number(no)?, number(count)?);
    (1..=count.min(MAX_SPLITS)).contains(&no).then_some((stem, count))
}

async fn open_folder(folder: &Path) -> Result<ModelFile> {
    let files = list_folder(folder)?;
    let gguf: Vec<&PathBuf> = files.iter().filter(|p| has_extension(p, "gguf")).collect();
    let safetensors: Vec<&PathBuf> = files.iter().filter(|p| has_extension(p, "safetensors")).collect();
    let name = folder.display().to_string();
    match (gguf.first(), safetensors.first()) {
        (Some(first), None) => {
            let parts = split_parts(first)?;
            if parts.len() != gguf.len() {
                return Err(Error::format(name, format!("it holds {} GGUF files of several models", gguf.len()), "pass the file itself"));
            }
            ModelFile::open_gguf(open_all(&parts)?).await
        }
        (None, Some(first)) => {
            let whole = folder.join("model.safetensors");
            let indexed = folder.join(INDEX).is_file();
            if !indexed && !whole.is_file() && safetensors.len() > 1 {
                let problem = format!("it holds {} safetensors files but no {INDEX}", safetensors.len());
                return Err(Error::format(name, problem, "pass the file itself, or download the index too"));
            }
            let start = if indexed {
                folder.join(INDEX)
            } else if whole.is_file() {
                whole
            } else {
                (*first).clone()
            };
            open_shards(&start).await
        }
        (Some(_), Some(_)) => Err(Error::format(name, "it holds both GGUF and safetensors files", "pass the file itself")),
        (None, None) => Err(Error::format(name, "it holds neither a GGUF nor a safetensors file", "pass the folder with the weights")),
    }
}

/// Opens the weights that `path` (a safetensors file or the index) belongs to, with the text files beside it.
async fn open_shards(path: &Path) -> Result<ModelFile> {
    let side = SideFiles {
        config_json: read_optional(&path.with_file_name("config.json"))?,
        tokenizer_json: read_optional(&path.with_file_name("tokenizer.json"))?,
        tokenizer_file: None,
        tokenizer_config_json: read_optional(&path.with_file_name("tokenizer_config.json"))?,
        chat_template: read_optional(&path.with_file_name("chat_template.jinja"))?,
        generation_config_json: read_optional(&path.with_file_name("generation_config.json"))?,
    };
    let index_path = path.with_file_name(INDEX);
    if let Some(index) = read_optional(&index_path)? {
        let shards: BTreeSet<String> = parse_index(&index_path.display().to_string(), &index)?.into_values().collect();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name == INDEX || shards.contains(name) {
            let paths: Vec<PathBuf> = shards.iter().map(|shard| path.with_file_name(shard)).collect();
            return ModelFile::open_safetensors(open_all(&paths)?, Some(&index), side).await;
        }
    }
    ModelFile::open_safetensors(open_all(&[path.to_owned()])?, None, side).await
}
