//! Many fine-tuning jobs over one resident base: which run, which wait, and what the next fused step holds. Pure logic on the CPU.
//!
//! A driver asks [`Scheduler::decide`] at every step boundary, does what it says, takes the fused step, and tells what happened:
//!
//! ```
//! use weblora::jobs::event::Pass;
//! use weblora::jobs::{Action, Event, Job, JobId, JobSpec, MicroBatch, Options, Scheduler};
//!
//! # fn main() -> weblora::Result<()> {
//! let mut scheduler = Scheduler::new(Options { memory: Some(100 << 20), ..Options::default() });
//! for (name, steps, rows) in [("short", 3, 64), ("long", 5, 200)] {
//!     let next = MicroBatch { rows, documents: 1, longest: rows };
//!     let spec = JobSpec { name: name.into(), priority: 0, group: None, left: steps, max_rows: rows, min_rows: rows, next, evaluates: false, judged_on: String::new() };
//!     scheduler.add(spec)?;
//! }
//! // The engine's plan: bytes of the base, of the recordings, and of what each job keeps on the device.
//! let planned = |jobs: &[&Job]| (60 << 20) + jobs.iter().map(|job| job.spec.max_rows * 65_536).sum::<u64>();
//! let mut events = Vec::new();
//! while !scheduler.is_over() {
//!     let boundary = scheduler.decide(&std::mem::take(&mut events), &planned);
//!     for decision in &boundary.decisions {
//!         match decision.action {
//!             Action::Admit | Action::Resume => { /* put its adapter and moments into the pool */ }
//!             Action::Pause => { /* copy them to host memory and free their place */ }
//!             Action::Done | Action::Stop | Action::Fail => { /* save and drop it */ }
//!             Action::Shrink { .. } => { /* cut its micro-batches; answer with Event::Resized */ }
//!             Action::Evaluate => { /* measure its held-out loss; answer with Event::Evaluated */ }
//!             Action::Refuse | Action::Note => { /* tell whoever asked */ }
//!         }
//!         println!("{}: {:?}, because {}", decision.name, decision.action, decision.reason);
//!     }
//!     if boundary.batch.is_empty() {
//!         continue; // nobody can train now; where nothing was decided either, wait for a request or a new job
//!     }
//!     // One pass over the base with the next micro-batch of each of `boundary.batch`.
//!     let pass = |id: &JobId| {
//!         let job = scheduler.job(*id).expect("it is one of ours");
//!         Pass { job: *id, rows: job.spec.next.rows, loss: 1.0, stepped: true, left: job.spec.left - 1, next: job.spec.next }
//!     };
//!     events.push(Event::Stepped { seconds: 0.1, passes: boundary.batch.iter().map(pass).collect() });
//! }
//! assert!(scheduler.jobs().iter().all(|job| job.status.reason == "it has taken its last step"));
//! # Ok(())
//! # }
//! ```
//!
//! [`Scheduler`] serialises: saved with the jobs' checkpoints it goes on with the decisions it would have made.
//!
//! [`JobsFile`] reads the settings of a jobs file, [`sweep`] makes jobs of `[sweep]`, [`early_stop`] ends those that are not worth going on,
//! [`simulator`] tries policies without a device. `docs/jobs.md` says what the policies do, with figures.

pub mod admission;
mod boundary;
pub mod curve;
pub mod early_stop;
pub mod estimate;
pub mod event;
pub(crate) mod exact;
pub mod folders;
pub mod job;
pub mod jobs_file;
pub mod limits;
pub mod names;
pub mod options;
pub mod policy;
mod range;
pub mod scheduler;
pub mod simulator;
pub mod state;
pub mod sweep;
pub mod workload;

pub use event::{Action, Boundary, Decision, Event};
pub use job::{Job, JobId, JobSpec, MicroBatch};
pub use jobs_file::{JobEntry, JobsFile, TrainKeys};
pub use options::Options;
pub use scheduler::Scheduler;
