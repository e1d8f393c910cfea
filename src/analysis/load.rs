//! How much a run used its experts, from its events: the lines of `weblora train --json`.

use serde::Deserialize;

use crate::{Error, Result};

/// Steps at the end of a run over which the load is taken.
const LAST: usize = 20;

/// Mean load of each expert over the last steps of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterLoad {
    /// How many steps.
    pub steps: usize,
    /// Block after block.
    pub blocks: Vec<BlockLoad>,
}

/// What one router did.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockLoad {
    /// Block, from 0.
    pub layer: usize,
    /// Share of tokens that chose each expert.
    pub load: Vec<f64>,
    /// Mean entropy of its probabilities in nats.
    pub entropy: f64,
}

/// A line as far as it matters here.
#[derive(Deserialize)]
struct Line {
    event: String,
    #[serde(default)]
    job: Option<String>,
    #[serde(default)]
    router: Option<Routers>,
}

#[derive(Deserialize)]
struct Routers {
    layers: Vec<usize>,
    load: Vec<Vec<f64>>,
    entropy: Vec<f64>,
}

impl RouterLoad {
    /// Reads the events of one run; `name` is what errors call them.
    ///
    /// # Errors
    /// A line that is no event, several jobs with routers, steps that disagree about blocks or experts, or no step with routers.
    pub fn of_events(name: &str, text: &str) -> Result<Self> {
        let error = |problem: String| Error::format(name, problem, "give what `weblora train --json` of one MixLoRA run printed");
        let (mut steps, mut job): (Vec<Routers>, Option<String>) = (Vec::new(), None);
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let read: Line = serde_json::from_str(line).map_err(|e| error(format!("line {} is no event: {e}", i + 1)))?;
            let Some(router) = read.router.filter(|_| read.event == "step") else { continue };
            if job.is_some() && job != read.job {
                let names = [job, read.job].map(Option::unwrap_or_default);
                return Err(error(format!("it has routers of the jobs {} and {}", names[0], names[1])));
            }
            job = read.job;
            let experts = router.load.first().map_or(0, Vec::len);
            let fits = |of: &Routers| {
                of.layers == router.layers && of.load.len() == of.layers.len() && of.load.iter().all(|load| load.len() == experts)
            };
            if experts == 0 || router.entropy.len() != router.layers.len() || !fits(&router) || !steps.last().is_none_or(fits) {
                return Err(error(format!("line {} is of other blocks or experts than it says, or than the lines before", i + 1)));
            }
            steps.push(router);
        }
        let last = &steps[steps.len().saturating_sub(LAST)..];
        let Some(first) = last.first() else { return Err(error("it has no step of a MixLoRA run".to_owned())) };
        let mean = |of: &dyn Fn(&Routers) -> f64| last.iter().map(of).sum::<f64>() / last.len() as f64;
        let block = |(at, &layer): (usize, &usize)| BlockLoad {
            layer,
            load: (0..first.load[at].len()).map(|e| mean(&|step| step.load[at][e])).collect(),
            entropy: mean(&|step| step.entropy[at]),
        };
        Ok(Self { steps: last.len(), blocks: first.layers.iter().enumerate().map(block).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: &str = r#"{"event":"step","job":"a","router":{"grad_norm":0.1,"layers":[1,2],"load":[[1,0.5],[0,1]],"entropy":[0.5,0.1]}}"#;

    #[test]
    fn the_last_steps_are_averaged() {
        let later = STEP.replace("[1,0.5]", "[0,0.5]").replace("0.5,0.1]", "0.7,0.1]");
        let text = format!("{{\"event\":\"start\",\"job\":\"a\"}}\n{STEP}\n\n{later}\n{{\"event\":\"step\",\"job\":\"b\"}}\n");
        let load = RouterLoad::of_events("run.jsonl", &text).expect("read");
        assert_eq!((load.steps, load.blocks.len(), load.blocks[0].layer), (2, 2, 1));
        assert_eq!(load.blocks[0].load, [0.5, 0.5]);
        assert!((load.blocks[0].entropy - 0.6).abs() < 1e-12);
        let long = std::iter::repeat_n(later.as_str(), LAST).collect::<Vec<_>>().join("\n");
        assert_eq!(RouterLoad::of_events("run.jsonl", &format!("{STEP}\n{long}")).expect("read").blocks[0].load, [0.0, 0.5]);
    }

    #[test]
    fn what_is_no_run_of_experts_is_refused() {
        let refused = |text: String| RouterLoad::of_events("run.jsonl", &text).expect_err("refused").to_string();
        assert!(refused(String::new()).contains("no step of a MixLoRA run"));
        assert!(refused("step 3".to_owned()).contains("line 1"));
        assert!(refused(format!("{STEP}\n{}", STEP.replace("\"a\"", "\"b\""))).contains("jobs a and b"));
        assert!(refused(STEP.replace("[0,1]", "[0,1,0]")).contains("line 1"));
        assert!(refused(format!("{STEP}\n{}", STEP.replace("[1,2]", "[1,3]"))).contains("line 2"));
    }
}
