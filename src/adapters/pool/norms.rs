//! Own norm weights among the tables of all jobs.

use super::super::layout::AdapterLayout;
use super::places::Places;
use crate::Result;
use crate::gpu::{Class, Gpu, Store, Tensor};
use crate::kernels::norm::OwnRow;

/// Where every job has the weights of every norm.
#[derive(Debug, Clone, Default)]
pub(super) struct NormTables {
    /// `[norms, jobs]`.
    rows: Vec<OwnRow>,
    /// Jobs of the table.
    jobs: usize,
    /// On the device, where any job may have norms of its own.
    pub table: Option<Tensor>,
}

impl NormTables {
    /// Declares the table of `norms` norms, which may be none.
    pub fn declare(norms: usize, jobs: usize, store: &mut Store) -> Result<Self> {
        let rows = vec![OwnRow::BASE; norms * jobs];
        let table = match rows.len() {
            0 => None,
            rows => Some(store.declare("adapter.norms", Class::Io, rows * size_of::<OwnRow>() / 4)?),
        };
        Ok(Self { rows, jobs, table })
    }

    /// Takes note of a job's norms.
    pub fn set(&mut self, job: usize, layout: &AdapterLayout, places: &Places) {
        for (norm, param) in layout.norms.iter().enumerate() {
            self.rows[norm * self.jobs + job] = OwnRow { values: places.values[*param], grads: places.grads[*param] };
        }
    }

    /// Forgets a job.
    pub fn remove(&mut self, job: usize) {
        self.rows.iter_mut().skip(job).step_by(self.jobs.max(1)).for_each(|row| *row = OwnRow::BASE);
    }

    /// Writes the table.
    pub fn upload(&self, gpu: &Gpu, store: &Store) -> Result<()> {
        self.table.map_or(Ok(()), |table| store.write(gpu, table, &self.rows))
    }
}
