//! One recording that is run again and again, and the rounds that set it against the peak.

use crate::Result;
use crate::gpu::dispatch::Command;
use crate::gpu::executable::Arenas;
use crate::gpu::timing::Timing;
use crate::gpu::{Executable, Gpu, Plan, Recorder, Store, Tuner, clock};

/// A timed run lasts at least about this long, so that what a submit costs does not count.
pub(super) const RUN_SECONDS: f64 = 0.02;
/// Repetitions of a short operation in one timed run.
const MAX_REPEATS: usize = 64;

/// An operation ready to be timed.
pub(super) struct Probe {
    /// Its tensors.
    pub store: Store,
    /// The kernel variants it runs, each once.
    pub kernels: Vec<String>,
    /// Operations of one repetition.
    pub flops: u64,
    executable: Executable,
    repeats: usize,
}

/// Medians over rounds.
pub(super) struct Rounds {
    /// Of one repetition.
    pub seconds: f64,
    /// Rate over the round's peak.
    pub of_peak: f64,
    /// Fastest.
    pub min: f64,
    /// Slowest.
    pub max: f64,
    /// Operations a second.
    pub peak: f64,
}

impl Rounds {
    /// Sums up rounds of (seconds, peak rate) of something that does `flops` operations.
    pub fn of(rounds: &[(f64, f64)], flops: u64) -> Rounds {
        let of = |f: &dyn Fn(&(f64, f64)) -> f64| median(&mut rounds.iter().map(f).collect::<Vec<f64>>());
        Rounds {
            seconds: of(&|r| r.0),
            of_peak: of(&|r| flops as f64 / r.0 / r.1),
            min: rounds.iter().map(|r| r.0).fold(f64::MAX, f64::min),
            max: rounds.iter().map(|r| r.0).fold(0.0, f64::max),
            peak: of(&|r| r.1),
        }
    }
}

impl Probe {
    /// Compiles `body` on the allocated `store`, once; [`Probe::repeat`] comes after its results were checked.
    pub async fn new(gpu: &Gpu, tuner: &Tuner, store: Store, body: &dyn Fn(&mut Recorder)) -> Result<Probe> {
        let (executable, kernels, flops) = prepare(gpu, tuner, &store, 1, body).await?;
        Ok(Probe { store, kernels, flops, executable, repeats: 1 })
    }

    /// Time of one repetition in seconds.
    pub async fn seconds(&mut self, gpu: &Gpu) -> Result<f64> {
        let began = clock::now();
        self.executable.run(gpu).await?;
        gpu.finish().await?;
        Ok((clock::now() - began).as_secs_f64() / self.repeats as f64)
    }

    /// Seconds of every dispatch of one timed run.
    pub async fn profile(&self, gpu: &Gpu) -> Result<Vec<Timing>> {
        self.executable.profile(gpu).await
    }

    /// Records `body` as often as a timed run of good length needs. The probe must have run once.
    pub async fn repeat(&mut self, gpu: &Gpu, tuner: &Tuner, body: &dyn Fn(&mut Recorder)) -> Result<()> {
        let once = self.seconds(gpu).await?;
        let repeats = ((RUN_SECONDS / once) as usize).clamp(1, MAX_REPEATS);
        if repeats > 1 {
            self.executable = prepare(gpu, tuner, &self.store, repeats, body).await?.0;
            self.repeats = repeats;
            self.seconds(gpu).await?;
        }
        Ok(())
    }
}

async fn prepare(
    gpu: &Gpu,
    tuner: &Tuner,
    store: &Store,
    repeats: usize,
    body: &dyn Fn(&mut Recorder),
) -> Result<(Executable, Vec<String>, u64)> {
    let mut recorder = Recorder::new(tuner);
    (0..repeats).for_each(|_| body(&mut recorder));
    let mut kernels: Vec<String> = Vec::new();
    for command in recorder.commands() {
        if let Command::Dispatch { run, .. } = command {
            let key = run.key();
            if !kernels.contains(&key) {
                kernels.push(key);
            }
        }
    }
    let plan = Plan::new(recorder, gpu.plan_limits())?;
    let flops = plan.flops() / repeats as u64;
    let arenas = Arenas::allocate(gpu, &[&plan]).await?;
    Ok((Executable::new(gpu, store, &arenas, plan).await?, kernels, flops))
}

/// The middle value; the lower of the two middle ones of an even number. Zero of nothing.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_taken_round_by_round() {
        // The machine was half as fast in the second and third round: the rate changes, the fraction does not.
        let rounds = Rounds::of(&[(1.0, 100.0), (2.0, 50.0), (2.0, 50.0)], 50);
        assert_eq!((rounds.seconds, rounds.of_peak, rounds.peak, rounds.min, rounds.max), (2.0, 0.5, 50.0, 1.0, 2.0));
        assert_eq!(median(&mut []), 0.0);
        assert_eq!(median(&mut [3.0, 1.0]), 1.0);
    }
}
