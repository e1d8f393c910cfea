//! Timing of candidates: in turns, several runs each, on scratch buffers.

use super::clock;
use super::device::Gpu;
use super::dispatch::{Candidate, Command};
use super::executable::{Arenas, Executable};
use super::plan::Plan;
use super::recorder::{Recorder, Untuned};
use super::store::{Class, Store, Tensor};
use super::tune::{Timed, Tuner, is_clear};
use crate::Result;

/// Rounds in which each candidate runs once: at least, and at most where results are not clear by then.
const ROUNDS: std::ops::Range<usize> = 3..7;
/// A candidate whose first two runs were both this much slower than the best is not timed again.
const HOPELESS: f64 = 2.0;
/// A timed run repeats its dispatch until it is about this long, so that clocks and submits are small beside it.
const RUN_SECONDS: f64 = 2e-3;
const MOST_REPEATS: u32 = 32;

impl Tuner {
    /// Measures every candidate of `untuned` on scratch buffers (zero but for [`Dispatch::sample`](super::Dispatch::sample)) and remembers
    /// the fastest.
    ///
    /// # Errors
    /// Errors of the device; out of memory here means that the step itself would not fit.
    pub async fn measure(&mut self, gpu: &Gpu, untuned: &[Untuned]) -> Result<()> {
        for case in untuned {
            let timed = time_case(gpu, case).await?;
            self.remember(&case.key, &timed);
        }
        Ok(())
    }
}

/// One candidate while it is timed.
struct Runner {
    executable: Executable,
    repeats: u32,
    timed: Timed,
    hopeless: bool,
}

async fn time_case(gpu: &Gpu, case: &Untuned) -> Result<Vec<Timed>> {
    let mut store = Store::new();
    let bind: Vec<Tensor> = case.what.bind.iter().map(|t| store.declare("scratch", Class::Io, t.len as usize)).collect::<Result<_>>()?;
    store.allocate(gpu).await?;
    for (binding, at, bytes) in &case.what.samples {
        let tensor = bind[*binding];
        store.write(gpu, tensor.slice(at / 4..tensor.len as usize), bytes)?;
    }
    let mut runners = Vec::with_capacity(case.candidates.len());
    for candidate in &case.candidates {
        runners.push(Runner::new(gpu, &store, candidate, case, &bind).await?);
    }
    for round in 0..ROUNDS.end {
        for runner in runners.iter_mut().filter(|r| !r.hopeless) {
            runner.run(gpu).await?;
        }
        let best = runners.iter().map(|r| r.timed.fastest()).fold(f64::INFINITY, f64::min);
        runners.iter_mut().filter(|_| round >= 1).for_each(|r| r.hopeless |= r.timed.fastest() > HOPELESS * best);
        let timed: Vec<Timed> = runners.iter().map(|r| r.timed.clone()).collect();
        if runners.iter().filter(|r| !r.hopeless).count() <= 1 && round >= 1 || round + 1 >= ROUNDS.start && is_clear(&timed) {
            break;
        }
    }
    Ok(runners.into_iter().map(|r| r.timed).collect())
}

impl Runner {
    /// Compiles a candidate and runs it once, which also says how often a timed run must repeat it.
    async fn new(gpu: &Gpu, store: &Store, candidate: &Candidate, case: &Untuned, bind: &[Tensor]) -> Result<Self> {
        let none = Tuner::none();
        let mut recorder = Recorder::new(&none);
        let mut what = case.what.clone();
        what.bind = bind.to_vec();
        recorder.commands.push(Command::Dispatch { run: candidate.clone(), what, group: None });
        let plan = Plan::new(recorder, gpu.plan_limits())?;
        let arenas = Arenas::allocate(gpu, &[&plan]).await?;
        let executable = Executable::new(gpu, store, &arenas, plan).await?;
        let began = clock::now();
        executable.time(gpu, 1).await?;
        let seconds = (clock::now() - began).as_secs_f64();
        let repeats = (RUN_SECONDS / seconds.max(1e-9)).ceil().clamp(1.0, f64::from(MOST_REPEATS)) as u32;
        Ok(Self { executable, repeats, timed: Timed { candidate: candidate.key(), seconds: Vec::new() }, hopeless: false })
    }

    async fn run(&mut self, gpu: &Gpu) -> Result<()> {
        let seconds = self.executable.time(gpu, self.repeats).await?;
        self.timed.seconds.push(seconds);
        Ok(())
    }
}
