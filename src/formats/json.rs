//! Typed look-ups in a JSON object, whose errors name the file and the key.

use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// Largest integer that a JSON number holds exactly in every reader.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A JSON object of a named file; `null` counts as absent.
#[derive(Debug, Clone)]
pub(super) struct Object {
    file: String,
    map: Map<String, Value>,
}

const HINT: &str = "correct the file, or download it again";

impl Object {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self> {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Self { file: file.to_owned(), map }),
            Ok(_) => Err(Error::format(file, "its JSON is not an object", HINT)),
            Err(e) => Err(Error::format(file, format!("not JSON: {e}"), HINT)),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.map.iter().map(|(k, v)| (k.as_str(), v))
    }

    pub(super) fn error(&self, problem: String) -> Error {
        Error::format(&self.file, problem, HINT)
    }

    pub(super) fn unsupported(&self, what: impl std::fmt::Display, hint: &str) -> Error {
        Error::Unsupported { what: format!("{}: {what}", self.file), hint: hint.into() }
    }

    fn typed<'a, T>(&'a self, key: &str, expected: &str, cast: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        cast(value).map(Some).ok_or_else(|| self.error(format!("`{key}` is {}, {expected} was expected", shorten(value))))
    }

    /// A non-negative whole number (`4096` or `4096.0`).
    pub(super) fn usize(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a non-negative whole number", |v| match v.as_u64() {
            Some(n) => n.try_into().ok(),
            None => v.as_f64().filter(|f| f.fract() == 0.0 && (0.0..EXACT).contains(f)).and_then(|f| (f as u64).try_into().ok()),
        })
    }

    pub(super) fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn f64s(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.typed(key, "a list of numbers", |v| v.as_array()?.iter().map(Value::as_f64).collect())
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Self>> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Self { file: format!("{}, `{key}`", self.file), map: map.clone() }))
    }

    pub(super) fn require<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(format!("`{key}` is missing")))
    }
}

/// A value as it stands in the file, cut to a length that fits in a sentence.
fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
