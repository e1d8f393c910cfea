//! How a run goes through its rows: what a step sees, how many steps an epoch has, and when that is too little to learn from.

use serde::Serialize;

use super::batch::Packer;
use super::config::TrainConfig;
use crate::{Error, Result};

/// A run that is told neither its steps nor its epochs has at least this many steps.
pub const LEAST_STEPS: u64 = 60;
/// Fewer steps than this are worth a warning.
const FEW_STEPS: u64 = 20;
/// Largest number of steps: what JavaScript and JSON count exactly.
const MOST_STEPS: u64 = (1 << 53) - 1;

/// How a run goes through its rows, known before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Passes {
    /// Optimizer steps of the whole run.
    #[serde(skip)]
    pub steps: u64,
    /// Rows to train on.
    pub rows: u64,
    /// Rows that an optimizer step sees, on average.
    pub rows_per_step: f64,
    /// Tokens that an optimizer step sees, on average.
    pub tokens_per_step: f64,
    /// Optimizer steps of a pass over all rows, on average.
    pub steps_per_epoch: f64,
    /// Passes over all rows.
    pub epochs: f64,
    /// The number of passes is ours, to come to [`LEAST_STEPS`].
    #[serde(skip)]
    raised: bool,
    /// Micro-batches of an optimizer step.
    #[serde(skip)]
    accumulated: u64,
}

impl Passes {
    /// Those of a run of `config` over the rows of `packer`.
    ///
    /// # Errors
    /// When there are more steps than can be counted.
    pub fn new(config: &TrainConfig, packer: &Packer) -> Result<Self> {
        let accumulated = config.grad_accum as u64;
        let one = packer.steps_in(1)?.max(1);
        let steps_of = |epochs: u64| Ok::<u64, Error>(packer.steps_in(epochs)?.div_ceil(accumulated).max(1));
        let mut raised = false;
        let (steps, epochs) = match (config.steps, config.epochs) {
            (Some(steps), _) => (steps, steps as f64 * accumulated as f64 / one as f64),
            (None, Some(epochs)) => (steps_of(epochs)?, epochs as f64),
            (None, None) => {
                let epochs = (LEAST_STEPS * accumulated).div_ceil(one);
                raised = epochs > 1;
                (steps_of(epochs)?, epochs as f64)
            }
        };
        if steps > MOST_STEPS {
            let problem = format!("{epochs} passes over the rows are {steps} steps, more than {MOST_STEPS}");
            return Err(Error::config("epochs", problem, "give fewer epochs, or the number of --steps"));
        }
        let part = accumulated as f64 / one as f64;
        let rows = packer.documents() as u64;
        Ok(Self {
            steps,
            rows,
            rows_per_step: rows as f64 * part,
            tokens_per_step: packer.tokens() as f64 * part,
            steps_per_epoch: 1.0 / part,
            epochs,
            raised,
            accumulated,
        })
    }

    /// One line: "48 rows: 48 rows and 1312 tokens a step, 1 step an epoch, 60 epochs".
    pub fn words(&self) -> String {
        let count = |x: f64, what: &str| format!("{} {what}{}", number(x), if number(x) == "1" { "" } else { "s" });
        format!(
            "{}: {} and {} a step, {} an epoch, {}",
            count(self.rows as f64, "row"),
            count(self.rows_per_step, "row"),
            count(self.tokens_per_step, "token"),
            count(self.steps_per_epoch, "step"),
            count(self.epochs, "epoch")
        )
    }

    /// What the user should know before the run begins.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.raised {
            let epochs = number(self.epochs);
            warnings.push(format!(
                "the rows are few, so the run goes through them {epochs} times and has {} steps; `steps` or `epochs` choose otherwise",
                self.steps
            ));
        }
        if self.steps < FEW_STEPS {
            let steps = if self.steps == 1 { "1 step".to_owned() } else { format!("{} steps", self.steps) };
            let or = self.smaller_steps().map(|how| format!(", or make smaller steps with {how}")).unwrap_or_default();
            warnings.push(format!(
                "the run has only {steps}: in fewer than {FEW_STEPS} an adapter learns little; raise `steps` or `epochs`{or}"
            ));
        }
        if let (true, Some(how)) = (self.steps_per_epoch <= 1.0, self.smaller_steps()) {
            warnings
                .push(format!("an epoch is one step: all {} rows are in it; {how}, say, makes smaller steps, and more of them", self.rows));
        }
        warnings
    }

    /// The setting that makes steps half as large; `None` where a step is one row.
    fn smaller_steps(&self) -> Option<String> {
        let rows = self.rows_per_step.min(self.rows as f64) / 2.0;
        let batch = (rows / self.accumulated as f64) as u64;
        match (batch, rows as u64) {
            (1.., _) => Some(format!("`batch-rows` {batch}")),
            (0, accumulated @ 1..) if self.accumulated > 1 => Some(format!("`batch-rows` 1 and `grad-accum` {accumulated}")),
            _ => None,
        }
    }
}

