//! How long the links of a chain train, and the run with them.

use crate::adapters::ChainConfig;
use crate::adapters::chain::Ends;
use crate::train::batch::Packer;
use crate::{Error, Result};

/// Sets the run's length, in steps or epochs, where the links' lengths give it. What was given says whether the user set either.
///
/// # Errors
/// When both are given and differ, and when a knot is not before the last step.
pub fn check_steps(
    chain: &ChainConfig,
    (steps, epochs): (&mut Option<u64>, &mut Option<u64>),
    (steps_given, epochs_given): (bool, bool),
    eval_every: u64,
) -> Result<()> {
    match &chain.ends {
        Ends::Steps(list) | Ends::Epochs(list) => {
            let in_epochs = matches!(chain.ends, Ends::Epochs(_));
            let sum = list.iter().try_fold(0u64, |sum, &n| sum.checked_add(n)).unwrap_or(u64::MAX);
            let (same, other, value) = if in_epochs { ("epochs", "steps", *epochs) } else { ("steps", "epochs", *steps) };
            let (same_given, other_given) = if in_epochs { (epochs_given, steps_given) } else { (steps_given, epochs_given) };
            if other_given || same_given && value != Some(sum) {
                let what = if other_given { other } else { same };
                return Err(Error::config(what, format!("`{}` adds up to {sum} {same}", chain.ends.key()), format!("leave out --{what}")));
            }
            (*steps, *epochs) = if in_epochs { (None, Some(sum)) } else { (Some(sum), None) };
        }
        Ends::Knots(list) => {
            check_knots(list)?;
            if let (Some(steps), Some(&last)) = (*steps, list.last()) {
                check_last(last, steps)?;
            }
        }
        Ends::Equal => {}
    }
    if (chain.patience > 0 || chain.gap > 0.0) && eval_every == 0 {
        let key = if chain.patience > 0 { "knot-patience" } else { "knot-gap" };
        return Err(Error::config(key, "is looked at every `eval-every` steps, which is 0", "give --eval-every, too"));
    }
    Ok(())
}

fn check_knots(knots: &[u64]) -> Result<()> {
    match knots.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(Error::config("knots", format!("{} comes before {}", pair[0], pair[1]), "give steps in rising order")),
        None => Ok(()),
    }
}

fn check_last(last: u64, total: u64) -> Result<()> {
    if last < total {
        return Ok(());
    }
    let problem = format!("a knot after step {last} leaves no step for the next link: the run has {total}");
    Err(Error::config("knots", problem, "give smaller knots or more --steps"))
}

/// The run's step after which each link of `chain` ends at the latest; the last one is `total`.
///
/// # Errors
/// When a link would have no step.
pub fn link_ends(chain: &ChainConfig, total: u64, packer: &Packer, grad_accum: u64) -> Result<Vec<u64>> {
    let links = chain.links.len();
    let cumulative = |list: &[u64]| -> Vec<u64> {
        let mut sum = 0u64;
        list.iter()
            .map(|&n| {
                sum = sum.saturating_add(n);
                sum
            })
            .collect()
    };
    let ends = match &chain.ends {
        Ends::Knots(list) => {
            check_knots(list)?;
            check_last(list.last().copied().unwrap_or(0), total)?;
            list.iter().copied().chain([total]).collect()
        }
        Ends::Steps(list) => cumulative(list),
        Ends::Epochs(list) => {
            let end = |epochs| packer.steps_in(epochs).map(|steps| steps.div_ceil(grad_accum));
            cumulative(list).into_iter().map(end).collect::<Result<_>>()?
        }
        Ends::Equal => (1..=links as u128).map(|j| (u128::from(total) * j / links as u128) as u64).collect(),
    };
    let begins = std::iter::once(0).chain(ends.iter().copied());
    if let Some((begin, _)) = begins.zip(&ends).find(|(begin, end)| begin >= *end) {
        let problem = format!("{links} links in {total} steps: a link that begins after step {begin} has none");
        return Err(Error::config(chain.ends.key(), problem, "use fewer links or more steps"));
    }
    Ok(ends)
}
