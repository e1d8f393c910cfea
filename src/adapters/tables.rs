//! The adapters of all jobs on the GPU: one buffer of values, one of gradients, and the table that tells kernels which slice is whose.

use std::collections::BTreeMap;

use super::layout::{AdapterLayout, ParamSpec};
use super::site::{Projection, Site};
use crate::config::ModelConfig;
use crate::gpu::{Class, Gpu, Store, Tensor};
use crate::kernels::lowrank::{JobRow, LowrankSite, LowrankTables, SiteRow};
use crate::kernels::optimizer::{Group, State};
use crate::{Error, Result};

/// All jobs' adapters within one run.
#[derive(Debug, Clone)]
pub struct AdapterTables {
    /// Values, gradients, moments, norms.
    pub state: State,
    /// `[jobs]` [`JobRow`].
    pub jobs: Tensor,
    tables: LowrankTables,
    sites: BTreeMap<Site, SiteInfo>,
    rows: Vec<SiteRow>,
    job_count: usize,
    dropout: bool,
    /// Where each job's values and gradients lie.
    pub spans: Vec<Span>,
    model: ModelConfig,
}

/// One site that at least one job adapts.
#[derive(Debug, Clone, Copy)]
struct SiteInfo {
    index: usize,
    r_max: usize,
}

/// One job's part of the flat buffers.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Words of `state.values`.
    pub values: std::ops::Range<usize>,
    /// Words of `state.grads`, `m` and `v`.
    pub grads: std::ops::Range<usize>,
    /// What AdamW updates together.
    pub groups: Vec<Group>,
}

/// Neighbouring trainable parameters with equal settings become one group.
fn groups(specs: &[ParamSpec], grads: &[usize], values_base: usize, grads_base: usize) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (spec, grad) in specs.iter().zip(grads).filter(|(s, _)| s.trainable) {
        let len = spec.len().next_multiple_of(super::layout::ALIGN);
        let (begin, grad_begin) = (values_base + spec.offset, grads_base + grad);
        let (lr_multiplier, decay) = (spec.lr_multiplier as f32, f32::from(u8::from(spec.weight_decay)));
        match groups.last_mut() {
            Some(g)
                if g.lr_multiplier == lr_multiplier
                    && g.decay == decay
                    && g.begin + g.len == begin
                    && g.grad_begin + g.len == grad_begin =>
            {
                g.len += len;
            }
            _ => groups.push(Group { begin, grad_begin, len, lr_multiplier, decay }),
        }
    }
    groups
}

impl AdapterTables {
    /// Declares the buffers of `layouts`, one per job, for batches whose rows' jobs are in `row_job`.
    ///
    /// # Errors
    /// [`Error::Adapter`] if a site has several slices with different scales; [`Error::Limit`] past 32-bit addressing.
    pub fn declare(layouts: &[&AdapterLayout], model: &ModelConfig, store: &mut Store, row_job: Tensor) -> Result<AdapterTables> {
        let mut entries: BTreeMap<Site, Vec<SiteRow>> = BTreeMap::new();
        let mut spans = Vec::new();
        let (mut values, mut grads) = (0, 0);
        for (job, layout) in layouts.iter().enumerate() {
            let (offsets, grad_words) = layout.params.gradient_offsets();
            for adapter in &layout.sites {
                let [slice] = adapter.slices[..] else {
                    return Err(Error::Adapter {
                        adapter: format!("job {job}"),
                        problem: format!("{} has {} slices where one is supported", adapter.site, adapter.slices.len()),
                        hint: "merge the adapter's parts first",
                    });
                };
                let row = SiteRow {
                    rank: slice.rank as u32,
                    a_offset: (values + layout.params.specs[slice.a].offset) as u32,
                    b_offset: (values + layout.params.specs[slice.b].offset) as u32,
                    grad_a_offset: (grads + offsets[slice.a]) as u32,
                    grad_b_offset: (grads + offsets[slice.b]) as u32,
                    train_begin: 0,
                    train_end: if layout.params.specs[slice.a].trainable { slice.rank as u32 } else { 0 },
                    scale: slice.scale,
                };
                entries.entry(adapter.site).or_insert_with(|| vec![SiteRow::default(); layouts.len()])[job] = row;
            }
            let groups = groups(&layout.params.specs, &offsets, values, grads);
            spans.push(Span { values: values..values + layout.params.words, grads: grads..grads + grad_words, groups });
            values += layout.params.words;
            grads += grad_words;
        }
        let mut tensor = |label: &str, class: Class, len: usize| store.declare(format!("adapter.{label}"), class, len);
        let state = State {
            values: tensor("values", Class::Adapter, values)?,
            grads: tensor("grads", Class::Gradient, grads)?,
            m: tensor("m", Class::Optimizer, grads)?,
            v: tensor("v", Class::Optimizer, grads)?,
            hyper: tensor("hyper", Class::Io, layouts.len() * crate::kernels::optimizer::HYPER_WORDS)?,
            norms: tensor("norms", Class::Io, 2 * layouts.len())?,
        };
        let jobs = tensor("jobs", Class::Io, layouts.len() * size_of::<JobRow>() / 4)?;
        let rows: Vec<SiteRow> = entries.values().flatten().copied().collect();
        let sites_table = tensor("sites", Class::Io, rows.len() * size_of::<SiteRow>() / 4)?;
        let sites = entries
            .iter()
            .enumerate()
            .map(|(index, (site, rows))| (*site, SiteInfo { index, r_max: rows.iter().map(|r| r.rank as usize).max().unwrap_or(1) }))
            .collect();
        let tables = LowrankTables { row_job, jobs, sites: sites_table, adapter: state.values, grads: state.grads };
        let dropout = layouts.iter().any(|l| l.dropout > 0.0);
        Ok(AdapterTables { state, jobs, tables, sites, rows, job_count: layouts.len(), dropout, spans, model: model.clone() })
    }

    /// The same adapters for another batch shape (evaluation, generation): other `row_job` and job rows, and no dropout.
    ///
    /// # Errors
    /// [`Error::Limit`] past 32-bit addressing.
    pub fn for_inference(&self, store: &mut Store, row_job: Tensor) -> Result<AdapterTables> {
        let mut other = self.clone();
        other.jobs = store.declare("adapter.jobs", Class::Io, self.jobs.len as usize)?;
        other.tables.row_job = row_job;
        other.tables.jobs = other.jobs;
        other.dropout = false;
        Ok(other)
    }

    /// Writes the sites table, once after allocation.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffers were not allocated.
    pub fn upload(&self, gpu: &Gpu, store: &Store) -> Result<()> {
        store.write(gpu, self.tables.sites, &self.rows)
    }

    /// The adapters at one linear layer, `None` where no job has one.
    pub fn site(&self, layer: usize, projection: Projection, rows: usize) -> Option<LowrankSite> {
        let info = self.sites.get(&Site { layer, projection })?;
        let (n, k) = projection.shape(&self.model);
        Some(LowrankSite {
            rows,
            k,
            n,
            r_max: info.r_max,
            site: info.index,
            jobs: self.job_count,
            dropout: self.dropout,
            tables: self.tables,
        })
    }

    /// Number of jobs.
    pub fn job_count(&self) -> usize {
        self.job_count
    }

    /// The lowest block with an adapter: nothing below it needs a gradient.
    pub fn lowest_layer(&self) -> Option<usize> {
        self.sites.keys().map(|s| s.layer).min()
    }
}
