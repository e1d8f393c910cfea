//! `weblora inspect`: what a model holds, whether an adapter fits it, and which tokens of a row are trained.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weblora::Result;
use weblora::export::peft::PeftAdapter;
use weblora::formats::{ModelFile, TensorInfo};
use weblora::text::inspect::RowView;
use weblora::text::{ChatOptions, Dataset, Tokenizer, read_rows};
use weblora::train::start::chat_of;

use super::args::InspectArgs;
use super::base::open_model;
use super::files::{self, AdapterFiles};
use super::output::{Output, bytes};

/// Runs the verb.
pub fn run(args: &InspectArgs, output: &mut Output) -> Result<()> {
    let model = open_model(&args.model, args.tokenizer.as_deref())?;
    model.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    if let Some(path) = &args.data {
        return show_rows(args, path, &model, output);
    }
    if let Some(path) = &args.adapter {
        return show_adapter(path, &model, output);
    }
    show_model(args, &model, output)
}

fn show_model(args: &InspectArgs, model: &ModelFile, output: &mut Output) -> Result<()> {
    let mut formats: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut parameters = 0;
    for tensor in model.tensors() {
        let entry = formats.entry(tensor.format.name).or_default();
        *entry = (entry.0 + 1, entry.1 + tensor.bytes);
        parameters += tensor.shape.iter().product::<usize>() as u64;
    }
    let hash = pollster::block_on(model.content_hash())?;
    let c = &model.config;
    if output.is_json() {
        let formats: Vec<Value> =
            formats.iter().map(|(name, (tensors, bytes))| json!({"format": name, "tensors": tensors, "bytes": bytes})).collect();
        let mut event = json!({
            "event": "model", "name": model.name(), "model_type": c.model_type, "hash": hash, "parameters": parameters,
            "vocab_size": c.vocab_size, "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
            "num_hidden_layers": c.num_hidden_layers, "num_attention_heads": c.num_attention_heads,
            "num_key_value_heads": c.num_key_value_heads, "head_dim": c.head_dim, "rms_norm_eps": c.rms_norm_eps,
            "max_position_embeddings": c.max_position_embeddings, "rope_theta": c.rope_theta,
            "rope_scaling": format!("{:?}", c.rope_scaling), "tie_word_embeddings": c.tie_word_embeddings,
            "sliding_window": c.sliding_window, "formats": formats, "warnings": model.warnings(),
        });
        if args.tensors {
            event["tensors"] = model.tensors().map(tensor_json).collect();
        }
        return output.print(&event.to_string());
    }
    output.print(&format!("{}: {}, {:.1} M parameters, hash {hash}", model.name(), c.model_type, parameters as f64 / 1e6))?;
    output.print(&format!(
        "  {} blocks, width {}, feed-forward {}, {} heads of {} on {} key/value heads, vocabulary {}{}",
        c.num_hidden_layers,
        c.hidden_size,
        c.intermediate_size,
        c.num_attention_heads,
        c.head_dim,
        c.num_key_value_heads,
        c.vocab_size,
        if c.tie_word_embeddings { ", tied head" } else { "" },
    ))?;
    let window = c.sliding_window.map(|w| format!(", sliding window {w}")).unwrap_or_default();
    output.print(&format!("  context {}, rope theta {}, scaling {:?}{window}", c.max_position_embeddings, c.rope_theta, c.rope_scaling))?;
    for (name, (tensors, size)) in formats {
        output.print(&format!("  {tensors:5} tensors in {name}, {}", bytes(size)))?;
    }
    for (key, value) in model.metadata().iter() {
        output.print(&format!("  {key} = {}", on_one_line(&format!("{value:?}"))))?;
    }
    if args.tensors {
        for t in model.tensors() {
            output.print(&format!("  {:48} {:6} {:?} {}", t.name, t.format.name, t.shape, bytes(t.bytes)))?;
        }
    }
    Ok(())
}

fn tensor_json(t: &TensorInfo) -> Value {
    json!({"name": t.name, "format": t.format.name, "shape": t.shape, "bytes": t.bytes, "offset": t.offset})
}

