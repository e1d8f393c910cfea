//! Early stopping: which jobs of a group are not worth their next step. The rules are rows of [`RULES`].
//!
//! - `median`: the median stopping rule of Google Vizier (Golovin et al. 2017, section 3.2.2): a job ends at step s when its best held-out loss is
//!   worse than the median of the others' running means of held-out losses up to s. Vizier looks at completed trials; here all that have
//!   come as far count, because fused jobs advance together and none is complete when it matters (as in Ray Tune, whose least number of
//!   three trials is the default here).
//! - `asha`: asynchronous successive halving (Li et al. 2020) in its stopping form: at rung k, after `first-rung · eta^k`, a job goes on if it is among
//!   the best ⌊n / eta⌋ (at least one) of the n that have come so far. Held-out losses of one step boundary are all known before one is judged.
//! - `halving`: successive halving (Jamieson and Talwalkar 2016): jobs wait at the rung, in host memory, until the others are there or have
//!   ended; the best ⌈n / eta⌉ go on. It compares equal with equal, and waiting costs nothing where others use the device meanwhile.
//! - `plateau`: the held-out loss has not fallen by more than `min-delta` in `patience` evaluations.
//! - `divergence`: the mean training loss of the last `window` steps is above `factor` times that of the first `window`.
//!
//! `median`, `asha` and `halving` compare within a group: the jobs of a sweep, or those with the same `early-stop-group`. Losses that are not finite need no
//! rule: they fail the job.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::curve::{Curve, Unit, WINDOW, median};
use crate::settings::{Map, Settings, one_of, unknown};
use crate::{Error, Result};

/// What a rule says of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing against it.
    Continue,
    /// It waits for the others, because of this.
    Hold(String),
    /// It ends, because of this.
    Stop(String),
}

/// What a rule sees of a job of the group.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its losses.
    pub curve: &'a Curve,
    /// Nothing more will come from it.
    pub over: bool,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// As in a jobs file.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// Keys of `[early-stop]` that it reads, beside `rules`.
    pub keys: &'static [&'static str],
    /// Whether it looks at training losses, so that it is asked after every step and not after evaluations only.
    pub(super) each_step: bool,
    /// Whether it has rungs, at which jobs are evaluated.
    pub(super) rungs: bool,
    /// Whether it compares the jobs of a group.
    pub(super) compares: bool,
    /// Settings, the group in order of arrival, and the place of the job in it.
    judge: fn(&EarlyStop, &[Member<'_>], usize) -> Verdict,
}

/// Every rule.
pub static RULES: &[Rule] = &[
    Rule {
        name: "median",
        help: "Worse than the median of the others' running means",
        keys: &["unit", "grace", "min-trials"],
        each_step: false,
        rungs: false,
        compares: true,
        judge: median_rule,
    },
    Rule {
        name: "asha",
        help: "Not among the best 1/eta that have reached the rung so far",
        keys: &["unit", "eta", "first-rung"],
        each_step: false,
        rungs: true,
        compares: true,
        judge: asha,
    },
    Rule {
        name: "halving",
        help: "Not among the best 1/eta of all, which wait for each other at every rung",
        keys: &["unit", "eta", "first-rung"],
        each_step: false,
        rungs: true,
        compares: true,
        judge: halving,
    },
    Rule {
        name: "plateau",
        help: "No lower held-out loss in some evaluations",
        keys: &["patience", "min-delta"],
        each_step: false,
        rungs: false,
        compares: false,
        judge: plateau,
    },
    Rule {
        name: "divergence",
        help: "Training losses well above those of the beginning",
        keys: &["factor", "window"],
        each_step: true,
        rungs: false,
        compares: false,
        judge: divergence,
    },
];

/// Rungs keep one in so many: of one in one there would be rungs without end.
const ETA: RangeInclusive<u64> = 2..=1 << 16;
/// Steps of a mean.
const WINDOWS: RangeInclusive<usize> = 1..=WINDOW;

/// The `[early-stop]` table: which rules, and their numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EarlyStop {
    /// Names of rows of [`RULES`].
    pub rules: Vec<String>,
    /// What `grace` and `first-rung` are counted in.
    pub unit: Unit,
    /// `median` ends no job before this.
    pub grace: u64,
    /// `median` needs as many others.
    pub min_trials: usize,
    /// Rungs keep one in so many.
    pub eta: u64,
    /// The first rung; 0 stands for no rung.
    pub first_rung: u64,
    /// `plateau`: evaluations without a lower loss.
    pub patience: usize,
    /// `plateau`: what counts as lower.
    pub min_delta: f64,
    /// `divergence`: how far above the beginning.
    pub factor: f64,
    /// `divergence`: steps of a mean.
    pub window: usize,
}

