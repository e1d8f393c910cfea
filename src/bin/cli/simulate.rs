//! `weblora simulate`: the scheduler on a workload, without a GPU.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use weblora::jobs::early_stop::EarlyStop;
use weblora::jobs::policy::{POLICIES, Policy};
use weblora::jobs::simulator::{Costs, Outcome, simulate};
use weblora::jobs::state::State;
use weblora::jobs::workload::{self, SimulatedJob, WORKLOADS, Workload};
use weblora::jobs::{JobsFile, Options, TrainKeys};
use weblora::settings::Map;
use weblora::{Error, Result};

use super::files;
use super::output::{Output, bytes};

/// Arguments of `simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// A workload: burst, stream, urgent, outlier, sweep, or a file of JSON lines; repeatable. Default: all but files.
    #[arg(long, value_name = "NAME|FILE")]
    workload: Vec<String>,
    /// Only these policies: fair, shortest, fifo, priority, min-pad.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    policy: Vec<String>,
    /// Early stopping: median, asha, halving, plateau, divergence.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    early_stop: Vec<String>,
    /// The first rung of asha and halving, in steps.
    #[arg(long, value_name = "N", default_value_t = 30)]
    first_rung: u64,
    /// Most rows of a fused step.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..))]
    step_tokens: u64,
    /// Most jobs of a fused step; 1 trains them one after the other.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    step_jobs: u16,
    /// Memory for all jobs on the device, such as 2GiB [default: no limit].
    #[arg(long, value_name = "BYTES")]
    memory: Option<String>,
    /// Milliseconds of a step whatever its size, as measured.
    #[arg(long, value_name = "MS")]
    step_ms: f64,
    /// Microseconds a row, as measured.
    #[arg(long, value_name = "US")]
    row_us: f64,
    /// Milliseconds to move a job off the device or back.
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    swap_ms: f64,
    /// Count rows as a trainer without packing computes them: all documents padded to the longest.
    #[arg(long)]
    padded: bool,
    /// Seed of made-up workloads.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Every job, too.
    #[arg(long)]
    jobs: bool,
}

/// Rows of one evaluation, and bytes of a base and of activations: round figures, the same for all policies.
const EVAL_ROWS: f64 = 1024.0;
const BASE_BYTES: u64 = 100 << 20;
const ROW_BYTES: u64 = 128 << 10;

impl SimulateArgs {
    /// The scheduler's settings, read as those of a jobs file.
    fn options(&self, policy: &'static Policy) -> Result<Options> {
        let mut map = Map::new();
        if let Some(memory) = &self.memory {
            map.insert("memory".to_owned(), memory.as_str().into());
        }
        map.insert("step-tokens".to_owned(), self.step_tokens.into());
        map.insert("step-jobs".to_owned(), self.step_jobs.into());
        map.insert("job".to_owned(), json!([{"name": "any"}]));
        let early_stop = if self.early_stop.is_empty() { EarlyStop::default() } else { EarlyStop::read(&self.rules())? };
        Ok(Options { policy, early_stop, ..JobsFile::read(&map, TrainKeys { all: &["name", "out"], exclusive: &[] }, "")?.options })
    }

    fn rules(&self) -> Map {
        let mut map = Map::from_iter([("rules".to_owned(), self.early_stop.clone().into())]);
        if self.early_stop.iter().any(|name| name == "asha" || name == "halving") {
            map.insert("first-rung".to_owned(), self.first_rung.into());
        }
        map
    }

    fn costs(&self) -> Result<Costs> {
        for (key, value) in [("step-ms", self.step_ms), ("row-us", self.row_us), ("swap-ms", self.swap_ms)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::config(key, format!("is {value}"), "give a time that is not negative"));
            }
        }
        Ok(Costs {
            step: self.step_ms / 1e3,
            row: self.row_us / 1e6,
            swap: self.swap_ms / 1e3,
            eval_rows: EVAL_ROWS,
            base_bytes: BASE_BYTES,
            row_bytes: ROW_BYTES,
            padded: self.padded,
        })
    }

    fn workloads(&self) -> Result<Vec<(String, Vec<SimulatedJob>)>> {
        if self.workload.is_empty() {
            return Ok(WORKLOADS.iter().map(|known| (known.name.to_owned(), known.jobs(self.seed))).collect());
        }
        let of = |name: &String| {
            let jobs = match Path::new(name).is_file() {
                true => workload::read(name, &files::read_text(&PathBuf::from(name))?)?,
                false => Workload::by_name(name)?.jobs(self.seed),
            };
            Ok((name.clone(), jobs))
        };
        self.workload.iter().map(of).collect()
    }
}

/// Runs the verb.
pub fn run(args: &SimulateArgs, output: &mut Output) -> Result<()> {
    let costs = args.costs()?;
    let policies: Vec<&'static Policy> = match args.policy.is_empty() {
        true => POLICIES.iter().collect(),
        false => args.policy.iter().map(|name| Policy::by_name(name)).collect::<Result<_>>()?,
    };
    let options: Vec<Options> = policies.iter().map(|policy| args.options(policy)).collect::<Result<_>>()?;
    for (name, jobs) in args.workloads()? {
        if !output.is_json() {
            output.print(&format!("{name}: {} jobs", jobs.len()))?;
            output.print(HEADING)?;
        }
        for options in &options {
            let outcome = simulate(options, costs, &jobs)?;
            show(&name, &outcome, args.jobs, output)?;
        }
    }
    Ok(())
}

const HEADING: &str =
    "  policy     makespan s  turnaround s  urgent s  waiting s  longest s    memory  used %  pad %  tokens/s  steps  swaps";

fn show(workload: &str, outcome: &Outcome, jobs: bool, output: &mut Output) -> Result<()> {
    if output.is_json() {
        let failed = outcome.jobs.iter().filter(|job| job.state == State::Failed).count();
        let mut event = json!({"event": "simulation", "workload": workload, "failed": failed});
        merge(&mut event, json!(outcome));
        output.print(&event.to_string())?;
        for job in outcome.jobs.iter().filter(|_| jobs) {
            let mut event = json!({"event": "simulated_job", "workload": workload, "policy": outcome.policy});
            merge(&mut event, json!(job));
            output.print(&event.to_string())?;
        }
        return Ok(());
    }
    let o = outcome;
    output.print(&format!(
        "  {:9} {:11.1} {:13.1} {:9.1} {:10.1} {:10.1} {:>9} {:7.1} {:6.1} {:9.0} {:6} {:6}",
        o.policy,
        o.makespan,
        o.turnaround,
        o.urgent_turnaround,
        o.waiting,
        o.longest_wait,
        bytes(o.peak_bytes),
        100.0 * o.utilisation,
        100.0 * o.padding,
        o.tokens_per_s,
        o.steps,
        o.swaps
    ))?;
    let failed: Vec<_> = o.jobs.iter().filter(|job| job.state == State::Failed).collect();
    if let (Some(job), false) = (failed.first(), jobs) {
        output.print(&format!("    {} of {} jobs failed: {}, {}", failed.len(), o.jobs.len(), job.name, job.reason))?;
    }
    for job in o.jobs.iter().filter(|_| jobs) {
        let span = job.ended.map_or_else(|| "-".to_owned(), |ended| format!("{:.1} s", ended - job.arrived));
        output.print(&format!("    {}: {} after {span}, {} steps, {}", job.name, job.state.name(), job.passes, job.reason))?;
    }
    Ok(())
}

/// The members of `more` put behind those of `event`.
fn merge(event: &mut Value, more: Value) {
    if let (Value::Object(event), Value::Object(more)) = (event, more) {
        event.extend(more);
    }
}
