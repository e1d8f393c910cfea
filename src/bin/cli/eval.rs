//! `weblora eval`: perplexity of a text, or loss and accuracy of rows, before and after adapters.

use serde_json::json;
use weblora::text::ChatOptions;
use weblora::train::TrainConfig;
use weblora::train::context::ContextConfig;
use weblora::train::evaluate::{self, EvalRows, EvalShape};
use weblora::train::score;
use weblora::{Error, Result};

use super::args::EvalArgs;
use super::base::Base;
use super::device::Device;
use super::files;
use super::output::Output;

/// Runs the verb.
pub fn run(args: &EvalArgs, output: &mut Output) -> Result<()> {
    let base = Base::open(&args.model, args.tokenizer.as_deref(), &args.adapter, args.strict_base, &args.angles)?;
    base.warn(output);
    let context = ContextConfig { group: args.group, group_ratio: args.group_ratio, ..ContextConfig::default() };
    let group = context.group(args.seq as usize)?;
    let rows = read(args, &base)?;
    let mut device = Device::open(&args.device)?;
    let how = EvalShape {
        tokens: args.batch as usize * args.seq as usize,
        quantize: TrainConfig::quantize_format(&args.quantize)?,
        measure: device.measure,
    };
    let Device { gpu, tuner, .. } = &mut device;
    let planned = evaluate::plan(gpu, &base.file, None, &base.adapters, &rows, how, tuner)?;
    let session = evaluate::open(gpu, &base.file, planned, &base.adapters, how, tuner, output.loading());
    let mut session = pollster::block_on(session)?;
    device.remember();
    let gpu = &device.gpu;
    for (i, name) in base.names.iter().enumerate() {
        let (loss, accuracy) = pollster::block_on(evaluate::evaluate(&mut session, gpu, &rows, i.checked_sub(1)))?;
        let grouped = match group {
            Some(_) => {
                pollster::block_on(score::mean_in_groups(&mut session, gpu, &rows.examples, i.checked_sub(1), group))?.map(|l| l.loss)
            }
            None => None,
        };
        let share = accuracy.map(|a| a.right as f64 / a.rows.max(1) as f64);
        let (loss, targets) = loss.map_or((None, 0), |l| (Some(l.loss), l.targets));
        if output.is_json() {
            let perplexity = loss.map(f64::exp);
            let mut event =
                json!({"event": "eval", "adapter": name, "loss": loss, "perplexity": perplexity, "tokens": targets, "accuracy": share});
            if let Some(grouped) = grouped {
                event["grouped_loss"] = json!(grouped);
            }
            output.print(&event.to_string())?;
            continue;
        }
        let mut line = format!("{name}:");
        if let Some(loss) = loss {
            line += &format!(" loss {loss:.6}, perplexity {:.4} over {targets} tokens", loss.exp());
        }
        if let Some(grouped) = grouped {
            line += &format!("; in groups loss {grouped:.6}, perplexity {:.4}", grouped.exp());
        }
        if let (Some(share), Some(a)) = (share, accuracy) {
            line += &format!(" accuracy {:.1} % ({} of {})", 100.0 * share, a.right, a.rows);
        }
        output.print(&line)?;
    }
    Ok(())
}

fn read(args: &EvalArgs, base: &Base) -> Result<EvalRows> {
    let seq = args.seq as usize;
    if let Some(path) = &args.text {
        let tokens = base.tokenizer.encode_raw(&files::read_text(path)?)?;
        let examples = score::windows(&tokens, seq);
        if examples.is_empty() {
            let problem = format!("{} has {} tokens, and scoring needs two", path.display(), tokens.len());
            return Err(Error::config("text", problem, "give a longer text"));
        }
        return Ok(EvalRows { examples, labelled: Vec::new() });
    }
    let Some(path) = &args.data else {
        return Err(Error::config("data", "nothing to evaluate", "give --text FILE or --data FILE"));
    };
    let options = args.how.options(seq, &chat(args, base)?)?;
    EvalRows::read(&path.display().to_string(), &files::read(path)?, &base.tokenizer, options)
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
