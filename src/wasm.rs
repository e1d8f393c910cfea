//! The web API: one [`Engine`] over the library, for a Worker. Everything that takes time is a promise; a call that comes while another
//! runs is refused with the code `busy`. Nothing of the method or the loop is here: see `train`, `generate`, `formats`.

mod adapter_files;
mod analysis;
mod convert;
mod edit;
mod export;
mod jobs;
mod jobs_api;
mod options;
mod retrieval;
mod run;
mod source;
mod state;
mod types;
mod writing;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use wasm_bindgen::prelude::*;

use crate::adapters::METHODS;
use crate::gpu::{Gpu, GpuOptions, Tuner};
use crate::train::keys;
use crate::{Error, Result};

use convert::{from_js, settings_from_js, thrown, to_js};
use source::JsByteSource;
use state::State;

/// Called by the module itself when it is loaded: a panic tells where it was.
#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
}

/// A GPU device with at most one base and one run on it.
#[wasm_bindgen]
pub struct Engine {
    /// Empty while a call runs, and for good after `close`.
    state: RefCell<Option<State>>,
    running: Cell<Option<&'static str>>,
    abort: Rc<Cell<bool>>,
}

impl Engine {
    /// Takes the state for a call named `what`, or says which call has it.
    fn take(&self, what: &'static str) -> Result<State> {
        if let Some(running) = self.running.get() {
            return Err(Error::Busy { running });
        }
        let state = self.state.borrow_mut().take().ok_or(Error::Stopped)?;
        self.running.set(Some(what));
        self.abort.set(false);
        Ok(state)
    }

    fn give_back(&self, state: State) {
        self.running.set(None);
        *self.state.borrow_mut() = Some(state);
    }

    /// Runs one call alone.
    async fn alone<T>(&self, what: &'static str, work: impl AsyncFnOnce(&mut State) -> Result<T>) -> Result<T, JsValue> {
        let mut state = self.take(what).map_err(|e| thrown(&e))?;
        let done = work(&mut state).await;
        self.give_back(state);
        done.map_err(|e| thrown(&e))
    }

    /// Runs one call that does not wait for anything.
    fn at_once<T>(&self, what: &'static str, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T, JsValue> {
        let mut state = self.take(what).map_err(|e| thrown(&e))?;
        let done = work(&mut state);
        self.give_back(state);
        done.map_err(|e| thrown(&e))
    }
}

#[wasm_bindgen]
impl Engine {
    /// Opens the strongest GPU. Plans beyond `max_bytes` are refused with `out_of_memory`; without it only the device refuses. Subgroup
    /// operations are used where there are any, unless `subgroups` is false.
    pub async fn open(max_bytes: Option<f64>, subgroups: Option<bool>) -> Result<Engine, JsValue> {
        let options = GpuOptions { no_subgroups: subgroups == Some(false), ..GpuOptions::default() };
        let gpu = Gpu::open(&options).await.map_err(|e| thrown(&e))?;
        let abort = Rc::new(Cell::new(false));
        let state = State::new(gpu, max_bytes.map(|bytes| bytes as u64), abort.clone());
        Ok(Engine { state: RefCell::new(Some(state)), running: Cell::new(None), abort })
    }

    /// What the GPU is.
    #[wasm_bindgen(unchecked_return_type = "DeviceFacts")]
    pub fn facts(&self) -> Result<JsValue, JsValue> {
        self.at_once("facts", |state| to_js(&state.facts()))
    }

    /// Opens a GGUF model: header, tokenizer, template. `quantize` as in run files; `tokenizer` is the text of a tokenizer.json to use
    /// instead of the file's own. What was done on another base is dropped.
    #[wasm_bindgen(js_name = loadBase, unchecked_return_type = "BaseInfo")]
    pub async fn load_base(&self, source: JsByteSource, quantize: Option<String>, tokenizer: Option<String>) -> Result<JsValue, JsValue> {
        self.alone("loadBase", async |state| to_js(&state.load(Some(source), quantize, tokenizer).await?)).await
    }

    /// Opens the model inside this module.
    #[wasm_bindgen(js_name = loadEmbedded, unchecked_return_type = "BaseInfo")]
    pub async fn load_embedded(&self, quantize: Option<String>) -> Result<JsValue, JsValue> {
        self.alone("loadEmbedded", async |state| to_js(&state.load(None, quantize, None).await?)).await
    }

