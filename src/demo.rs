//! The embedded demo: a model of 1 M parameters and rows of a task that it does not know, both ours (`scripts/embedded`), so that a first
//! training run needs no download, no file and no network.

use crate::formats::{ByteSource, Bytes, ModelFile};
use crate::generate::Sampling;
use crate::gpu::{Gpu, Store};
use crate::model::decoder::Decoder;
use crate::text::Example;
use crate::{Result, settings};

/// The model, a GGUF file with its tokenizer.
pub const MODEL: &[u8] = include_bytes!("../assets/demo/demo.gguf");
/// Rows to train on, JSON lines.
pub const TRAIN: &[u8] = include_bytes!("../assets/demo/train.jsonl");
/// Rows of the same task that are never trained on.
pub const HELD_OUT: &[u8] = include_bytes!("../assets/demo/heldout.jsonl");

/// What the embedded model is called, in its file too.
pub const NAME: &str = "weblora demo";

/// Opens the embedded model.
///
/// # Errors
/// None in a whole build.
pub async fn model() -> Result<ModelFile> {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new(NAME, MODEL));
    ModelFile::open_gguf(vec![source]).await
}

/// The settings under which the demo was tuned, as the keys of a run file.
pub fn settings() -> settings::Map {
    let value = serde_json::json!({
        "name": "demo", "method": "lora", "rank": 8, "alpha": 16, "lr": 2e-3, "schedule": "linear", "warmup": 5, "clip": 1.0,
        "steps": 60, "batch": 16, "seq": 32, "seed": 0, "recompute": false, "save-every": 0, "out": "weblora-demo",
    });
    value.as_object().cloned().unwrap_or_default()
}

/// One held-out prompt, what the model wrote after it, and what it should have written.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Tokens the model wrote, without the end token.
    pub written: Vec<u32>,
    /// Tokens of the row's completion, without the end token.
    pub expected: Vec<u32>,
}

impl Answer {
    /// Written as expected, to the last token.
    pub fn is_right(&self) -> bool {
        self.written == self.expected
    }
}

/// Lets the model answer each example's prompt greedily, with the adapter of `job` or with the base alone. `stop` ends an answer.
///
/// # Errors
/// A lost device; a prompt longer than the decoder's cache.
pub async fn answers(
    gpu: &Gpu,
    store: &Store,
    decoder: &mut Decoder,
    examples: &[Example],
    stop: &[u32],
    job: Option<usize>,
) -> Result<Vec<Answer>> {
    let greedy = Sampling::default();
    let mut answers = Vec::with_capacity(examples.len());
    for example in examples {
        let first = example.targets.iter().position(|t| *t).unwrap_or(example.tokens.len());
        let (prompt, rest) = example.tokens.split_at(first);
        let expected: Vec<u32> = rest.iter().copied().filter(|t| !stop.contains(t)).collect();
        let mut written = Vec::new();
        decoder.reset();
        let mut logits = decoder.push(gpu, store, prompt, job).await?;
        // One token more than expected: an answer that does not end is wrong.
        while written.len() <= expected.len() {
            let token = greedy.draw(&logits, &[], written.len() as u64);
            if stop.contains(&token) {
                break;
            }
            written.push(token);
            if decoder.len() >= decoder.max_len() {
                break;
            }
            logits = decoder.push(gpu, store, &[token], job).await?;
        }
        answers.push(Answer { prompt: prompt.to_vec(), written, expected });
    }
    Ok(answers)
}
