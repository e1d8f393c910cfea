//! What a model finds in long texts, for a page: one cell of the heat map at a time, so that other calls get their turn, and the picture.

use serde::Deserialize;

use super::options::{Adapter, Callback, Prompt, Write};
use super::state::{State, loaded};
use crate::analysis::svg;
use crate::train::retrieval::{ANSWER, Task};
use crate::{Error, Result};

/// Questions about texts of one length, with what is asked for at one depth.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    task: String,
    /// Tokens of the text and the question.
    length: usize,
    /// Share of the text that comes before what is asked for.
    depth: f64,
    trials: u32,
    strict_base: bool,
}

impl State {
    /// How many of a cell's questions are answered.
    ///
    /// # Errors
    /// An unknown task; a text beyond the model's context or too short for the question.
    pub async fn retrieve(&mut self, cell: &Cell, adapter: &Adapter) -> Result<u32> {
        let task = Task::by_name(&cell.task)?;
        let how = Write::greedy(ANSWER, cell.strict_base);
        let nobody = || Callback::new(wasm_bindgen::JsValue::UNDEFINED);
        let mut right = 0;
        for trial in 0..cell.trials {
            let question = task.question(&loaded(&self.base)?.tokenizer, cell.length, cell.depth, 0, trial.into())?;
            let prompt = Prompt::Tokens(question.prompt.clone());
            let written = self.generate(&prompt, adapter.clone(), &how, &nobody(), &nobody()).await?;
            right += u32::from(written["text"].as_str().is_some_and(|text| question.is_answered_by(text)));
        }
        Ok(right)
    }
}

/// The heat map: `shares` has a row of lengths for each depth.
///
/// # Errors
/// Another number of shares than cells.
pub fn picture(title: &str, lengths: &[u32], depths: &[f64], shares: &[f64]) -> Result<String> {
    if lengths.is_empty() || shares.len() != lengths.len() * depths.len() {
        let problem = format!("has {} numbers for {} lengths and {} depths", shares.len(), lengths.len(), depths.len());
        return Err(Error::config("shares", problem, "give one for every length at every depth"));
    }
    let lengths: Vec<usize> = lengths.iter().map(|length| *length as usize).collect();
    let rows = shares.chunks(lengths.len()).map(|row| row.iter().copied().map(Some).collect()).collect();
    Ok(svg::retrieval(title, &lengths, depths, rows))
}
