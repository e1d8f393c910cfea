//! Trained embeddings among the tensors of an adapter's file. PEFT saves a trained embedding whole, rows that never changed included, which for most
//! models is far more than all else: only the rows that train are written, under names that PEFT passes over. `export --to peft` with the model at
//! hand writes the whole beside them, as PEFT has it.

use safetensors::tensor::{Dtype, TensorView};

use super::folder::PREFIX;
use super::weights::Weight;
use crate::Result;
use crate::adapters::embeddings::{EmbeddingRows, MODULE};
use crate::config::ModelConfig;
use crate::formats::ModelFile;

/// What is added to the base's embedding of each token, `[tokens, hidden]`, F32.
const DELTA: &str = "weblora.embed_tokens.delta";
/// The tokens, ascending, U32.
const TOKENS: &str = "weblora.embed_tokens.tokens";

/// Bytes of the largest embedding that is written whole.
const LARGEST_WHOLE: u64 = 1 << 30;

/// PEFT's name for the whole.
pub(super) fn whole_key() -> String {
    format!("{PREFIX}model.{MODULE}.weight")
}

/// Whether a tensor belongs to trained embeddings. The whole only counts beside the rows: it does not tell which of them changed.
pub(super) fn is_known(key: &str, has_rows: bool) -> bool {
    [DELTA, TOKENS].contains(&key) || has_rows && key == whole_key()
}

/// Whether one of these tensors is that of trained rows.
pub(super) fn has_rows<'k>(mut keys: impl Iterator<Item = &'k str>) -> bool {
    keys.any(|key| key == DELTA)
}

/// The tensors of a file; else what is wrong with the numbers.
pub(super) fn views(rows: &EmbeddingRows) -> std::result::Result<Vec<(String, TensorView<'_>)>, String> {
    if let Some(bad) = rows.delta.iter().find(|x| !x.is_finite()) {
        return Err(format!("{MODULE} holds {bad}"));
    }
    let shape = vec![rows.tokens.len(), rows.width()];
    let delta = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(&rows.delta));
    let tokens = TensorView::new(Dtype::U32, shape[..1].to_vec(), bytemuck::cast_slice(&rows.tokens));
    let pairs = [(DELTA, delta), (TOKENS, tokens)].into_iter();
    pairs.map(|(name, view)| Ok((name.to_owned(), view.map_err(|e| format!("{name}: {e}"))?))).collect()
}

/// The whole embedding as PEFT is to have it, where the model is at hand and it is not too large; and what is to be said of it.
pub(super) async fn whole(rows: &EmbeddingRows, model: Option<&ModelFile>) -> Result<(Option<Vec<f32>>, Option<String>)> {
    let only = "the adapter's trained embeddings are rows that only weblora reads";
    let merge = "merge them for other programs";
    let Some(model) = model else {
        return Ok((None, Some(format!("{only}: with --model they are written whole, as PEFT loads them; {merge}"))));
    };
    let bytes = 4 * model.config.vocab_size as u64 * model.config.hidden_size as u64;
    if bytes > LARGEST_WHOLE {
        return Ok((None, Some(format!("{only}: the whole would have {} MiB; {merge}", bytes >> 20))));
    }
    let mut whole = model.read_f32(&format!("model.{MODULE}.weight")).await?;
    for (token, row) in whole.chunks_exact_mut(rows.width()).enumerate() {
        rows.row(token as u32).into_iter().flatten().zip(row).for_each(|(delta, x)| *x += delta);
    }
    let told = format!("the whole embedding is in modules_to_save, which PEFT loads and llama.cpp, vLLM and others leave out: {merge}");
    Ok((Some(whole), Some(told)))
}

/// The rows of a file as they are found.
#[derive(Debug, Default)]
pub(super) struct OwnEmbeddings {
    delta: Option<(Vec<usize>, Vec<f32>)>,
    tokens: Option<Vec<u32>>,
}

impl OwnEmbeddings {
    /// Takes one tensor of theirs.
    pub(super) fn add(&mut self, weight: &Weight<'_>) -> std::result::Result<(), String> {
        match weight.name.as_str() {
            DELTA => self.delta = Some((weight.shape.clone(), weight.values()?)),
            TOKENS => self.tokens = Some(weight.whole_numbers()?),
            _ => {}
        }
        Ok(())
    }

    /// The rows, where there are any; else what is wrong with them.
    pub(super) fn finish(self, model: Option<&ModelConfig>) -> std::result::Result<Option<EmbeddingRows>, String> {
        let (shape, delta, tokens) = match (self.delta, self.tokens) {
            (None, None) => return Ok(None),
            (Some((shape, delta)), Some(tokens)) => (shape, delta, tokens),
            _ => return Err(format!("it has one of {DELTA} and {TOKENS} without the other")),
        };
        let [rows, width] = shape[..] else { return Err(format!("{DELTA} is {shape:?}, a matrix was expected")) };
        if rows == 0 || rows != tokens.len() || width == 0 || model.is_some_and(|model| model.hidden_size != width) {
            let hidden = model.map_or("a row a token".to_owned(), |model| format!("rows of {}", model.hidden_size));
            return Err(format!("{DELTA} is {shape:?} for {} tokens; {hidden} was expected", tokens.len()));
        }
        if tokens.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(format!("{TOKENS} does not ascend"));
        }
        match tokens.last().filter(|token| model.is_some_and(|model| **token as usize >= model.vocab_size)) {
            Some(token) => Err(format!("{TOKENS} names token {token}, which is past the model's vocabulary")),
            None => Ok(Some(EmbeddingRows { tokens: tokens.into(), delta })),
        }
    }
}
