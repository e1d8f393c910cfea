//! What recordings are made for: they know capacities, never jobs, so that jobs join and leave by writing tables.

use std::collections::BTreeMap;

use super::super::layout::AdapterLayout;
use super::super::params::ALIGN;
use super::super::site::Site;
use super::derived::effective_words;
use super::experts::ExpertCapacity;
use super::groups::groups;
use super::modules::ModuleCapacity;
use super::ranks::Ranks;
use super::units::{Unit, Words, needs};
use crate::kernels::moe::MOST_SEGMENTS;
use crate::kernels::optimizer;

/// Numbers of jobs that recordings are made for.
const JOBS: [usize; 3] = [1, 8, 64];

/// How much room a pool has, or how much of it one job needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capacity {
    /// Jobs at once.
    pub jobs: usize,
    /// Sites that may have an adapter.
    pub sites: BTreeMap<Site, Ranks>,
    /// Words of parameters and what is made from them.
    pub values: usize,
    /// Words of gradients, and of each moment.
    pub grads: usize,
    /// The optimizer's blocks.
    pub blocks: usize,
    /// What of all that is for which unit, where one binding does not hold all.
    pub units: BTreeMap<Unit, UnitWords>,
    /// Groups of the optimizer that reach over several units.
    pub wide_groups: usize,
    /// Sites with learnable scales.
    pub modules: ModuleCapacity,
    /// Routers and experts.
    pub experts: ExpertCapacity,
    /// Norms of the model, where a job may train its own weights of them; else 0.
    pub norms: usize,
    /// Whether a job may train embeddings.
    pub embeddings: bool,
    /// Whether a job may drop inputs.
    pub dropout: bool,
    /// Whether a job may store factors as f16.
    pub half: bool,
    /// Whether a job may train on pairs of answers: what their targets weigh follows from a pass of the head before.
    pub pairs: bool,
}

/// Words of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnitWords {
    /// Of all jobs.
    pub all: Words,
    /// Of the job with the most.
    pub most: Words,
}

impl Capacity {
    /// What one job needs.
    pub fn of(layout: &AdapterLayout) -> Capacity {
        let (offsets, grads) = layout.params.gradient_offsets();
        let blocks = optimizer::blocks(0, 0, &groups(&layout.params.specs, &offsets)).len();
        let (units, wide_groups) = needs(layout);
        let effective: usize = layout.sites.iter().map(|site| effective_words(layout, site)).sum();
        let ranks = |site: &super::super::layout::SiteAdapter| Ranks { rank: site.max_rank, trained: site.max_trained };
        Capacity {
            jobs: 1,
            sites: layout.sites.iter().map(|site| (site.site, ranks(site))).collect(),
            values: layout.params.words + effective,
            grads,
            blocks,
            units: units.into_iter().map(|(unit, words)| (unit, UnitWords { all: words, most: words })).collect(),
            wide_groups,
            modules: ModuleCapacity::of(layout),
            experts: ExpertCapacity::of(layout),
            norms: layout.norms.len(),
            embeddings: layout.embeddings.is_some(),
            dropout: layout.dropout > 0.0,
            half: layout.half,
            pairs: false,
        }
    }

    /// Exactly what these jobs need together.
    pub fn exact<'l>(layouts: impl IntoIterator<Item = &'l AdapterLayout>) -> Capacity {
        layouts.into_iter().map(Self::of).fold(Capacity::default(), Capacity::and)
    }

    /// Room for both.
    #[must_use]
    pub fn and(mut self, other: Capacity) -> Capacity {
        for (site, ranks) in other.sites {
            let here = self.sites.entry(site).or_default();
            *here = here.max(ranks);
        }
        for (unit, words) in other.units {
            let here = self.units.entry(unit).or_default();
            here.all += words.all;
            here.most = here.most.max(words.most);
        }
        Capacity {
            jobs: self.jobs + other.jobs,
            sites: self.sites,
            values: self.values + other.values,
            grads: self.grads + other.grads,
            blocks: self.blocks + other.blocks,
            units: self.units,
            wide_groups: self.wide_groups + other.wide_groups,
            modules: self.modules.and(other.modules),
            experts: self.experts.and(other.experts),
            norms: self.norms.max(other.norms),
            embeddings: self.embeddings || other.embeddings,
            dropout: self.dropout || other.dropout,
            half: self.half || other.half,
            pairs: self.pairs || other.pairs,
        }
    }

    /// The next of the few sizes that recordings have: 1, 8 or 64 jobs (as many as there are beyond that), and one rank at all sites, 8, 16, 32
    /// and so on. A single job keeps what it needs.
    #[must_use]
    pub fn rounded(mut self) -> Capacity {
        if self.jobs <= 1 {
            return self;
        }
        self.jobs = JOBS.into_iter().find(|size| *size >= self.jobs).unwrap_or(self.jobs);
        let most = self.sites.values().fold(Ranks::default(), |most, ranks| most.max(*ranks));
        self.sites.values_mut().for_each(|ranks| *ranks = most.rounded());
        self.modules = self.modules.rounded();
        self.experts = self.experts.rounded();
        self
    }

    /// The same with room for `jobs` more, each as large as the largest of `needs`.
    #[must_use]
    pub fn with_spare(mut self, jobs: usize, needs: &[Capacity]) -> Capacity {
        let largest = |of: fn(&Capacity) -> usize| jobs * needs.iter().map(of).max().unwrap_or(0);
        self.values += largest(|need| need.values);
        self.grads += largest(|need| need.grads);
        self.blocks += largest(|need| need.blocks);
        self.wide_groups += largest(|need| need.wide_groups);
        // As many as a recording may have, but for those that are there already.
        let spare_experts = largest(|need| need.experts.segments);
        self.experts.segments = (self.experts.segments + spare_experts).min(MOST_SEGMENTS.max(self.experts.segments));
        for words in self.units.values_mut() {
            (0..jobs).for_each(|_| words.all += words.most);
        }
        if jobs > 0 {
            self.modules = self.modules.and(self.modules);
        }
        self.jobs += jobs;
        self
    }

    /// Whether a job fits into recordings of this capacity; whether there is room left among the words is the pool's to say.
    pub fn holds(&self, need: &Capacity) -> bool {
        let fits = |(site, ranks): (&Site, &Ranks)| self.sites.get(site).is_some_and(|here| here.max(*ranks) == *here);
        need.sites.iter().all(fits)
            && need.values.next_multiple_of(ALIGN) <= self.values
            && need.grads <= self.grads
            && need.blocks <= self.blocks
            && self.modules.holds(need.modules)
            && self.experts.holds(&need.experts)
            && need.norms <= self.norms
            && (self.embeddings || !need.embeddings)
            && (self.dropout || !need.dropout)
            && (self.half || !need.half)
            && (self.pairs || !need.pairs)
    }
}
