//! Many jobs over one base in a browser: fused equals alone, saved jobs go on, a job fails alone.

use js_sys::{Array, Reflect, Uint8Array};
use serde_json::{Value, json};
use wasm_bindgen::JsValue;
use wasm_bindgen_test::wasm_bindgen_test;
use weblora::wasm::Engine;

use crate::engine::{code, engine, get, js, number};

/// A job of few and short steps.
fn job(name: &str, more: Value) -> Value {
    let mut settings = json!({ "batch": 1, "seq": 32, "steps": 3, "lr": 5e-3, "warmup": 0, "recompute": false });
    settings.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json!({ "name": name, "settings": settings, "rows": { "embedded": "train" } })
}

fn four() -> Vec<Value> {
    vec![
        job("chain", json!({ "method": "cola", "links": [2, 2] })),
        job("modules", json!({ "method": "multilora", "modules": 2, "rank": 2, "seed": 1 })),
        job("dropped", json!({ "rank": 4, "dropout": 0.2, "seed": 5 })),
        job("wide", json!({ "rank": 32, "targets": ["q", "v"], "seed": 2 })),
    ]
}

async fn start(engine: &Engine, jobs: &JsValue) -> Array {
    start_within(engine, jobs, json!({})).await
}

async fn start_within(engine: &Engine, jobs: &JsValue, options: Value) -> Array {
    let options = js(&json!({ "tune": false, "options": options }));
    Reflect::set(&options, &"jobs".into(), jobs).expect("an object");
    Array::from(&engine.start_jobs(options, JsValue::UNDEFINED).await.expect("jobs"))
}

/// What jobs told: losses by job, adapters at the end, failures.
#[derive(Default)]
struct Told {
    losses: Vec<(String, f64)>,
    adapters: Vec<(String, Vec<u8>)>,
    failed: Vec<(String, String)>,
}

impl Told {
    fn losses(&self, job: &str) -> Vec<f64> {
        self.losses.iter().filter(|(name, _)| name == job).map(|(_, loss)| *loss).collect()
    }

    fn adapter(&self, job: &str) -> &[u8] {
        &self.adapters.iter().find(|(name, _)| name == job).expect("an adapter").1
    }

    fn events(&mut self, events: &Array) {
        for event in events.iter() {
            let text = |key: &str| get(&event, key).as_string().unwrap_or_default();
            match text("event").as_str() {
                "step" => self.losses.push((text("job"), number(&event, "loss"))),
                "job_failed" => self.failed.push((text("job"), text("reason"))),
                _ => {}
            }
        }
    }

    /// At most `most` steps of the jobs.
    async fn follow(&mut self, engine: &Engine, most: usize) {
        for _ in 0..most {
            let step = engine.step_jobs().await.expect("a step");
            self.events(&Array::from(&get(&step, "events")));
            for kept in Array::from(&get(&step, "kept")).iter() {
                if get(&kept, "kind") == "end" {
                    let weights = Array::from(&get(&kept, "files")).iter().find(|file| get(file, "name") == "adapter_model.safetensors");
                    let bytes = Uint8Array::new(&get(&weights.expect("weights"), "bytes")).to_vec();
                    self.adapters.push((get(&kept, "job").as_string().expect("a name"), bytes));
                }
            }
            if get(&step, "over").is_truthy() {
                return;
            }
        }
    }
}

#[wasm_bindgen_test]
async fn fused_jobs_are_what_they_are_alone() {
    let engine = engine().await;
    let all = js(&Value::Array(four()));
    start(&engine, &all).await;
    let mut together = Told::default();
    together.follow(&engine, 1).await;
    // Where each is after its first step.
    let mut saved = Vec::new();
    for job in four() {
        let name = job["name"].as_str().expect("a name").to_owned();
        let state = engine.save_job(name).await.expect("a saved job");
        let again = js(&job);
        for key in ["checkpoint", "curve"] {
            Reflect::set(&again, &key.into(), &get(&state, key)).expect("an object");
        }
        saved.push(again);
    }
    together.follow(&engine, 9).await;
    assert!(together.failed.is_empty(), "{:?}", together.failed);
    let mut resumed = Told::default();
    let events = start(&engine, &saved.into_iter().collect::<Array>()).await;
    assert_eq!(number(&events.get(1), "resumed_at"), 1.0);
    resumed.follow(&engine, 9).await;
    for job in four() {
        let name = job["name"].as_str().expect("a name");
        assert_eq!(resumed.losses(name)[..], together.losses(name)[1..], "{name}: resumed");
        assert!(resumed.adapter(name) == together.adapter(name), "{name}: the resumed adapter");
        // Alone in recordings of the same sizes: the others are stopped before their first step.
        start(&engine, &all).await;
        for other in four().iter().filter(|other| other["name"] != name) {
            engine.ask_job(other["name"].as_str().expect("a name"), "stop").expect("a job of that name");
        }
        let mut alone = Told::default();
        alone.follow(&engine, 9).await;
        assert_eq!(alone.losses(name), together.losses(name), "{name}: losses");
        assert!(alone.adapter(name) == together.adapter(name), "{name}: the adapter");
        // A run of its own has recordings of its own sizes.
        let options = json!({ "settings": job["settings"], "rows": job["rows"], "tune": false });
        engine.start(js(&options), JsValue::UNDEFINED).await.expect("a run");
        for loss in together.losses(name) {
            let step = engine.step().await.expect("a step");
            let own = number(&Array::from(&get(&step, "events")).get(0), "loss");
            assert!((own - loss).abs() <= 1e-5 * loss, "{name}: {own} alone, {loss} fused");
        }
    }
    assert!(together.adapter("chain") != together.adapter("dropped"), "the comparison can fail");
}

