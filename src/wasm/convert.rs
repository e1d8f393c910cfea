//! Values and errors across the border.

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::*;

use crate::settings::Map;
use crate::{Error, Result};

/// A plain JavaScript value: objects instead of maps, numbers instead of big integers.
pub fn to_js<T: Serialize + ?Sized>(value: &T) -> Result<JsValue> {
    let made = value.serialize(&serde_wasm_bindgen::Serializer::json_compatible());
    made.map_err(|e| Error::Gpu { what: "handing a result to JavaScript".into(), message: e.to_string() })
}

/// Reads an argument called `what`. `undefined` is the same as `null`.
pub fn from_js<T: DeserializeOwned>(value: JsValue, what: &str) -> Result<T> {
    serde_wasm_bindgen::from_value(value).map_err(|e| Error::config(what, format!("cannot be read: {e}"), "see the types of the package"))
}

/// Reads settings; nothing is none. Numbers that JSON cannot hold would count as not given.
///
/// # Errors
/// Something else; a number that is NaN or infinite.
pub fn settings_from_js(value: JsValue) -> Result<Option<Map>> {
    if let Some(object) = value.dyn_ref::<js_sys::Object>() {
        for entry in js_sys::Object::entries(object).iter() {
            let pair = js_sys::Array::from(&entry);
            if let Some(number) = pair.get(1).as_f64().filter(|number| !number.is_finite()) {
                let key = pair.get(0).as_string().unwrap_or_default();
                return Err(Error::config(key, format!("is {number}"), "give a finite number"));
            }
        }
    }
    from_js(value, "settings")
}

/// A field of an object; `undefined` when it has none.
pub fn field(object: &JsValue, key: &str) -> Result<JsValue> {
    if !object.is_object() {
        return Ok(JsValue::UNDEFINED);
    }
    js_sys::Reflect::get(object, &key.into()).map_err(|e| from_thrown(key, &e))
}

/// The `Error` that JavaScript gets: a sentence, a stable `code`, and the `causes` beneath.
pub fn thrown(error: &Error) -> JsValue {
    let made = js_sys::Error::new(&error.to_string());
    made.set_name("WebloraError");
    let causes = js_sys::Array::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        causes.push(&inner.to_string().into());
        cause = inner.source();
    }
    // Setting a property of a fresh object does not fail.
    let _ = js_sys::Reflect::set(&made, &"code".into(), &error.code().into());
    let _ = js_sys::Reflect::set(&made, &"causes".into(), &causes);
    made.into()
}

/// What JavaScript threw while `name` was read.
pub fn from_thrown(name: &str, value: &JsValue) -> Error {
    let text = |key: &str| js_sys::Reflect::get(value, &key.into()).ok().and_then(|v| v.as_string());
    let message = text("message").unwrap_or_else(|| format!("{value:?}"));
    match text("code").as_deref() {
        Some("network") => {
            Error::Network { url: name.to_owned(), problem: message, hint: "check the address and the connection, and try again" }
        }
        Some("aborted") => Error::Stopped,
        _ => Error::Io {
            action: "read",
            path: name.to_owned(),
            source: std::io::Error::other(message),
            hint: "choose the file again: it may have been moved or changed",
        },
    }
}
