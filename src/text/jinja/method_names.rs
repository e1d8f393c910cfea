//! Which methods Python's values have.

use super::value::Value;

const OF_TEXT: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

/// Methods that change a list or a dict.
const CHANGING: &[(&str, &[&str])] = &[
    ("list", &["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"]),
    ("dict", &["clear", "pop", "popitem", "setdefault", "update"]),
];

/// Whether a method would change its value.
pub(super) fn changes(value: &Value, name: &str) -> bool {
    CHANGING.iter().any(|(kind, names)| *kind == value.type_name() && names.contains(&name))
}

/// Whether a value has a method of that name.
pub(super) fn exists(value: &Value, name: &str) -> bool {
    match value {
        Value::Str(_) => OF_TEXT.contains(&name),
        Value::List(_) => matches!(name, "index" | "count" | "copy") || changes(value, name),
        Value::Tuple(_) => matches!(name, "index" | "count"),
        Value::Dict(_) => matches!(name, "get" | "keys" | "values" | "items" | "copy") || changes(value, name),
        Value::Float(_) => name == "is_integer",
        Value::Int(_) | Value::Bool(_) => name == "bit_length",
        Value::Cycler(..) => matches!(name, "next" | "reset"),
        _ => false,
    }
}
