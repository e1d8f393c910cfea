//! The pages of a pool: buffers that one binding holds each. Where all parameters fit one binding there is one page; else the first blocks of the
//! model are in the first page, with room for all jobs, the next ones in the second, and a dispatch binds the page of its layers.

use std::collections::BTreeMap;

use super::super::params::ALIGN;
use super::capacity::{Capacity, UnitWords};
use super::units::{Unit, Words};
use crate::gpu::device::PlanLimits;
use crate::gpu::{Class, Store};
use crate::kernels::optimizer::Page;
use crate::{Error, Result};

/// Which unit is in which page, and how large pages are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pages {
    of: BTreeMap<Unit, usize>,
    /// Their sizes.
    pub sizes: Vec<Words>,
}

impl Pages {
    /// Pages for a capacity on a device with these limits: as few as hold it.
    ///
    /// # Errors
    /// [`Error::Limit`] where a unit of one job is more than a binding.
    pub fn cut(capacity: &Capacity, limits: PlanLimits) -> Result<Pages> {
        let most = (limits.max_binding.min(limits.max_buffer) / 4) as usize / ALIGN * ALIGN;
        if capacity.values.max(capacity.grads) <= most {
            let all = Words { values: capacity.values, grads: capacity.grads, rows: capacity.blocks };
            return Ok(Pages { of: BTreeMap::new(), sizes: vec![all] });
        }
        let (mut of, mut sizes) = (BTreeMap::new(), vec![Words::default()]);
        for (unit, words) in shares(capacity) {
            let largest = capacity.units[&unit].most;
            if largest.values.max(largest.grads) > most {
                return Err(too_large(unit, largest, most));
            }
            // Jobs for which there is no room at once wait for each other.
            let words = Words { values: words.values.min(most), grads: words.grads.min(most), rows: words.rows };
            let mut page = sizes[sizes.len() - 1];
            page += words;
            match sizes.last_mut() {
                Some(last) if page.values.max(page.grads) <= most => *last = page,
                _ => sizes.push(words),
            }
            of.insert(unit, sizes.len() - 1);
        }
        Ok(Pages { of, sizes })
    }

    /// Declares their buffers.
    ///
    /// # Errors
    /// [`Error::Limit`] past 32-bit addressing.
    pub fn declare(&self, store: &mut Store) -> Result<Vec<Page>> {
        let mut pages = Vec::with_capacity(self.sizes.len());
        let mut rows_end = 0;
        for (number, size) in self.sizes.iter().enumerate() {
            let mut tensor = |label: &str, class: Class, len: usize| {
                let number = if number == 0 { String::new() } else { format!(".{number}") };
                store.declare(format!("adapter.{label}{number}"), class, len)
            };
            let rows_begin = rows_end;
            rows_end += size.rows.max(1);
            pages.push(Page {
                values: tensor("values", Class::Adapter, size.values)?,
                grads: tensor("grads", Class::Gradient, size.grads)?,
                m: tensor("m", Class::Optimizer, size.grads)?,
                v: tensor("v", Class::Optimizer, size.grads)?,
                rows: rows_begin..rows_end,
            });
        }
        Ok(pages)
    }

    /// The page of a unit; `None` where there is no room for one.
    pub fn page(&self, unit: Unit) -> Option<usize> {
        if self.sizes.len() == 1 { Some(0) } else { self.of.get(&unit).copied() }
    }

    /// What a job needs of each page; `None` where it has parameters that no page has room for.
    pub fn needs(&self, need: &Capacity) -> Option<Vec<Words>> {
        if self.sizes.len() == 1 {
            return Some(vec![Words { values: need.values, grads: need.grads, rows: need.blocks }]);
        }
        let mut pages = vec![Words::default(); self.sizes.len()];
        for (unit, words) in &need.units {
            pages[self.page(*unit)?] += words.all;
        }
        Some(pages)
    }
}

/// The error of a job whose unit no binding of `most` words holds.
fn too_large(unit: Unit, words: Words, most: usize) -> Error {
    Error::Limit {
        what: unit.to_string(),
        needed: format!("{} bytes in one binding", 4 * words.values.max(words.grads) as u128),
        allowed: format!("{} bytes", 4 * most),
        hint: match unit {
            Unit::Embeddings => "leave out --train-embeddings, or train on fewer different tokens",
            Unit::Norms => "leave out --train-norms",
            _ => "use a smaller --rank",
        },
    }
}

/// The capacity's words by unit: what all jobs want, or less where it has been given less than that, but always what the largest needs.
fn shares(capacity: &Capacity) -> Vec<(Unit, Words)> {
    let share = |words: usize, of: fn(&Words) -> usize| {
        let sum = |most: bool| capacity.units.values().map(|unit| of(if most { &unit.most } else { &unit.all })).sum::<usize>();
        let (all, most) = (sum(false), sum(true));
        if words >= all { 1.0 } else { words.saturating_sub(most) as f64 / (all - most).max(1) as f64 }
    };
    let (values, grads) = (share(capacity.values, |words| words.values), share(capacity.grads, |words| words.grads));
    let part = |all: usize, most: usize, share: f64| most + ((all - most) as f64 * share) as usize / ALIGN * ALIGN;
    let of = |(unit, words): (&Unit, &UnitWords)| {
        let (all, most) = (words.all, words.most);
        let values = part(all.values, most.values, values);
        (*unit, Words { values, grads: part(all.grads, most.grads, grads), rows: all.rows })
    };
    capacity.units.iter().map(of).collect()
}
