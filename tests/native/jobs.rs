//! The scheduler of many jobs: pure logic, no GPU.

mod early_stop;
mod estimate;
mod events;
mod file;
mod policies;
mod scheduler;
mod state;
mod sweep;

use serde_json::Value;
use weblora::jobs::simulator::Costs;
use weblora::jobs::workload::SimulatedJob;
use weblora::jobs::{JobSpec, MicroBatch};
use weblora::settings::Map;

/// A map from JSON.
fn map(value: Value) -> Map {
    value.as_object().unwrap().clone()
}

/// A job of `left` micro-batches of `rows`.
fn spec(name: &str, priority: i64, left: u64, rows: u64) -> JobSpec {
    let next = MicroBatch { rows, documents: 1, longest: rows };
    JobSpec {
        name: name.into(),
        priority,
        group: None,
        left,
        max_rows: rows,
        min_rows: rows,
        next,
        evaluates: false,
        judged_on: String::new(),
    }
}

/// The same for the simulator.
fn simulated(name: &str, arrives: f64, priority: i64, passes: u64, rows: u64) -> SimulatedJob {
    let batches = vec![MicroBatch { rows, documents: 1, longest: rows }];
    SimulatedJob { name: name.into(), arrives, priority, group: None, passes, batches, bytes: 1 << 20, eval_every: 0, curve: None }
}

/// A step costs a second, a row nothing; no memory but what jobs keep.
const COSTS: Costs = Costs { step: 1.0, row: 0.0, swap: 0.0, eval_rows: 0.0, base_bytes: 0, row_bytes: 0, padded: false };
