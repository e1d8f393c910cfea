//! What of an adapter must lie in one binding: the parameters that one dispatch reads together.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{AddAssign, Range};

use super::super::layout::AdapterLayout;
use super::super::site::{Projection, Site};
use super::derived::effective_words;
use super::groups::groups;
use crate::kernels::optimizer;

/// Parameters that one dispatch may read together. Their order is the one in which layouts have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// The layers of one block that have one input.
    Layers {
        /// Which block.
        block: usize,
        /// The first of them: q (with k and v), o, gate (with up) or down.
        first: Projection,
    },
    /// The experts of a block.
    Experts(usize),
    /// The routers of all blocks.
    Routers,
    /// The weights of all norms.
    Norms,
    /// What is added to embeddings.
    Embeddings,
}

impl Unit {
    /// The unit of a linear layer's adapter.
    pub fn of(site: Site) -> Unit {
        let first = match site.projection {
            Projection::Q | Projection::K | Projection::V => Projection::Q,
            Projection::Gate | Projection::Up => Projection::Gate,
            alone => alone,
        };
        Unit::Layers { block: site.layer, first }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unit::Layers { block, first: Projection::Q } => write!(f, "the adapter of layers.{block}.self_attn.q_proj, k_proj and v_proj"),
            Unit::Layers { block, first: Projection::Gate } => write!(f, "the adapter of layers.{block}.mlp.gate_proj and up_proj"),
            Unit::Layers { block, first } => write!(f, "the adapter of layers.{block}.{}", first.path()),
            Unit::Experts(block) => write!(f, "the set of experts of layers.{block}.mlp"),
            Unit::Routers => write!(f, "the set of routers"),
            Unit::Norms => write!(f, "the set of trained norms"),
            Unit::Embeddings => write!(f, "the set of trained embeddings"),
        }
    }
}

/// Words of the buffers, and rows of the optimizer's blocks table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Words {
    /// Parameters and what is made from them.
    pub values: usize,
    /// Gradients, and each moment.
    pub grads: usize,
    /// Rows of the blocks table.
    pub rows: usize,
}

impl Words {
    /// Whether `need` fits into them.
    pub fn hold(self, need: Words) -> bool {
        need.values <= self.values && need.grads <= self.grads && need.rows <= self.rows
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Words) -> Words {
        Words { values: self.values.max(other.values), grads: self.grads.max(other.grads), rows: self.rows.max(other.rows) }
    }
}

impl AddAssign for Words {
    fn add_assign(&mut self, other: Words) {
        *self = Words { values: self.values + other.values, grads: self.grads + other.grads, rows: self.rows + other.rows };
    }
}

/// Neighbouring parameters of one unit, with the words between them: ranges of the job's own buffers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub unit: Unit,
    pub values: Range<usize>,
    pub grads: Range<usize>,
}

/// The parts of an adapter, in the order of its parameters: together all words of its buffers.
pub(super) fn parts(layout: &AdapterLayout) -> Vec<Part> {
    let units = units(layout);
    let specs = &layout.params.specs;
    let (offsets, grads_end) = layout.params.gradient_offsets();
    let mut parts: Vec<Part> = Vec::new();
    // Parameters of one stack stay together.
    for (i, spec) in specs.iter().enumerate().filter(|(i, spec)| *i == 0 || !spec.adjacent) {
        let begin = (spec.offset - spec.padding, offsets[i] - if spec.trainable { spec.padding } else { 0 });
        if let Some(last) = parts.last_mut() {
            (last.values.end, last.grads.end) = begin;
            if last.unit == units[i] {
                continue;
            }
        }
        parts.push(Part { unit: units[i], values: begin.0..begin.0, grads: begin.1..begin.1 });
    }
    if let Some(last) = parts.last_mut() {
        (last.values.end, last.grads.end) = (layout.params.words, grads_end);
    }
    parts
}

/// The unit of each parameter.
fn units(layout: &AdapterLayout) -> Vec<Unit> {
    let mut units = vec![Unit::Routers; layout.params.specs.len()];
    for adapter in &layout.sites {
        let factors = adapter.slices.iter().flat_map(|slice| [slice.a, slice.b]);
        factors.chain(adapter.scalings.iter().copied()).for_each(|param| units[param] = Unit::of(adapter.site));
    }
    for expert in layout.experts.iter().flat_map(|experts| &experts.sites) {
        expert.experts.iter().flat_map(|slice| [slice.a, slice.b]).for_each(|param| units[param] = Unit::Experts(expert.site.layer));
    }
    layout.norms.iter().for_each(|param| units[*param] = Unit::Norms);
    layout.embeddings.iter().for_each(|own| units[own.param] = Unit::Embeddings);
    units
}

/// What an adapter needs by unit, and how many of its groups reach over several of them.
pub(super) fn needs(layout: &AdapterLayout) -> (BTreeMap<Unit, Words>, usize) {
    let mut needs: BTreeMap<Unit, Words> = BTreeMap::new();
    let parts = parts(layout);
    for part in &parts {
        *needs.entry(part.unit).or_default() += Words { values: part.values.len(), grads: part.grads.len(), rows: 0 };
    }
    for adapter in &layout.sites {
        *needs.entry(Unit::of(adapter.site)).or_default() += Words { values: effective_words(layout, adapter), ..Words::default() };
    }
    let (offsets, _) = layout.params.gradient_offsets();
    let mut wide = 0;
    for group in groups(&layout.params.specs, &offsets) {
        let meets = |begin: usize, len: usize| {
            let first = parts.partition_point(|part| part.values.end <= begin);
            parts[first..].iter().take_while(move |part| part.values.start < begin + len)
        };
        wide += usize::from(meets(group.begin, group.len).count() > 1);
        for block in optimizer::blocks(0, 0, &[group]) {
            for part in meets(block.begin as usize, block.len as usize) {
                needs.entry(part.unit).or_default().rows += 1;
            }
        }
    }
    (needs, wide)
}
