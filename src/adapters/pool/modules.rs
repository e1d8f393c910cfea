//! Parallel modules with learnable scales among the tables of all jobs: where their effective factors lie, and when they are made.

use super::super::layout::{AdapterLayout, SiteAdapter};
use super::super::params::ALIGN;
use crate::Result;
use crate::gpu::{Class, Gpu, Recorder, Store, Tensor};
use crate::kernels::lowrank::{NO_GRADIENT, SiteRow};
use crate::kernels::multilora::{ModuleGrid, ModuleRow, Modules};
use crate::kernels::optimizer::State;

/// Room for sites with scales, for each kind of scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModuleCapacity {
    /// One scale per output.
    pub per_output: ModuleGrid,
    /// One scale a module.
    pub scalar: ModuleGrid,
}

impl ModuleCapacity {
    /// What one job needs.
    pub(super) fn of(layout: &AdapterLayout) -> Self {
        let mut need = Self::default();
        for site in layout.sites.iter().filter(|site| !site.scalings.is_empty()) {
            let grid = ModuleGrid { rows: 1, outputs: outputs(layout, site), modules: site.slices.len() };
            let kind = if has_scalars(layout, site) { &mut need.scalar } else { &mut need.per_output };
            *kind = kind.and(grid);
        }
        need
    }

    /// Room for both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { per_output: self.per_output.and(other.per_output), scalar: self.scalar.and(other.scalar) }
    }

    /// Whether there is room for `need`.
    pub fn holds(self, need: Self) -> bool {
        self.per_output.holds(need.per_output) && self.scalar.holds(need.scalar)
    }

    /// The next of few sizes.
    pub(super) fn rounded(self) -> Self {
        let up = |grid: ModuleGrid| match grid.rows {
            0 => grid,
            rows => ModuleGrid { rows: rows.next_power_of_two(), modules: grid.modules.next_power_of_two(), ..grid },
        };
        Self { per_output: up(self.per_output), scalar: up(self.scalar) }
    }
}

fn outputs(layout: &AdapterLayout, site: &SiteAdapter) -> usize {
    site.slices.first().map_or(0, |slice| layout.params.specs[slice.b].shape[0])
}

/// One scale a module; with one output the two kinds are the same.
fn has_scalars(layout: &AdapterLayout, site: &SiteAdapter) -> bool {
    site.scalings.first().is_some_and(|first| layout.params.specs[*first].len() != outputs(layout, site))
}

/// Words that the effective factor of a site takes; 0 where its slices have no scales.
pub(super) fn effective_words(layout: &AdapterLayout, site: &SiteAdapter) -> usize {
    if site.scalings.is_empty() {
        return 0;
    }
    let rank: usize = site.slices.iter().map(|slice| slice.rank).sum();
    (rank * outputs(layout, site)).next_multiple_of(ALIGN)
}

/// Where a job's buffers begin, in words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base<'a> {
    /// First word among the values.
    pub values: usize,
    /// First word among the gradients.
    pub grads: usize,
    /// [`crate::adapters::ParamLayout::gradient_offsets`].
    pub offsets: &'a [usize],
}

/// One site of one job.
#[derive(Debug, Clone, Copy)]
struct Entry {
    row: ModuleRow,
    scalar: bool,
}

/// The sites with scales of all jobs.
#[derive(Debug, Clone, Default)]
pub(super) struct ModuleTables {
    capacity: ModuleCapacity,
    entries: Vec<Entry>,
    table: Option<Tensor>,
}

impl ModuleTables {
    /// Declares the table, where there is room for anything in it.
    pub fn declare(capacity: ModuleCapacity, store: &mut Store) -> Result<Self> {
        let rows = capacity.per_output.rows + capacity.scalar.rows;
        let words = rows * size_of::<ModuleRow>() / 4;
        let table = if rows > 0 { Some(store.declare("adapter.modules", Class::Io, words)?) } else { None };
        Ok(Self { capacity, entries: Vec::new(), table })
    }

    /// Takes note of a job's site, if its slices have scales: the low-rank kernels are to read its effective factor, which gets the
    /// words from `at` on among the values. Returns how many words that takes.
    pub fn push(
        &mut self,
        job: usize,
        layout: &AdapterLayout,
        adapter: &SiteAdapter,
        base: Base<'_>,
        at: usize,
        row: &mut SiteRow,
    ) -> usize {
        let (Some(first), Some(slice)) = (adapter.scalings.first(), adapter.slices.first()) else { return 0 };
        let specs = &layout.params.specs;
        let gradient = |param: usize| if specs[param].trainable { (base.grads + base.offsets[param]) as u32 } else { NO_GRADIENT };
        let modules = ModuleRow {
            b_offset: row.b_offset,
            scale_offset: (base.values + specs[*first].offset) as u32,
            effective_offset: at as u32,
            grad_b_offset: gradient(slice.b),
            grad_scale_offset: gradient(*first),
            outputs: outputs(layout, adapter) as u32,
            rank: slice.rank as u32,
            modules: adapter.slices.len() as u32,
            job: job as u32,
            pad: [0; 3],
        };
        row.b_offset = at as u32;
        self.entries.push(Entry { row: modules, scalar: has_scalars(layout, adapter) });
        effective_words(layout, adapter)
    }

    /// Forgets a job.
    pub fn remove(&mut self, job: usize) {
        self.entries.retain(|entry| entry.row.job as usize != job);
    }

    /// Writes the table.
    pub fn upload(&self, gpu: &Gpu, store: &Store) -> Result<()> {
        let Some(table) = self.table else { return Ok(()) };
        let mut rows = Vec::new();
        for (scalar, room) in [(false, self.capacity.per_output.rows), (true, self.capacity.scalar.rows)] {
            let end = rows.len() + room;
            rows.extend(self.entries.iter().filter(|entry| entry.scalar == scalar).map(|entry| entry.row));
            rows.resize(end, ModuleRow::default());
        }
        store.write(gpu, table, &rows)
    }

    fn kinds(&self) -> impl Iterator<Item = Modules> {
        let Self { capacity: ModuleCapacity { per_output, scalar }, table, .. } = *self;
        let kinds = table.map(|table| {
            [
                Modules { table, first: 0, grid: per_output, scalar: false },
                Modules { table, first: per_output.rows, grid: scalar, scalar: true },
            ]
        });
        kinds.into_iter().flatten().filter(|kind| kind.grid.rows > 0)
    }

    /// Records the effective factors.
    pub fn expand(&self, rec: &mut Recorder, state: State) {
        self.kinds().for_each(|kind| kind.expand(rec, state.values));
    }

    /// Records the parameters' gradients from those of the effective factors.
    pub fn gradient(&self, rec: &mut Recorder, state: State) {
        self.kinds().for_each(|kind| kind.gradient(rec, state.values, state.grads, state.hyper));
    }
}
