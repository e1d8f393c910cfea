//! `weblora generate`: one prompt, answered by the base and by adapters, as the tokens come.

use serde_json::json;
use weblora::generate::{Generator, Sampling};
use weblora::text::{StreamDecoder, chat};
use weblora::train::TrainConfig;
use weblora::{Error, Result};

use super::args::GenerateArgs;
use super::base::Base;
use super::device::Device;
use super::output::Output;

/// Runs the verb.
pub fn run(args: &GenerateArgs, output: &mut Output) -> Result<()> {
    let base = Base::open(&args.model, args.tokenizer.as_deref(), &args.adapter)?;
    let format = TrainConfig::quantize_format(&args.quantize)?;
    let prompt = prompt_tokens(args, &base)?;
    let max_len = prompt.len() + args.max_tokens as usize;
    let context = base.file.config.max_position_embeddings;
    if max_len > context {
        let problem = format!("{} prompt tokens and {} new ones exceed the context of {context}", prompt.len(), args.max_tokens);
        return Err(Error::config("max-tokens", problem, "generate fewer tokens or shorten the prompt"));
    }
    let sampling = Sampling {
        temperature: args.temperature as f32,
        top_k: args.top_k,
        top_p: args.top_p as f32,
        repetition_penalty: args.repetition_penalty as f32,
        seed: args.seed,
        max_tokens: args.max_tokens as usize,
    };
    let mut device = Device::open(&args.device)?;
    let Device { gpu, tuner, measure } = &mut device;
    let opened = Generator::open(gpu, &base.file, &base.adapters, format, max_len, tuner, *measure, output.loading());
    let mut generator = pollster::block_on(opened)?;
    device.remember();
    for (i, name) in base.names.iter().enumerate() {
        if i == 0 && !args.base && !base.adapters.is_empty() {
            continue;
        }
        answer(args, &base, &device, &mut generator, (name, i.checked_sub(1)), &prompt, &sampling, output)?;
    }
    Ok(())
}

/// The prompt as the model sees it.
fn prompt_tokens(args: &GenerateArgs, base: &Base) -> Result<Vec<u32>> {
    if args.raw || base.tokenizer.chat_template().is_none() {
        return base.tokenizer.encode(&args.prompt, true);
    }
    let mut messages = Vec::new();
    if let Some(system) = &args.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    messages.push(json!({"role": "user", "content": args.prompt}));
    chat::prompt(&base.tokenizer, &messages)
}

/// Writes one answer: streamed in words, or as one event.
fn answer(
    args: &GenerateArgs,
    base: &Base,
    device: &Device,
    generator: &mut Generator,
    (name, adapter): (&str, Option<usize>),
    prompt: &[u32],
    sampling: &Sampling,
    output: &mut Output,
) -> Result<()> {
    if !output.is_json() && base.names.len() > 1 {
        output.print(&format!("[{name}]"))?;
    }
    let mut stream = StreamDecoder::new(true);
    let mut text = String::new();
    let mut heard = Ok(true);
    let began = std::time::Instant::now();
    let tokens = pollster::block_on(generator.generate(&device.gpu, prompt, sampling, base.tokenizer.stop_ids(), adapter, |token| {
        let piece = stream.push(&base.tokenizer, token);
        text.push_str(&piece);
        if !output.is_json() {
            heard = output.stream(&piece);
        }
        matches!(heard, Ok(true))
    }))?;
    if !heard? {
        return Ok(());
    }
    let rest = stream.finish();
    text.push_str(&rest);
    let per_s = tokens.len() as f64 / began.elapsed().as_secs_f64();
    if output.is_json() {
        let event =
            json!({"event": "answer", "adapter": name, "prompt": args.prompt, "text": text, "tokens": tokens.len(), "tokens_per_s": per_s});
        return output.print(&event.to_string());
    }
    output.print(&rest)
}
