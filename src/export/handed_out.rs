//! Files that are handed on say what things are called, never where they lie on the machine that made them.

use serde_json::Value;

use crate::formats::file_name;
use crate::settings::Map;

/// Settings whose values are paths.
const PATHS: &[&str] = &["model", "data", "eval-data", "init-adapter", "out", "config", "tokenizer", "chat-template", "adapter"];

/// Settings as they may be handed on.
pub(super) fn without_folders(settings: &Map) -> Map {
    settings.iter().map(|(key, value)| (key.clone(), clean(key, value))).collect()
}

fn clean(key: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if key == "model" => base_name(text).into(),
        // A template may stand here as it is.
        Value::String(text) if text.contains(['\n', '{']) => value.clone(),
        Value::String(text) if PATHS.contains(&key) || looks_like_a_path(text) => file_name(text).into(),
        Value::Array(all) => all.iter().map(|one| clean(key, one)).collect(),
        Value::Object(map) => Value::Object(without_folders(map)),
        other => other.clone(),
    }
}

/// What the base is called, without a folder; the name of a model on a hub (`owner/name`) is one name.
pub(super) fn base_name(text: &str) -> String {
    if is_hub_name(text) { text.to_owned() } else { file_name(text).to_owned() }
}

fn looks_like_a_path(text: &str) -> bool {
    let starts = ["/", "\\", "~", "./", "../", ".\\", "..\\", "file:"].iter().any(|start| text.starts_with(start));
    let mut letters = text.chars();
    let drive = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.next() == Some(':')
        && matches!(letters.next(), Some('\\' | '/'));
    text.len() > 1 && (starts || drive)
}

fn is_hub_name(text: &str) -> bool {
    if text.starts_with("hf:") {
        return true;
    }
    let file = [".gguf", ".safetensors", ".jsonl", ".json", ".toml"].iter().any(|end| text.to_lowercase().ends_with(end));
    let odd = |c: char| matches!(c, '\\' | ':' | '~') || c.is_whitespace();
    let parts: Vec<&str> = text.split('/').collect();
    !file && parts.len() == 2 && parts.iter().all(|part| !part.is_empty() && !part.starts_with('.')) && !text.contains(odd)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_become_names_and_the_rest_stays() {
        let settings = json!({
            "model": "/data/me/model.gguf", "data": ["b/rows.jsonl", "C:\\rows\\more.jsonl"], "out": "runs/first", "lr": 1e-3,
            "chat-template": "{% for m in messages %}a/b\n{% endfor %}", "name": "main", "schedule": "linear", "targets": "q,layers.0.mlp.up_proj",
            "notes": "/secret/place/file.txt", "merged-from": [{"adapter": "x/y/z", "weight": 1.0}],
        });
        let Value::Object(map) = settings else { panic!("an object") };
        let clean = Value::Object(without_folders(&map));
        assert_eq!(
            clean,
            json!({
                "model": "model.gguf", "data": ["rows.jsonl", "more.jsonl"], "out": "first", "lr": 1e-3,
                "chat-template": "{% for m in messages %}a/b\n{% endfor %}", "name": "main", "schedule": "linear",
                "targets": "q,layers.0.mlp.up_proj", "notes": "file.txt", "merged-from": [{"adapter": "z", "weight": 1.0}],
            })
        );
    }

    #[test]
    fn names_of_a_hub_are_kept() {
        for (name, kept) in [
            ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M"),
            ("hf:owner/name/model.gguf", "hf:owner/name/model.gguf"),
            ("models/base.gguf", "base.gguf"),
            ("/models/base", "base"),
            ("a/b/c", "c"),
            ("~/base", "base"),
            ("base.gguf", "base.gguf"),
        ] {
            assert_eq!(base_name(name), kept, "{name}");
        }
    }
}