/// Metadata may hold whole vocabularies and templates: one line of it is enough here.
fn on_one_line(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((cut, _)) => format!("{}… ({} characters)", &text[..cut], text.chars().count()),
        None => text.to_owned(),
    }
}

fn show_adapter(path: &std::path::Path, model: &ModelFile, output: &mut Output) -> Result<()> {
    let files = AdapterFiles::read(path)?;
    let adapter = PeftAdapter::read(files.folder(), &model.config)?;
    let name = path.display().to_string();
    if adapter.note.is_some() {
        adapter.check_base(&name, &pollster::block_on(model.content_hash())?)?;
    }
    let parameters: usize = adapter.sites.iter().map(|site| site.a.len() + site.b.len()).sum();
    let config = adapter.config();
    if output.is_json() {
        let sites: Vec<Value> =
            adapter.sites.iter().map(|s| json!({"site": s.site.to_string(), "rank": s.rank, "alpha": s.alpha})).collect();
        let base = adapter.note.as_ref().map(|note| &note.base_hash);
        let event = json!({"event": "adapter", "name": name, "parameters": parameters, "rslora": adapter.rslora, "base_hash": base, "sites": sites});
        return output.print(&event.to_string());
    }
    let kind = if adapter.rslora { "rsLoRA" } else { "LoRA" };
    output.print(&format!(
        "{name}: {kind}, rank {}, alpha {}, {} layers, {parameters} parameters; it fits this model",
        config.r,
        config.lora_alpha,
        adapter.sites.len()
    ))?;
    output.print(&format!("  targets {}", config.target_modules.join(", ")))?;
    for (what, patterns) in [("rank", &config.rank_pattern), ("alpha", &config.alpha_pattern)] {
        for (pattern, x) in &patterns.0 {
            output.print(&format!("  {what} {x} at {pattern}"))?;
        }
    }
    Ok(())
}

fn show_rows(args: &InspectArgs, path: &std::path::Path, model: &ModelFile, output: &mut Output) -> Result<()> {
    let name = path.display().to_string();
    let tokenizer = Tokenizer::of_model(model)?;
    let rows = read_rows(&name, &files::read(path)?)?;
    let chat = match &args.adapter {
        Some(adapter) => chat_of(AdapterFiles::read(adapter)?.folder())?,
        None => ChatOptions::default(),
    };
    let dataset = Dataset::build(&name, &rows, &tokenizer, args.how.options(args.seq as usize, &chat)?)?;
    let warnings = dataset.report.warnings(&name);
    if output.is_json() {
        output.print(&json!({"event": "data", "name": name, "report": dataset.report, "warnings": warnings}).to_string())?;
    } else {
        let r = &dataset.report;
        output.print(&format!(
            "{name}: {} rows, {} tokens ({} trained), longest {}, {} cut, {} without a target left out",
            r.rows, r.tokens, r.targets, r.longest, r.truncated, r.dropped
        ))?;
        let counts = [
            (r.with_control_tokens, "rows spell control tokens, which are read as such"),
            (r.excluded_turns, "assistant turns are context, not trained"),
            (r.prompt_then_answer, "conversations are the prompt as for generation, then the answer"),
        ];
        for (n, what) in counts.into_iter().filter(|(n, _)| *n > 0) {
            output.print(&format!("  {n} {what}"))?;
        }
        for warning in &warnings {
            output.print(&format!("  warning: {warning}"))?;
        }
    }
    for example in dataset.examples.iter().take(args.rows) {
        let view = RowView::new(example, &tokenizer);
        let notes = dataset.notes.get(&view.row);
        if output.is_json() {
            let event = json!({"event": "row", "row": view.row, "targets": view.n_targets, "pieces": view.pieces, "notes": notes});
            output.print(&event.to_string())?;
        } else {
            output.print(&view.to_terminal(output.is_terminal()))?;
            for note in notes.into_iter().flatten() {
                output.print(&format!("  {note}"))?;
            }
        }
    }
    Ok(())
}
