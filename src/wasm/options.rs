//! What callers pass, read once at the border.

use serde::Deserialize;
use serde_json::Value;
use wasm_bindgen::prelude::*;

use super::convert::{field, from_js, from_thrown, settings_from_js};
use crate::export::folder::File;
use crate::generate::Sampling;
use crate::settings::Map;
use crate::train::read::RowFile;
use crate::{Error, Result, demo};

/// Files of an adapter: names and bytes.
pub type AdapterFiles = Vec<(String, Vec<u8>)>;

/// Rows of a page, or a set inside this module.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Rows {
    /// A text of JSON lines or a JSON array.
    Text {
        /// The text.
        text: String,
        /// What errors call it.
        name: Option<String>,
        /// The setting `format`, where it is given with the rows.
        format: Option<String>,
    },
    /// "train" or "heldout".
    Embedded {
        /// Which.
        embedded: String,
    },
}

impl Rows {
    /// What errors call the rows.
    pub fn name(&self) -> &str {
        match self {
            Self::Text { name, .. } => name.as_deref().unwrap_or("rows"),
            Self::Embedded { embedded } => embedded,
        }
    }

    /// The rows' text.
    pub fn bytes(&self) -> Result<&[u8]> {
        match self {
            Self::Text { text, .. } => Ok(text.as_bytes()),
            Self::Embedded { embedded } => match embedded.as_str() {
                "train" => Ok(demo::TRAIN),
                "heldout" => Ok(demo::HELD_OUT),
                other => Err(Error::config("rows", format!("there is no embedded set `{other}`"), "use train or heldout")),
            },
        }
    }

    /// Reads one set of rows, or several that a run mixes; nothing is none.
    ///
    /// # Errors
    /// Something else.
    pub fn read_all(value: JsValue, what: &str) -> Result<Vec<Self>> {
        if value.is_falsy() {
            return Ok(Vec::new());
        }
        if value.is_array() { from_js(value, what) } else { from_js(value, what).map(|rows| vec![rows]) }
    }

    /// Puts the formats that came with some sets among the settings, of which there is one.
    ///
    /// # Errors
    /// Two formats.
    pub fn settle_all(all: &[Self], settings: &mut Map) -> Result<()> {
        for rows in all {
            let before = settings.get("format").cloned();
            rows.settle(settings);
            if let (Some(before), Some(now)) = (before, settings.get("format"))
                && before != *now
                && all.len() > 1
            {
                let problem = format!("is {before} for some rows and {now} for others");
                return Err(Error::config("format", problem, "mix rows of one format, or leave it to each row (auto)"));
            }
        }
        Ok(())
    }

    /// Puts a format that came with the rows among the settings.
    pub fn settle(&self, settings: &mut Map) {
        if let Self::Text { format: Some(format), .. } = self {
            settings.insert("format".into(), format.as_str().into());
        }
    }
}

/// A function of the page, or none.
pub struct Callback(Option<js_sys::Function>);

impl Callback {
    /// Anything that is no function calls nothing.
    pub fn new(value: JsValue) -> Self {
        Self(value.dyn_into().ok())
    }

    /// Hands on a piece of text.
    pub fn text(&self, text: &str) {
        if let Some(function) = &self.0 {
            // What a listener throws is its own affair.
            let _ = function.call1(&JsValue::NULL, &text.into());
        }
    }

    /// Hands on progress.
    pub fn progress(&self, phase: &str, done: u64, total: u64) {
        if let Some(function) = &self.0 {
            let _ = function.call3(&JsValue::NULL, &phase.into(), &(done as f64).into(), &(total as f64).into());
        }
    }
}

/// How a run is started.
pub struct Start {
    /// Run-file keys.
    pub settings: Map,
    /// Rows to train on, a task each.
    pub rows: Vec<Rows>,
    /// Rows to evaluate on.
    pub held_out: Vec<Rows>,
    /// An adapter to start from.
    pub init_adapter: Option<AdapterFiles>,
    /// A checkpoint to go on from.
    pub resume: Option<Vec<u8>>,
    /// Measure kernels first.
    pub tune: bool,
}

impl Start {
    /// Reads `StartOptions`.
    pub fn read(object: &JsValue) -> Result<Self> {
        let get = |key: &str| field(object, key);
        let resume = get("resume")?;
        Ok(Self {
            settings: settings_from_js(get("settings")?)?.unwrap_or_default(),
            rows: Rows::read_all(get("rows")?, "rows")?,
            held_out: Rows::read_all(get("heldOut")?, "heldOut")?,
            init_adapter: adapter_from_js(&get("initAdapter")?)?,
            resume: (!resume.is_falsy()).then(|| bytes_from_js(&resume, "resume")).transpose()?,
            tune: get("tune")?.is_truthy(),
        })
    }
}

/// Which adapter lies over the base.
#[derive(Clone)]
pub enum Adapter {
    /// None.
    None,
    /// The one of the run.
    Current,
    /// Files of a PEFT folder.
    Files(AdapterFiles),
}

