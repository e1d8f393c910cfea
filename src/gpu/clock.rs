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

/// Seconds since 1970-01-01 in UTC; 0 where the clock stands before that.
#[cfg(not(target_arch = "wasm32"))]
pub fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Seconds since 1970-01-01 in UTC.
#[cfg(target_arch = "wasm32")]
pub fn unix_seconds() -> u64 {
    (js_sys::Date::now() / 1000.0) as u64
}

/// Lets other tasks of the event loop run; nothing to do natively.
#[cfg(not(target_arch = "wasm32"))]
pub async fn yield_now() {}

/// Lets other tasks of the event loop run, when none had a turn for [`SLICE`]: messages, input, painting.
#[cfg(target_arch = "wasm32")]
pub async fn yield_now() {
    thread_local! {
        static LAST: std::cell::Cell<Duration> = const { std::cell::Cell::new(Duration::ZERO) };
    }
    if now().saturating_sub(LAST.get()) < SLICE {
        return;
    }
    browser::next_task().await;
    LAST.set(now());
}

/// How long other tasks may have to wait.
#[cfg(target_arch = "wasm32")]
const SLICE: Duration = Duration::from_millis(8);

#[cfg(target_arch = "wasm32")]
mod browser {
    use wasm_bindgen::closure::Closure;
    use wasm_bindgen::{JsCast, JsValue};

    /// Completes in a task of its own. A resolved promise would not do: it runs before anything else gets a turn. Nor would a timer,
    /// which browsers hold back for 4 ms, and for a second in a hidden page.
    pub async fn next_task() {
        let promise = js_sys::Promise::new(&mut |resolve, _| {
            let Ok(channel) = web_sys::MessageChannel::new() else {
                let _ = resolve.call0(&JsValue::UNDEFINED);
                return;
            };
            let (here, there) = (channel.port1(), channel.port2());
            let port = here.clone();
            let received = Closure::once_into_js(move || {
                port.close();
                let _ = resolve.call0(&JsValue::UNDEFINED);
            });
            here.set_onmessage(Some(received.unchecked_ref()));
            if there.post_message(&JsValue::UNDEFINED).is_err() {
                let _ = received.unchecked_ref::<js_sys::Function>().call0(&JsValue::UNDEFINED);
            }
        });
        let _ = wasm_bindgen_futures::JsFuture::from(promise).await;
    }
}
