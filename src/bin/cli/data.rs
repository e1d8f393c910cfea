//! The data files of a run: read, cut into training and held-out rows, named.

use std::path::Path;

use weblora::formats::ModelFile;
use weblora::text::{Dataset, Example, Labelled, Row, Tokenizer, read_rows};
use weblora::train::TrainConfig;
use weblora::train::batch::split;
use weblora::train::data::{TaskRows, TrainData};
use weblora::{Error, Result};

use super::files;
use super::train::needed;

/// The rows to train on and to hold out, and what the user should know about them.
pub fn read(config: &TrainConfig, model: &ModelFile) -> Result<(TrainData, Vec<String>)> {
    needed("data", config.data.first())?;
    let mut reader = Reader { config, tokenizer: Tokenizer::of_model(model)?, warnings: Vec::new() };
    let mut tasks = Vec::new();
    for (path, name) in config.data.iter().zip(names("data", &config.data)?) {
        let (rows, train) = reader.examples(path)?;
        let (kept, held) = split(train.len(), config.eval_split, config.seed)?;
        let pick = |ids: Vec<usize>| -> Vec<Example> { ids.into_iter().map(|id| train[id].clone()).collect() };
        let held_out = pick(held);
        let labelled = reader.labelled(path, &rows, &held_out)?;
        tasks.push(TaskRows { name, train: pick(kept), held_out, labelled });
    }
    let paired = config.eval_data.len() == config.data.len();
    for (i, (path, name)) in config.eval_data.iter().zip(names("eval-data", &config.eval_data)?).enumerate() {
        let (rows, held_out) = reader.examples(path)?;
        let labelled = reader.labelled(path, &rows, &held_out)?;
        if paired {
            (tasks[i].held_out, tasks[i].labelled) = (held_out, labelled);
        } else {
            tasks.push(TaskRows { name, train: Vec::new(), held_out, labelled });
        }
    }
    let data: TrainData = tasks.into_iter().collect();
    if config.eval_every > 0 && data.held_out.is_empty() {
        return Err(Error::config("eval-every", "there is nothing to evaluate on", "give --eval-data or --eval-split"));
    }
    Ok((data, reader.warnings))
}

/// What files are called: their names without folder and ending, or the whole path where that is not enough to tell them apart.
fn names(key: &'static str, paths: &[String]) -> Result<Vec<String>> {
    let stem = |path: &String| Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(twice) = paths.iter().enumerate().find(|(i, path)| paths[..*i].contains(path)) {
        return Err(Error::config(key, format!("{} is given twice", twice.1), "give it once, with a larger weight"));
    }
    let stems: Vec<String> = paths.iter().map(stem).collect();
    let unique = |stem: &String| stems.iter().filter(|other| *other == stem).count() == 1;
    Ok(paths.iter().zip(&stems).map(|(path, stem)| if unique(stem) { stem.clone() } else { path.clone() }).collect())
}

struct Reader<'a> {
    config: &'a TrainConfig,
    tokenizer: Tokenizer,
    warnings: Vec<String>,
}

impl Reader<'_> {
    /// A file's rows, and those that have something to train on as the model sees them.
    fn examples(&mut self, path: &str) -> Result<(Vec<Row>, Vec<Example>)> {
        let rows = read_rows(path, &files::read(Path::new(path))?)?;
        let Dataset { examples, report } = Dataset::build(path, &rows, &self.tokenizer, self.config.data_options())?;
        let counts = [
            (report.truncated, "cut to --seq tokens"),
            (report.dropped, "left out, having no token to train on"),
            (report.last_turn_only, "trained on the last turn only"),
            (report.with_control_text, "containing the spelling of a control token"),
        ];
        self.warnings.extend(counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{path}: {n} of {} rows {what}", report.rows)));
        Ok((rows, examples))
    }

    /// Those of the held-out rows that have `choices`. A choice that does not fit is no reason not to train: the accuracy is left out.
    fn labelled(&mut self, path: &str, rows: &[Row], held_out: &[Example]) -> Result<Vec<Labelled>> {
        let numbers: std::collections::BTreeSet<usize> = held_out.iter().map(|example| example.row).collect();
        let own: Vec<Row> = rows.iter().filter(|row| numbers.contains(&row.number)).cloned().collect();
        match Dataset::labelled(path, &own, &self.tokenizer, self.config.data_options()) {
            Err(Error::Data { row, problem, .. }) => {
                self.warnings.push(format!("{path}, row {row}: {problem}; no accuracy is measured on this file"));
                Ok(Vec::new())
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart() {
        let of = |paths: &[&str]| names("data", &paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["a/swap.jsonl", "b/turn.jsonl"]).expect("names"), ["swap", "turn"]);
        assert_eq!(of(&["a/t.jsonl", "b/t.jsonl", "x"]).expect("names"), ["a/t.jsonl", "b/t.jsonl", "x"]);
        assert!(of(&["a", "b", "a"]).expect_err("twice").to_string().contains("a is given twice"));
    }
}
