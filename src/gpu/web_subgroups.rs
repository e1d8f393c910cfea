//! Subgroup operations in a browser. wgpu's web backend does not know the feature (gfx-rs/wgpu#10146), so it cannot be asked for through
//! wgpu; shaders reach the browser as they are, so asking is all that is missing.

use std::cell::Cell;
use std::rc::Rc;

use js_sys::{Array, Function, Object, Proxy, Reflect};
use wasm_bindgen::prelude::{Closure, JsCast, JsValue};

const FEATURE: &str = "subgroups";

/// Runs `request`, within which wgpu calls `GPUAdapter.requestDevice`, so that the call also asks for `subgroups` where they are `wanted` and the
/// adapter has them. The flag tells whether it did; where anything is not as expected, the call goes through unchanged.
pub(super) fn asking_for_subgroups<T>(wanted: bool, request: impl FnOnce() -> T) -> (T, bool) {
    let asked = Rc::new(Cell::new(false));
    let Some((prototype, original)) = request_device().filter(|_| wanted) else { return (request(), false) };
    let flag = asked.clone();
    let call = Closure::<dyn Fn(Function, JsValue, Array) -> Result<JsValue, JsValue>>::new(
        move |target: Function, adapter: JsValue, arguments: Array| {
            if add_feature(&adapter, &arguments).is_some() {
                flag.set(true);
            }
            target.apply(&adapter, &arguments)
        },
    );
    let handler = Object::new();
    let name = JsValue::from_str("requestDevice");
    let wrapped = Reflect::set(&handler, &JsValue::from_str("apply"), call.as_ref())
        .and_then(|_| Reflect::set(&prototype, &name, &Proxy::new(&original, &handler)));
    let made = request();
    if wrapped.is_ok() {
        // The prototype took the wrapped function, so it takes the original back.
        let _ = Reflect::set(&prototype, &name, &original);
    }
    (made, asked.get())
}

/// `GPUAdapter.prototype` and its `requestDevice`.
fn request_device() -> Option<(JsValue, Function)> {
    let class = Reflect::get(&js_sys::global(), &JsValue::from_str("GPUAdapter")).ok()?;
    let prototype = Reflect::get(&class, &JsValue::from_str("prototype")).ok()?;
    let function = Reflect::get(&prototype, &JsValue::from_str("requestDevice")).ok()?.dyn_into().ok()?;
    Some((prototype, function))
}

/// Adds the feature to the descriptor among `arguments` if the adapter has it.
fn add_feature(adapter: &JsValue, arguments: &Array) -> Option<()> {
    let features = Reflect::get(adapter, &JsValue::from_str("features")).ok()?;
    let has: Function = Reflect::get(&features, &JsValue::from_str("has")).ok()?.dyn_into().ok()?;
    let feature = JsValue::from_str(FEATURE);
    if !has.call1(&features, &feature).ok()?.is_truthy() {
        return None;
    }
    let wanted: Array = Reflect::get(&arguments.get(0), &JsValue::from_str("requiredFeatures")).ok()?.dyn_into().ok()?;
    wanted.push(&feature);
    Some(())
}
