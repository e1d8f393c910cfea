//! The adapters of all jobs on the GPU: one buffer each for values, gradients and moments, and the tables that tell kernels which slice is
//! whose. A job that joins or leaves within the pool's [`Capacity`] changes tables only.

mod capacity;
mod embeddings;
mod experts;
mod modules;
mod norms;
mod ranks;
mod reference;
mod slots;
mod spans;

use std::collections::BTreeMap;
use std::ops::Range;

pub use capacity::Capacity;
pub use experts::{BlockStats, ExpertBlock, ExpertCapacity, RouterStats};
pub use modules::ModuleCapacity;
pub use ranks::Ranks;

use self::embeddings::EmbeddingTables;
use self::experts::ExpertTables;
use self::modules::{Base, ModuleTables};
use self::norms::NormTables;
use self::reference::{Reference, frozen_row};
use self::slots::{groups, not_one, site_row};
use self::spans::Spans;
use super::layout::AdapterLayout;
use super::site::{Projection, Site};
use crate::config::ModelConfig;
use crate::gpu::{Class, Gpu, Recorder, Store, Tensor};
use crate::kernels::embed::OwnEmbeddings;
use crate::kernels::lowrank::{LowrankSite, LowrankTables, Segment, SiteRow};
use crate::kernels::norm::OwnWeights;
use crate::kernels::optimizer::{self, Block, Group, Hyper, State};
use crate::{Error, Result};

/// All jobs' adapters on one device.
#[derive(Debug, Clone)]
pub struct AdapterPool {
    /// Values, gradients, moments, norms, and the optimizer's tables.
    pub state: State,
    /// `[jobs]` [`Segment`].
    pub jobs: Tensor,
    tables: LowrankTables,
    modules: ModuleTables,
    experts: Option<ExpertTables>,
    norms: NormTables,
    embeddings: EmbeddingTables,
    sites: BTreeMap<Site, SiteInfo>,
    rows: Vec<SiteRow>,
    placed: Vec<Option<Allocation>>,
    /// By the number of the job that trains.
    references: Vec<Option<Reference>>,
    values: Spans,
    grads: Spans,
    capacity: Capacity,
    model: ModelConfig,
}

/// One site that a job may adapt.
#[derive(Debug, Clone, Copy)]
struct SiteInfo {
    index: usize,
    ranks: Ranks,
}

/// One job's part of the flat buffers.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    /// Words of `state.values` that hold its parameters.
    pub values: Range<usize>,
    /// Words of `state.grads`, `m` and `v`.
    pub grads: Range<usize>,
    /// Words of `state.values` with its parameters and what is made from them.
    all_values: Range<usize>,
    /// What AdamW updates together.
    groups: Vec<Group>,
}