impl Default for EarlyStop {
    /// No rule.
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            unit: Unit::Steps,
            grace: 0,
            min_trials: 3,
            eta: 3,
            first_rung: 0,
            patience: 3,
            min_delta: 0.0,
            factor: 1.5,
            window: 20,
        }
    }
}

impl EarlyStop {
    /// Reads the table.
    ///
    /// # Errors
    /// Names the key that is unknown, out of bounds, or read by none of the rules.
    pub fn read(map: &Map) -> Result<Self> {
        let all = || RULES.iter().flat_map(|rule| rule.keys).copied().chain(["rules"]);
        if let Some(key) = map.keys().find(|key| !all().any(|known| known == key.as_str())) {
            return Err(inside(unknown(key, all())));
        }
        let mut settings = Settings::new(map);
        Self::read_known(&mut settings).map_err(inside)
    }

    fn read_known(s: &mut Settings<'_>) -> Result<Self> {
        let default = Self::default();
        let names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
        let rules = s.list("rules")?.unwrap_or_default();
        if let Some(name) = rules.iter().find(|name| !names.contains(&name.as_str())) {
            return Err(Error::config("rules", format!("there is no rule \"{name}\""), format!("give {}", one_of(&names))));
        }
        if rules.is_empty() {
            return Err(Error::config("rules", "names no rule", format!("give {}, or remove [early-stop]", one_of(&names))));
        }
        let chosen = || RULES.iter().filter(|rule| rules.iter().any(|name| name == rule.name));
        let read_by = |key: &str| RULES.iter().filter(|rule| rule.keys.contains(&key)).map(|rule| rule.name).collect::<Vec<_>>();
        for rule in RULES {
            for key in rule.keys.iter().filter(|key| s.peek(key).is_some_and(|v| !v.is_null())) {
                if !chosen().any(|rule| rule.keys.contains(key)) {
                    return Err(Error::config(*key, "none of the rules reads it", format!("add {} to `rules`", one_of(&read_by(key)))));
                }
            }
        }
        let made = Self {
            unit: s.choice("unit", default.unit, &[("steps", Unit::Steps), ("tokens", Unit::Tokens)])?,
            grace: s.count("grace", default.grace, 0..=u64::MAX)?,
            min_trials: s.size("min-trials", default.min_trials, 1..=usize::MAX)?,
            eta: s.count("eta", default.eta, ETA)?,
            first_rung: s.count("first-rung", default.first_rung, 1..=u64::MAX)?,
            patience: s.size("patience", default.patience, 1..=usize::MAX)?,
            min_delta: s.number("min-delta", default.min_delta, "a number, at least 0", |x| x >= 0.0)?,
            factor: s.number("factor", default.factor, "a number above 1", |x| x > 1.0)?,
            window: s.size("window", default.window, WINDOWS)?,
            rules: rules.clone(),
        };
        if let Some(rule) = chosen().find(|rule| rule.rungs && made.first_rung == 0) {
            let hint = "give the steps (or tokens) after which jobs are first compared";
            return Err(Error::config("first-rung", format!("is missing, and `{}` needs it", rule.name), hint));
        }
        Ok(made)
    }

    /// Whether what was read as state can have been written.
    pub(super) fn is_sound(&self) -> bool {
        ETA.contains(&self.eta) && WINDOWS.contains(&self.window)
    }

