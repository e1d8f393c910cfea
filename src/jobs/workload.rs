//! Workloads of the simulator: jobs with arrivals, lengths, priorities and learning curves, made up or recorded.
//!
//! Made-up workloads draw from [`crate::rng`] with the key `"{seed}/{workload}/{job}/{what}"`. A recorded one is a file of JSON lines, one
//! [`SimulatedJob`] each.

use serde::{Deserialize, Serialize};

use super::job::MicroBatch;
use crate::rng::{bits, fnv1a};
use crate::settings::one_of;
use crate::{Error, Result};

/// A job of a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedJob {
    /// Its name.
    pub name: String,
    /// Seconds after the beginning at which it arrives.
    #[serde(default)]
    pub arrives: f64,
    /// Higher goes first.
    #[serde(default)]
    pub priority: i64,
    /// Jobs it is compared with.
    #[serde(default)]
    pub group: Option<String>,
    /// Micro-batches in all, each an optimizer step.
    pub passes: u64,
    /// Their sizes, again from the first when they are used up.
    pub batches: Vec<MicroBatch>,
    /// Bytes of its adapter, gradients and moments.
    #[serde(default)]
    pub bytes: u64,
    /// Steps between evaluations; 0 none.
    #[serde(default)]
    pub eval_every: u64,
    /// Its losses; without it they stay at 1.
    #[serde(default)]
    pub curve: Option<LossCurve>,
}

/// `floor + (start - floor) (1 + step / scale)^-power`, with noise; NaN from `breaks` on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossCurve {
    /// Loss before the first step.
    pub start: f64,
    /// What it falls to.
    pub floor: f64,
    /// Steps in which it falls.
    pub scale: f64,
    /// How steeply.
    pub power: f64,
    /// Half the width of the noise.
    #[serde(default)]
    pub noise: f64,
    /// Step from which the loss is not finite.
    #[serde(default)]
    pub breaks: Option<u64>,
}

impl LossCurve {
    /// The loss after `step`, with the noise of a stream named by `key`.
    pub fn at(&self, step: u64, key: &str) -> f64 {
        if self.breaks.is_some_and(|breaks| step >= breaks) {
            return f64::NAN;
        }
        let smooth = self.floor + (self.start - self.floor) * (1.0 + step as f64 / self.scale).powf(-self.power);
        smooth + self.noise * (2.0 * unit(key, step.wrapping_add(1)) - 1.0)
    }
}

/// Draw `i` (from 1) of a named stream, uniform in (0, 1).
fn unit(key: &str, i: u64) -> f64 {
    ((bits(fnv1a(key), i) >> 11) as f64 + 0.5) * 0.5f64.powi(53)
}

/// A made-up workload.
#[derive(Debug)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// Its jobs, drawn from streams that begin with this key.
    jobs: fn(&str) -> Vec<SimulatedJob>,
}

/// Every made-up workload.
pub static WORKLOADS: &[Workload] = &[
    Workload { name: "burst", help: "16 jobs at once: four lengths of rows, 100 to 400 steps", jobs: burst },
    Workload { name: "stream", help: "24 jobs one after the other, of three priorities", jobs: stream },
    Workload { name: "urgent", help: "one long job, and urgent short ones that keep coming", jobs: urgent },
    Workload { name: "outlier", help: "one job with long rows among 11 with short ones", jobs: outlier },
    Workload { name: "sweep", help: "64 jobs of one sweep, with learning curves", jobs: sweep },
];

impl Workload {
    /// Its jobs for a seed.
    pub fn jobs(&self, seed: u64) -> Vec<SimulatedJob> {
        (self.jobs)(&format!("{seed}/{}", self.name))
    }

    /// The workload of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn by_name(name: &str) -> Result<&'static Self> {
        WORKLOADS.iter().find(|workload| workload.name == name).ok_or_else(|| {
            let names: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
            Error::config("workload", format!("is \"{name}\""), format!("give a file of JSON lines, or {}", one_of(&names)))
        })
    }
}