impl Adapter {
    /// Reads "none", "current" or files; nothing is "none".
    pub fn read(value: &JsValue) -> Result<Self> {
        match (value.is_falsy(), value.as_string().as_deref()) {
            (true, _) | (_, Some("none")) => Ok(Self::None),
            (_, Some("current")) => Ok(Self::Current),
            (_, Some(other)) => Err(Error::config("adapter", format!("is \"{other}\""), "give none, current or the files of an adapter")),
            _ => Ok(adapter_from_js(value)?.map_or(Self::None, Self::Files)),
        }
    }
}

/// Reads a `Uint8Array`.
///
/// # Errors
/// Something else.
pub fn bytes_from_js(value: &JsValue, what: &str) -> Result<Vec<u8>> {
    let wrong = || Error::config(what, "is no Uint8Array", "pass the bytes as they were given");
    value.dyn_ref::<js_sys::Uint8Array>().map(js_sys::Uint8Array::to_vec).ok_or_else(wrong)
}

/// Reads an array of `{ name, bytes }`; nothing is none.
///
/// # Errors
/// Something else.
pub fn adapter_from_js(value: &JsValue) -> Result<Option<AdapterFiles>> {
    if value.is_falsy() {
        return Ok(None);
    }
    let wrong = || Error::config("adapter", "is no list of files", "pass an array of { name, bytes }");
    let list = value.dyn_ref::<js_sys::Array>().ok_or_else(wrong)?;
    let read =
        |file: JsValue| Ok((field(&file, "name")?.as_string().ok_or_else(wrong)?, bytes_from_js(&field(&file, "bytes")?, "adapter")?));
    list.iter().map(read).collect::<Result<_>>().map(Some)
}

/// As [`adapter_from_js`], where there must be files.
///
/// # Errors
/// Something else, or nothing.
pub fn adapter_files(value: &JsValue) -> Result<AdapterFiles> {
    adapter_from_js(value)?.ok_or_else(|| Error::config("adapter", "is missing", "pass an array of { name, bytes }"))
}

/// Files as an array of `{ name, bytes }`.
pub fn adapter_to_js(files: &[File]) -> Result<JsValue> {
    let list = js_sys::Array::new();
    for (name, bytes) in files {
        let file = js_sys::Object::new();
        let set = |key: &str, value: JsValue| js_sys::Reflect::set(&file, &key.into(), &value).map_err(|e| from_thrown(key, &e));
        set("name", (*name).into())?;
        set("bytes", js_sys::Uint8Array::from(bytes.as_slice()).into())?;
        list.push(&file);
    }
    Ok(list.into())
}

/// What is to be continued.
pub enum Prompt {
    /// A text as it is.
    Text(String),
    /// A conversation in the model's template.
    Messages(Vec<Value>),
    /// Tokens of the model.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// Reads a string or messages.
    pub fn read(value: JsValue) -> Result<Self> {
        match value.as_string() {
            Some(text) => Ok(Self::Text(text)),
            None => from_js(value, "prompt").map(Self::Messages),
        }
    }
}

/// How text is generated.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Write {
    max_tokens: usize,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    repetition_penalty: f32,
    seed: u64,
    /// For messages: another template than that of the adapter or the model.
    pub chat_template: Option<String>,
    /// Refuse an adapter that was trained on another file of the base.
    pub strict_base: bool,
}

impl Default for Write {
    fn default() -> Self {
        let Sampling { temperature, top_k, top_p, repetition_penalty, seed, max_tokens } = Sampling::default();
        Self { max_tokens, temperature, top_k, top_p, repetition_penalty, seed, chat_template: None, strict_base: false }
    }
}

impl Write {
    /// The most likely tokens, at most so many.
    pub fn greedy(max_tokens: usize, strict_base: bool) -> Self {
        Self { max_tokens, temperature: 0.0, strict_base, ..Self::default() }
    }

    /// As the library takes it.
    ///
    /// # Errors
    /// Values that cannot work.
    pub fn sampling(&self) -> Result<Sampling> {
        let Self { max_tokens, temperature, top_k, top_p, repetition_penalty, seed, .. } = self.clone();
        let checks = [
            ("maxTokens", max_tokens >= 1, "give at least 1"),
            ("temperature", temperature.is_finite() && temperature >= 0.0, "give a number, at least 0"),
            ("topP", top_p > 0.0 && top_p <= 1.0, "give a number above 0, at most 1"),
            ("repetitionPenalty", repetition_penalty.is_finite() && repetition_penalty > 0.0, "give a positive number"),
        ];
        match checks.iter().find(|(_, fits, _)| !fits) {
            Some((key, _, hint)) => Err(Error::config(*key, "is out of bounds", *hint)),
            None => Ok(Sampling { temperature, top_k, top_p, repetition_penalty, seed, max_tokens }),
        }
    }
}

/// Rows with what errors call them.
pub fn row_file(rows: &Rows) -> Result<RowFile<'_>> {
    Ok((rows.name(), rows.bytes()?))
}

/// Sets of rows with what errors call them.
pub fn row_files(all: &[Rows]) -> Result<Vec<RowFile<'_>>> {
    all.iter().map(row_file).collect()
}