    /// The rules that apply, in the table's order.
    pub(super) fn chosen(&self) -> impl Iterator<Item = &'static Rule> {
        RULES.iter().filter(|rule| self.rules.iter().any(|name| name == rule.name))
    }

    /// What the rules say of job `own` of a group in order of arrival: the first that wants it to end, else the first that holds it. `each_step`
    /// asks only those that look at training losses.
    pub fn judge(&self, group: &[Member<'_>], own: usize, each_step: bool) -> Verdict {
        let asked = self.chosen().filter(|rule| rule.each_step == each_step);
        let mut verdict = Verdict::Continue;
        for rule in asked {
            match (rule.judge)(self, group, own) {
                Verdict::Stop(why) => return Verdict::Stop(format!("{}: {why}", rule.name)),
                Verdict::Hold(why) if verdict == Verdict::Continue => verdict = Verdict::Hold(format!("{}: {why}", rule.name)),
                _ => {}
            }
        }
        verdict
    }

    /// Whether a rule has rungs.
    pub fn has_rungs(&self) -> bool {
        self.chosen().any(|rule| rule.rungs)
    }

    /// Whether a rule goes by held-out losses.
    pub fn needs_held_out(&self) -> bool {
        self.chosen().any(|rule| !rule.each_step)
    }

    /// Names of the chosen rules that compare the jobs of a group.
    pub fn comparing(&self) -> Vec<&'static str> {
        self.chosen().filter(|rule| rule.compares).map(|rule| rule.name).collect()
    }

    /// Training losses that must be remembered at each end of a curve.
    pub(super) fn training_losses(&self) -> usize {
        if self.chosen().any(|rule| rule.each_step) { self.window } else { 1 }
    }

    /// What `unit` is called.
    pub(super) fn unit_name(&self) -> &'static str {
        match self.unit {
            Unit::Steps => "steps",
            Unit::Tokens => "tokens",
        }
    }
}

/// Names the table in front of the key.
fn inside(error: Error) -> Error {
    match error {
        Error::Config { key, problem, hint } => Error::Config { key: format!("early-stop.{key}"), problem, hint },
        other => other,
    }
}

/// The others of a group.
fn others<'a>(group: &'a [Member<'a>], own: usize) -> impl Iterator<Item = &'a Curve> {
    group.iter().enumerate().filter(move |(i, _)| *i != own).map(|(_, member)| member.curve)
}

fn median_rule(settings: &EarlyStop, group: &[Member<'_>], own: usize) -> Verdict {
    let curve = group[own].curve;
    let (Some(best), Some(last)) = (curve.best(), curve.evaluations().last()) else { return Verdict::Continue };
    let now = last.spent(settings.unit);
    if now < settings.grace {
        return Verdict::Continue;
    }
    let reached = others(group, own).filter(|other| other.evaluations().last().is_some_and(|e| e.spent(settings.unit) >= now));
    let mut means: Vec<f64> = reached.filter_map(|other| other.running_mean(now, settings.unit)).collect();
    match median(&mut means) {
        Some(middle) if means.len() >= settings.min_trials && best.loss > middle => Verdict::Stop(format!(
            "the best held-out loss {:.4} (step {}) is above {middle:.4}, the median of the running means of {} others",
            best.loss,
            best.step,
            means.len()
        )),
        _ => Verdict::Continue,
    }
}

/// The rungs of successive halving up to `spent`, at `first-rung · eta^k`.
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

fn asha(settings: &EarlyStop, group: &[Member<'_>], own: usize) -> Verdict {
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

fn halving(settings: &EarlyStop, group: &[Member<'_>], own: usize) -> Verdict {
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

fn plateau(settings: &EarlyStop, group: &[Member<'_>], own: usize) -> Verdict {
    let mut best: Option<(u64, f64)> = None;
    let mut stale = 0;
    for e in group[own].curve.evaluations() {
        if best.is_none_or(|(_, loss)| e.loss < loss - settings.min_delta) {
            (best, stale) = (Some((e.step, e.loss)), 0);
        } else {
            stale += 1;
        }
    }
    match best {
        Some((step, loss)) if stale >= settings.patience => {
            Verdict::Stop(format!("the held-out loss has not fallen below {loss:.4} (step {step}) in {stale} evaluations"))
        }
        _ => Verdict::Continue,
    }
}

fn divergence(settings: &EarlyStop, group: &[Member<'_>], own: usize) -> Verdict {
    match group[own].curve.ends(settings.window) {
        Some((first, last)) if last > settings.factor * first => Verdict::Stop(format!(
            "the mean loss of the last {n} steps is {last:.4}, that of the first {n} was {first:.4}",
            n = settings.window
        )),
        _ => Verdict::Continue,
    }
}
