//! Parallel modules with learnable scales among the tables of all jobs: where their effective factors lie, and when they are made.

use super::layout::{ALIGN, AdapterLayout, SiteAdapter};
use crate::Result;
use crate::gpu::{Class, Gpu, Recorder, Store, Tensor};
use crate::kernels::lowrank::{NO_GRADIENT, SiteRow};
use crate::kernels::multilora::{ModuleRow, Modules};
use crate::kernels::optimizer::State;

/// The sites with scales, one list for each kind of scale.
#[derive(Debug, Clone, Default)]
pub(super) struct ModuleTables {
    per_output: Vec<ModuleRow>,
    scalar: Vec<ModuleRow>,
    table: Option<Tensor>,
}

/// Where a job's buffers begin, in words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base<'a> {
    /// First word among the values.
    pub values: usize,
    /// First word among the gradients.
    pub grads: usize,
    /// [`super::ParamLayout::gradient_offsets`].
    pub offsets: &'a [usize],
}

impl ModuleTables {
    /// Takes note of a site, if its slices have scales: the low-rank kernels are to read its effective factor, which gets the words from
    /// `at` on among the values. Returns how many words that takes.
    pub fn push(&mut self, layout: &AdapterLayout, adapter: &SiteAdapter, base: Base<'_>, at: usize, row: &mut SiteRow) -> usize {
        let (Some(first), Some(slice)) = (adapter.scalings.first(), adapter.slices.first()) else { return 0 };
        let specs = &layout.params.specs;
        let outputs = specs[slice.b].shape[0];
        let gradient = |param: usize| if specs[param].trainable { (base.grads + base.offsets[param]) as u32 } else { NO_GRADIENT };
        let modules = ModuleRow {
            b_offset: row.b_offset,
            scale_offset: (base.values + specs[*first].offset) as u32,
            effective_offset: at as u32,
            grad_b_offset: gradient(slice.b),
            grad_scale_offset: gradient(*first),
            outputs: outputs as u32,
            rank: slice.rank as u32,
            modules: adapter.slices.len() as u32,
        };
        row.b_offset = at as u32;
        // With one output the two kinds are the same.
        if specs[*first].len() == outputs { &mut self.per_output } else { &mut self.scalar }.push(modules);
        (row.rank as usize * outputs).next_multiple_of(ALIGN)
    }

    /// Declares the table, where there is anything in it.
    pub fn declare(&mut self, store: &mut Store) -> Result<()> {
        let rows = self.per_output.len() + self.scalar.len();
        if rows > 0 {
            self.table = Some(store.declare("adapter.modules", Class::Io, rows * size_of::<ModuleRow>() / 4)?);
        }
        Ok(())
    }

    /// Writes the table.
    pub fn upload(&self, gpu: &Gpu, store: &Store) -> Result<()> {
        match self.table {
            Some(table) => store.write(gpu, table, &[&self.per_output[..], &self.scalar[..]].concat()),
            None => Ok(()),
        }
    }

    fn kinds(&self) -> impl Iterator<Item = Modules<'_>> {
        let (first, second) = (&self.per_output[..], &self.scalar[..]);
        let kind = |table: Tensor, first: usize, rows, scalar| Modules { table, first, rows, scalar };
        let kinds = self.table.map(|table| [kind(table, 0, first, false), kind(table, first.len(), second, true)]);
        kinds.into_iter().flatten().filter(|kind| !kind.rows.is_empty())
    }

    /// Records the effective factors.
    pub fn expand(&self, rec: &mut Recorder, state: State) {
        self.kinds().for_each(|kind| kind.expand(rec, state.values));
    }

    /// Records the parameters' gradients from those of the effective factors.
    pub fn gradient(&self, rec: &mut Recorder, state: State) {
        self.kinds().for_each(|kind| kind.gradient(rec, state.values, state.grads));
    }
}
