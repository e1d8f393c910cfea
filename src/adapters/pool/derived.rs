//! What is made from parameters at the beginning of every recording: the factors of modules with their scales in them.

use super::super::layout::{AdapterLayout, SiteAdapter};
use super::super::params::ALIGN;

/// Outputs of a site's layer.
pub(super) fn outputs(layout: &AdapterLayout, site: &SiteAdapter) -> usize {
    site.slices.first().map_or(0, |slice| layout.params.specs[slice.b].shape[0])
}

/// Words that the effective factor of a site takes; 0 where its slices have no scales.
pub(super) fn effective_words(layout: &AdapterLayout, site: &SiteAdapter) -> usize {
    if site.scalings.is_empty() {
        return 0;
    }
    let rank: usize = site.slices.iter().map(|slice| slice.rank).sum();
    (rank * outputs(layout, site)).next_multiple_of(ALIGN)
}
