//! Successive halving: rungs at `first-rung · eta^k`, of which only the best go on.

use super::curve::Curve;
use super::early_stop::{EarlyStop, Member, Verdict, others};

/// The rungs up to `spent`, from the first.
fn rungs(settings: &EarlyStop, spent: u64) -> impl Iterator<Item = u64> {
    let next = |rung: &u64| rung.checked_mul(settings.eta);
    std::iter::successors(Some(settings.first_rung).filter(|r| *r > 0), next).take_while(move |rung| *rung <= spent)
}

/// The highest rung that is passed on the way from `before` to `now`.
pub(super) fn passed(settings: &EarlyStop, before: u64, now: u64) -> Option<u64> {
    rungs(settings, now).filter(|rung| *rung > before).last()
}

/// The highest rung at or below the last evaluation.
fn highest(settings: &EarlyStop, curve: &Curve) -> Option<u64> {
    rungs(settings, curve.evaluations().last()?.spent(settings.unit)).last()
}

/// See [`super::early_stop`].
pub(super) fn asha(settings: &EarlyStop, group: &[Member<'_>], own: usize) -> Verdict {
    let curve = group[own].curve;
    let Some(rung) = highest(settings, curve) else { return Verdict::Continue };
    let Some(loss) = curve.at(rung, settings.unit) else { return Verdict::Continue };
    // Judged once, when it comes to the rung: who is good enough then goes on to the next.
    if curve.evaluations().iter().filter(|e| e.spent(settings.unit) >= rung).count() > 1 {
        return Verdict::Continue;
    }
    let reported: Vec<f64> = others(group, own).filter_map(|other| other.at(rung, settings.unit)).collect();
    let n = reported.len() as u64 + 1;
    let keep = (n / settings.eta).max(1);
    let better = reported.iter().filter(|other| **other < loss).count() as u64;
    if better < keep {
        return Verdict::Continue;
    }
    let unit = settings.unit_name();
    Verdict::Stop(format!("held-out loss {loss:.4} at the rung of {rung} {unit} is number {} of {n}, of which {keep} go on", better + 1))
}

/// See [`super::early_stop`].
pub(super) fn halving(settings: &EarlyStop, group: &[Member<'_>], own: usize) -> Verdict {
    let Some(highest) = highest(settings, group[own].curve) else { return Verdict::Continue };
    let unit = settings.unit_name();
    let mut contestants: Vec<usize> = (0..group.len()).collect();
    for rung in rungs(settings, highest) {
        let missing = contestants.iter().filter(|i| !group[**i].over && group[**i].curve.at(rung, settings.unit).is_none()).count();
        if missing > 0 {
            return Verdict::Hold(format!("waits at the rung of {rung} {unit} for {missing} others"));
        }
        // By loss; of equal ones the earlier job.
        let mut ranked: Vec<(f64, usize)> =
            contestants.iter().filter_map(|i| Some((group[*i].curve.at(rung, settings.unit)?, *i))).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let (n, keep) = (ranked.len(), ranked.len().div_ceil(settings.eta as usize));
        let Some(place) = ranked.iter().position(|(_, i)| *i == own) else { return Verdict::Continue };
        if place >= keep {
            let loss = ranked[place].0;
            return Verdict::Stop(format!(
                "held-out loss {loss:.4} at the rung of {rung} {unit} is number {} of {n}, of which {keep} go on",
                place + 1
            ));
        }
        ranked.truncate(keep);
        contestants = ranked.into_iter().map(|(_, i)| i).collect();
    }
    Verdict::Continue
}
