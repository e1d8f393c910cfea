//! `weblora` without arguments: trains an adapter on the embedded model, shows the same question before and after, saves the adapter.

use std::path::Path;
use std::time::Instant;

use serde_json::json;
use weblora::demo::{self, Answer};
use weblora::gpu::Gpu;
use weblora::model::decoder::Decoder;
use weblora::text::{DataOptions, Dataset, Example, Tokenizer, read_rows};
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};
use weblora::train::{Event, TrainConfig};
use weblora::{Error, Result};

use super::device::{Device, DeviceArgs};
use super::files::{Existing, OutFolder};
use super::output::Output;
use super::signals::Stop;

/// Held-out rows that are answered before and after.
const ASKED: usize = 32;
/// Steps between lines of loss.
const EVERY: u64 = 5;

/// Runs the demo.
pub fn run(output: &mut Output) -> Result<()> {
    let began = Instant::now();
    let file = pollster::block_on(demo::model())?;
    let tokenizer = Tokenizer::of_model(&file)?;
    let data = TrainData {
        train: rows(&tokenizer, "demo/train.jsonl", demo::TRAIN)?,
        held_out: rows(&tokenizer, "demo/heldout.jsonl", demo::HELD_OUT)?,
        ..TrainData::default()
    };
    let asked: Vec<Example> = data.held_out.iter().take(ASKED).cloned().collect();
    let config = TrainConfig::from_map(&demo::settings())?;
    let mut device = Device::open(&DeviceArgs::default())?;
    // Measuring kernels takes longer than this run: the usual choice for the kind of adapter will do.
    let Device { gpu, tuner, .. } = &mut device;
    say(
        output,
        &format!(
            "weblora {}: a LoRA adapter on an embedded 1 M parameter LLaMA (4-bit), on {}",
            env!("CARGO_PKG_VERSION"),
            gpu.facts().name
        ),
    )?;
    let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), tuner)?;
    let planned_bytes = plan.planned.footprint().total();
    let stop = Stop::listen()?;
    let trainer = Trainer::new(gpu, &file, config.clone(), data, plan, None, tuner, false, |_, _| {});
    let mut trainer = pollster::block_on(trainer)?;
    let event = Event::Start {
        job: config.name.clone(),
        config: config.to_map(),
        trainable_parameters: trainer.layout().params.trainable() as u64,
        planned_bytes,
        adapter: gpu.facts().name.clone(),
        steps: trainer.total_steps(),
        passes: trainer.passes(),
        resumed_at: 0,
        logit_jump: None,
    };
    output.event(&event);
    let mut decoder = {
        let (store, model, tables) = trainer.session().parts();
        pollster::block_on(Decoder::new(gpu, store, model, Some(tables), 96, tuner, false))?
    };
    let before = ask(gpu, &mut trainer, &mut decoder, &asked, &tokenizer)?;
    report(output, "before", &before, &tokenizer)?;
    let mut last = None;
    while trainer.step_number() < trainer.total_steps() && !stop.asked() {
        let step = pollster::block_on(trainer.step(gpu))?;
        last = Some(step.loss);
        let line = format!("  step {:3}  loss {:.4}  {:.0} tokens/s", step.step, step.loss, step.tokens_per_s);
        let shown = step.step == 1 || step.step % EVERY == 0;
        if output.is_json() {
            output.event(&Event::Step(step));
        } else if shown {
            say(output, &line)?;
        }
    }
    let after = ask(gpu, &mut trainer, &mut decoder, &asked, &tokenizer)?;
    report(output, "after", &after, &tokenizer)?;
    let out = OutFolder::open(Path::new(&config.out), Existing::Overwrite)?;
    out.write_adapter(&pollster::block_on(trainer.export(gpu))?)?;
    device.remember();
    if stop.asked() {
        return Err(Error::Stopped);
    }
    output.event(&Event::Done {
        job: config.name.clone(),
        step: trainer.step_number(),
        loss: last,
        best_eval: None,
        seconds: began.elapsed().as_secs_f64(),
        out: out.path().display().to_string(),
    });
    Ok(())
}

fn rows(tokenizer: &Tokenizer, name: &str, bytes: &[u8]) -> Result<Vec<Example>> {
    Ok(Dataset::build(name, &read_rows(name, bytes)?, tokenizer, DataOptions::new(64))?.examples)
}

/// The model's answers to held-out prompts as it is now.
fn ask(gpu: &Gpu, trainer: &mut Trainer, decoder: &mut Decoder, asked: &[Example], tokenizer: &Tokenizer) -> Result<Vec<Answer>> {
    let store = trainer.session().store();
    pollster::block_on(demo::answers(gpu, store, decoder, asked, tokenizer.stop_ids(), Some(0)))
}

fn report(output: &mut Output, when: &str, answers: &[Answer], tokenizer: &Tokenizer) -> Result<()> {
    let right = answers.iter().filter(|a| a.is_right()).count();
    let text = |tokens: &[u32]| tokenizer.decode(tokens, true);
    let Some(first) = answers.first() else { return Ok(()) };
    let (prompt, written) = (text(&first.prompt)?, text(&first.written)?);
    if output.is_json() {
        let event = json!({"event": "sample", "when": when, "prompt": prompt, "text": written, "right": right, "asked": answers.len()});
        return output.print(&event.to_string());
    }
    say(output, &format!("{when}: {right} of {} held-out questions answered exactly\n    {prompt}|{written}", answers.len()))
}

/// A line for people; JSON readers get events instead.
fn say(output: &mut Output, line: &str) -> Result<()> {
    if output.is_json() { Ok(()) } else { output.print(line) }
}