impl AdapterPool {
    /// Declares the buffers of an empty pool, for batches whose rows' jobs are in `row_job`.
    ///
    /// # Errors
    /// [`Error::Limit`] past 32-bit addressing.
    pub fn declare(capacity: Capacity, model: &ModelConfig, store: &mut Store, row_job: Tensor) -> Result<AdapterPool> {
        let modules = ModuleTables::declare(capacity.modules, store)?;
        let experts = ExpertTables::declare(&capacity.experts, capacity.jobs, row_job.len as usize, store)?;
        let norms = NormTables::declare(capacity.norms, capacity.jobs, store)?;
        let embeddings = EmbeddingTables::declare(capacity.embeddings, model.vocab_size, capacity.jobs, store)?;
        let jobs = capacity.jobs;
        let mut tensor = |label: &str, class: Class, len: usize| store.declare(format!("adapter.{label}"), class, len);
        let state = State {
            values: tensor("values", Class::Adapter, capacity.values)?,
            grads: tensor("grads", Class::Gradient, capacity.grads)?,
            m: tensor("m", Class::Optimizer, capacity.grads)?,
            v: tensor("v", Class::Optimizer, capacity.grads)?,
            blocks: tensor("blocks", Class::Io, capacity.blocks.max(1) * size_of::<Block>() / 4)?,
            hyper: tensor("hyper", Class::Io, jobs.max(1) * size_of::<Hyper>() / 4)?,
            norms: tensor("norms", Class::Io, 2 * jobs.max(1))?,
        };
        let job_table = tensor("jobs", Class::Io, jobs * size_of::<Segment>() / 4)?;
        let rows = vec![SiteRow::default(); capacity.sites.len() * jobs];
        let sites_table = tensor("sites", Class::Io, rows.len() * size_of::<SiteRow>() / 4)?;
        let sites = capacity.sites.iter().enumerate().map(|(index, (site, ranks))| (*site, SiteInfo { index, ranks: *ranks })).collect();
        let tables = LowrankTables { row_job, jobs: job_table, sites: sites_table, adapter: state.values, grads: state.grads };
        Ok(AdapterPool {
            state,
            jobs: job_table,
            tables,
            modules,
            experts,
            norms,
            embeddings,
            sites,
            rows,
            placed: vec![None; jobs],
            references: vec![None; jobs],
            values: Spans::new(capacity.values),
            grads: Spans::new(capacity.grads),
            capacity,
            model: model.clone(),
        })
    }

    /// A pool of exactly these jobs, numbered in their order.
    ///
    /// # Errors
    /// As [`Self::declare`] and [`Self::add`].
    pub fn of(layouts: &[&AdapterLayout], model: &ModelConfig, store: &mut Store, row_job: Tensor) -> Result<AdapterPool> {
        let mut pool = Self::declare(Capacity::exact(layouts.iter().copied()), model, store, row_job)?;
        for layout in layouts {
            pool.add(layout)?;
        }
        Ok(pool)
    }

    /// Gives a job a number and a place. [`Self::upload`] makes it known to the kernels; values and moments are the caller's to write.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where it does not fit beside the jobs that are there; [`Error::Adapter`] if the slices of a site have
    /// different scales or do not lie side by side.
    pub fn add(&mut self, layout: &AdapterLayout) -> Result<usize> {
        let need = Capacity::of(layout);
        let full = |what: &str| Error::OutOfMemory { what: format!("an adapter beside the others: {what}"), bytes: 4 * need.values as u64 };
        let job = self.placed.iter().position(Option::is_none).ok_or_else(|| full("every place is taken"))?;
        if !self.capacity.holds(&need) {
            return Err(full("it is larger than what was prepared for"));
        }
        let blocks: usize = self.placed.iter().flatten().map(|placed| optimizer::blocks(0, &placed.groups).len()).sum();
        if blocks + need.blocks > self.capacity.blocks {
            return Err(full("the optimizer's table is full"));
        }
        let all_values = self.values.take(need.values).ok_or_else(|| full("no room among the parameters"))?;
        let Some(grads) = self.grads.take(need.grads) else {
            self.values.give_back(all_values);
            return Err(full("no room among the gradients"));
        };
        let (offsets, _) = layout.params.gradient_offsets();
        let groups = groups(&layout.params.specs, &offsets, all_values.start, grads.start);
        let values = all_values.start..all_values.start + layout.params.words;
        self.placed[job] = Some(Allocation { values, grads, all_values, groups });
        self.describe(job, layout).inspect_err(|_| self.remove(job))?;
        Ok(job)
    }

