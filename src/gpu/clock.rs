//! Time and yielding, the one shim that differs between the browser and the desktop.

use std::time::Duration;

/// Monotonic time since an arbitrary start.
#[cfg(not(target_arch = "wasm32"))]
pub fn now() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Monotonic time since an arbitrary start.
#[cfg(target_arch = "wasm32")]
pub fn now() -> Duration {
    use wasm_bindgen::JsCast;
    let global = js_sys::global();
    let performance = match global.dyn_ref::<web_sys::Window>() {
        Some(window) => window.performance(),
        None => global.dyn_ref::<web_sys::WorkerGlobalScope>().and_then(|scope| scope.performance()),
    };
    Duration::from_secs_f64(performance.map_or(0.0, |p| p.now() / 1000.0))
}

/// Lets other tasks of the event loop run; nothing to do natively.
#[cfg(not(target_arch = "wasm32"))]
pub async fn yield_now() {}

/// Lets other tasks of the event loop run.
#[cfg(target_arch = "wasm32")]
pub async fn yield_now() {
    let promise = js_sys::Promise::resolve(&wasm_bindgen::JsValue::UNDEFINED);
    let _ = wasm_bindgen_futures::JsFuture::from(promise).await;
}
