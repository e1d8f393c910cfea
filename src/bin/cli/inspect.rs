//! `weblora inspect`: what a model holds, whether an adapter fits it, and which tokens of a row are trained.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use weblora::Result;
use weblora::export::adapter::Adapter;
use weblora::export::chain::Chain;
use weblora::export::mixlora::MixLoraAdapter;
use weblora::export::mixlora::config::{LoraSettings, strategy_name};
use weblora::formats::{ModelFile, TensorInfo};
use weblora::text::inspect::RowView;
use weblora::text::{ChatOptions, Dataset, Example, Tokenizer, read_rows};
use weblora::train::start::chat_of;

use super::args::InspectArgs;
use super::base::open_model;
use super::files::{self, AdapterFiles};
use super::output::{Output, bytes, name};

/// Runs the verb.
pub fn run(args: &InspectArgs, output: &mut Output) -> Result<()> {
    if AdapterFiles::is_adapter(&args.model) {
        return show_adapter(args, &args.model, None, output);
    }
    let model = open_model(&args.model, args.tokenizer.as_deref())?;
    model.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    if let Some(path) = &args.data {
        return show_rows(args, path, &model, output);
    }
    if let Some(path) = &args.adapter {
        return show_adapter(args, path, Some(&model), output);
    }
    show_model(args, &model, output)
}