    /// Writes a job's rows of the tables.
    fn describe(&mut self, job: usize, layout: &AdapterLayout) -> Result<()> {
        let Some(Allocation { values, grads, .. }) = self.placed[job].clone() else { return Ok(()) };
        let (offsets, _) = layout.params.gradient_offsets();
        self.modules.remove(job);
        // Effective factors come after the job's parameters: they are made anew and belong to no file.
        let mut end = values.end;
        for adapter in &layout.sites {
            let mut row = site_row(layout, adapter, values.start, (&offsets, grads.start)).map_err(|problem| not_one(job, problem))?;
            let base = Base { values: values.start, grads: grads.start, offsets: &offsets };
            end += self.modules.push(job, layout, adapter, base, end, &mut row);
            let info = self.sites[&adapter.site];
            assert!(row.rank as usize <= info.ranks.rank && row.train_end as usize <= info.ranks.rank, "ranks within the capacity");
            self.rows[info.index * self.capacity.jobs + job] = row;
        }
        if let Some(experts) = &mut self.experts {
            experts.describe(job, layout, values.start, (&offsets, grads.start))?;
        }
        self.norms.set(job, layout, values.start, (&offsets, grads.start));
        self.embeddings.set(job, layout, values.start, (&offsets, grads.start));
        self.describe_reference(job, layout);
        Ok(())
    }

    /// Frees a job's place; its number may be given again.
    pub fn remove(&mut self, job: usize) {
        if let Some(placed) = self.placed[job].take() {
            self.values.give_back(placed.all_values);
            self.grads.give_back(placed.grads);
        }
        self.modules.remove(job);
        if let Some(experts) = &mut self.experts {
            experts.remove(job);
        }
        self.norms.remove(job);
        self.embeddings.remove(job);
        self.remove_reference(job);
        self.clear_rows(job);
    }

    /// Gives the oldest `links` links of `job`, which has `layout`, a number that rows can have as their job. [`Self::upload`] makes it known to the
    /// kernels; [`Self::remove`] of the job frees it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where every place is taken.
    pub fn add_reference(&mut self, job: usize, layout: &AdapterLayout, links: usize) -> Result<usize> {
        let full = || Error::OutOfMemory { what: "a reference beside the jobs: every place is taken".into(), bytes: 0 };
        let number = self.placed.iter().position(Option::is_none).ok_or_else(full)?;
        self.placed[number] = Some(Allocation { values: 0..0, grads: 0..0, all_values: 0..0, groups: Vec::new() });
        self.references[job] = Some(Reference { number, links });
        self.describe_reference(job, layout);
        Ok(number)
    }

    /// Writes the rows of a job's reference anew: its links lie elsewhere at every stage of the chain.
    fn describe_reference(&mut self, job: usize, layout: &AdapterLayout) {
        let Some(Reference { number, links }) = self.references[job] else { return };
        let Some(values) = self.placed[job].as_ref().map(|placed| placed.values.start) else { return };
        for adapter in &layout.sites {
            let index = self.sites[&adapter.site].index * self.capacity.jobs + number;
            self.rows[index] = frozen_row(layout, adapter, values, links);
        }
    }

    /// Frees the number of a job's reference.
    fn remove_reference(&mut self, job: usize) {
        if let Some(Reference { number, .. }) = self.references[job].take() {
            self.placed[number] = None;
            self.clear_rows(number);
        }
    }

    fn clear_rows(&mut self, job: usize) {
        self.rows.iter_mut().skip(job).step_by(self.capacity.jobs.max(1)).for_each(|row| *row = SiteRow::default());
    }

    /// A job's part of the flat buffers.
    ///
    /// # Panics
    /// When there is no such job: a bug of the caller.
    pub fn allocation(&self, job: usize) -> &Allocation {
        let placed = self.placed.get(job).and_then(Option::as_ref);
        assert!(placed.is_some(), "job {job} is in the pool");
        placed.unwrap_or_else(|| unreachable!("asserted above"))
    }

    /// What the recordings are made for.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Words that a further job can have among the values, and among the gradients.
    pub fn room(&self) -> (usize, usize) {
        (self.values.largest(), self.grads.largest())
    }

