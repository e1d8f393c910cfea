//! The web API as a Worker uses it: errors with codes, refusal of overlapping calls, resume bit for bit, a lost device.

use js_sys::{Array, Function, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use wasm_bindgen_test::wasm_bindgen_test;
use weblora::wasm::Engine;

/// A JavaScript value from JSON.
pub fn js(value: &serde_json::Value) -> JsValue {
    js_sys::JSON::parse(&value.to_string()).expect("JSON")
}

pub fn get(value: &JsValue, key: &str) -> JsValue {
    Reflect::get(value, &key.into()).expect("an object")
}

pub fn number(value: &JsValue, key: &str) -> f64 {
    get(value, key).as_f64().unwrap_or_else(|| panic!("{key} is no number in {value:?}"))
}

pub fn code(error: &JsValue) -> String {
    assert!(error.is_instance_of::<js_sys::Error>(), "{error:?} is no Error");
    assert!(get(error, "causes").is_instance_of::<Array>(), "{error:?} has no causes");
    get(error, "code").as_string().expect("a code")
}

pub async fn engine() -> Engine {
    let engine = Engine::open(None, None).await.expect("a WebGPU adapter");
    engine.load_embedded(None).await.expect("the embedded model");
    engine
}

/// Settings of a run so small that a software adapter does a step in a second or two.
fn options(steps: u64, resume: Option<&[u8]>) -> JsValue {
    let settings = serde_json::json!({
        "settings": { "rank": 2, "targets": ["q", "v"], "steps": steps, "batch": 2, "seq": 32, "dropout": 0.1, "lr": 1e-3 },
        "rows": { "embedded": "train" }, "tune": false,
    });
    let options = js(&settings);
    if let Some(bytes) = resume {
        Reflect::set(&options, &"resume".into(), &Uint8Array::from(bytes)).expect("an object");
    }
    options
}

/// Steps until the run is over, or `most` times: the losses.
async fn losses(engine: &Engine, most: usize) -> Vec<f64> {
    let mut losses = Vec::new();
    for _ in 0..most {
        let result = engine.step().await.expect("a step");
        losses.push(number(&Array::from(&get(&result, "events")).get(0), "loss"));
        if get(&result, "over").is_truthy() {
            break;
        }
    }
    losses
}

#[wasm_bindgen_test]
async fn a_resumed_run_is_the_same_run_bit_for_bit() {
    let engine = engine().await;
    engine.start(options(4, None), JsValue::UNDEFINED).await.expect("a run");
    let start = losses(&engine, 2).await;
    let saved = engine.checkpoint().await.expect("a checkpoint");
    let rest = losses(&engine, 9).await;
    let whole = engine.checkpoint().await.expect("a checkpoint");
    assert_eq!((start.len(), rest.len()), (2, 2));
    let events = engine.start(options(4, Some(&saved)), JsValue::UNDEFINED).await.expect("a resumed run");
    assert_eq!(number(&Array::from(&events).get(0), "resumed_at"), 2.0);
    assert_eq!(losses(&engine, 9).await, rest);
    assert_eq!(engine.checkpoint().await.expect("a checkpoint"), whole);
    assert!(whole != saved, "training changed nothing");
    // A cut-off checkpoint is refused and the run stays.
    let error = engine.start(options(4, Some(&saved[..saved.len() - 9])), JsValue::UNDEFINED).await.expect_err("a damaged checkpoint");
    assert_eq!(code(&error), "format");
    assert_eq!(engine.checkpoint().await.expect("a checkpoint"), whole);
}

#[wasm_bindgen_test]
async fn an_overlapping_call_is_refused_and_harms_nothing() {
    let engine = engine().await;
    engine.start(options(1, None), JsValue::UNDEFINED).await.expect("a run");
    let first = engine.step();
    let second = async {
        // The first call has begun by the time that this one is polled.
        let error = engine.step().await.expect_err("busy");
        assert_eq!(code(&error), "busy");
        assert_eq!(code(&engine.facts().expect_err("busy")), "busy");
    };
    let (first, ()) = both(first, second).await;
    first.expect("the first call is not disturbed");
    engine.facts().expect("nothing runs any more");
}

/// Polls two futures in turn until both are done.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (Box::pin(a), Box::pin(b));
    let (mut x, mut y) = (None, None);
    std::future::poll_fn(move |context| {
        if x.is_none()
            && let std::task::Poll::Ready(value) = a.as_mut().poll(context)
        {
            x = Some(value);
        }
        if y.is_none()
            && let std::task::Poll::Ready(value) = b.as_mut().poll(context)
        {
            y = Some(value);
        }
        if x.is_some() && y.is_some() {
            return std::task::Poll::Ready((x.take().expect("done"), y.take().expect("done")));
        }
        std::task::Poll::Pending
    })
    .await
}

#[wasm_bindgen_test]
async fn a_lost_device_has_a_code_and_the_checkpoint_goes_on_elsewhere() {
    let engine = engine().await;
    engine.start(options(3, None), JsValue::UNDEFINED).await.expect("a run");
    losses(&engine, 1).await;
    let saved = engine.checkpoint().await.expect("a checkpoint");
    engine.destroy_device().expect("nothing runs");
    assert_eq!(code(&engine.step().await.expect_err("the device is gone")), "device_lost");
    assert_eq!(code(&engine.checkpoint().await.expect_err("the device is gone")), "device_lost");
    let other = self::engine().await;
    other.start(options(3, Some(&saved)), JsValue::UNDEFINED).await.expect("a resumed run");
    assert_eq!(losses(&other, 9).await.len(), 2);
}

