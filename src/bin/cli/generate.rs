//! `weblora generate`: one prompt, answered by the base and by adapters, as the tokens come.

use serde_json::json;
use weblora::generate::{Ended, Generator, Sampling, Written, check_prompt};
use weblora::text::{ChatOptions, StreamDecoder, chat};
use weblora::train::TrainConfig;
use weblora::{Error, Result};

use super::args::GenerateArgs;
use super::base::Base;
use super::device::Device;
use super::output::Output;

/// Runs the verb.
pub fn run(args: &GenerateArgs, output: &mut Output) -> Result<()> {
    let base = Base::open(&args.model, args.tokenizer.as_deref(), &args.adapter, args.strict_base, &args.angles)?;
    base.warn(output);
    let format = TrainConfig::quantize_format(&args.quantize)?;
    // One prompt for the base, then one for each adapter, which may have been trained with a chat template of its own.
    let base_answers = args.base || base.adapters.is_empty();
    let of_base = if base_answers { prompt_tokens(args, &base, &ChatOptions::default())? } else { Vec::new() };
    let of_adapters = base.chats.iter().map(|chat| prompt_tokens(args, &base, chat));
    let prompts = std::iter::once(Ok(of_base)).chain(of_adapters).collect::<Result<Vec<_>>>()?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let context = base.file.config.context_length();
    let most = Sampling::default().max_tokens.min(context.saturating_sub(longest)).max(1);
    let max_tokens = args.max_tokens.map_or(most, |tokens| tokens as usize);
    let max_len = longest + max_tokens;
    if max_len > context {
        let problem = format!("{longest} prompt tokens and {max_tokens} new ones exceed the context of {context}");
        return Err(Error::config("max-tokens", problem, "generate fewer tokens or shorten the prompt"));
    }
    let sampling = Sampling {
        temperature: args.temperature as f32,
        top_k: args.top_k,
        top_p: args.top_p as f32,
        repetition_penalty: args.repetition_penalty as f32,
        seed: args.seed,
        max_tokens,
    };
    let mut device = Device::open(&args.device)?;
    let Device { gpu, tuner, measure } = &mut device;
    let opened = Generator::open(gpu, &base.file, &base.adapters, format, max_len, tuner, *measure, output.loading());
    let mut generator = pollster::block_on(opened)?;
    device.warn_of_software();
    device.remember();
    for (i, name) in base.names.iter().enumerate() {
        if i == 0 && !base_answers {
            continue;
        }
        answer(args, &base, &device, &mut generator, (name, i.checked_sub(1)), &prompts[i], &sampling, output)?;
    }
    Ok(())
}

/// The prompt as the model sees it.
fn prompt_tokens(args: &GenerateArgs, base: &Base, own: &ChatOptions) -> Result<Vec<u32>> {
    let chat = args.chat.options(own)?;
    if args.raw || chat.source(&base.tokenizer)?.is_none() {
        let tokens = base.tokenizer.encode_raw(&args.prompt)?;
        return check_prompt(&tokens).map(|()| tokens);
    }
    let mut messages = Vec::new();
    if let Some(system) = &args.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    messages.push(json!({"role": "user", "content": args.prompt}));
    chat::prompt(&base.tokenizer, &chat, &messages)
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
    let written = pollster::block_on(generator.generate(&device.gpu, prompt, sampling, base.tokenizer.stop_ids(), adapter, |token| {
        let piece = stream.push(&base.tokenizer, token);
        text.push_str(&piece);
        if !output.is_json() {
            heard = output.stream(&piece);
        }
        matches!(heard, Ok(true))
    }))?;
    let Written { tokens, ended } = written;
    if !heard? {
        return Ok(());
    }
    let rest = stream.finish();
    text.push_str(&rest);
    let per_s = tokens.len() as f64 / began.elapsed().as_secs_f64();
    if output.is_json() {
        let event = json!({
            "event": "answer", "adapter": name, "prompt": args.prompt, "text": text, "tokens": tokens.len(), "tokens_per_s": per_s,
            "stopped": ended,
        });
        return output.print(&event.to_string());
    }
    output.stream(&rest)?;
    output.print("")?;
    output.remark(&match ended {
        Ended::End => format!("(ended by the model after {} tokens)", tokens.len()),
        Ended::Length | Ended::Reader => format!("(cut after {} tokens, not ended by the model: --max-tokens)", tokens.len()),
    });
    Ok(())
}
