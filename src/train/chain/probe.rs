//! The gradient `G = dL/dW` of every adapted weight, looked at through the adapters' own kernels and never formed.
//!
//! With `A = V` and `B = 0` in the slot of the link that trains, the model computes what it computes without that link, and the gradient
//! of B is `c G Vᵀ`; with `A = 0` and `B = Uᵀ` that of A is `c U G`. Alternating the two, each followed by orthonormalisation, is a block
//! power iteration on `GᵀG` for all sites at once, at one forward and backward pass a half.

use crate::adapters::{AdapterLayout, ParamSpec};
use crate::analysis::{Factors, decompose};
use crate::gpu::Gpu;
use crate::kernels::lowrank::{NO_GRADIENT, SiteRow};
use crate::model::inputs::HostBatch;
use crate::train::host_batch::of_one_job;
use crate::train::session::Session;
use crate::{Result, rng};

/// What the iteration found of one site's gradient, for as many directions as the slot's link has ranks.
pub struct SiteGradient {
    /// The largest singular values, descending: lower bounds that tighten with every iteration.
    pub sigma: Vec<f64>,
    /// Their right singular vectors as rows, `[rank, in]`.
    pub directions: Vec<f32>,
    /// An unbiased estimate of `‖G‖_F²`.
    pub energy: f64,
}

/// Where the passes run. The slot must hold no link that counts: `layout` is that of a link with B zero.
pub struct Probe<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// Where the job is.
    pub session: &'a mut Session,
    /// Its number there.
    pub slot: usize,
    /// The batch; targets weigh what they weigh in the mean loss.
    pub batch: &'a HostBatch,
    /// Its layout.
    pub layout: &'a AdapterLayout,
    /// Its values, which are written back at the end.
    pub values: &'a [f32],
}