    /// The methods that an adapter can be trained with.
    #[wasm_bindgen(unchecked_return_type = "{ name: string; help: string }[]")]
    pub fn methods() -> Result<JsValue, JsValue> {
        let rows: Vec<_> = METHODS.iter().map(|m| serde_json::json!({ "name": m.name, "help": m.help })).collect();
        to_js(&rows).map_err(|e| thrown(&e))
    }

    /// Figures and pictures of an adapter: singular values, effective ranks, and of a chain its links.
    #[wasm_bindgen(unchecked_return_type = "Analysis")]
    pub fn analyze(#[wasm_bindgen(unchecked_param_type = "AdapterFile[]")] files: &JsValue) -> Result<JsValue, JsValue> {
        options::adapter_from_js(files).and_then(analysis::analyze).and_then(|found| to_js(&found)).map_err(|e| thrown(&e))
    }

    /// The links of a chain, oldest first; none of an adapter that is no chain.
    #[wasm_bindgen(unchecked_return_type = "Link[]")]
    pub fn links(#[wasm_bindgen(unchecked_param_type = "AdapterFile[]")] files: &JsValue) -> Result<JsValue, JsValue> {
        edit::links(files).map_err(|e| thrown(&e))
    }

    /// Every link of a chain as an adapter of its own, oldest first.
    #[wasm_bindgen(unchecked_return_type = "AdapterFile[][]")]
    pub fn split(#[wasm_bindgen(unchecked_param_type = "AdapterFile[]")] files: &JsValue) -> Result<JsValue, JsValue> {
        edit::split(files).map_err(|e| thrown(&e))
    }

    /// One adapter made of several of one base, or of one with fewer links or ranks.
    #[wasm_bindgen(unchecked_return_type = "Merged")]
    pub fn merge(
        #[wasm_bindgen(unchecked_param_type = "AdapterFile[][]")] adapters: &JsValue,
        #[wasm_bindgen(unchecked_param_type = "MergeOptions | undefined")] options: JsValue,
    ) -> Result<JsValue, JsValue> {
        edit::merge(adapters, options).map_err(|e| thrown(&e))
    }

    /// The same of the run's adapter, with the scales of its modules where it has any.
    #[wasm_bindgen(js_name = analyzeCurrent, unchecked_return_type = "Analysis")]
    pub async fn analyze_current(&self) -> Result<JsValue, JsValue> {
        self.alone("analyze", async |state| to_js(&state.analyze().await?)).await
    }

    /// Mean size of the learnable scale of every module of the run; none where its method has none. Cheap enough for every step.
    #[wasm_bindgen(js_name = moduleScales)]
    pub async fn module_scales(&self) -> Result<Vec<f64>, JsValue> {
        self.alone("moduleScales", async |state| state.module_scales().await).await
    }

    /// The settings that a run of `method` takes.
    #[wasm_bindgen(unchecked_return_type = "Setting[]")]
    pub fn settings(method: &str) -> Result<JsValue, JsValue> {
        keys::describe(method).and_then(|rows| to_js(&rows)).map_err(|e| thrown(&e))
    }

    /// The settings of the embedded demo.
    #[wasm_bindgen(js_name = demoSettings, unchecked_return_type = "Settings")]
    pub fn demo_settings() -> Result<JsValue, JsValue> {
        to_js(&crate::demo::settings()).map_err(|e| thrown(&e))
    }

    /// The first `limit` rows as the model will see them.
    #[wasm_bindgen(unchecked_return_type = "Preview")]
    pub fn preview(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Rows")] rows: JsValue,
        #[wasm_bindgen(unchecked_param_type = "Settings")] settings: JsValue,
        limit: u32,
    ) -> Result<JsValue, JsValue> {
        self.at_once("preview", |state| to_js(&state.preview(&from_js(rows, "rows")?, settings_from_js(settings)?, limit as usize)?))
    }

    /// What a run would take; nothing is allocated.
    #[wasm_bindgen(unchecked_return_type = "Plan")]
    pub fn plan(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Settings")] settings: JsValue,
        #[wasm_bindgen(unchecked_param_type = "Rows | Rows[] | undefined")] rows: JsValue,
    ) -> Result<JsValue, JsValue> {
        self.at_once("plan", |state| to_js(&state.plan(settings_from_js(settings)?, &options::Rows::read_all(rows, "rows")?)?))
    }