fn show_model(args: &InspectArgs, model: &ModelFile, output: &mut Output) -> Result<()> {
    let mut formats: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut parameters = 0;
    for tensor in model.tensors() {
        let entry = formats.entry(tensor.format.name).or_default();
        *entry = (entry.0 + 1, entry.1 + tensor.bytes);
        parameters += tensor.shape.iter().map(|&n| n as u64).product::<u64>();
    }
    let hash = pollster::block_on(model.content_hash())?;
    let c = &model.config;
    if output.is_json() {
        let formats: Vec<Value> =
            formats.iter().map(|(name, (tensors, bytes))| json!({"format": name, "tensors": tensors, "bytes": bytes})).collect();
        let mut event = json!({
            "event": "model", "name": model.name(), "model_type": c.model_type, "hash": hash, "hash_is_whole": model.is_hashed_whole(), "parameters": parameters,
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
    let of = if model.is_hashed_whole() { "all weights" } else { "some thirty rows" };
    output.print(&format!(
        "{}: {}, {:.1} M parameters, hash {hash} of {of}",
        name(model.name()),
        name(&c.model_type),
        parameters as f64 / 1e6
    ))?;
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
    for (format, (tensors, size)) in formats {
        output.print(&format!("  {tensors:5} tensors in {format}, {}", bytes(size)))?;
    }
    for (key, value) in model.metadata().iter() {
        output.print(&format!("  {} = {}", name(key), on_one_line(&format!("{value:?}"))))?;
    }
    if args.tensors {
        for t in model.tensors() {
            output.print(&format!("  {:48} {:6} {:?} {}", name(&t.name), t.format.name, t.shape, bytes(t.bytes)))?;
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

/// An adapter, alone or against a model.
fn show_adapter(args: &InspectArgs, path: &Path, model: Option<&ModelFile>, output: &mut Output) -> Result<()> {
    let files = AdapterFiles::read(path)?;
    let name = path.display().to_string();
    let adapter = Adapter::read(files.folder(), model.map(|model| &model.config))?;
    if let Some(model) = model.filter(|_| adapter.note().is_some()) {
        output.other_base(adapter.check_base(&name, &pollster::block_on(model.identity())?, args.strict_base)?);
    }
    if let Some(problem) = adapter.zero_problem() {
        output.warn(format!("adapter {name}: {problem}"));
    }
    let adapter = match adapter {
        Adapter::Plain(adapter) => adapter,
        Adapter::Routed(adapter) => return show_experts(&name, &adapter, model.is_some(), output),
    };
    let links = match files.chain() {
        Some(_) => Chain::read_chain(&name, adapter.clone(), files.chain())?.facts(),
        None => Vec::new(),
    };
    let (config, base, note) = (adapter.config(), adapter.base(), adapter.note.as_ref());
    if output.is_json() {
        let sites: Vec<Value> =
            adapter.sites.iter().map(|s| json!({"site": s.site.to_string(), "rank": s.rank, "alpha": s.alpha})).collect();
        let event = json!({
            "event": "adapter", "name": name, "parameters": adapter.parameters(), "rslora": adapter.rslora,
            "base_name": config.base_model_name_or_path, "base_hash": base.as_ref().map(|base| &base.hash),
            "base_format": base.as_ref().map(|base| &base.format), "steps": note.map(|note| note.steps), "rows": note.and_then(|note| note.rows),
            "settings": note.map(|note| &note.config), "zero": adapter.is_zero(), "fits": model.map(|_| true), "links": links, "sites": sites,
        });
        return output.print(&event.to_string());
    }
    let kind = if adapter.rslora { "rsLoRA" } else { "LoRA" };
    let fits = if model.is_some() { "; it fits this model" } else { "" };
    output.print(&format!(
        "{name}: {kind}, rank {}, alpha {}, {} layers, {} parameters{}{fits}",
        config.r,
        config.lora_alpha,
        adapter.sites.len(),
        adapter.parameters(),
        adapter.beside_words()
    ))?;
    let on = base.map(|base| base.to_string()).or(config.base_model_name_or_path).unwrap_or_else(|| "not said".to_owned());
    output.print(&format!("  base {on}"))?;
    if let Some(note) = note {
        let rows = note.rows.map(|rows| format!(" on {rows} rows")).unwrap_or_default();
        let method = note.config.get("method").and_then(Value::as_str).unwrap_or("lora");
        output.print(&format!("  trained for {} steps{rows}, method {method}, by weblora {}", note.steps, note.weblora))?;
    }
    output.print(&format!("  targets {}", super::output::name(&config.target_modules.join(", "))))?;
    for (what, patterns) in [("rank", &config.rank_pattern), ("alpha", &config.alpha_pattern)] {
        for (pattern, x) in &patterns.0 {
            output.print(&format!("  {what} {x} at {pattern}"))?;
        }
    }
    for (i, facts) in links.iter().enumerate() {
        output.print(&facts.line(i))?;
    }
    Ok(())
}

/// Routers and experts.
fn show_experts(name: &str, adapter: &MixLoraAdapter, fits: bool, output: &mut Output) -> Result<()> {
    let (config, base, note) = (adapter.config(), adapter.base(), adapter.note.as_ref());
    let (routing, [attention, experts, routers]) = (&adapter.routing, adapter.parameters());
    let strategy = strategy_name(routing.strategy);
    if output.is_json() {
        let lora = |lora: LoraSettings| json!({"rank": lora.r, "alpha": lora.alpha, "dropout": lora.dropout});
        let event = json!({
            "event": "adapter", "name": name, "method": strategy, "experts": routing.experts, "top_k": routing.top_k,
            "parameters": attention + experts + routers,
            "parameters_by_part": {"attention": attention, "experts": experts, "routers": routers},
            "attention": lora(config.attention), "each_expert": lora(config.experts), "rslora": adapter.rslora, "targets": config.target_modules,
            "base_name": config.base_name, "base_hash": base.as_ref().map(|base| &base.hash),
            "base_format": base.as_ref().map(|base| &base.format), "steps": note.map(|note| note.steps), "rows": note.and_then(|note| note.rows),
            "settings": note.map(|note| &note.config), "zero": adapter.is_zero(), "fits": fits.then_some(true),
        });
        return output.print(&event.to_string());
    }
    let (kind, fits) = (if adapter.rslora { "rsLoRA" } else { "LoRA" }, if fits { "; it fits this model" } else { "" });
    output.print(&format!(
        "{name}: MixLoRA ({strategy}), {} {kind} experts in each of {} blocks, {} parameters{fits}",
        routing.experts,
        adapter.gates.len(),
        attention + experts + routers
    ))?;
    output.print(&format!("  {experts} parameters of the experts, {attention} of attention, {routers} of the routers"))?;
    let rank = |lora: LoraSettings| format!("rank {}, alpha {}", lora.r, lora.alpha);
    output.print(&format!("  experts: {}; attention: {}", rank(config.experts), rank(config.attention)))?;
    let on = base.map(|base| base.to_string()).or(config.base_name).unwrap_or_else(|| "not said".to_owned());
    output.print(&format!("  base {on}"))?;
    if let Some(note) = note {
        let rows = note.rows.map(|rows| format!(" on {rows} rows")).unwrap_or_default();
        output.print(&format!("  trained for {} steps{rows}, by weblora {}", note.steps, note.weblora))?;
    }
    output.print(&format!("  targets {}", super::output::name(&config.target_modules.join(", "))))
}

fn show_rows(args: &InspectArgs, path: &std::path::Path, model: &ModelFile, output: &mut Output) -> Result<()> {
    let name = path.display().to_string();
    let tokenizer = Tokenizer::of_model(model)?;
    let rows = read_rows(&name, &files::read_rows(path)?)?;
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
    // A pair is shown as its chosen answer and then its rejected one.
    for example in dataset.examples.iter().take(args.rows).flat_map(Example::documents) {
        let view = RowView::new(example, &tokenizer);
        let notes = dataset.notes.get(&view.row);
        if output.is_json() {
            let event = json!({"event": "row", "row": view.row, "targets": view.n_targets, "pieces": view.pieces, "notes": notes});
            output.print(&event.to_string())?;
        } else {
            output.print_styled(&view.to_terminal(output.is_terminal()))?;
            for note in notes.into_iter().flatten() {
                output.print(&format!("  {note}"))?;
            }
        }
    }
    Ok(())
}
