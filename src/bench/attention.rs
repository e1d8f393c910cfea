//! Attention over long rows, full and in the shifted groups of LongLoRA: its kernels alone, forward and backward, and whole steps of a model. Time
//! and memory by length, with fitted exponents.

mod form;
mod kernels;
mod steps;

use super::record::{AttentionFitRecord, AttentionRecord, Record};
use super::setup::Bench;
use super::step::Workload;
use crate::Result;
use form::Form;
use kernels::Heads;

/// Query heads, key/value heads and their width in SmolLM2-135M and Llama-3.2-1B.
const HEADS: [(&str, Heads); 2] =
    [("SmolLM2-135M", Heads { query: 9, kv: 3, dim: 64 }), ("Llama-3.2-1B", Heads { query: 32, kv: 8, dim: 64 })];
/// Rows of one document.
const LENGTHS: [usize; 7] = [512, 1024, 2048, 4096, 8192, 16_384, 32_768];
/// Of a form that took so many seconds, longer rows are left out: the next take two to four times as long.
const LONGEST: f64 = 40.0;
/// Lengths that an exponent is fitted to, the longest there are. What does not grow with the row hides the exponent of short ones.
const FITTED: usize = 4;

/// Measurements of each form at a length that is asked for, in turns, of which the fastest counts.
const TURNS: usize = 3;

/// Length of a row, seconds, bytes.
type Measured = (usize, f64, u64);

pub(super) async fn run(bench: &mut Bench<'_>) -> Result<()> {
    for (model, heads) in HEADS {
        let mut found: [Vec<Measured>; 4] = Default::default();
        for length in lengths(bench) {
            let (needed, allowed) = (heads.bytes(length), bench.gpu.plan_limits().addressable());
            if needed > allowed {
                tracing::warn!(
                    "{model}, rows of {length}: left out, queries need {needed} bytes in one binding and this GPU allows {allowed}"
                );
                break;
            }
            let turns = if bench.options.tokens.is_some() { TURNS } else { 1 };
            let forms: Vec<Form> = Form::ALL.into_iter().filter(|form| goes_on(&found[*form as usize])).collect();
            for (turn, form) in (0..turns).flat_map(|turn| forms.iter().map(move |form| (turn, *form))) {
                let (seconds, bytes) = kernels::measure(bench, heads, length, form).await?;
                match found[form as usize].last_mut().filter(|_| turn > 0) {
                    Some((_, fastest, _)) => *fastest = fastest.min(seconds),
                    None => found[form as usize].push((length, seconds, bytes)),
                }
            }
            show(bench, model, length, &found)?;
        }
        fit(bench, model, &found)?;
    }
    Ok(())
}

/// Whole steps of a workload's model.
pub(super) async fn run_steps(bench: &mut Bench<'_>, mut workload: Workload) -> Result<()> {
    let what = format!("{}, step", workload.name());
    let mut found: [Vec<Measured>; 4] = Default::default();
    for length in lengths(bench) {
        let forms: Vec<Form> = Form::ALL.into_iter().filter(|form| *form != Form::Rolled && goes_on(&found[*form as usize])).collect();
        for (form, seconds, bytes) in steps::measure(bench, &mut workload, length, &forms).await? {
            found[form as usize].push((length, seconds, bytes));
        }
        show(bench, &what, length, &found)?;
    }
    fit(bench, &what, &found)
}

fn lengths(bench: &Bench<'_>) -> Vec<usize> {
    let usual = if bench.options.quick { &LENGTHS[..3] } else { &LENGTHS[..] };
    bench.options.tokens.map_or_else(|| usual.to_vec(), |length| vec![length])
}

/// Whether longer rows are worth their time.
fn goes_on(found: &[Measured]) -> bool {
    found.last().is_none_or(|(_, seconds, _)| *seconds <= LONGEST)
}

/// Tells what was measured at one length.
fn show(bench: &mut Bench<'_>, what: &str, length: usize, found: &[Vec<Measured>; 4]) -> Result<()> {
    let at = |form: Form| found[form as usize].iter().find(|(tokens, ..)| *tokens == length).copied();
    for form in Form::ALL {
        let Some((_, seconds, bytes)) = at(form) else { continue };
        let of_full = at(Form::Full).map(|(_, full, _)| seconds / full);
        let record = AttentionRecord { what: what.to_owned(), tokens: length, form: form.name(), ms: seconds * 1e3, of_full, bytes };
        (bench.report)(&Record::Attention(record))?;
    }
    Ok(())
}

/// Tells how time and memory of every form grow.
fn fit(bench: &mut Bench<'_>, what: &str, found: &[Vec<Measured>; 4]) -> Result<()> {
    for form in Form::ALL {
        let own = &found[form as usize];
        if own.len() < 2 {
            continue;
        }
        let exponent = |value: &dyn Fn(&Measured) -> f64| {
            let points: Vec<(f64, f64)> = own.iter().rev().take(FITTED).map(|one| ((one.0 as f64).ln(), value(one).ln())).collect();
            slope(&points)
        };
        let full = |length: usize| found[Form::Full as usize].iter().find(|(tokens, ..)| *tokens == length);
        let faster = own.iter().find(|(tokens, seconds, _)| form != Form::Full && full(*tokens).is_some_and(|full| *seconds < full.1));
        (bench.report)(&Record::AttentionFit(AttentionFitRecord {
            what: what.to_owned(),
            form: form.name(),
            time_exponent: exponent(&|one| one.1),
            memory_exponent: exponent(&|one| one.2 as f64),
            faster_from: faster.map(|(tokens, ..)| *tokens),
        }))?;
    }
    Ok(())
}

/// Of the line through these points by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let (above, below) = points.iter().fold((0.0, 0.0), |(a, b), p| (a + (p.0 - x) * (p.1 - y), b + (p.0 - x).powi(2)));
    above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_has_its_exponent() {
        let points: Vec<(f64, f64)> = LENGTHS.iter().map(|n| ((*n as f64).ln(), (3.0 * (*n as f64).powf(1.5)).ln())).collect();
        assert!((slope(&points) - 1.5).abs() < 1e-9);
        let group = |form: Form| form.group(8192);
        assert_eq!((group(Form::Quarter), group(Form::Fixed), group(Form::Full)), (Some(2048), Some(512), None));
    }

    #[test]
    fn a_form_ends_where_it_becomes_slow() {
        assert!(goes_on(&[]) && goes_on(&[(512, 1.0, 1)]) && !goes_on(&[(512, 1.0, 1), (1024, LONGEST + 1.0, 1)]));
    }
}