#[wasm_bindgen_test]
async fn a_call_without_what_it_needs_says_so() {
    let engine = Engine::open(Some(1000.0), None).await.expect("a WebGPU adapter");
    assert_eq!(code(&engine.step().await.expect_err("no run")), "config");
    assert_eq!(code(&engine.start(options(1, None), JsValue::UNDEFINED).await.expect_err("no base")), "config");
    engine.load_embedded(None).await.expect("the embedded model");
    assert_eq!(code(&engine.start(options(1, None), JsValue::UNDEFINED).await.expect_err("too large")), "out_of_memory");
    let plan = engine.plan(js(&serde_json::json!({ "rank": 2, "seq": 32 })), JsValue::UNDEFINED).expect("a plan");
    assert!(!get(&plan, "fits").is_truthy() && number(&plan, "totalBytes") > 1000.0, "{plan:?}");
    let error = engine.plan(js(&serde_json::json!({ "rnak": 2 })), JsValue::UNDEFINED).expect_err("no such setting");
    assert!(code(&error) == "config" && format!("{error:?}").contains("`rank`?"), "{error:?}");
    assert_eq!(code(&engine.load_embedded(Some("q9".into())).await.expect_err("no such format")), "config");
    assert_eq!(code(&Engine::settings("nothing").expect_err("no such method")), "config");
    engine.close().expect("nothing runs");
    assert_eq!(code(&engine.facts().expect_err("closed")), "stopped");
}

/// A source of `size` bytes whose `read` is the JavaScript function body `read` of (offset, length).
fn source(size: usize, read: &str) -> JsValue {
    let object = Object::new();
    for (key, value) in
        [("name", "model.gguf".into()), ("size", (size as f64).into()), ("read", Function::new_with_args("offset, length", read).into())]
    {
        Reflect::set(&object, &key.into(), &value).expect("an object");
    }
    object.into()
}

#[wasm_bindgen_test]
async fn a_base_comes_from_a_source_and_a_broken_source_is_named() {
    let engine = Engine::open(None, None).await.expect("a WebGPU adapter");
    let model = weblora::demo::MODEL;
    let blob = web_blob(model);
    Reflect::set(&js_sys::global(), &"testBlob".into(), &blob).expect("a global");
    let whole = "return globalThis.testBlob.slice(offset, offset + length).arrayBuffer().then((b) => new Uint8Array(b))";
    let info = engine.load_base(source(model.len(), whole).unchecked_into(), None, None).await.expect("the model");
    assert_eq!(get(&info, "name").as_string().as_deref(), Some("model.gguf"));
    let text = engine.generate("Hello".into(), js(&serde_json::json!({ "maxTokens": 4 })), JsValue::UNDEFINED, JsValue::UNDEFINED).await;
    let text = text.expect("some text");
    assert_eq!((get(&text, "stopped").as_string().as_deref(), get(&text, "tokens").as_f64()), (Some("length"), Some(4.0)));
    let cases = [
        (model.len() / 2, whole, "format"),
        (model.len(), "return Promise.resolve(new Uint8Array(length - 1))", "format"),
        (model.len(), "return Promise.resolve(new Uint8Array(length))", "format"),
        (model.len(), "return Promise.reject(new DOMException('gone', 'NotReadableError'))", "io"),
        (model.len(), "return Promise.reject(Object.assign(new Error('404'), { code: 'network' }))", "network"),
        (model.len(), "throw new TypeError('no')", "io"),
        (model.len(), "return Promise.resolve('text')", "config"),
    ];
    for (size, read, expected) in cases {
        let error = engine.load_base(source(size, read).unchecked_into(), None, None).await.expect_err(read);
        assert_eq!(code(&error), expected, "{read}: {error:?}");
    }
    // The base that was there still is.
    engine.plan(js(&serde_json::json!({ "seq": 32 })), JsValue::UNDEFINED).expect("a plan");
}

/// A `Blob` of bytes, without the bindings of web-sys.
fn web_blob(bytes: &[u8]) -> JsValue {
    let make = Function::new_with_args("bytes", "return new Blob([bytes])");
    make.call1(&JsValue::NULL, &Uint8Array::from(bytes)).expect("a blob")
}

#[wasm_bindgen_test]
async fn other_tasks_get_their_turn() {
    let turn = Function::new_no_args("globalThis.turns = 0; setTimeout(() => globalThis.turns++, 0)");
    turn.call0(&JsValue::NULL).expect("a timer");
    let wait = Promise::new(&mut |resolve, _| {
        let later = Function::new_with_args("f", "setTimeout(f, 30)");
        later.call1(&JsValue::NULL, &resolve).expect("a timer");
    });
    JsFuture::from(wait).await.expect("30 ms");
    weblora::gpu::clock::yield_now().await;
    assert_eq!(number(&js_sys::global(), "turns"), 1.0);
}

/// Subgroups are used wherever the browser has them, which wgpu alone would not ask for, and its `GPUAdapter` is left as it was.
#[wasm_bindgen_test]
async fn subgroups_are_asked_for_where_the_adapter_has_them() {
    let ask = |body: &str| Function::new_no_args(body).call0(&JsValue::NULL).expect("a value");
    let has = ask("return navigator.gpu.requestAdapter().then((adapter) => adapter.features.has('subgroups'))");
    let has = JsFuture::from(Promise::from(has)).await.expect("an adapter").is_truthy();
    let before = ask("return GPUAdapter.prototype.requestDevice");
    let gpu = weblora::gpu::Gpu::open(&weblora::gpu::GpuOptions::default()).await.expect("a device");
    assert_eq!(gpu.facts().subgroups, has);
    assert!(before == ask("return GPUAdapter.prototype.requestDevice"), "requestDevice is another function now");
    let without = weblora::gpu::GpuOptions { no_subgroups: true, ..Default::default() };
    assert!(!weblora::gpu::Gpu::open(&without).await.expect("a device").facts().subgroups);
}