#[wasm_bindgen_test]
async fn a_job_that_is_too_large_fails_as_the_others_begin() {
    let engine = engine().await;
    let large = job("large", json!({ "rank": 64, "batch": 64 }));
    let mut told = Told::default();
    let jobs = js(&json!([job("small", json!({ "rank": 4 })), large]));
    told.events(&start_within(&engine, &jobs, json!({ "memory": "32 MiB" })).await);
    assert!(matches!(&told.failed[..], [(job, why)] if job == "large" && why.contains("33554432 bytes (memory)")), "{:?}", told.failed);
    told.follow(&engine, 9).await;
    assert_eq!((told.losses("small").len(), told.losses("large").len()), (3, 0));
}

#[wasm_bindgen_test]
async fn a_job_fails_alone_and_others_join() {
    let engine = engine().await;
    assert_eq!(code(&engine.step_jobs().await.expect_err("no jobs")), "config");
    let mut broken = job("broken", json!({}));
    broken["rows"] = json!({ "text": "{\"prompt\": \"a\"}" });
    // One that cannot read its rows, and one that the model does not reach.
    let far = job("far", json!({ "seq": 4096 }));
    let jobs = [job("good", json!({ "rank": 4 })), job("wild", json!({ "rank": 4, "lr": 1e30, "clip": 0 })), broken, far];
    let mut told = Told::default();
    told.events(&start(&engine, &js(&Value::Array(jobs.to_vec()))).await);
    assert!(matches!(&told.failed[..], [(a, _), (b, why)] if a == "broken" && b == "far" && why.contains("seq")), "{:?}", told.failed);
    told.follow(&engine, 1).await;
    engine.add_job(&js(&job("late", json!({ "rank": 2 })))).expect("it fits");
    let error = engine.add_job(&js(&job("late", json!({ "rank": 2 })))).expect_err("twice");
    assert_eq!(code(&error), "config");
    let error = engine.add_job(&js(&job("large", json!({ "rank": 64, "batch": 8 })))).expect_err("too large for what was recorded");
    assert_eq!(code(&error), "limit");
    assert_eq!(code(&engine.ask_job("nobody", "stop").expect_err("nobody")), "config");
    told.follow(&engine, 12).await;
    assert!(told.failed.iter().any(|(name, why)| name == "wild" && why.contains("lower lr")), "{:?}", told.failed);
    assert_eq!((told.losses("good").len(), told.losses("late").len()), (3, 3));
    let status = Array::from(&engine.job_status().expect("a status"));
    let states: Vec<String> = status.iter().map(|job| get(&job, "state").as_string().expect("a word")).collect();
    assert_eq!(states, ["done", "failed", "done"]);
    assert!(Array::from(&engine.export_job("late".into()).await.expect("files")).length() >= 2);
}

#[wasm_bindgen_test]
fn a_sweep_names_its_jobs() {
    let sweep = json!({ "name": "s", "keys": { "lr": [1e-3, 2e-3], "rank": [4, 8] } });
    let trials = Array::from(&Engine::sweep(js(&sweep)).expect("trials"));
    assert_eq!(trials.length(), 4);
    assert_eq!(get(&trials.get(3), "name").as_string().as_deref(), Some("s-4-lr0.002-rank8"));
    assert_eq!(number(&get(&trials.get(3), "assigned"), "rank"), 8.0);
    assert_eq!(code(&Engine::sweep(js(&json!({ "keys": { "lr": [] } }))).expect_err("nothing to try")), "config");
    let tables = Engine::job_tables().expect("tables");
    assert!(Array::from(&get(&tables, "rules")).iter().any(|rule| get(&rule, "name") == "asha"));
}
