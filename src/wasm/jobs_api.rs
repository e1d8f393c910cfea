//! The jobs of an [`Engine`] for JavaScript.

use js_sys::{Array, Object, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;

use super::Engine;
use super::convert::{field, from_thrown, settings_from_js, thrown, to_js};
use super::jobs::{self, Brought, JobOptions};
use super::options::{self, Callback, adapter_to_js};
use crate::{Error, Result};

fn put(object: &Object, key: &str, value: &JsValue) -> Result<()> {
    Reflect::set(object, &key.into(), value).map(drop).map_err(|e| from_thrown(key, &e))
}

fn all_jobs(list: &JsValue) -> Result<Vec<JobOptions>> {
    let list = list.dyn_ref::<Array>().ok_or_else(|| Error::config("jobs", "is no list", "pass an array of jobs"))?;
    list.iter().map(|job| JobOptions::read(&job)).collect()
}

impl Brought {
    fn to_js(&self) -> Result<Object> {
        let object = Object::new();
        put(&object, "events", &to_js(&self.events)?)?;
        let kept = Array::new();
        for each in &self.kept {
            let one = Object::new();
            put(&one, "job", &each.job.as_str().into())?;
            put(&one, "kind", &each.kind.into())?;
            put(&one, "files", &adapter_to_js(&each.files)?)?;
            kept.push(&one);
        }
        put(&object, "kept", &kept)?;
        put(&object, "wentOn", &self.went_on.into())?;
        put(&object, "over", &self.over.into())?;
        Ok(object)
    }
}

#[wasm_bindgen]
impl Engine {
    /// Begins jobs that share the base; what ran before is dropped. A job whose settings or rows are wrong fails alone, unless it is the only one.
    #[wasm_bindgen(js_name = startJobs, unchecked_return_type = "JobsEvent[]")]
    pub async fn start_jobs(
        &self,
        #[wasm_bindgen(unchecked_param_type = "StartJobs")] options: JsValue,
        #[wasm_bindgen(unchecked_param_type = "OnProgress | undefined")] progress: JsValue,
    ) -> Result<JsValue, JsValue> {
        self.alone("startJobs", async |state| {
            let jobs = all_jobs(&field(&options, "jobs")?)?;
            let settings = settings_from_js(field(&options, "options")?)?.unwrap_or_default();
            let tune = field(&options, "tune")?.is_truthy();
            to_js(&state.start_jobs(jobs, &settings, tune, &Callback::new(progress)).await?)
        })
        .await
    }

    /// Takes in a job while others train. One that is larger than what was recorded fails with `limit`.
    #[wasm_bindgen(js_name = addJob, unchecked_return_type = "JobsEvent[]")]
    pub fn add_job(&self, #[wasm_bindgen(unchecked_param_type = "EngineJob")] job: &JsValue) -> Result<JsValue, JsValue> {
        self.at_once("addJob", |state| to_js(&state.add_job(JobOptions::read(job)?)?))
    }

    /// One fused step of the jobs, and what falls due before and after it.
    #[wasm_bindgen(js_name = stepJobs, unchecked_return_type = "JobsStep")]
    pub async fn step_jobs(&self) -> Result<JsValue, JsValue> {
        self.alone("stepJobs", async |state| Ok(state.step_jobs().await?.to_js()?.into())).await
    }

    /// Asks that a job be paused, resumed or stopped, which is done at the next step.
    #[wasm_bindgen(js_name = askJob)]
    pub fn ask_job(
        &self,
        name: &str,
        #[wasm_bindgen(unchecked_param_type = "\"pause\" | \"resume\" | \"stop\"")] what: &str,
    ) -> Result<(), JsValue> {
        self.at_once("askJob", |state| state.ask_job(name, what))
    }

    /// Where the jobs stand.
    #[wasm_bindgen(js_name = jobStatus, unchecked_return_type = "JobStatus[]")]
    pub fn job_status(&self) -> Result<JsValue, JsValue> {
        self.at_once("jobStatus", |state| to_js(&jobs::status(jobs::fleet(&mut state.fleet)?)))
    }

    /// All that a job needs to go on.
    #[wasm_bindgen(js_name = saveJob, unchecked_return_type = "SavedJob")]
    pub async fn save_job(&self, name: String) -> Result<JsValue, JsValue> {
        self.alone("saveJob", async |state| {
            let (checkpoint, curve) = state.save_job(&name).await?;
            let object = Object::new();
            put(&object, "checkpoint", &Uint8Array::from(checkpoint.as_slice()))?;
            put(&object, "curve", &curve.into())?;
            Ok(object.into())
        })
        .await
    }

    /// A job's adapter as it is now, as the files of a PEFT folder.
    #[wasm_bindgen(js_name = exportJob, unchecked_return_type = "AdapterFile[]")]
    pub async fn export_job(&self, name: String) -> Result<JsValue, JsValue> {
        self.alone("exportJob", async |state| options::adapter_to_js(&state.export_job(&name).await?)).await
    }

    /// Policies, rules of early stopping and ways to search, for a form.
    #[wasm_bindgen(js_name = jobTables, unchecked_return_type = "JobTables")]
    pub fn job_tables() -> Result<JsValue, JsValue> {
        to_js(&jobs::tables()).map_err(|e| thrown(&e))
    }

    /// The jobs that a sweep makes.
    #[wasm_bindgen(unchecked_return_type = "Trial[]")]
    pub fn sweep(#[wasm_bindgen(unchecked_param_type = "Sweep")] sweep: JsValue) -> Result<JsValue, JsValue> {
        settings_from_js(sweep).and_then(|map| to_js(&jobs::sweep(&map.unwrap_or_default())?)).map_err(|e| thrown(&e))
    }
}
