//! `weblora eval --retrieval`: what a model finds in long texts, by length and by depth.

use serde_json::json;
use weblora::analysis::svg::retrieval;
use weblora::generate::{Generator, Sampling};
use weblora::train::TrainConfig;
use weblora::train::retrieval::{ANSWER, Question, Task};
use weblora::{Error, Result};

use super::args::{DEFAULT_SEQ, EvalArgs};
use super::base::Base;
use super::device::Device;
use super::files::{OutFolder, write_atomic};
use super::output::Output;

/// Runs it for task `name`.
pub fn run(args: &EvalArgs, base: &Base, name: &str, output: &mut Output) -> Result<()> {
    let task = Task::by_name(name)?;
    let context = base.file.config.context_length();
    // What nobody asked for must not be too long.
    let usual = || args.seq.map_or(DEFAULT_SEQ.min(context.saturating_sub(ANSWER)), |tokens| tokens as usize);
    let lengths = if args.window.is_empty() { vec![usual()] } else { args.window.clone() };
    let (places, trials) = (args.depths.unwrap_or(5), args.trials.unwrap_or(4));
    let depths: Vec<f64> = (0..places).map(|i| f64::from(i) / f64::from(places.max(2) - 1)).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0) + ANSWER;
    if longest > context {
        let problem = format!("{} tokens and an answer exceed the model's context of {context}", longest - ANSWER);
        return Err(Error::config("window", problem, format!("use shorter ones, or --context {longest} to stretch its angles")));
    }
    let mut questions: Vec<Vec<Vec<Question>>> = Vec::new();
    for length in &lengths {
        let of_depth = |depth: &f64| -> Result<Vec<Question>> {
            (0..trials).map(|trial| task.question(&base.tokenizer, *length, *depth, 0, trial.into())).collect()
        };
        questions.push(depths.iter().map(of_depth).collect::<Result<_>>()?);
    }
    let folder = args.svg.as_ref().map(|folder| OutFolder::create("svg", folder)).transpose()?;
    let mut device = Device::open(&args.device)?;
    let Device { gpu, tuner, measure } = &mut device;
    let quantize = TrainConfig::quantize_format(&args.quantize)?;
    let opened = Generator::open(gpu, &base.file, &base.adapters, quantize, longest, tuner, *measure, output.loading());
    let mut generator = pollster::block_on(opened)?;
    device.remember();
    let sampling = Sampling { max_tokens: ANSWER, ..Sampling::default() };
    for (i, adapter) in base.names.iter().enumerate() {
        let mut shares: Vec<Vec<Option<f64>>> = vec![Vec::new(); depths.len()];
        for (length, of_length) in lengths.iter().zip(&questions) {
            for ((depth, asked), row) in depths.iter().zip(of_length).zip(&mut shares) {
                let mut right = 0;
                for question in asked {
                    let stop = base.tokenizer.stop_ids();
                    let answer = generator.generate(&device.gpu, &question.prompt, &sampling, stop, i.checked_sub(1), |_| true);
                    let text = base.tokenizer.decode(&pollster::block_on(answer)?.tokens, true)?;
                    right += u32::from(question.is_answered_by(&text));
                }
                row.push(Some(f64::from(right) / f64::from(trials)));
                let line = if output.is_json() {
                    json!({"event": "retrieval", "adapter": adapter, "task": name, "length": length, "depth": depth, "right": right,
                        "trials": trials})
                    .to_string()
                } else {
                    format!("{adapter}: {name}, {length} tokens, depth {:.0} %: {right} of {trials}", 100.0 * depth)
                };
                output.print(&line)?;
            }
        }
        let all: Vec<f64> = shares.iter().flatten().flatten().copied().collect();
        if !output.is_json() {
            output.print(&format!("{adapter}: {:.1} % found", 100.0 * all.iter().sum::<f64>() / all.len().max(1) as f64))?;
        }
        if let Some(folder) = &folder {
            let path = folder.path().join(format!("{name}-{i}.svg"));
            let picture = retrieval(&format!("{name}, {adapter}"), &lengths, &depths, shares);
            write_atomic(&path, picture.as_bytes())?;
        }
    }
    Ok(())
}