    /// Prepares a run and returns its first events. `progress` is called with a phase, what is done and the total.
    #[wasm_bindgen(unchecked_return_type = "TrainEvent[]")]
    pub async fn start(
        &self,
        #[wasm_bindgen(unchecked_param_type = "StartOptions")] options: JsValue,
        #[wasm_bindgen(unchecked_param_type = "OnProgress | undefined")] progress: JsValue,
    ) -> Result<JsValue, JsValue> {
        self.alone("start", async |state| {
            let options = options::Start::read(&options)?;
            to_js(&state.start(options, &options::Callback::new(progress)).await?)
        })
        .await
    }

    /// One optimizer step and what falls due after it.
    #[wasm_bindgen(unchecked_return_type = "StepResult")]
    pub async fn step(&self) -> Result<JsValue, JsValue> {
        self.alone("step", async |state| to_js(&state.step().await?)).await
    }

    /// Ends a chain's link now: it is frozen and the next one begins.
    #[wasm_bindgen(js_name = mergeLink, unchecked_return_type = "Knot")]
    pub async fn merge_link(&self) -> Result<JsValue, JsValue> {
        self.alone("mergeLink", async |state| to_js(&state.merge_link().await?)).await
    }

    /// The event with which the run ends after `seconds`.
    #[wasm_bindgen(unchecked_return_type = "DoneEvent")]
    pub fn done(&self, seconds: f64) -> Result<JsValue, JsValue> {
        self.at_once("done", |state| to_js(&state.done(seconds)?))
    }

    /// The whole state of the run.
    pub async fn checkpoint(&self) -> Result<Vec<u8>, JsValue> {
        self.alone("checkpoint", async |state| state.checkpoint().await).await
    }

    /// The adapter of the run, as the files of a PEFT folder.
    #[wasm_bindgen(js_name = exportAdapter, unchecked_return_type = "AdapterFile[]")]
    pub async fn export_adapter(&self) -> Result<JsValue, JsValue> {
        self.alone("exportAdapter", async |state| options::adapter_to_js(&state.export().await?)).await
    }

    /// An adapter in the files of another program, or merged into the loaded base; `to` and `format` as for `weblora export`. The files go to
    /// `sink` piece by piece.
    #[wasm_bindgen(js_name = exportTo, unchecked_return_type = "ExportReport")]
    pub async fn export_to(
        &self,
        #[wasm_bindgen(unchecked_param_type = "AdapterFile[]")] files: JsValue,
        to: &str,
        format: Option<String>,
        sink: export::JsSink,
    ) -> Result<JsValue, JsValue> {
        self.alone("export", async |state| to_js(&state.export_to(&options::adapter_files(&files)?, to, format.as_deref(), sink).await?))
            .await
    }

    /// What an adapter is, and whether it belongs to the loaded base: another file of the base is a warning, or with `strict` an error.
    #[wasm_bindgen(js_name = checkAdapter, unchecked_return_type = "AdapterFacts")]
    pub fn check_adapter(
        &self,
        #[wasm_bindgen(unchecked_param_type = "AdapterFile[]")] files: &JsValue,
        strict: Option<bool>,
    ) -> Result<JsValue, JsValue> {
        self.at_once("checkAdapter", |state| to_js(&state.check_adapter(&options::adapter_files(files)?, strict == Some(true))?))
    }

    /// Mean loss of rows, and accuracy of those with choices, under an adapter.
    #[wasm_bindgen(unchecked_return_type = "Evaluation")]
    pub async fn evaluate(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Rows")] rows: JsValue,
        #[wasm_bindgen(unchecked_param_type = "AdapterChoice")] adapter: JsValue,
        strict: Option<bool>,
    ) -> Result<JsValue, JsValue> {
        self.alone("evaluate", async |state| {
            let adapter = options::Adapter::read(&adapter)?;
            to_js(&state.evaluate(&from_js(rows, "rows")?, adapter, strict == Some(true)).await?)
        })
        .await
    }

