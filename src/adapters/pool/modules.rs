//! Parallel modules with learnable scales among the tables of all jobs: where their effective factors lie, and when they are made.

use super::super::layout::{AdapterLayout, SiteAdapter};
use super::derived::{effective_words, outputs};
use super::places::Places;
use crate::Result;
use crate::gpu::{Class, Gpu, Recorder, Store, Tensor};
use crate::kernels::lowrank::SiteRow;
use crate::kernels::multilora::{ModuleGrid, ModuleRow, Modules};
use crate::kernels::optimizer::Page;

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

/// One scale a module; with one output the two kinds are the same.
fn has_scalars(layout: &AdapterLayout, site: &SiteAdapter) -> bool {
    site.scalings.first().is_some_and(|first| layout.params.specs[*first].len() != outputs(layout, site))
}

/// One site of one job.
#[derive(Debug, Clone, Copy)]
struct Entry {
    row: ModuleRow,
    scalar: bool,
    page: usize,
}

/// The sites with scales of all jobs.
#[derive(Debug, Clone, Default)]
pub(super) struct ModuleTables {
    capacity: ModuleCapacity,
    entries: Vec<Entry>,
    pages: usize,
    table: Option<Tensor>,
}

impl ModuleTables {
    /// Declares the table, where there is room for anything in it, with room for all sites in each of `pages` pages.
    pub fn declare(capacity: ModuleCapacity, pages: usize, store: &mut Store) -> Result<Self> {
        let rows = pages * (capacity.per_output.rows + capacity.scalar.rows);
        let words = rows * size_of::<ModuleRow>() / 4;
        let table = if rows > 0 { Some(store.declare("adapter.modules", Class::Io, words)?) } else { None };
        Ok(Self { capacity, entries: Vec::new(), pages, table })
    }

    /// Takes note of a job's site in page `page`, if its slices have scales: the low-rank kernels are to read its effective factor, which gets
    /// the words from `at` on among the page's values. Returns how many words that takes.
    pub fn push(
        &mut self,
        job: usize,
        layout: &AdapterLayout,
        adapter: &SiteAdapter,
        places: &Places,
        (page, at): (usize, usize),
        row: &mut SiteRow,
    ) -> usize {
        let (Some(first), Some(slice)) = (adapter.scalings.first(), adapter.slices.first()) else { return 0 };
        let modules = ModuleRow {
            b_offset: row.b_offset,
            scale_offset: places.values[*first],
            effective_offset: at as u32,
            grad_b_offset: places.grads[slice.b],
            grad_scale_offset: places.grads[*first],
            outputs: outputs(layout, adapter) as u32,
            rank: slice.rank as u32,
            modules: adapter.slices.len() as u32,
            job: job as u32,
            pad: [0; 3],
        };
        row.b_offset = at as u32;
        self.entries.push(Entry { row: modules, scalar: has_scalars(layout, adapter), page });
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
        for page in 0..self.pages {
            for (scalar, room) in [(false, self.capacity.per_output.rows), (true, self.capacity.scalar.rows)] {
                let end = rows.len() + room;
                let own = self.entries.iter().filter(|entry| entry.page == page && entry.scalar == scalar);
                rows.extend(own.map(|entry| entry.row));
                rows.resize(end, ModuleRow::default());
            }
        }
        store.write(gpu, table, &rows)
    }

    /// The sites of each page, by kind of scale.
    fn kinds(&self) -> impl Iterator<Item = (usize, Modules)> {
        let Self { capacity: ModuleCapacity { per_output, scalar }, table, pages, .. } = *self;
        let of_page = move |page: usize| {
            let first = page * (per_output.rows + scalar.rows);
            table.map(|table| {
                [
                    (page, Modules { table, first, grid: per_output, scalar: false }),
                    (page, Modules { table, first: first + per_output.rows, grid: scalar, scalar: true }),
                ]
            })
        };
        (0..pages).filter_map(of_page).flatten().filter(|(_, kind)| kind.grid.rows > 0)
    }

    /// Records the effective factors.
    pub fn expand(&self, rec: &mut Recorder, pages: &[Page]) {
        self.kinds().for_each(|(page, kind)| kind.expand(rec, pages[page].values));
    }

    /// Records the parameters' gradients from those of the effective factors. `hyper` says which jobs step.
    pub fn gradient(&self, rec: &mut Recorder, pages: &[Page], hyper: Tensor) {
        self.kinds().for_each(|(page, kind)| kind.gradient(rec, pages[page].values, pages[page].grads, hyper));
    }
}
