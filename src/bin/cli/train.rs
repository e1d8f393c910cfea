//! The loop of a training run: steps, evaluations, checkpoints, and an orderly end, whoever asks for it.

use std::path::Path;
use std::time::Instant;

use weblora::export::folder::File;
use weblora::train::run::{Engine, Run};
use weblora::train::{Checkpoint, Event, Progress, TrainConfig};
use weblora::{Error, Result};

use super::files::{CHECKPOINT_FILE, EARLIER_FILE, OutFolder, RUN_FILE, read};
use super::output::Output;
use super::signals::Stop;

/// What is kept of a run.
pub trait Keeper {
    /// The bytes of a checkpoint that holds `progress` too.
    async fn checkpoint(&mut self, progress: Progress) -> Result<Vec<u8>>;
    /// The files of the adapter as it is now.
    async fn export(&self) -> Result<Vec<File>>;
}

/// Trains to the end. The adapter is in the folder then, and in its `best` the one with the lowest held-out loss when the run
/// evaluates as it goes.
///
/// An error of the trainer or the disk ends the run at once: the last checkpoint stays as it is. Of a run that diverges, the last one from
/// before that does, which may be that of the beginning.
pub async fn drive(run: &mut Run, engine: &mut (impl Engine + Keeper), out: &OutFolder, output: &mut Output, stop: &Stop) -> Result<()> {
    let begun = Instant::now();
    if run.done == 0 && !out.checkpoint().exists() {
        // What is sound until an update has proven to be: the first one may destroy the adapter.
        out.save(&engine.checkpoint(run.progress).await?)?;
    }
    let mut earlier = out.has_earlier();
    while !run.is_over() {
        let advanced = run.advance(engine, |event| {
            output.event(&event);
            Ok(())
        });
        let after = match advanced.await {
            Err(error @ Error::NotFinite { .. }) => {
                out.fall_back()?;
                output.event(&warning(run, &last_sound(&run.config, out)));
                return Err(error);
            }
            other => other?,
        };
        if earlier && after.sound {
            out.drop_earlier()?;
            earlier = false;
        }
        if after.best {
            out.write_best(&engine.export().await?)?;
        }
        let stopping = stop.asked();
        if after.save || stopping {
            out.save(&engine.checkpoint(run.progress).await?)?;
            earlier = out.has_earlier();
            let (job, path) = (run.config.name.clone(), out.checkpoint().display().to_string());
            output.event(&Event::Checkpoint { job, step: run.done, path });
        }
        if stopping {
            return Err(Error::Stopped);
        }
    }
    // A resumed run may have had nothing left to do; its adapter is written all the same.
    out.write_adapter(&engine.export().await?)?;
    if earlier && run.progress.diverges() {
        let (earlier, present) = (out.path().join(EARLIER_FILE), out.checkpoint());
        let message = format!(
            "the run ended with a risen loss; {} is from before: rename it to {CHECKPOINT_FILE} to {}",
            earlier.display(),
            resume_words(&run.config, &present)
        );
        output.event(&warning(run, &message));
    } else if earlier {
        out.drop_earlier()?;
    }
    output.event(&run.done_event(begun.elapsed().as_secs_f64(), out.path().display().to_string()));
    Ok(())
}

fn warning(run: &Run, message: &str) -> Event {
    Event::Warning { job: Some(run.config.name.clone()), message: message.to_owned() }
}

/// A rate at which adapters usually train, for a run that diverged at a higher one.
const USUAL_LR: f64 = 1e-3;

/// How to go on with half of the rate, or a usual one.
fn resume_words(config: &TrainConfig, checkpoint: &Path) -> String {
    let folder = checkpoint.parent().unwrap_or(checkpoint).display();
    format!("go on with `weblora train --resume --out {folder} --lr {:e}`", (config.lr / 2.0).min(USUAL_LR))
}

/// What is left of a run that diverged, in its folder.
pub fn last_sound(config: &TrainConfig, out: &OutFolder) -> String {
    let path = out.checkpoint();
    let Ok(bytes) = read(&path) else {
        return "nothing was saved before that: start anew with a smaller --lr, or save more often with --save-every".into();
    };
    let step = Checkpoint::read(&path.display().to_string(), &bytes).map(|saved| format!(" of step {}", saved.state.step));
    format!("the checkpoint{} in {} is the last sound one: {}", step.unwrap_or_default(), out.path().display(), resume_words(config, &path))
}

/// How a run goes on that failed for another reason than its loss, from what is in its folder.
pub fn once_mended(out: &OutFolder) -> String {
    let (path, folder) = (out.checkpoint(), out.path().display());
    let step = read(&path).and_then(|bytes| Ok(Checkpoint::read(&path.display().to_string(), &bytes)?.state.step));
    match step {
        Ok(step) => format!("once that is mended, `weblora train --resume --out {folder}` goes on from step {step}"),
        Err(_) => "nothing is left that it could go on from".into(),
    }
}

/// Writes the settings with every default filled in, so that the run can be started again with `--config`.
pub fn write_run_file(config: &TrainConfig, out: &OutFolder) -> Result<()> {
    let text = toml::to_string(config).map_err(|e| Error::format(RUN_FILE, format!("cannot be written: {e}"), "report this"))?;
    out.write(RUN_FILE, text.as_bytes())
}

/// The path of a setting that must be there.
pub fn needed<'a>(key: &'static str, value: Option<&'a String>) -> Result<&'a Path> {
    value.map(Path::new).ok_or_else(|| Error::config(key, "is missing", format!("give --{key} PATH, or put it into the run file")))
}

