//! What is wrong with a row, in words.

use serde_json::Value;

use crate::Error;

/// What a value is instead of what was expected.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(list) if list.is_empty() => "an empty list",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// An error about a row; row 0 means the whole file.
pub(super) fn data(file: &str, row: usize, problem: String, hint: &'static str) -> Error {
    if row == 0 {
        return Error::format(file, problem, hint);
    }
    Error::Data { file: file.to_owned(), row, problem, hint }
}
