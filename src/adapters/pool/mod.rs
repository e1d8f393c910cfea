//! The adapters of all jobs on the GPU: one buffer each for values, gradients and moments, and the tables that tell kernels which slice is
//! whose. A job that joins or leaves within the pool's [`Capacity`] changes tables only. What no binding holds lies in several pages, cut between
//! layers (`pages.rs`): a dispatch binds the page of its layer.

mod capacity;
mod derived;
mod embeddings;
mod experts;
mod groups;
mod modules;
mod norms;
mod pages;
mod places;
mod ranks;
mod reference;
mod slots;
mod spans;
mod units;

use std::collections::BTreeMap;
use std::ops::Range;

pub use capacity::{Capacity, UnitWords};
pub use experts::{BlockStats, ExpertBlock, ExpertCapacity, RouterStats};
pub use modules::ModuleCapacity;
pub use places::{Allocation, Extent};
pub use ranks::Ranks;
pub use units::{Unit, Words};

use self::embeddings::EmbeddingTables;
use self::experts::ExpertTables;
use self::modules::ModuleTables;
use self::norms::NormTables;
use self::pages::Pages;
use self::reference::{Reference, frozen_row};
use self::slots::{not_one, site_row};
use self::spans::Spans;
use super::layout::AdapterLayout;
use super::site::{Projection, Site};
use crate::config::ModelConfig;
use crate::gpu::device::PlanLimits;
use crate::gpu::{Class, Gpu, Recorder, Store, Tensor};
use crate::kernels::embed::OwnEmbeddings;
use crate::kernels::lowrank::{LowrankSite, LowrankTables, Segment, SiteRow};
use crate::kernels::norm::OwnWeights;
use crate::kernels::optimizer::{self, Block, Hyper, Page, State};
use crate::{Error, Result};

/// All jobs' adapters on one device.
#[derive(Debug, Clone)]
pub struct AdapterPool {
    /// Pages of values, gradients and moments; norms, and the optimizer's tables.
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
    pages: Pages,
    /// By page.
    values: Vec<Spans>,
    grads: Vec<Spans>,
    capacity: Capacity,
    model: ModelConfig,
}

/// One site that a job may adapt.
#[derive(Debug, Clone, Copy)]
struct SiteInfo {
    index: usize,
    ranks: Ranks,
}

