//! The model card of an adapter folder: what it is and how it is loaded, for people and for hubs.

use super::peft::PeftAdapter;
use crate::settings::shorten;

/// Text for one line of Markdown, whatever stands in the files that it comes from.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !"`|<>".contains(*c)).collect()
}

/// Text that a shell takes for one word.
fn is_word(text: &str) -> bool {
    !text.starts_with('-') && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// The card.
pub(super) fn card(adapter: &PeftAdapter) -> String {
    let (config, note) = (adapter.config(), adapter.note.as_ref());
    let base = plain(config.base_model_name_or_path.as_deref().unwrap_or("its base model"));
    let setting = |key: &str| note.and_then(|note| note.config.get(key)).map(|value| plain(shorten(value).trim_matches('"')));
    let scale = if adapter.rslora { ", rsLoRA scaling" } else { "" };
    let mut rows = vec![("Base", format!("{base}{}", note.map(|note| of_base(&note.base_format, &note.base_hash)).unwrap_or_default()))];
    rows.extend(setting("method").map(|method| ("Method", method)));
    rows.push(("Rank", format!("{}, alpha {}{scale}", adapter.max_rank(), config.lora_alpha)));
    rows.push(("Layers", format!("{} ({})", adapter.sites.len(), plain(&projections(adapter)))));
    rows.push(("Parameters", format!("{}{}", adapter.parameters(), adapter.beside_words())));
    if let Some(own) = &adapter.embeddings {
        rows.push((
            "Embeddings",
            format!("{} trained rows, which PEFT has only where `weblora export --to peft --model` wrote this folder", own.tokens.len()),
        ));
    }
    if let Some(angles) = note.and_then(|note| note.angles.as_deref()) {
        rows.push(("Rotary angles", format!("stretched by {}; programs other than weblora must be told so", plain(angles))));
    }
    if let Some(note) = note {
        let data = note.rows.map(|rows| format!(" on {rows} rows")).unwrap_or_default();
        rows.push(("Training", format!("{} steps{data}", note.steps)));
    }
    if let Some(lr) = setting("lr") {
        rows.push(("Learning rate", lr));
    }
    if adapter.is_zero() {
        rows.push(("Effect", "**none: its B is all zero**".to_owned()));
    }
    let table: String = rows.iter().map(|(what, value)| format!("| {what} | {value} |\n")).collect();
    let quoted = serde_json::Value::from(base.as_str());
    format!(
        "---
base_model: {quoted}
library_name: peft
tags: [lora, weblora]
---

# A LoRA adapter for {base}

| | |
|---|---|
{table}
With PEFT:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained(\"the base as a Hugging Face model\")
model = PeftModel.from_pretrained(base, \"this folder\")
```

With llama.cpp and Ollama, as a GGUF file beside the GGUF of the base:

```sh
weblora export --adapter . --model {file} --to gguf --out adapter.gguf
llama-cli -m {file} --lora adapter.gguf
printf 'FROM ./{file}\\nADAPTER ./adapter.gguf\\n' > Modelfile && ollama create mine
```
",
        file = if base.ends_with(".gguf") && is_word(&base) { base.as_str() } else { "model.gguf" },
    )
}

pub(super) fn of_base(format: &str, hash: &str) -> String {
    let format = if format.is_empty() { String::new() } else { format!("{}, ", plain(format)) };
    format!(" ({format}hash {})", plain(hash))
}

/// The projections that have an adapter, in the model's order.
fn projections(adapter: &PeftAdapter) -> String {
    let has = |p: &crate::adapters::Projection| adapter.sites.iter().any(|site| site.site.projection == *p);
    crate::adapters::Projection::ALL.into_iter().filter(has).map(crate::adapters::Projection::short_name).collect::<Vec<_>>().join(", ")
}
