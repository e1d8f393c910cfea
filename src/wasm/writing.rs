//! Text from the base, from the run's adapter, or from an adapter's files.

use serde_json::{Value, json};

use super::options::{Adapter, AdapterFiles, Callback, Prompt, Write};
use super::run::{angles, chat, opened};
use super::state::{Base, State, Writer, loaded, running};
use crate::config::ModelConfig;
use crate::generate::{Generator, generate};
use crate::gpu::clock;
use crate::model;
use crate::model::decoder::{Decoder, PREFILL};
use crate::rng::{FNV_OFFSET, fnv1a_bytes};
use crate::text::chat::prompt as prompt_of;
use crate::text::{Date, StreamDecoder};
use crate::{Error, Result};

/// A decoder's cache begins with room for this many tokens and doubles, since its buffers stay until the run goes.
const FIRST_CACHE: usize = 256;

/// Identity of an adapter's files.
fn identity(files: &AdapterFiles) -> u64 {
    files.iter().fold(FNV_OFFSET, |hash, (name, bytes)| fnv1a_bytes(fnv1a_bytes(hash, name.as_bytes()), bytes))
}

/// Tokens of room for sequences of `needed`, within the model's context.
fn room(needed: usize, context: usize) -> usize {
    needed.max(FIRST_CACHE).next_power_of_two().min(context)
}

impl State {
    /// Continues a prompt; `piece` gets the text as it comes. `Written` of the package.
    pub async fn generate(
        &mut self,
        prompt: &Prompt,
        adapter: Adapter,
        how: &Write,
        piece: &Callback,
        progress: &Callback,
    ) -> Result<Value> {
        let own = matches!(adapter, Adapter::Current) || (matches!(adapter, Adapter::None) && self.job.is_some());
        if !own {
            self.load_resident(progress).await?;
        }
        let model = angles(&adapter, self.job.as_mut().filter(|_| own), loaded(&self.base)?)?;
        let base = loaded(&self.base)?;
        let tokens = match prompt {
            Prompt::Text(text) => base.tokenizer.encode_raw(text)?,
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Messages(messages) => {
                let mut options = chat(&adapter, self.job.as_ref())?;
                if let Some(template) = &how.chat_template {
                    options.template = Some(template.clone());
                }
                options.date.get_or_insert_with(|| Date::of_unix_time(clock::unix_seconds()));
                prompt_of(&base.tokenizer, &options, messages)?
            }
        };
        let sampling = how.sampling()?;
        let (needed, context) = (tokens.len().saturating_add(sampling.max_tokens), model.context_length());
        if needed > context {
            let problem = format!("{} prompt tokens and {} new ones exceed the context of {context}", tokens.len(), sampling.max_tokens);
            return Err(Error::config("maxTokens", problem, "generate fewer tokens or shorten the prompt"));
        }
        let (mut stream, mut text) = (StreamDecoder::new(true), String::new());
        let abort = self.abort.clone();
        let mut each = |token: u32| {
            let new = stream.push(&base.tokenizer, token);
            if !new.is_empty() {
                piece.text(&new);
                text.push_str(&new);
            }
            !abort.get()
        };
        let stop = base.tokenizer.stop_ids();
        let written = if own {
            let job = running(&mut self.job)?;
            let choice = matches!(adapter, Adapter::Current).then_some(0);
            let (store, llama, tables) = job.trainer.session().parts();
            let decoder = match job.decoder.take().filter(|decoder| decoder.max_len() >= needed) {
                Some(decoder) => decoder,
                None => Decoder::new(&self.gpu, store, llama, Some(tables), room(needed, context), &mut self.tuner, false).await?,
            };
            let decoder = job.decoder.insert(decoder);
            generate(&self.gpu, store, decoder, &tokens, &sampling, stop, choice, &mut each).await?
        } else {
            let writer = writer(&mut self.writer, &self.gpu, base, &mut self.tuner, (&adapter, model), how.strict_base, needed).await?;
            let choice = matches!(adapter, Adapter::Files(_)).then_some(0);
            writer.generator.generate(&self.gpu, &tokens, &sampling, stop, choice, &mut each).await?
        };
        if abort.get() {
            return Err(Error::Stopped);
        }
        let rest = stream.finish();
        piece.text(&rest);
        text.push_str(&rest);
        Ok(json!({ "text": text, "tokens": written.tokens.len(), "stopped": written.ended }))
    }
}

impl State {
    /// Puts the base on the device, where it is not there yet.
    async fn load_resident(&mut self, progress: &Callback) -> Result<()> {
        let base = loaded(&self.base)?;
        if base.resident.is_some() {
            return Ok(());
        }
        let declared = model::Base::declare(&base.file, self.gpu.plan_limits(), base.format()?, PREFILL)?;
        self.check_size(declared.bytes())?;
        let weights = |done, total| progress.progress("weights", done, total);
        let resident = declared.load(&self.gpu, &base.file, weights).await?;
        if let Some(base) = &mut self.base {
            base.resident = Some(resident);
        }
        Ok(())
    }
}

/// The writer for `adapter` on `model`, opened anew where the last one does not fit.
async fn writer<'w>(
    slot: &'w mut Option<Writer>,
    gpu: &crate::gpu::Gpu,
    base: &Base,
    tuner: &mut crate::gpu::Tuner,
    (adapter, model): (&Adapter, ModelConfig),
    strict: bool,
    needed: usize,
) -> Result<&'w mut Writer> {
    let wanted = match adapter {
        Adapter::Files(files) => Some(identity(files)),
        Adapter::None | Adapter::Current => None,
    };
    let adapters = match adapter {
        Adapter::Files(files) => vec![opened(files, base, strict)?.0],
        Adapter::None | Adapter::Current => Vec::new(),
    };
    // Without an adapter any writer of the same angles will do.
    let fits = |w: &Writer| w.generator.max_len() >= needed && w.model == model && (wanted.is_none() || w.adapter == wanted);
    let kept = slot.take().filter(fits);
    if let Some(kept) = kept {
        return Ok(slot.insert(kept));
    }
    let max_len = room(needed, model.context_length());
    let resident = base.resident.as_ref().ok_or_else(|| Error::config("model", "is not on the device", "call loadBase first"))?;
    // The weights may have come with a run whose angles were stretched.
    let resident = resident.clone().with_config(model.clone());
    let generator = Generator::on(gpu, &resident, &adapters, max_len, tuner, false).await?;
    Ok(slot.insert(Writer { generator, adapter: wanted, model }))
}