impl AdapterPool {
    /// Declares the buffers of an empty pool, for batches whose rows' jobs are in `row_job`, on a device with these limits.
    ///
    /// # Errors
    /// [`Error::Limit`] where a job's adapter of one layer is more than a binding.
    pub fn declare(capacity: Capacity, model: &ModelConfig, store: &mut Store, row_job: Tensor, limits: PlanLimits) -> Result<AdapterPool> {
        let pages = Pages::cut(&capacity, limits)?;
        let modules = ModuleTables::declare(capacity.modules, pages.sizes.len(), store)?;
        let experts = ExpertTables::declare(&capacity.experts, capacity.jobs, row_job.len as usize, store)?;
        let norms = NormTables::declare(capacity.norms, capacity.jobs, store)?;
        let embeddings = EmbeddingTables::declare(capacity.embeddings, model.vocab_size, capacity.jobs, store)?;
        let jobs = capacity.jobs;
        let own_pages = pages.declare(store)?;
        let table_rows = own_pages.last().map_or(0, |page| page.rows.end);
        let mut tensor = |label: &str, len: usize| store.declare(format!("adapter.{label}"), Class::Io, len);
        let state = State {
            blocks: tensor("blocks", table_rows * size_of::<Block>() / 4)?,
            hyper: tensor("hyper", jobs.max(1) * size_of::<Hyper>() / 4)?,
            norms: tensor("norms", 2 * jobs.max(1))?,
            sums: capacity.blocks.max(1),
            carries: if own_pages.len() > 1 { 2 * capacity.wide_groups } else { 0 },
            pages: own_pages,
        };
        let job_table = tensor("jobs", jobs * size_of::<Segment>() / 4)?;
        let rows = vec![SiteRow::default(); capacity.sites.len() * jobs];
        let sites_table = tensor("sites", rows.len() * size_of::<SiteRow>() / 4)?;
        let sites = capacity.sites.iter().enumerate().map(|(index, (site, ranks))| (*site, SiteInfo { index, ranks: *ranks })).collect();
        let Page { values, grads, .. } = state.pages[0];
        let tables = LowrankTables { row_job, jobs: job_table, sites: sites_table, adapter: values, grads };
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
            values: pages.sizes.iter().map(|size| Spans::new(size.values)).collect(),
            grads: pages.sizes.iter().map(|size| Spans::new(size.grads)).collect(),
            pages,
            capacity,
            model: model.clone(),
        })
    }

    /// A pool of exactly these jobs, numbered in their order.
    ///
    /// # Errors
    /// As [`Self::declare`] and [`Self::add`].
    pub fn of(
        layouts: &[&AdapterLayout],
        model: &ModelConfig,
        store: &mut Store,
        row_job: Tensor,
        limits: PlanLimits,
    ) -> Result<AdapterPool> {
        let mut pool = Self::declare(Capacity::exact(layouts.iter().copied()), model, store, row_job, limits)?;
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
        let needs = self.pages.needs(&need).filter(|needs| self.capacity.holds(&need) && self.are_held(needs));
        let needs = needs.ok_or_else(|| full("it is larger than what was prepared for"))?;
        let blocks: usize = self.placed.iter().flatten().map(Allocation::blocks).sum();
        if blocks + need.blocks > self.capacity.blocks {
            return Err(full("the optimizer's table is full"));
        }
        let page = |unit| self.pages.page(unit).unwrap_or_default();
        let placed = Allocation::take(layout, &needs, page, (&mut self.values, &mut self.grads));
        self.placed[job] = Some(placed.map_err(|what| full(&format!("no room among the {what}")))?);
        self.describe(job, layout).inspect_err(|_| self.remove(job))?;
        Ok(job)
    }

    /// Whether no page is too small for what a job needs of it.
    fn are_held(&self, needs: &[Words]) -> bool {
        self.pages.sizes.iter().zip(needs).all(|(size, need)| size.hold(*need))
    }

    /// Whether a job that needs this can be in the pool, beside nobody at least.
    pub fn holds(&self, need: &Capacity) -> bool {
        self.capacity.holds(need) && self.pages.needs(need).is_some_and(|needs| self.are_held(&needs))
    }

    /// The sizes of the pool's pages.
    pub fn pages(&self) -> &[Words] {
        &self.pages.sizes
    }

    /// What a job that the pool [holds](Self::holds) needs of each page; otherwise nothing.
    pub fn needs(&self, need: &Capacity) -> Vec<Words> {
        self.pages.needs(need).unwrap_or_default()
    }

    /// Writes a job's rows of the tables.
    fn describe(&mut self, job: usize, layout: &AdapterLayout) -> Result<()> {
        let Some(placed) = &self.placed[job] else { return Ok(()) };
        let places = placed.places(layout);
        self.modules.remove(job);
        // Effective factors come after the job's parameters: they are made anew and belong to no file.
        let mut ends: Vec<usize> = (0..self.pages.sizes.len()).map(|page| placed.derived(page)).collect();
        for adapter in &layout.sites {
            let mut row = site_row(layout, adapter, &places).map_err(|problem| not_one(job, problem))?;
            let page = self.page(Unit::of(adapter.site));
            ends[page] += self.modules.push(job, layout, adapter, &places, (page, ends[page]), &mut row);
            let info = self.sites[&adapter.site];
            assert!(row.rank as usize <= info.ranks.rank && row.train_end as usize <= info.ranks.rank, "ranks within the capacity");
            self.rows[info.index * self.capacity.jobs + job] = row;
        }
        if let Some(experts) = &mut self.experts {
            experts.describe(job, layout, &places)?;
        }
        self.norms.set(job, layout, &places);
        self.embeddings.set(job, layout, &places);
        self.describe_reference(job, layout);
        Ok(())
    }

    /// Frees a job's place; its number may be given again.
    pub fn remove(&mut self, job: usize) {
        if let Some(mut placed) = self.placed[job].take() {
            placed.give_back((&mut self.values, &mut self.grads));
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
        self.placed[number] = Some(Allocation::default());
        self.references[job] = Some(Reference { number, links });
        self.describe_reference(job, layout);
        Ok(number)
    }

    /// Writes the rows of a job's reference anew: its links lie elsewhere at every stage of the chain.
    fn describe_reference(&mut self, job: usize, layout: &AdapterLayout) {
        let Some(Reference { number, links }) = self.references[job] else { return };
        let Some(places) = self.placed[job].as_ref().map(|placed| placed.places(layout)) else { return };
        for adapter in &layout.sites {
            let index = self.sites[&adapter.site].index * self.capacity.jobs + number;
            self.rows[index] = frozen_row(layout, adapter, &places, links);
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

    /// A job's part of the buffers.
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

    /// A job's parameters: ranges of its own buffer, and where they are.
    pub fn value_slices(&self, job: usize) -> Vec<(Range<usize>, Tensor)> {
        self.slices(&self.allocation(job).value_extents, |page| page.values)
    }

    /// The same of its gradients, or of a moment, whichever of the page's tensors `which` takes.
    pub fn grad_slices(&self, job: usize, which: impl Fn(&Page) -> Tensor) -> Vec<(Range<usize>, Tensor)> {
        self.slices(&self.allocation(job).grad_extents, which)
    }

    fn slices(&self, extents: &[Extent], which: impl Fn(&Page) -> Tensor) -> Vec<(Range<usize>, Tensor)> {
        let slice = |e: &Extent| (e.words.clone(), which(&self.state.pages[e.page]).slice(e.begin..e.begin + e.words.len()));
        extents.iter().filter(|extent| !extent.words.is_empty()).map(slice).collect()
    }

    /// The tables of what is in the page of `unit`.
    fn tables(&self, unit: Unit) -> LowrankTables {
        let page = &self.state.pages[self.page(unit)];
        LowrankTables { adapter: page.values, grads: page.grads, ..self.tables }
    }

    /// The page of a unit that the pool has room for.
    fn page(&self, unit: Unit) -> usize {
        self.pages.page(unit).unwrap_or_default()
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
        self.modules.expand(rec, &self.state.pages);
    }

    /// Records the update of the jobs that step now: gradients of the parameters themselves out of those of what [`Self::record_derived`]
    /// made, norms, clipping, AdamW; their gradients are zero then.
    pub fn record_update(&self, rec: &mut Recorder) {
        self.modules.gradient(rec, &self.state.pages, self.state.hyper);
        if let Some(experts) = &self.experts {
            experts.router_norms(rec, self.tables(Unit::Routers).grads, &self.model);
        }
        optimizer::step(rec, &self.state);
    }

    /// The hyper table in which the given jobs step now and the others do not.
    ///
    /// # Panics
    /// When a job is not in the pool: a bug of the caller.
    pub fn hyper(&self, steps: &[(usize, Hyper)]) -> Vec<Hyper> {
        let mut first = 0;
        let mut table = vec![Hyper::default(); self.capacity.jobs.max(1)];
        for (job, placed) in self.placed.iter().enumerate() {
            let blocks = placed.as_ref().map_or(0, Allocation::blocks) as u32;
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
        assert!(self.allocation(job).suits(layout), "a stage has the size and the slots of the chain");
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
        store.write(gpu, self.state.blocks, &self.blocks_table())?;
        store.write(gpu, self.tables.sites, &self.rows)
    }

    fn blocks_table(&self) -> Vec<Block> {
        let pages = &self.state.pages;
        let mut table = vec![Block::default(); pages.last().map_or(0, |page| page.rows.end)];
        let mut ends: Vec<usize> = pages.iter().map(|page| page.rows.start).collect();
        let (mut first_sum, mut carry) = (0, 0);
        for (job, placed) in self.placed.iter().enumerate().filter_map(|(job, placed)| Some((job, placed.as_ref()?))) {
            for (page, row) in placed.rows(job, first_sum, &mut carry) {
                table[ends[page]] = row;
                ends[page] += 1;
            }
            first_sum += placed.blocks();
        }
        table
    }

    /// The adapters at one linear layer, `None` where no job may have one.
    pub fn site(&self, layer: usize, projection: Projection, rows: usize) -> Option<LowrankSite> {
        let site = Site { layer, projection };
        let info = self.sites.get(&site)?;
        let (n, k) = projection.shape(&self.model);
        Some(LowrankSite {
            rows,
            range: None,
            k,
            n,
            r_max: info.ranks.rank.max(1),
            t_max: info.ranks.trained.max(1),
            site: info.index,
            dropout_key: site.number(),
            jobs: self.capacity.jobs,
            dropout: self.capacity.dropout,
            half: self.capacity.half,
            tables: self.tables(Unit::of(site)),
        })
    }

    /// Router and experts of one block on batches of `rows` rows, `None` where no job may have them. While `training`, capacities, jitter
    /// and dropout hold.
    pub fn experts(&self, layer: usize, rows: usize, documents: Tensor, training: bool) -> Option<ExpertBlock> {
        let tables = (self.tables(Unit::Routers), self.tables(Unit::Experts(layer)));
        self.experts.as_ref()?.block(layer, rows, documents, training, tables, &self.model)
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
        let LowrankTables { jobs, adapter: values, grads, .. } = self.tables(Unit::Norms);
        Some(OwnWeights { row_job: row_job.unwrap_or(self.tables.row_job), jobs, table, values, grads, norm, count: self.capacity.jobs })
    }

    /// What jobs add to the embeddings of their tokens; `None` where no job may add anything.
    pub fn own_embeddings(&self) -> Option<OwnEmbeddings> {
        let table = self.embeddings.table?;
        let LowrankTables { row_job, adapter: values, grads, .. } = self.tables(Unit::Embeddings);
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