    /// The same adapters for another batch shape (evaluation, generation): other `row_job` and job rows, and no dropout.
    ///
    /// # Errors
    /// [`Error::Limit`] past 32-bit addressing.
    pub fn for_inference(&self, store: &mut Store, row_job: Tensor) -> Result<AdapterPool> {
        let mut other = self.clone();
        other.jobs = store.declare("adapter.jobs", Class::Io, self.jobs.len as usize)?;
        other.tables.row_job = row_job;
        other.tables.jobs = other.jobs;
        other.experts = self.experts.as_ref().map(|experts| experts.for_inference(row_job.len as usize, store)).transpose()?;
        other.capacity.dropout = false;
        Ok(other)
    }

    /// Records what the low-rank kernels read and no file holds: the factors of modules with their scales in them. Every recording begins
    /// with it, so that nothing can be left from older values.
    pub fn record_derived(&self, rec: &mut Recorder) {
        self.modules.expand(rec, self.state);
    }

    /// Records the update of the jobs that step now: gradients of the parameters themselves out of those of what [`Self::record_derived`]
    /// made, norms, clipping, AdamW; their gradients are zero then.
    pub fn record_update(&self, rec: &mut Recorder) {
        self.modules.gradient(rec, self.state);
        if let Some(experts) = &self.experts {
            experts.router_norms(rec, self.state.grads, &self.model);
        }
        optimizer::step(rec, self.state);
    }

    /// The hyper table in which the given jobs step now and the others do not.
    ///
    /// # Panics
    /// When a job is not in the pool: a bug of the caller.
    pub fn hyper(&self, steps: &[(usize, Hyper)]) -> Vec<Hyper> {
        let mut first = 0;
        let mut table = vec![Hyper::default(); self.capacity.jobs.max(1)];
        for (job, placed) in self.placed.iter().enumerate() {
            let blocks = placed.as_ref().map_or(0, |placed| optimizer::blocks(job, &placed.groups).len()) as u32;
            if let Some((_, hyper)) = steps.iter().find(|(own, _)| *own == job) {
                table[job] = Hyper { first_block: first, end_block: first + blocks, ..*hyper };
            }
            first += blocks;
        }
        table
    }

    /// The rows of one job, in the order of all sites.
    pub fn rows(&self, job: usize) -> Vec<SiteRow> {
        self.rows.iter().skip(job).step_by(self.capacity.jobs).copied().collect()
    }