/// A number as people write it: whole, with one digit after the point where it is small, or with two that count where it is smaller still.
fn number(x: f64) -> String {
    let short = match x {
        x if x >= 100.0 => format!("{x:.0}"),
        x if x < 0.1 && x > 0.0 => format!("{x:.*}", (1.0 - x.log10().floor()).min(12.0) as usize),
        x => format!("{x:.1}"),
    };
    if short.contains('.') { short.trim_end_matches('0').trim_end_matches('.').to_owned() } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Example;
    use serde_json::json;

    fn passes(settings: serde_json::Value, rows: usize, tokens: usize) -> Result<Passes> {
        let example = |row| Example { tokens: vec![1; tokens], targets: vec![true; tokens], row, rejected: None };
        let examples: Vec<Example> = (1..=rows).map(example).collect();
        let config = TrainConfig::from_map(settings.as_object().expect("an object"))?;
        let packer = Packer::new(&examples, 2048, 0, config.shuffle)?.at_most(config.batch_rows.unwrap_or(usize::MAX));
        Passes::new(&config, &packer)
    }

    #[test]
    fn a_small_set_gets_a_floor_of_steps_unless_it_is_told_otherwise() {
        let small = passes(json!({}), 48, 30).expect("counted");
        assert_eq!((small.steps, small.epochs, small.steps_per_epoch, small.rows_per_step), (60, 60.0, 1.0, 48.0));
        assert_eq!(small.words(), "48 rows: 48 rows and 1440 tokens a step, 1 step an epoch, 60 epochs");
        let warnings = small.warnings().join("\n");
        assert!(warnings.contains("60 times and has 60 steps") && warnings.contains("an epoch is one step"), "{warnings}");
        let told = passes(json!({"epochs": 1}), 48, 30).expect("counted");
        assert_eq!((told.steps, told.epochs), (1, 1.0));
        assert!(told.warnings()[0].contains("only 1 step:") && told.warnings()[1].contains("all 48 rows"), "{:?}", told.warnings());
        let steps = passes(json!({"steps": 3, "grad-accum": 2}), 48, 30).expect("counted");
        assert_eq!((steps.steps, steps.epochs, steps.rows_per_step), (3, 6.0, 96.0));
        assert!(told.warnings()[1].contains("`batch-rows` 24, say"), "{:?}", told.warnings());
        // Enough rows: one pass, nothing to say.
        let many = passes(json!({}), 4000, 100).expect("counted");
        assert_eq!((many.steps, many.epochs, many.warnings()), (200, 1.0, vec![]));
        let accumulated = passes(json!({"grad-accum": 4}), 4000, 100).expect("counted");
        assert_eq!((accumulated.steps, accumulated.epochs), (100, 2.0));
    }

    #[test]
    fn smaller_steps_are_proposed_where_there_are_any() {
        let told = |settings: serde_json::Value, rows: usize| passes(settings, rows, 30).expect("counted").warnings().join("\n");
        for (rows, half) in [(2, 1), (3, 1), (4, 2), (5, 2), (8, 4)] {
            let told = told(json!({"epochs": 1}), rows);
            assert_eq!(told.matches(&format!("`batch-rows` {half}")).count(), 2, "{rows} rows: {told}");
        }
        let one = told(json!({"epochs": 1}), 1);
        assert!(one.contains("only 1 step") && !one.contains("batch-rows") && !one.contains("an epoch is one step"), "{one}");
        // A step of several micro-batches is made smaller in its micro-batches, or has fewer of them.
        let two = told(json!({"epochs": 1, "grad-accum": 2, "batch-rows": 2}), 4);
        assert_eq!(two.matches("`batch-rows` 1").count(), 2, "{two}");
        let many = told(json!({"epochs": 1, "grad-accum": 4, "batch-rows": 1}), 4);
        assert_eq!(many.matches("`batch-rows` 1 and `grad-accum` 2").count(), 2, "{many}");
        assert!(!told(json!({"epochs": 1, "batch-rows": 1}), 4).contains("batch-rows"));
    }

    #[test]
    fn a_small_part_of_an_epoch_is_not_none() {
        let part = |steps: u64| passes(json!({"steps": steps, "batch-rows": 4}), 480, 30).expect("counted").words();
        assert!(part(3).ends_with("120 steps an epoch, 0.025 epochs"), "{}", part(3));
        assert!(part(60).ends_with("0.5 epochs") && part(120).ends_with(", 1 epoch") && part(1).ends_with("0.0083 epochs"));
    }

    #[test]
    fn a_warm_up_that_the_run_does_not_reach_is_told() {
        let warned = |warmup: f64, total: u64| {
            let settings = json!({ "warmup": warmup });
            let config = TrainConfig::from_map(settings.as_object().expect("an object")).expect("settings");
            config.warnings(total).iter().any(|warning| warning.contains("full learning rate"))
        };
        assert!(warned(100.0, 1) && warned(100.0, 60));
        assert!(!warned(0.03, 1) && !warned(0.5, 1) && !warned(5.0, 60));
    }

    #[test]
    fn rows_of_a_step_can_be_chosen() {
        let two = passes(json!({"batch-rows": 2}), 48, 30).expect("counted");
        assert_eq!((two.steps, two.epochs, two.steps_per_epoch, two.rows_per_step), (72, 3.0, 24.0, 2.0));
        assert_eq!(passes(json!({"batch-rows": 5, "epochs": 2}), 48, 30).expect("counted").steps, 20);
    }

    #[test]
    fn epochs_beyond_counting_are_a_product_or_refused_at_once() {
        let far = 1_000_000_000_000u64;
        let equal = passes(json!({"epochs": far, "batch-rows": 2}), 48, 30).expect("counted");
        assert_eq!(equal.steps, 24 * far);
        assert_eq!(passes(json!({"epochs": far, "shuffle": false}), 100, 1000).expect("counted").steps, 50 * far);
        let refused = passes(json!({"epochs": far}), 100, 1000).expect_err("too many").to_string();
        assert!(refused.contains("`epochs`") && refused.contains("--steps"), "{refused}");
        for epochs in [(1u64 << 53) - 1, u64::MAX] {
            let refused = passes(json!({"epochs": epochs, "batch-rows": 1}), 48, 30).expect_err("too many").to_string();
            assert!(refused.contains("`epochs`"), "{refused}");
        }
    }
}
