//! `weblora eval`: perplexity of a text, or loss and accuracy of rows, before and after adapters.

use serde_json::json;
use weblora::config::ModelConfig;
use weblora::gpu::Gpu;
use weblora::model::rope;
use weblora::text::ChatOptions;
use weblora::train::TrainConfig;
use weblora::train::context::ContextConfig;
use weblora::train::evaluate::{self, EvalRows, EvalShape};
use weblora::train::score;
use weblora::train::session::Session;
use weblora::{Error, Result};

use super::args::EvalArgs;
use super::base::Base;
use super::device::Device;
use super::files;
use super::output::Output;
use super::retrieval;

/// Runs the verb.
pub fn run(args: &EvalArgs, output: &mut Output) -> Result<()> {
    check_flags(args)?;
    let base = Base::open(&args.model, args.tokenizer.as_deref(), &args.adapter, args.strict_base, &args.angles)?;
    base.warn(output);
    if let Some(task) = &args.retrieval {
        return retrieval::run(args, &base, task, output);
    }
    let context = ContextConfig { group: args.group, group_ratio: args.group_ratio, ..ContextConfig::default() };
    let all: Vec<Rows> = if args.window.is_empty() {
        vec![Rows { window: None, group: context.group(args.seq())?, rows: read(args, &base)? }]
    } else {
        sliding(args, &base, &context)?
    };
    all.iter().flat_map(|one| &one.rows.warnings).for_each(|warning| output.warn(warning.clone()));
    let longest = all.iter().max_by_key(|one| one.rows.longest());
    let longest = longest.ok_or_else(|| Error::config("window", "is empty", "give lengths such as 512,1024"))?;
    check_angles(&all, longest.rows.longest(), &base.file.config)?;
    let mut device = Device::open(&args.device)?;
    let how = EvalShape {
        tokens: args.batch as usize * args.seq(),
        quantize: TrainConfig::quantize_format(&args.quantize)?,
        measure: device.measure,
    };
    let Device { gpu, tuner, .. } = &mut device;
    let planned = evaluate::plan(gpu, &base.file, None, &base.adapters, &longest.rows, how, tuner)?;
    let session = evaluate::open(gpu, &base.file, planned, &base.adapters, how, tuner, output.loading());
    let mut session = pollster::block_on(session)?;
    device.remember();
    for (i, name) in base.names.iter().enumerate() {
        for rows in &all {
            measure(&mut session, &device.gpu, rows, (name, i.checked_sub(1)), output)?;
        }
    }
    Ok(())
}

/// What is measured at once.
struct Rows {
    /// Tokens of the sliding windows that they are.
    window: Option<usize>,
    /// Rows of a group, where they are measured in groups, too.
    group: Option<u32>,
    rows: EvalRows,
}

/// Refuses flags that this kind of evaluation would not look at.
fn check_flags(args: &EvalArgs) -> Result<()> {
    let (unused, problem, hint) = match args.retrieval {
        Some(_) => (
            [("group", args.group.is_some()), ("group-ratio", args.group_ratio.is_some()), ("stride", args.stride.is_some())],
            "is not for --retrieval",
            "leave it out, or give --text FILE instead of --retrieval",
        ),
        None => (
            [("svg", args.svg.is_some()), ("depths", args.depths.is_some()), ("trials", args.trials.is_some())],
            "is for --retrieval alone",
            "leave it out, or give --retrieval TASK instead of --text or --data",
        ),
    };
    unused.into_iter().find(|(_, given)| *given).map_or(Ok(()), |(key, _)| Err(Error::config(key, problem, hint)))
}

/// Refuses windows whose angles depend on how long the others are: one pass over the model has one table for all.
fn check_angles(all: &[Rows], longest: usize, model: &ModelConfig) -> Result<()> {
    let problem = all.iter().find_map(|one| rope::difference(model, one.rows.longest(), longest));
    problem.map_or(Ok(()), |problem| Err(Error::config("window", problem, "measure one length at a time")))
}