    /// Replaces the rows of one job, as [`Self::rows`] gives them; [`Self::upload`] makes it known to the kernels.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn set_rows(&mut self, job: usize, rows: &[SiteRow]) {
        assert_eq!(rows.len() * self.capacity.jobs, self.rows.len(), "one row per site");
        self.rows.iter_mut().skip(job).step_by(self.capacity.jobs).zip(rows).for_each(|(old, new)| *old = *new);
    }

    /// Takes another layout of one job, with the same sites, sizes and optimizer groups: the next stage of a chain.
    ///
    /// # Errors
    /// When a site cannot be described by one row.
    ///
    /// # Panics
    /// When the layout is not of the same size: a bug in the method.
    pub fn relayout(&mut self, job: usize, layout: &AdapterLayout) -> Result<()> {
        let placed = self.allocation(job);
        let (offsets, words) = layout.params.gradient_offsets();
        assert_eq!((layout.params.words, words), (placed.values.len(), placed.grads.len()), "a stage has the size of the chain");
        let own = groups(&layout.params.specs, &offsets, placed.values.start, placed.grads.start);
        assert_eq!(own, placed.groups, "a stage has the chain's slot");
        self.describe(job, layout)
    }

    /// Writes the tables, after allocation and after changes.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffers were not allocated.
    pub fn upload(&self, gpu: &Gpu, store: &Store) -> Result<()> {
        self.modules.upload(gpu, store)?;
        if let Some(experts) = &self.experts {
            experts.upload(gpu, store)?;
        }
        self.norms.upload(gpu, store)?;
        self.embeddings.upload(gpu, store)?;
        let placed = self.placed.iter().enumerate().filter_map(|(job, placed)| Some((job, placed.as_ref()?)));
        let mut blocks: Vec<Block> = placed.flat_map(|(job, placed)| optimizer::blocks(job, &placed.groups)).collect();
        blocks.resize(self.capacity.blocks.max(1), Block::default());
        store.write(gpu, self.state.blocks, &blocks)?;
        store.write(gpu, self.tables.sites, &self.rows)
    }

    /// The adapters at one linear layer, `None` where no job may have one.
    pub fn site(&self, layer: usize, projection: Projection, rows: usize) -> Option<LowrankSite> {
        let site = Site { layer, projection };
        let info = self.sites.get(&site)?;
        let (n, k) = projection.shape(&self.model);
        Some(LowrankSite {
            rows,
            k,
            n,
            r_max: info.ranks.rank.max(1),
            t_max: info.ranks.trained.max(1),
            site: info.index,
            dropout_key: site.number(),
            jobs: self.capacity.jobs,
            dropout: self.capacity.dropout,
            half: self.capacity.half,
            tables: self.tables,
        })
    }

    /// Router and experts of one block on batches of `rows` rows, `None` where no job may have them. While `training`, capacities, jitter
    /// and dropout hold.
    pub fn experts(&self, layer: usize, rows: usize, documents: Tensor, training: bool) -> Option<ExpertBlock> {
        self.experts.as_ref()?.block(layer, rows, documents, training, self.tables, &self.model)
    }

    /// Records what lies between the forward passes of all blocks and their backward passes: the balance of experts.
    pub fn record_balance(&self, rec: &mut Recorder, rows: usize) {
        if let Some(experts) = &self.experts {
            experts.balance(rec, rows, self.jobs);
        }
    }

    /// Where the statistics of a micro-batch and the norms of an update are, to be read with [`Self::router_stats`] and [`Self::router_norm`].
    pub fn router_outputs(&self) -> Option<(Tensor, Tensor)> {
        self.experts.as_ref().map(ExpertTables::outputs)
    }

    /// What a job's routers did, out of the statistics of a micro-batch.
    pub fn router_stats(&self, job: usize, stats: &[f32]) -> Option<RouterStats> {
        self.experts.as_ref()?.job_stats(job, stats)
    }

    /// The norm of the gradient of a job's routers, out of the norms of an update.
    pub fn router_norm(&self, job: usize, norms: &[f32]) -> Option<f32> {
        self.experts.as_ref()?.job_norm(job, norms)
    }

    /// The weights of norm `norm` ([`super::norms`]) that jobs have instead of the base's, for the rows of `row_job`, or of the whole batch; `None`
    /// where no job may have any.
    pub fn own_norm(&self, norm: usize, row_job: Option<Tensor>) -> Option<OwnWeights> {
        let table = self.norms.table?;
        let LowrankTables { jobs, adapter: values, grads, .. } = self.tables;
        Some(OwnWeights { row_job: row_job.unwrap_or(self.tables.row_job), jobs, table, values, grads, norm, count: self.capacity.jobs })
    }

    /// What jobs add to the embeddings of their tokens; `None` where no job may add anything.
    pub fn own_embeddings(&self) -> Option<OwnEmbeddings> {
        let table = self.embeddings.table?;
        let LowrankTables { row_job, adapter: values, grads, .. } = self.tables;
        Some(OwnEmbeddings { row_job, table, values, grads, vocab: self.model.vocab_size, jobs: self.capacity.jobs })
    }

    /// Jobs at once.
    pub fn job_count(&self) -> usize {
        self.capacity.jobs
    }

    /// The lowest block that may have an adapter: nothing below it needs a gradient.
    pub fn lowest_layer(&self) -> Option<usize> {
        let routers = self.capacity.experts.layers.first().copied();
        let norms = (self.capacity.norms > 0 || self.capacity.embeddings).then_some(0);
        self.sites.keys().map(|s| s.layer).min().into_iter().chain(routers).chain(norms).min()
    }
}
