//! From the bytes of row files to the rows of a run: read, cut into training and held-out rows, named, with what the user should know.

use std::collections::BTreeSet;

use super::batch::split;
use super::config::TrainConfig;
use super::data::{TaskRows, TrainData};
use super::preference::check_rows;
use super::run::Run;
use crate::text::{Dataset, Example, Labelled, Row, Tokenizer, read_rows};
use crate::{Error, Result};

/// A file of rows: what errors call it (its path), and its bytes.
pub type RowFile<'a> = (&'a str, &'a [u8]);

impl TrainData {
    /// Tokenises the files of `train` and `held_out`. As many of the latter as of the former are taken pairwise as one task each; without
    /// any, `eval-split` of each file's rows is held out. Also returns warnings.
    ///
    /// # Errors
    /// Unusable rows; a file given twice; settings that wait for evaluations when nothing is held out.
    pub fn read(
        config: &TrainConfig,
        tokenizer: &Tokenizer,
        train: &[RowFile<'_>],
        held_out: &[RowFile<'_>],
    ) -> Result<(Self, Vec<String>)> {
        let mut reader = Reader { config, tokenizer, warnings: Vec::new() };
        let mut tasks = Vec::new();
        for (file, name) in train.iter().zip(names("data", train)?) {
            let (rows, train) = reader.examples(*file)?;
            let (kept, held) = split(train.len(), config.eval_split, config.seed)?;
            let pick = |ids: Vec<usize>| -> Vec<Example> { ids.into_iter().map(|id| train[id].clone()).collect() };
            let held_out = pick(held);
            let labelled = reader.labelled(file.0, &rows, &held_out)?;
            tasks.push(TaskRows { name, train: pick(kept), held_out, labelled });
        }
        let paired = held_out.len() == train.len();
        for (i, (file, name)) in held_out.iter().zip(names("eval-data", held_out)?).enumerate() {
            let (rows, held_out) = reader.examples(*file)?;
            let labelled = reader.labelled(file.0, &rows, &held_out)?;
            if paired {
                (tasks[i].held_out, tasks[i].labelled) = (held_out, labelled);
            } else {
                tasks.push(TaskRows { name, train: Vec::new(), held_out, labelled });
            }
        }
        let data: TrainData = tasks.into_iter().collect();
        Run::check_held_out(config, !data.held_out.is_empty())?;
        let longest = data.train.iter().map(Example::longest).max().unwrap_or(0);
        reader.warnings.extend(config.context.uncut(config.seq, longest)?);
        Ok((data, reader.warnings))
    }
}

/// What files are called: their names without folder and ending, or the whole path where that is not enough to tell them apart.
fn names(key: &'static str, files: &[RowFile<'_>]) -> Result<Vec<String>> {
    let paths: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
    if let Some((_, twice)) = paths.iter().enumerate().find(|(i, path)| paths[..*i].contains(path)) {
        return Err(Error::config(key, format!("{twice} is given twice"), "give it once, with a larger weight"));
    }
    let stems: Vec<&str> = paths.iter().map(|path| stem(path)).collect();
    let unique = |stem: &str| stems.iter().filter(|other| **other == stem).count() == 1;
    Ok(paths.iter().zip(&stems).map(|(path, stem)| if unique(stem) { *stem } else { *path }.to_owned()).collect())
}

/// A path without its folders and its last ending; of both kinds of separators, since a page may name files of any system.
fn stem(path: &str) -> &str {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => name,
    }
}

struct Reader<'a> {
    config: &'a TrainConfig,
    tokenizer: &'a Tokenizer,
    warnings: Vec<String>,
}

impl Reader<'_> {
    /// A file's rows, and those that have something to train on as the model sees them.
    fn examples(&mut self, (name, bytes): RowFile<'_>) -> Result<(Vec<Row>, Vec<Example>)> {
        let rows = read_rows(name, bytes)?;
        let Dataset { examples, report, .. } = Dataset::build(name, &rows, self.tokenizer, self.config.data_options())?;
        self.warnings.extend(report.warnings(name));
        check_rows(self.config.dpo.as_ref(), examples.iter())?;
        Ok((rows, examples))
    }

    /// Those of the held-out rows that have `choices`. A choice that does not fit is no reason not to train: the accuracy is left out.
    fn labelled(&mut self, name: &str, rows: &[Row], held_out: &[Example]) -> Result<Vec<Labelled>> {
        let numbers: BTreeSet<usize> = held_out.iter().map(|example| example.row).collect();
        let own: Vec<Row> = rows.iter().filter(|row| numbers.contains(&row.number)).cloned().collect();
        match Dataset::labelled(name, &own, self.tokenizer, self.config.data_options()) {
            Err(Error::Data { row, problem, .. }) => {
                self.warnings.push(format!("{name}, row {row}: {problem}; no accuracy is measured on this file"));
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
        let of = |paths: &[&str]| names("data", &paths.iter().map(|p| (*p, &b""[..])).collect::<Vec<_>>());
        assert_eq!(of(&["a/swap.jsonl", "b/turn.jsonl"]).expect("names"), ["swap", "turn"]);
        assert_eq!(of(&["a/t.jsonl", "b/t.jsonl", "x", ".rows"]).expect("names"), ["a/t.jsonl", "b/t.jsonl", "x", ".rows"]);
        assert!(of(&["a", "b", "a"]).expect_err("twice").to_string().contains("a is given twice"));
    }
}