    /// How many of `trials` questions about something hidden in a long text an adapter answers.
    pub async fn retrieve(
        &self,
        #[wasm_bindgen(unchecked_param_type = "RetrievalCell")] cell: JsValue,
        #[wasm_bindgen(unchecked_param_type = "AdapterChoice")] adapter: JsValue,
    ) -> Result<u32, JsValue> {
        self.alone("retrieve", async |state| state.retrieve(&from_js(cell, "cell")?, &options::Adapter::read(&adapter)?).await).await
    }

    /// A heat map of shares found: a row of lengths for each depth, one after the other.
    #[wasm_bindgen(js_name = retrievalPicture)]
    pub fn retrieval_picture(title: &str, lengths: &[u32], depths: &[f64], shares: &[f64]) -> Result<String, JsValue> {
        retrieval::picture(title, lengths, depths, shares).map_err(|e| thrown(&e))
    }

    /// Continues a prompt: a text as it is, or messages in the model's chat template. `piece` is called with the text as it comes.
    /// Returns the whole text and why it ended.
    #[wasm_bindgen(unchecked_return_type = "import(\"../src/types.js\").Written")]
    pub async fn generate(
        &self,
        #[wasm_bindgen(unchecked_param_type = "string | ChatMessage[]")] prompt: JsValue,
        #[wasm_bindgen(unchecked_param_type = "WriteOptions")] options: JsValue,
        #[wasm_bindgen(unchecked_param_type = "((text: string) => void) | undefined")] piece: JsValue,
        #[wasm_bindgen(unchecked_param_type = "OnProgress | undefined")] progress: JsValue,
    ) -> Result<JsValue, JsValue> {
        self.alone("generate", async |state| {
            let adapter = options::Adapter::read(&convert::field(&options, "adapter")?)?;
            let prompt = options::Prompt::read(prompt)?;
            let how: options::Write = from_js(options, "options")?;
            let (piece, progress) = (options::Callback::new(piece), options::Callback::new(progress));
            to_js(&state.generate(&prompt, adapter, &how, &piece, &progress).await?)
        })
        .await
    }

    /// Makes the running `loadBase`, `start` or `generate` fail with `stopped` soon.
    pub fn abort(&self) {
        self.abort.set(true);
    }

    /// Bytes of this module's memory and of the run's buffers on the GPU.
    #[wasm_bindgen(unchecked_return_type = "MemoryUse")]
    pub fn memory(&self) -> Result<JsValue, JsValue> {
        let wasm = wasm_bindgen::memory().unchecked_into::<js_sys::WebAssembly::Memory>().buffer();
        let wasm = wasm.unchecked_into::<js_sys::ArrayBuffer>().byte_length();
        let gpu = self.state.borrow_mut().as_mut().map_or(0, State::gpu_bytes);
        to_js(&serde_json::json!({ "wasm": wasm, "gpu": gpu })).map_err(|e| thrown(&e))
    }

    /// What was measured about kernels on this GPU, as text to keep.
    pub fn tuning(&self) -> Result<String, JsValue> {
        self.at_once("tuning", |state| Ok(state.tuner.to_json()))
    }

    /// Takes over what was measured earlier; text of another GPU or version, or damaged text, is ignored.
    #[wasm_bindgen(js_name = absorbTuning)]
    pub fn absorb_tuning(&self, text: &str) -> Result<(), JsValue> {
        self.at_once("absorbTuning", |state| {
            state.tuner.absorb_json(text);
            Ok(())
        })
    }

    /// Destroys the device as a driver reset would, for tests of what happens then.
    #[wasm_bindgen(js_name = destroyDevice)]
    pub fn destroy_device(&self) -> Result<(), JsValue> {
        self.at_once("destroyDevice", |state| {
            state.gpu.destroy();
            Ok(())
        })
    }

    /// Gives back all memory; every later call fails with `stopped`.
    pub fn close(&self) -> Result<(), JsValue> {
        drop(self.take("close").map_err(|e| thrown(&e))?);
        self.running.set(None);
        Ok(())
    }
}

impl State {
    fn new(gpu: Gpu, max_bytes: Option<u64>, abort: Rc<Cell<bool>>) -> Self {
        let tuner = Tuner::for_device(&gpu);
        State { gpu, tuner, base: None, job: None, fleet: None, writer: None, max_bytes, abort }
    }
}
