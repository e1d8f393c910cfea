//! The adapter's arithmetic ceiling, the measure of everything else.

use super::probe::{Probe, RUN_SECONDS, Rounds};
use crate::gpu::{Class, Gpu, Store, Tuner};
use crate::kernels::peak::{EXPECTED, SUMS, record};
use crate::{Error, Result};

/// Turns of the first guess.
const FIRST_TURNS: u32 = 16;
/// Turns never exceed this: 2³¹ operations a lane.
const MAX_TURNS: u32 = 1 << 22;
/// The chains have converged to the last bit but one.
const TOLERANCE: f32 = 1e-4;

/// The probe that everything else is set against.
pub(super) struct Peak {
    probe: Probe,
}

impl Peak {
    /// Finds a number of turns that takes long enough, and checks what the lanes computed.
    pub async fn new(gpu: &Gpu) -> Result<Peak> {
        let mut turns = FIRST_TURNS;
        loop {
            let mut store = Store::new();
            let sums = store.declare("sums", Class::Io, SUMS)?;
            store.allocate(gpu).await?;
            let mut probe = Probe::new(gpu, &Tuner::none(), store, &|rec| record(rec, sums, turns)).await?;
            probe.seconds(gpu).await?;
            let seconds = probe.seconds(gpu).await?.max(1e-6);
            if seconds >= RUN_SECONDS / 2.0 || turns >= MAX_TURNS {
                check(&gpu.read::<f32>(&probe.store, sums).await?)?;
                return Ok(Peak { probe });
            }
            turns = ((f64::from(turns) * RUN_SECONDS / seconds) as u32).clamp(turns + 1, MAX_TURNS);
        }
    }

    /// Measures once: operations a second.
    pub async fn rate(&mut self, gpu: &Gpu) -> Result<f64> {
        Ok(self.probe.flops as f64 / self.probe.seconds(gpu).await?)
    }

    /// Alternates with `probe`, `count` times.
    pub async fn rounds(&mut self, gpu: &Gpu, probe: &mut Probe, count: usize) -> Result<Rounds> {
        let mut rounds = Vec::with_capacity(count);
        for _ in 0..count {
            let rate = self.rate(gpu).await?;
            rounds.push((probe.seconds(gpu).await?, rate));
        }
        Ok(Rounds::of(&rounds, probe.flops))
    }
}

fn check(sums: &[f32]) -> Result<()> {
    match sums.iter().position(|sum| (sum - EXPECTED).abs().partial_cmp(&TOLERANCE).is_none_or(|o| o.is_gt())) {
        None => Ok(()),
        Some(lane) => {
            let message = format!("lane {lane} computed {} where {EXPECTED} was expected", sums[lane]);
            Err(Error::Gpu { what: "the peak measurement".into(), message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_did_not_compute_is_noticed() {
        assert!(check(&[EXPECTED, EXPECTED + 1e-5]).is_ok());
        for wrong in [0.0, 22.01, f32::NAN, f32::INFINITY] {
            assert!(check(&[EXPECTED, wrong]).is_err(), "{wrong}");
        }
    }
}