#[cfg(test)]
mod tests {
    use super::super::files::Existing;
    use super::*;
    use serde_json::json;
    use weblora::settings::Map;
    use weblora::train::StepReport;
    use weblora::train::chain::KnotReport;
    use weblora::train::run::AfterStep;
    use weblora::train::score::HeldOut;

    /// A trainer whose losses are written down, and which asks to stop after a step.
    struct Script {
        at: u64,
        held_out: Vec<f64>,
        interrupt_after: Option<u64>,
        stop: Stop,
    }

    impl Engine for Script {
        async fn step(&mut self) -> Result<StepReport> {
            self.at += 1;
            if self.interrupt_after == Some(self.at) {
                self.stop.ask();
            }
            if self.at == 100 {
                return Err(Error::NotFinite { what: "loss", value: f32::NAN, step: 100, job: "main".into() });
            }
            let loss = 1.0 / self.at as f64;
            Ok(StepReport {
                job: "main".into(),
                step: self.at,
                loss,
                ce: None,
                balance_loss: None,
                preference: None,
                router: None,
                lr: 1e-3,
                grad_norm: 1.0,
                tokens: 8,
                tokens_per_s: 1.0,
                tasks: vec![],
            })
        }
    }

    impl AfterStep for Script {
        async fn evaluate(&mut self) -> Result<Option<HeldOut>> {
            Ok(Some(HeldOut { loss: self.held_out.remove(0), targets: 5, grouped_loss: None, accuracy: None, tasks: vec![] }))
        }
        async fn changes_nothing(&mut self) -> Result<bool> {
            Ok(false)
        }
        async fn knot(&mut self, _: &mut Progress) -> Result<Option<KnotReport>> {
            Ok(None)
        }
    }

    impl Keeper for Script {
        async fn checkpoint(&mut self, progress: Progress) -> Result<Vec<u8>> {
            Ok(format!("{} {:?}", self.at, progress.best.map(|b| b.step)).into_bytes())
        }
        async fn export(&self) -> Result<Vec<File>> {
            Ok(vec![("adapter_config.json", self.at.to_string().into_bytes())])
        }
    }

    struct Outcome {
        result: Result<()>,
        checkpoint: Option<String>,
        adapter: Option<String>,
        best: Option<String>,
    }

    fn drive(settings: serde_json::Value, held_out: &[f64], interrupt_after: Option<u64>, total: u64) -> Outcome {
        let map: Map = settings.as_object().expect("an object").clone();
        let config = TrainConfig::from_map(&map).expect("settings");
        let folder = tempfile::tempdir().expect("a folder");
        let out = OutFolder::open(&folder.path().join("out"), Existing::Refuse).expect("a folder");
        write_run_file(&config, &out).expect("written");
        let again: Map = toml::from_str(&std::fs::read_to_string(out.path().join(RUN_FILE)).expect("read")).expect("TOML");
        assert_eq!(TrainConfig::from_map(&again).expect("settings"), config);
        let stop = Stop::default();
        let mut engine = Script { at: 0, held_out: held_out.to_vec(), interrupt_after, stop: stop.clone() };
        let mut run = Run::new(config, total, 0, Progress::default(), !held_out.is_empty());
        let result = pollster::block_on(super::drive(&mut run, &mut engine, &out, &mut Output::new(false), &stop));
        let read = |name: &str| std::fs::read_to_string(out.path().join(name)).ok();
        Outcome { result, checkpoint: read(CHECKPOINT_FILE), adapter: read("adapter_config.json"), best: read("best/adapter_config.json") }
    }

    #[test]
    fn a_run_ends_with_its_adapter_and_checkpoint() {
        let end = drive(json!({"rank-pattern": {"q_proj": 2}}), &[], None, 7);
        end.result.expect("done");
        assert_eq!((end.checkpoint.as_deref(), end.adapter.as_deref(), end.best), (Some("7 None"), Some("7"), None));
    }

    #[test]
    fn an_interrupted_run_saves_and_says_so() {
        let end = drive(json!({"save-every": 2}), &[], Some(3), 7);
        assert!(matches!(end.result, Err(Error::Stopped)));
        assert_eq!((end.checkpoint.as_deref(), end.adapter), (Some("3 None"), None));
    }

    #[test]
    fn patience_ends_a_run_and_the_best_adapter_stays() {
        let end = drive(json!({"eval-every": 1, "patience": 2}), &[2.0, 1.0, 1.5, 1.5, 0.1], None, 7);
        end.result.expect("done");
        assert_eq!((end.checkpoint.as_deref(), end.adapter.as_deref(), end.best.as_deref()), (Some("4 Some(2)"), Some("4"), Some("2")));
    }

    #[test]
    fn a_failed_step_leaves_the_last_checkpoint() {
        let end = drive(json!({"save-every": 30}), &[], None, 200);
        assert!(matches!(end.result, Err(Error::NotFinite { .. })));
        assert_eq!((end.checkpoint.as_deref(), end.adapter), (Some("90 None"), None));
    }

    #[test]
    fn a_run_that_fails_before_its_first_save_leaves_its_beginning() {
        let end = drive(json!({"save-every": 1000}), &[], None, 200);
        assert!(matches!(end.result, Err(Error::NotFinite { .. })));
        assert_eq!((end.checkpoint.as_deref(), end.adapter), (Some("0 None"), None));
    }

    #[test]
    fn a_missing_path_is_named() {
        assert!(needed("data", None).expect_err("missing").to_string().contains("--data PATH"));
    }
}
