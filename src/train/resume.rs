//! What a checkpoint says about a run, checked against the run that goes on from it. A checksum tells a damaged file from a whole one, not a forged one
//! from an honest one: whatever later code relies on is looked at here, so that a file made by hand is refused instead of ending in a panic.

use super::batch::MAX_ROWS;
use super::batch::Packer;
use super::checkpoint::State;
use super::config::TrainConfig;
use crate::adapters::AdapterLayout;
use crate::adapters::chain::ChainConfig;
use crate::export::chain::Link;
use crate::{Error, Result};

/// Micro-batches of all runs that were or will be.
const MAX_MICRO: u64 = 1 << 62;

/// The run that goes on.
pub(super) struct Present<'a> {
    /// Its settings.
    pub config: &'a TrainConfig,
    /// Optimizer steps in all.
    pub total: u64,
    /// Files of its rows.
    pub tasks: usize,
    /// Its chain, if the method is one.
    pub chain: Option<&'a ChainConfig>,
    /// Its parameters.
    pub layout: &'a AdapterLayout,
    /// What deals out its rows.
    pub packer: &'a Packer,
}

/// Checks all of `state` but the cursor (see [`Packer::resume`]) and the identities (see [`super::Checkpoint::check`]) against the run that goes on.
///
/// # Errors
/// Says what cannot be, calling the checkpoint `file`.
pub(super) fn check(file: &str, state: &State, run: &Present<'_>) -> Result<()> {
    let Present { config, total, packer, .. } = *run;
    let refused = |problem: String| Error::format(file, problem, "use a checkpoint that weblora wrote, or start anew without --resume");
    let step = state.step;
    if step > total {
        let problem = format!("the run has {total} steps, {step} of them are done");
        return Err(Error::config("steps", problem, format!("give --steps {step} or more, or use the adapter as it was saved")));
    }
    let micro = step.checked_mul(config.grad_accum as u64).filter(|micro| *micro < MAX_MICRO);
    let micro =
        micro.ok_or_else(|| refused(format!("step {step} of {} micro-batches each is more than any run has", config.grad_accum)))?;
    let (epoch, dealt) = (state.cursor.epoch, packer.dealt(&state.cursor));
    // Every micro-batch takes a row at least, and every pass over the rows a micro-batch.
    if epoch > micro || dealt.is_none_or(|dealt| u128::from(micro) > dealt) {
        return Err(refused(format!("{micro} micro-batches are done, which do not lead to epoch {epoch}, row {}", state.cursor.next)));
    }
    if state.tokens < micro || u128::from(state.tokens) > u128::from(micro) * MAX_ROWS as u128 {
        return Err(refused(format!("{micro} micro-batches cannot have had {} tokens", state.tokens)));
    }
    if let Some(partial) = &state.partial {
        let known = (1..config.grad_accum).contains(&partial.micro_batches) && partial.by_task.len() == run.tasks;
        if !known || !partial.sum.is_finite() || step >= total {
            return Err(refused(format!("after step {step} of {total} the next cannot be {partial:?}")));
        }
    }
    let progress = &state.progress;
    if progress.best.is_some_and(|best| best.step > step) || progress.stale > step || progress.trend.is_some_and(|t| t.steps > step) {
        return Err(refused(format!("after step {step} its losses cannot be {progress:?}")));
    }
    let mut at = (0, f64::INFINITY);
    for change in &state.lr_changes {
        if change.step < at.0 || change.step > step || !(change.from > change.to && change.to > 0.0) || change.from > at.1 {
            return Err(refused(format!("a change of the learning rate from {} to {} after step {}", change.from, change.to, change.step)));
        }
        at = (change.step, change.to);
    }
    if state.embedding_tokens != *config.adapter.tokens {
        let (found, own) = (state.embedding_tokens.len(), config.adapter.tokens.len());
        return Err(refused(format!("it has embeddings of {found} tokens, the run trains others, {own}")));
    }
    match (&state.chain, run.chain) {
        (None, None) => Ok(()),
        (Some(saved), Some(chain)) => saved.check(chain, step).and_then(|()| saved.check_ranks(chain, run.layout)).map_err(refused),
        (saved, _) => Err(refused(format!("it is {} a chain, the run {} one", not(saved.is_some()), not(saved.is_none())))),
    }
}

fn not(is: bool) -> &'static str {
    if is { "of" } else { "not of" }
}

impl super::chain::ChainState {
    /// Why a run of `config` cannot stand there after `step`.
    fn check(&self, config: &ChainConfig, step: u64) -> Result<(), String> {
        let (stage, links) = (self.stage, config.links.len());
        if stage >= links {
            return Err(format!("link {stage} trains, the chain has {links} (from 0)"));
        }
        if self.ends.len() != links || self.ends.first() == Some(&0) || self.ends.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(format!("its {links} links end after the steps {:?}", self.ends));
        }
        let last = stage.checked_sub(1).map_or(0, |before| self.ends[before]);
        // A link trains for a step at least, and ends at its planned end at the latest.
        let begins = if stage == 0 { self.begun == 0 } else { (stage as u64..=last.min(step)).contains(&self.begun) };
        if !begins || (stage + 1 < links && step > self.ends[stage]) {
            return Err(format!("link {stage} trains from step {} to {}, but step {step} is done", self.begun, self.ends[stage]));
        }
        if self.stale > step {
            return Err(format!("{} evaluations in {step} steps", self.stale));
        }
        self.check_links(config)
    }

    fn check_links(&self, config: &ChainConfig) -> Result<(), String> {
        let own = if config.restart_only { 0 } else { self.stage };
        let inherited = config.inherited.len();
        if self.links.len() != inherited + own {
            return Err(format!("it has {} frozen links, {} were expected", self.links.len(), inherited + own));
        }
        let mut steps = 0u64;
        for (j, link) in self.links[inherited..].iter().enumerate() {
            let Link { rank, ranks, alpha, rslora, .. } = link;
            let made = config.links[j];
            if (*rank, *alpha, *rslora) != (made.rank, made.alpha, config.rslora) || !ranks.is_empty() || link.steps == 0 {
                return Err(format!("link {j} is {link:?}, one of rank {} and alpha {} was expected", made.rank, made.alpha));
            }
            steps = steps.saturating_add(link.steps);
        }
        if own > 0 && steps != self.begun {
            return Err(format!("its frozen links had {steps} steps, the one that trains began after {}", self.begun));
        }
        match self.links.iter().try_fold(0u64, |sum, link| sum.checked_add(link.steps)).filter(|sum| *sum < MAX_MICRO) {
            Some(_) => Ok(()),
            None => Err("its links had more steps than any run has".into()),
        }
    }

    /// Why the inherited links do not fit the sites of `layout`.
    fn check_ranks(&self, config: &ChainConfig, layout: &AdapterLayout) -> Result<(), String> {
        for (j, (link, room)) in self.links.iter().zip(&config.inherited).enumerate() {
            let ranks = || layout.sites.iter().map(|site| link.rank_at(site.site));
            if ranks().any(|rank| rank > *room) || ranks().all(|rank| rank == 0) {
                return Err(format!("link {j} is {link:?}, ranks from 1 to {room} were expected"));
            }
        }
        Ok(())
    }
}
