//! From the bytes of row files to the rows of a run, with what the user should know about them.

use super::batch::split;
use super::config::TrainConfig;
use super::run::Run;
use super::trainer::TrainData;
use crate::Result;
use crate::text::{DataReport, Dataset, Example, Tokenizer, read_rows};

/// A file of rows: what errors call it, and its bytes.
pub type RowFile<'a> = (&'a str, &'a [u8]);

impl TrainData {
    /// Tokenises `train` and, where given, `held_out`; without it, `eval-split` of the rows is held out. Also returns warnings.
    ///
    /// # Errors
    /// Unusable rows; settings that wait for evaluations when nothing is held out.
    pub fn read(
        config: &TrainConfig,
        tokenizer: &Tokenizer,
        train: RowFile<'_>,
        held_out: Option<RowFile<'_>>,
    ) -> Result<(Self, Vec<String>)> {
        let mut warnings = Vec::new();
        let mut read = |(name, bytes): RowFile<'_>| -> Result<Vec<Example>> {
            let Dataset { examples, report } = Dataset::build(name, &read_rows(name, bytes)?, tokenizer, config.data_options())?;
            warnings.extend(report.warnings(name));
            Ok(examples)
        };
        let train = read(train)?;
        let data = match held_out {
            Some(file) => Self { held_out: read(file)?, train },
            None => {
                let (kept, held) = split(train.len(), config.eval_split, config.seed)?;
                let pick = |ids: Vec<usize>| ids.into_iter().map(|id| train[id].clone()).collect();
                Self { train: pick(kept), held_out: pick(held) }
            }
        };
        Run::check_held_out(config, !data.held_out.is_empty())?;
        Ok((data, warnings))
    }
}

impl DataReport {
    /// One sentence for everything about the rows of `file` that the user should know.
    pub fn warnings(&self, file: &str) -> Vec<String> {
        let counts = [
            (self.truncated, "cut to --seq tokens"),
            (self.dropped, "left out, having no token to train on"),
            (self.last_turn_only, "trained on the last turn only"),
            (self.with_control_text, "containing the spelling of a control token"),
        ];
        let sentence = |(n, what): (usize, &str)| (n > 0).then(|| format!("{file}: {n} of {} rows {what}", self.rows));
        counts.into_iter().filter_map(sentence).collect()
    }
}