impl Probe<'_> {
    /// One forward and backward pass with `values`; the gradients of it alone.
    async fn gradients(&mut self, values: &[f32]) -> Result<Vec<f32>> {
        self.session.write_values(self.gpu, self.slot, values)?;
        self.session.clear_grads(self.gpu, self.slot)?;
        let (batch, rows) = of_one_job(self.batch, self.slot);
        self.session.accumulate(self.gpu, &batch, &rows).await?;
        self.session.read_grads(self.gpu, self.slot).await
    }

    /// Puts values and gradients back as a step expects them.
    async fn restore(&mut self) -> Result<()> {
        self.session.write_values(self.gpu, self.slot, self.values)?;
        self.session.clear_grads(self.gpu, self.slot)
    }

    /// Block power iteration from directions keyed by `key`; `iterations` is at least 1. The link's A and B must both be trainable.
    ///
    /// # Errors
    /// A lost device; a gradient that is not finite.
    pub async fn power(&mut self, key: &str, iterations: usize) -> Result<Vec<SiteGradient>> {
        let (offsets, _) = self.layout.params.gradient_offsets();
        let sites = &self.layout.sites;
        let factor = |site: usize, half: usize| if half == 0 { sites[site].slices[0].a } else { sites[site].slices[0].b };
        let specs = &self.layout.params.specs;
        let mut empty = self.values.to_vec();
        for site in 0..sites.len() {
            (0..2).for_each(|half| empty[specs[factor(site, half)].range()].fill(0.0));
        }
        let mut found: Vec<SiteGradient> = Vec::with_capacity(sites.len());
        for site in sites {
            let spec = &specs[site.slices[0].a];
            let random = rng::fill_normal(&format!("{key}/{}", site.site), spec.len(), 1.0);
            let (_, directions) = orthonormal(spec, &random)?;
            found.push(SiteGradient { sigma: Vec::new(), directions, energy: 0.0 });
        }
        for iteration in 0..iterations {
            for half in 0..2 {
                let mut values = empty.clone();
                for (site, gradient) in found.iter().enumerate() {
                    values[specs[factor(site, half)].range()].copy_from_slice(&gradient.directions);
                }
                let grads = self.gradients(&values).await?;
                for (site, gradient) in found.iter_mut().enumerate() {
                    let slice = &sites[site].slices[0];
                    let other = factor(site, 1 - half);
                    let scale = f64::from(slice.scale);
                    let rows = &grads[offsets[other]..offsets[other] + specs[other].len()];
                    if iteration == 0 && half == 0 {
                        let seen: f64 = rows.iter().map(|x| (f64::from(*x) / scale).powi(2)).sum();
                        gradient.energy = seen * specs[slice.a].shape[1] as f64 / slice.rank as f64;
                    }
                    let (sigma, directions) = orthonormal(&specs[other], rows)?;
                    gradient.sigma = sigma.iter().map(|s| s / scale).collect();
                    gradient.directions = directions;
                }
            }
        }
        self.restore().await?;
        Ok(found)
    }

    /// `⟨G, ΔW⟩` of every frozen product of every site, in the layout's order of slices: the gradient of B, elementwise with B. The frozen
    /// ranks take turns in the slot's gradients.
    ///
    /// # Errors
    /// A lost device.
    pub async fn along(&mut self) -> Result<Vec<Vec<f64>>> {
        let (offsets, _) = self.layout.params.gradient_offsets();
        let specs = &self.layout.params.specs;
        let rows = self.session.site_rows(self.slot);
        let mut along: Vec<Vec<f64>> = self.layout.sites.iter().map(|site| vec![0.0; site.slices.len() - 1]).collect();
        let ranks: Vec<usize> = self.layout.sites.first().map_or(Vec::new(), |site| site.slices.iter().map(|s| s.rank).collect());
        let (total, slot) = (ranks.iter().sum::<usize>(), self.layout.sites.first().map_or(1, |site| site.max_trained));
        let mut begin = ranks.first().copied().unwrap_or(0);
        while begin < total {
            let end = total.min(begin + slot);
            let turn = |row: &SiteRow, spec: &ParamSpec| SiteRow {
                train_begin: begin as u32,
                train_end: end as u32,
                grad_a_offset: NO_GRADIENT,
                grad_b_offset: row.grad_b_offset - spec.padding as u32,
                ..*row
            };
            let turned = rows.iter().zip(&self.layout.sites).map(|(row, site)| turn(row, &specs[site.slices[0].b])).collect::<Vec<_>>();
            self.session.set_site_rows(self.gpu, self.slot, &turned)?;
            let grads = self.gradients(self.values).await;
            self.session.set_site_rows(self.gpu, self.slot, &rows)?;
            let grads = grads?;
            for (site, sums) in self.layout.sites.iter().zip(&mut along) {
                let active = &specs[site.slices[0].b];
                let slot_begin = offsets[site.slices[0].b] - active.padding;
                let width = active.shape[0];
                let mut first = ranks[0];
                for (slice, sum) in site.slices[1..].iter().zip(sums) {
                    let b = specs[slice.b].to_rows(self.values);
                    for rank in first.max(begin)..(first + slice.rank).min(end) {
                        let gradient = &grads[slot_begin + (rank - begin) * width..][..width];
                        let own = &b[(rank - first) * width..][..width];
                        *sum += gradient.iter().zip(own).map(|(g, b)| f64::from(*g) * f64::from(*b)).sum::<f64>();
                    }
                    first += slice.rank;
                }
            }
            begin = end;
        }
        self.restore().await?;
        Ok(along)
    }
}

/// Singular values of the rows `[rank, width]` of a factor as it lies in the buffer, and their right singular vectors as rows.
fn orthonormal(spec: &ParamSpec, rows: &[f32]) -> Result<(Vec<f64>, Vec<f32>)> {
    let width = if spec.transposed { spec.shape[0] } else { spec.shape[1] };
    let rank = rows.len() / width;
    let unit: Vec<f32> = (0..rank * rank).map(|i| if i / rank == i % rank { 1.0 } else { 0.0 }).collect();
    let svd = decompose(&[Factors::new(&spec.name, rows, &unit, rank, 1.0)?]);
    let mut directions = Vec::with_capacity(rows.len());
    for direction in 0..rank.min(svd.v.cols()) {
        directions.extend(svd.v.col(direction).iter().map(|x| *x as f32));
    }
    directions.resize(rows.len(), 0.0);
    Ok((svd.values, directions))
}
