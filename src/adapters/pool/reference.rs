//! A segment that does not train: the frozen links of a job's chain without those that came later, as the reference of preference training. It
//! reads the job's own words and has none of its own.

use super::super::layout::{AdapterLayout, SiteAdapter};
use super::super::params::Storage;
use super::places::Places;
use crate::kernels::lowrank::{NO_GRADIENT, SiteRow};

/// The frozen links that a reference has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reference {
    /// Its number among the jobs.
    pub(super) number: usize,
    /// How many of the chain's links it has, the oldest ones.
    pub(super) links: usize,
}

/// The row of the last `links` products of a site, none of which trains.
pub(super) fn frozen_row(layout: &AdapterLayout, adapter: &SiteAdapter, places: &Places, links: usize) -> SiteRow {
    let slices = &adapter.slices[adapter.slices.len().saturating_sub(links)..];
    let Some(first) = slices.first() else { return SiteRow::default() };
    let specs = &layout.params.specs;
    let ranks = |half: bool| slices.iter().filter(|s| !half || specs[s.a].storage == Storage::F16).map(|s| s.rank as u16).sum();
    SiteRow {
        rank: ranks(false),
        half: ranks(true),
        a_offset: places.values[first.a],
        b_offset: places.values[first.b],
        grad_a_offset: NO_GRADIENT,
        grad_b_offset: NO_GRADIENT,
        scale: first.scale,
        ..SiteRow::default()
    }
}
