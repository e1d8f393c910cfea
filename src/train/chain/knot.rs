//! Tying a knot: the link that trained is frozen, the next one begins, and the gradient is looked at from there.

use super::inherit::largest_change;
use super::moments::at_knot;
use super::probe::{Probe, SiteGradient};
use super::report::{KnotDiagnostics, KnotReport};
use crate::adapters::AdapterLayout;
use crate::adapters::chain::{LinkInit, carry, link_name};
use crate::analysis::{Factors, Links, links};
use crate::train::host_batch::of_one_job;
use crate::train::seat::Seat;
use crate::{Error, Result};

impl Seat<'_> {
    /// Ends the link that trains if its steps, its held-out loss or the gap say so. Call it after each step, after the evaluation if one was
    /// due; a run without a chain never has a knot.
    ///
    /// # Errors
    /// As [`Self::merge_link`].
    pub async fn tie_if_due(&mut self) -> Result<Option<KnotReport>> {
        let Some(chain) = &self.job.chain else { return Ok(None) };
        if let Some(reason) = chain.due(self.job.step) {
            return self.tie(reason).await.map(Some);
        }
        let every = self.job.config.eval_every;
        if chain.config.gap > 0.0
            && chain.has_next()
            && every > 0
            && self.job.step > chain.state.begun
            && self.job.step.is_multiple_of(every)
        {
            let gap = self.measure_gap().await?;
            let Some(chain) = &mut self.job.chain else { return Ok(None) };
            let (first, share) = (*chain.state.first_gap.get_or_insert(gap), chain.config.gap);
            if gap < share * first {
                return self.tie(format!("the gap {gap:.3e} is below {share} of the first, {first:.3e}")).await.map(Some);
            }
        }
        Ok(None)
    }

    /// Ends the link that trains now, whatever was planned: it is frozen, the next one begins, AdamW starts as the settings say. Later knots
    /// stay where they were planned; the last link trains to the end of the run.
    ///
    /// # Errors
    /// When there is no chain, no link left, or no step since the last knot; a lost device.
    pub async fn merge_link(&mut self) -> Result<KnotReport> {
        self.tie("asked for".to_owned()).await
    }

    async fn tie(&mut self, reason: String) -> Result<KnotReport> {
        let refused = |problem: &str, hint: &str| Err(Error::config("knots", problem, hint));
        let Some(chain) = &self.job.chain else { return refused("the run is no chain", "train with --method cola") };
        if !chain.has_next() {
            return refused("the chain has no link left", "give more --links");
        }
        if self.job.step == chain.state.begun {
            return refused("the link has not trained a step", "wait for a step");
        }
        let (stage, restart) = (chain.state.stage + 1, chain.config.restart_only);
        let link = chain.present_link(self.job.step);
        let before = self.fixed_losses().await?;
        let next = self.job.stage_layout(stage)?;
        let values = carry(&self.job.layout, &next, &self.session.read_values(self.gpu, self.job.slot).await?, self.job.config.seed)?;
        let (m, v) = self.session.read_moments(self.gpu, self.job.slot).await?;
        self.take_layout(next, &values)?;
        let after = self.fixed_losses().await?;
        let logit_jump = largest_change(&before, &after);
        let Some(chain) = &mut self.job.chain else { return refused("the run is no chain", "train with --method cola") };
        if !restart {
            chain.state.links.push(link);
        }
        let state = &mut chain.state;
        (state.stage, state.begun, state.best, state.stale) = (stage, self.job.step, None, 0);
        self.job.progress.stale = 0;
        let kind = chain.config.optimizer;
        let key = format!("{}/{}.moments", self.job.config.seed, link_name(stage));
        let (m, v) = at_knot(kind, &self.job.layout, &key, &m, &v);
        self.session.write_moments(self.gpu, self.job.slot, &m, &v)?;
        let diagnostics = if restart { None } else { self.begin_link(&values).await? };
        let Some(chain) = &self.job.chain else { return refused("the run is no chain", "train with --method cola") };
        Ok(KnotReport {
            job: self.job.config.name.clone(),
            step: self.job.step,
            link: chain.config.number(stage) as u64,
            rank: chain.config.links[if restart { 0 } else { stage }].rank as u64,
            reason,
            logit_jump,
            diagnostics,
        })
    }

    /// Makes a stage's layout and values the run's.
    pub(in crate::train) fn take_layout(&mut self, layout: AdapterLayout, values: &[f32]) -> Result<()> {
        self.session.relayout(self.gpu, self.job.slot, &layout)?;
        self.session.write_values(self.gpu, self.job.slot, values)?;
        self.job.layout = layout;
        Ok(())
    }

    /// Losses of the fixed batch's targets.
    pub(in crate::train) async fn fixed_losses(&mut self) -> Result<Vec<f32>> {
        match &self.job.chain {
            Some(chain) => {
                let (batch, rows) = of_one_job(&chain.batch, self.job.slot);
                self.session.evaluate(self.gpu, &batch, &rows).await
            }
            None => Ok(Vec::new()),
        }
    }

    /// Looks at the gradient where link `stage` begins, and starts its A from there if the settings say so.
    pub(in crate::train) async fn begin_link(&mut self, values: &[f32]) -> Result<Option<KnotDiagnostics>> {
        let Some(chain) = &self.job.chain else { return Ok(None) };
        let (probes, rac, init, state_links) = (chain.config.probes, chain.config.rac, chain.config.init, chain.state.links.len());
        let first = self.job.step == 0 && init != LinkInit::GradSvd;
        if probes == 0 || first {
            return Ok(None);
        }
        let (gradients, along) = self.look(values).await?;
        if init == LinkInit::GradSvd && !rac {
            let mut values = values.to_vec();
            for (site, gradient) in self.job.layout.sites.iter().zip(&gradients) {
                let place = self.job.layout.params.specs[site.slices[0].a].range();
                // Kaiming's rows have squares of 1/3 on average.
                let length = (1.0f32 / 3.0).sqrt();
                values[place].iter_mut().zip(&gradient.directions).for_each(|(x, direction)| *x = length * direction);
            }
            self.session.write_values(self.gpu, self.job.slot, &values)?;
        }
        if state_links == 0 {
            return Ok(None);
        }
        self.diagnose(&gradients, &along, values).map(Some)
    }

    /// The gradient of every site (none in rac mode, where A has no gradient) and its products with the frozen links. The slot's link must
    /// have B zero.
    async fn look(&mut self, values: &[f32]) -> Result<(Vec<SiteGradient>, Vec<Vec<f64>>)> {
        let Some(chain) = &self.job.chain else { return Ok((Vec::new(), Vec::new())) };
        let key = format!("{}/{}.probe", self.job.config.seed, link_name(chain.config.number(chain.state.stage)));
        let mut probe =
            Probe { gpu: self.gpu, session: self.session, slot: self.job.slot, batch: &chain.batch, layout: &self.job.layout, values };
        let gradients = if chain.config.rac { Vec::new() } else { probe.power(&key, chain.config.probes).await? };
        Ok((gradients, probe.along().await?))
    }

    fn diagnose(&self, gradients: &[SiteGradient], along: &[Vec<f64>], values: &[f32]) -> Result<KnotDiagnostics> {
        let sites: Vec<Links> = self.frozen(values)?;
        let mean = |f: &dyn Fn(usize) -> f64| (0..sites.len()).map(f).sum::<f64>() / sites.len().max(1) as f64;
        let count = sites.first().map_or(0, |site| site.spectra.len());
        let known = (!gradients.is_empty()).then_some(gradients);
        let top = |gradient: &SiteGradient| gradient.sigma.first().copied().unwrap_or(0.0);
        let captured = |all: &[SiteGradient]| {
            let energy: f64 = all.iter().map(|g| g.energy).sum();
            let seen: f64 = all.iter().flat_map(|g| &g.sigma).map(|s| s * s).sum();
            if energy > 0.0 { (seen / energy).min(1.0) } else { 0.0 }
        };
        Ok(KnotDiagnostics {
            gradient_norm: known.map(|all| mean(&|i| top(&all[i]))),
            gap: known.map(|all| self.gap(all, along, &sites)),
            captured: known.map(captured),
            // Slices are newest first.
            along: (0..count).map(|j| along.iter().map(|site| site[count - 1 - j]).sum()).collect(),
            effective_rank: (0..count).map(|j| mean(&|i| sites[i].cumulative[j].effective_rank)).collect(),
            overlap: (0..count.saturating_sub(1)).map(|j| mean(&|i| sites[i].overlap_right[count - 1][j])).collect(),
        })
    }

    fn gap(&self, gradients: &[SiteGradient], along: &[Vec<f64>], sites: &[Links]) -> f64 {
        let radius = self.job.chain.as_ref().map_or(1.0, |chain| chain.config.gap_radius);
        let nuclear = |site: &Links| site.cumulative.last().map_or(0.0, |spectrum| spectrum.singular_values.iter().sum::<f64>());
        let top = |gradient: &SiteGradient| gradient.sigma.first().copied().unwrap_or(0.0);
        let one = |((gradient, along), site): ((&SiteGradient, &Vec<f64>), &Links)| {
            radius.max(nuclear(site)) * top(gradient) + along.iter().sum::<f64>()
        };
        gradients.iter().zip(along).zip(sites).map(one).sum()
    }

    /// The frozen links of every site, oldest first.
    fn frozen(&self, values: &[f32]) -> Result<Vec<Links>> {
        let specs = &self.job.layout.params.specs;
        let mut found = Vec::with_capacity(self.job.layout.sites.len());
        for site in &self.job.layout.sites {
            let frozen: Vec<_> = site.slices[1..].iter().rev().collect();
            let factors: Vec<(Vec<f32>, Vec<f32>)> = frozen.iter().map(|s| (specs[s.a].to_hf(values), specs[s.b].to_hf(values))).collect();
            let each = frozen.iter().zip(&factors);
            let each = each.map(|(s, (a, b))| Factors::new(&site.site.to_string(), a, b, s.rank, f64::from(s.scale)));
            found.push(links(&each.collect::<Result<Vec<_>>>()?));
        }
        Ok(found)
    }

    /// The gap as it would be if the link ended now. The run goes on as if nothing had been measured.
    async fn measure_gap(&mut self) -> Result<f64> {
        let stage = self.job.chain.as_ref().map_or(0, |chain| chain.state.stage);
        let values = self.session.read_values(self.gpu, self.job.slot).await?;
        let next = self.job.stage_layout(stage + 1)?;
        let tied = carry(&self.job.layout, &next, &values, self.job.config.seed)?;
        let present = std::mem::replace(&mut self.job.layout, next);
        self.session.relayout(self.gpu, self.job.slot, &self.job.layout)?;
        self.session.write_values(self.gpu, self.job.slot, &tied)?;
        let looked = self.look(&tied).await;
        let gap = looked.and_then(|(gradients, along)| Ok(self.gap(&gradients, &along, &self.frozen(&tied)?)));
        self.take_layout(present, &values)?;
        gap
    }
}
