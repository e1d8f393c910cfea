//! The model card of a MixLoRA folder.

use super::MixLoraAdapter;
use super::config::strategy_name;
use crate::export::card::{of_base, plain};

/// The card.
pub(super) fn card(adapter: &MixLoraAdapter) -> String {
    let (config, note) = (adapter.config(), adapter.note.as_ref());
    let base = plain(config.base_name.as_deref().unwrap_or("its base model"));
    let [attention, experts, routers] = adapter.parameters();
    let mut rows = vec![
        ("Base", format!("{base}{}", note.map(|note| of_base(&note.base_format, &note.base_hash)).unwrap_or_default())),
        (
            "Routing",
            format!(
                "{}, {} experts in each of {} blocks",
                strategy_name(adapter.routing.strategy),
                adapter.routing.experts,
                adapter.gates.len()
            ),
        ),
        ("Rank", format!("{} of attention, {} of the experts", config.attention.r, config.experts.r)),
        ("Layers", plain(&config.target_modules.join(", "))),
        ("Parameters", format!("{attention} of attention, {experts} of the experts, {routers} of the routers")),
    ];
    if let Some(note) = note {
        let data = note.rows.map(|rows| format!(" on {rows} rows")).unwrap_or_default();
        rows.push(("Training", format!("{} steps{data}", note.steps)));
    }
    let table: String = rows.iter().map(|(what, value)| format!("| {what} | {value} |\n")).collect();
    let quoted = serde_json::Value::from(base.as_str());
    format!(
        "---
base_model: {quoted}
tags: [mixlora, lora, moe, weblora]
---

# A MixLoRA adapter for {base}

| | |
|---|---|
{table}
A router chooses LoRA experts for every token, so this is no plain LoRA: PEFT and llama.cpp cannot load it, and it cannot be merged into its base.
Names and settings are those of the authors' programs, which read `adapter_model.bin`; this makes a folder with it:

```sh
weblora export --adapter . --to mixlora-bin --out with-bin
```
"
    )
}