/// Measures some rows under one adapter and tells the result.
fn measure(session: &mut Session, gpu: &Gpu, of: &Rows, (name, job): (&str, Option<usize>), output: &mut Output) -> Result<()> {
    let (loss, accuracy) = pollster::block_on(evaluate::evaluate(session, gpu, &of.rows, job))?;
    let grouped = match of.group {
        Some(_) => pollster::block_on(score::mean_in_groups(session, gpu, &of.rows.examples, job, of.group))?.map(|l| l.loss),
        None => None,
    };
    let share = accuracy.map(|a| a.right as f64 / a.rows.max(1) as f64);
    let (loss, targets) = loss.map_or((None, 0), |l| (Some(l.loss), l.targets));
    if output.is_json() {
        let perplexity = loss.map(f64::exp);
        let mut event =
            json!({"event": "eval", "adapter": name, "loss": loss, "perplexity": perplexity, "tokens": targets, "accuracy": share});
        if let Some(window) = of.window {
            event["window"] = json!(window);
        }
        if let Some(grouped) = grouped {
            event["grouped_loss"] = json!(grouped);
        }
        return output.print(&event.to_string());
    }
    let mut line = of.window.map_or_else(|| format!("{name}:"), |window| format!("{name}, windows of {window}:"));
    if let Some(loss) = loss {
        line += &format!(" loss {loss:.6}, perplexity {:.4} over {targets} tokens", loss.exp());
    }
    if let Some(grouped) = grouped {
        line += &format!("; in groups loss {grouped:.6}, perplexity {:.4}", grouped.exp());
    }
    if let (Some(share), Some(a)) = (share, accuracy) {
        line += &format!(" accuracy {:.1} % ({} of {})", 100.0 * share, a.right, a.rows);
    }
    output.print(&line)
}

/// The text of --text in sliding windows of every length.
fn sliding(args: &EvalArgs, base: &Base, context: &ContextConfig) -> Result<Vec<Rows>> {
    let Some(path) = &args.text else {
        return Err(Error::config("window", "slides over a text", "give --text FILE"));
    };
    let tokens = base.tokenizer.encode_raw(&files::read_text(path)?)?;
    let of_length = |window: &usize| {
        let stride = args.stride.unwrap_or(window / 2);
        if stride == 0 || stride >= *window {
            let problem = format!("windows of {window} tokens that begin {stride} apart");
            return Err(Error::config("stride", problem, format!("give a number from 1 to {}", window - 1)));
        }
        let examples = score::sliding(&tokens, *window, stride);
        if examples.is_empty() {
            let problem = format!("{} has {} tokens, and scoring needs two", path.display(), tokens.len());
            return Err(Error::config("text", problem, "give a longer text"));
        }
        let longer = tokens.len() < *window;
        let warnings = longer.then(|| {
            let file = path.display();
            format!("a window of {window} tokens is longer than {file}, which has {0}: what is measured is one window of {0}", tokens.len())
        });
        let rows = EvalRows { examples, warnings: warnings.into_iter().collect(), ..EvalRows::default() };
        Ok(Rows { window: Some(*window), group: context.group(*window)?, rows })
    };
    args.window.iter().map(of_length).collect()
}

fn read(args: &EvalArgs, base: &Base) -> Result<EvalRows> {
    let seq = args.seq();
    if let Some(path) = &args.text {
        let tokens = base.tokenizer.encode_raw(&files::read_text(path)?)?;
        let examples = score::windows(&tokens, seq);
        if examples.is_empty() {
            let problem = format!("{} has {} tokens, and scoring needs two", path.display(), tokens.len());
            return Err(Error::config("text", problem, "give a longer text"));
        }
        return Ok(EvalRows { examples, ..EvalRows::default() });
    }
    let Some(path) = &args.data else {
        return Err(Error::config("data", "nothing to evaluate", "give --text FILE or --data FILE"));
    };
    let options = args.how.options(seq, &chat(args, base)?)?;
    EvalRows::read(&path.display().to_string(), &files::read_rows(path)?, &base.tokenizer, options)
}

/// How the conversations of all adapters became text, since all are measured on the same rows.
fn chat(args: &EvalArgs, base: &Base) -> Result<ChatOptions> {
    let Some(first) = base.chats.first() else { return Ok(ChatOptions::default()) };
    if !args.how.gives_template() && base.chats.iter().any(|chat| chat.template != first.template) {
        let problem = "the adapters were trained with different ones";
        return Err(Error::config("chat-template", problem, "evaluate them one after the other, or give --chat-template"));
    }
    Ok(first.clone())
}
