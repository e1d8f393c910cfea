//! A segment that does not train: the frozen links of a job's chain without those that came later, as the reference of preference training. It
//! reads the job's own words and has none of its own.

use super::super::layout::{AdapterLayout, SiteAdapter, Storage};
use super::{AdapterPool, Allocation};
use crate::kernels::lowrank::{NO_GRADIENT, SiteRow};
use crate::{Error, Result};

/// The frozen links that a reference has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reference {
    /// Its number among the jobs.
    number: usize,
    /// How many of the chain's links it has, the oldest ones.
    links: usize,
}

impl AdapterPool {
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
    pub(super) fn describe_reference(&mut self, job: usize, layout: &AdapterLayout) {
        let Some(Reference { number, links }) = self.references[job] else { return };
        let Some(values) = self.placed[job].as_ref().map(|placed| placed.values.start) else { return };
        for adapter in &layout.sites {
            let index = self.sites[&adapter.site].index * self.capacity.jobs + number;
            self.rows[index] = frozen_row(layout, adapter, values, links);
        }
    }

    /// Frees the number of a job's reference.
    pub(super) fn remove_reference(&mut self, job: usize) {
        if let Some(Reference { number, .. }) = self.references[job].take() {
            self.placed[number] = None;
            self.clear_rows(number);
        }
    }
}

/// The row of the last `links` products of a site, none of which trains.
fn frozen_row(layout: &AdapterLayout, adapter: &SiteAdapter, values: usize, links: usize) -> SiteRow {
    let slices = &adapter.slices[adapter.slices.len().saturating_sub(links)..];
    let Some(first) = slices.first() else { return SiteRow::default() };
    let specs = &layout.params.specs;
    let ranks = |half: bool| slices.iter().filter(|s| !half || specs[s.a].storage == Storage::F16).map(|s| s.rank as u16).sum();
    SiteRow {
        rank: ranks(false),
        half: ranks(true),
        a_offset: (values + specs[first.a].offset) as u32,
        b_offset: (values + specs[first.b].offset) as u32,
        grad_a_offset: NO_GRADIENT,
        grad_b_offset: NO_GRADIENT,
        scale: first.scale,
        ..SiteRow::default()
    }
}
