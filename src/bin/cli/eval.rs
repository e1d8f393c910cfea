//! `weblora eval`: perplexity of a text, or loss and accuracy of rows, before and after adapters.

use serde_json::json;
use weblora::adapters::AdapterLayout;
use weblora::formats::ModelFile;
use weblora::model::llama::Recompute;
use weblora::text::{DataOptions, Dataset, Example, Labelled, read_rows};
use weblora::train::score;
use weblora::train::session::{Planned, Session, Shape};
use weblora::{Error, Result};

use super::args::EvalArgs;
use super::base::{Base, quantize};
use super::device::Device;
use super::files;
use super::output::Output;

/// What is scored.
struct Rows {
    examples: Vec<Example>,
    labelled: Vec<Labelled>,
}

/// Runs the verb.
pub fn run(args: &EvalArgs, output: &mut Output) -> Result<()> {
    let base = Base::open(&args.model, &args.adapter)?;
    let rows = read(args, &base)?;
    let mut device = Device::open(&args.device)?;
    let mut session = open(args, &base.file, &base.adapters, &rows, &mut device)?;
    device.remember();
    let gpu = &device.gpu;
    for (i, name) in base.names.iter().enumerate() {
        let job = i.checked_sub(1);
        let loss = pollster::block_on(score::mean(&mut session, gpu, &rows.examples, job))?;
        let accuracy = match rows.labelled.is_empty() {
            true => None,
            false => Some(pollster::block_on(score::accuracy(&mut session, gpu, &rows.labelled, job))?),
        };
        let share = accuracy.map(|a| a.right as f64 / a.rows.max(1) as f64);
        let (loss, targets) = loss.map_or((None, 0), |l| (Some(l.loss), l.targets));
        if output.is_json() {
            let perplexity = loss.map(f64::exp);
            let event =
                json!({"event": "eval", "adapter": name, "loss": loss, "perplexity": perplexity, "tokens": targets, "accuracy": share});
            output.print(&event.to_string())?;
            continue;
        }
        let mut line = format!("{name}:");
        if let Some(loss) = loss {
            line += &format!(" loss {loss:.6}, perplexity {:.4} over {targets} tokens", loss.exp());
        }
        if let (Some(share), Some(a)) = (share, accuracy) {
            line += &format!(" accuracy {:.1} % ({} of {})", 100.0 * share, a.right, a.rows);
        }
        output.print(&line)?;
    }
    Ok(())
}

fn read(args: &EvalArgs, base: &Base) -> Result<Rows> {
    let seq = args.seq as usize;
    if let Some(path) = &args.text {
        let tokens = base.tokenizer.encode(&files::read_text(path)?, true)?;
        let examples = score::windows(&tokens, seq);
        if examples.is_empty() {
            let problem = format!("{} has {} tokens, and scoring needs two", path.display(), tokens.len());
            return Err(Error::config("text", problem, "give a longer text"));
        }
        return Ok(Rows { examples, labelled: Vec::new() });
    }
    let Some(path) = &args.data else {
        return Err(Error::config("data", "nothing to evaluate", "give --text FILE or --data FILE"));
    };
    let name = path.display().to_string();
    let rows = read_rows(&name, &files::read(path)?)?;
    let options = DataOptions { format: args.format.parse()?, ..DataOptions::new(seq) };
    let labelled = Dataset::labelled(&name, &rows, &base.tokenizer, options)?;
    Ok(Rows { examples: Dataset::build(&name, &rows, &base.tokenizer, options)?.examples, labelled })
}

/// A session that only evaluates, large enough for the longest row.
fn open(args: &EvalArgs, file: &ModelFile, adapters: &[(AdapterLayout, Vec<f32>)], rows: &Rows, device: &mut Device) -> Result<Session> {
    let longest = rows.labelled.iter().flat_map(|l| &l.candidates).chain(&rows.examples).map(|e| e.tokens.len()).max().unwrap_or(2);
    let context = file.config.max_position_embeddings;
    if longest > context {
        let problem = format!("a row of {longest} tokens exceeds the model's context of {context}");
        return Err(Error::config("seq", problem, format!("use --seq {context} or less")));
    }
    let all: usize = rows.examples.iter().map(|e| e.tokens.len()).sum();
    let wanted = (args.batch as usize * args.seq as usize).min(all.next_multiple_of(8)).max(longest);
    let mut layouts: Vec<AdapterLayout> = adapters.iter().map(|(layout, _)| layout.clone()).collect();
    layouts.iter_mut().for_each(AdapterLayout::freeze);
    let layouts: Vec<&AdapterLayout> = layouts.iter().collect();
    let shape = Shape {
        rows: wanted,
        positions: longest,
        recompute: Recompute::Off,
        clip: 0.0,
        quantize: quantize(&args.quantize)?,
        training: false,
    };
    let mut planned = Planned::new(file, &layouts, shape, device.gpu.plan_limits(), &device.tuner)?;
    pollster::block_on(async {
        if device.measure {
            planned.tune(&device.gpu, &mut device.tuner).await?;
        }
        let session = planned.realize(&device.gpu, file, |_, _| {}).await?;
        for (job, (_, values)) in adapters.iter().enumerate() {
            session.write_values(&device.gpu, job, values)?;
        }
        Ok(session)
    })
}