/// Reads a recorded workload.
///
/// # Errors
/// Names the line that is no job, or has no micro-batch.
pub fn read(file: &str, text: &str) -> Result<Vec<SimulatedJob>> {
    let mut jobs = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let hint = "write one job a line: {\"name\":\"a\",\"passes\":10,\"batches\":[{\"rows\":64,\"documents\":2,\"longest\":40}]}";
        let job: SimulatedJob =
            serde_json::from_str(line).map_err(|e| Error::format(format!("{file}, line {}", i + 1), e.to_string(), hint))?;
        let usable = |batch: &MicroBatch| batch.rows > 0 && batch.longest > 0 && batch.documents > 0;
        if job.passes == 0 || job.batches.is_empty() || !job.batches.iter().all(usable) || !job.arrives.is_finite() {
            let problem = format!("job {} has no pass, no micro-batch, an empty one, or no time of arrival", job.name);
            return Err(Error::format(format!("{file}, line {}", i + 1), problem, hint));
        }
        jobs.push(job);
    }
    Ok(jobs)
}

/// Typical tokens of a row: about the modes of the four data sets of ASPEN's figure on lengths.
const LENGTHS: [u64; 4] = [35, 60, 210, 550];

/// Micro-batches of `documents` rows of about `length` tokens: half to one and a half times.
fn batches(key: &str, length: u64, documents: u64) -> Vec<MicroBatch> {
    let batch = |b: u64| {
        let lengths = (1..=documents).map(|d| ((length as f64 * (0.5 + unit(key, b * documents + d))) as u64).max(1));
        let lengths: Vec<u64> = lengths.collect();
        MicroBatch { rows: lengths.iter().sum(), documents, longest: lengths.iter().copied().max().unwrap_or(1) }
    };
    (0..32).map(batch).collect()
}

fn job(key: &str, name: String, length: u64, passes: u64) -> SimulatedJob {
    let batches = batches(&format!("{key}/{name}/batches"), length, 4);
    SimulatedJob { name, arrives: 0.0, priority: 0, group: None, passes, batches, bytes: 16 << 20, eval_every: 0, curve: None }
}

fn burst(key: &str) -> Vec<SimulatedJob> {
    (0..16)
        .map(|i| {
            let passes = 100 + (300.0 * unit(&format!("{key}/passes"), i + 1)) as u64;
            job(key, format!("job-{i:02}"), LENGTHS[i as usize % 4], passes)
        })
        .collect()
}

fn stream(key: &str) -> Vec<SimulatedJob> {
    let mut clock = 0.0;
    let of = |i: u64| {
        // Exponential times between arrivals, 20 seconds in the mean.
        clock -= 20.0 * unit(&format!("{key}/arrival"), i + 1).ln();
        let passes = 50 + (200.0 * unit(&format!("{key}/passes"), i + 1)) as u64;
        let length = LENGTHS[(4.0 * unit(&format!("{key}/length"), i + 1)) as usize];
        let priority = (3.0 * unit(&format!("{key}/priority"), i + 1)) as i64;
        SimulatedJob { arrives: clock, priority, ..job(key, format!("job-{i:02}"), length, passes) }
    };
    (0..24).map(of).collect()
}

fn urgent(key: &str) -> Vec<SimulatedJob> {
    let mut jobs = vec![SimulatedJob { bytes: 64 << 20, ..job(key, "patient".to_owned(), 60, 200) }];
    jobs.extend((0..40).map(|i| SimulatedJob {
        arrives: 8.0 * i as f64,
        priority: 2,
        bytes: 64 << 20,
        ..job(key, format!("urgent-{i:02}"), 210, 60)
    }));
    jobs
}

fn outlier(key: &str) -> Vec<SimulatedJob> {
    let mut jobs = vec![job(key, "outlier".to_owned(), 550, 100)];
    jobs.extend((0..11).map(|i| job(key, format!("short-{i:02}"), 60, 300)));
    jobs
}

/// Final losses spread as those of random rates are: a few good ones, many mediocre, some that break.
fn sweep(key: &str) -> Vec<SimulatedJob> {
    let of = |i: u64| {
        let draw = |what: &str| unit(&format!("{key}/{what}"), i + 1);
        let floor = 0.5 + 1.5 * draw("floor").powf(0.7);
        let breaks = (draw("breaks") < 0.08).then(|| 20 + (100.0 * draw("when")) as u64);
        let curve = LossCurve { start: 3.0, floor, scale: 10.0 + 40.0 * draw("scale"), power: 1.0, noise: 0.02, breaks };
        let name = format!("trial-{:02}", i + 1);
        SimulatedJob { group: Some("sweep".to_owned()), eval_every: 20, curve: Some(curve), ..job(key, name, 60, 270) }
    };
    (0..64).map(of).collect()
}
