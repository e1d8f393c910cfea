//! What an adapter is made of: its parameters, and the products that each site adds.

use std::sync::Arc;

use super::experts::Experts;
use super::params::ParamLayout;
use super::product::Slice;
use super::site::Site;

/// Where a layout has its embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Index of ΔE in the layout.
    pub param: usize,
    /// The token of each of its rows, ascending.
    pub tokens: Arc<[u32]>,
}

/// A site and the products that are added to it.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteAdapter {
    /// Where.
    pub site: Site,
    /// Its products, the trainable ones side by side; plain LoRA has one. Their A are consecutive rows of one stack and their B of
    /// another, so that the kernels see one product of the ranks' sum.
    pub slices: Vec<Slice>,
    /// The learnable scale of each slice, `[out]` or `[1]`, as an index into the layout; empty where slices have none. They are rows of one
    /// stack, too.
    pub scalings: Vec<usize>,
    /// The largest sum of ranks that there will be here: the slices', or more where a chain will grow.
    pub max_rank: usize,
    /// The largest sum of trainable ranks that there will be here.
    pub max_trained: usize,
}

impl SiteAdapter {
    /// A site whose slices stay as they are.
    pub fn new(site: Site, slices: Vec<Slice>) -> Self {
        let rank = slices.iter().map(|slice| slice.rank).sum();
        Self { site, slices, scalings: Vec::new(), max_rank: rank, max_trained: rank }
    }
}

/// A whole adapter: its parameters and where they act.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterLayout {
    /// The sites that have one, in the model's order.
    pub sites: Vec<SiteAdapter>,
    /// The parameters of all sites.
    pub params: ParamLayout,
    /// The weights of all norms, in the model's order, as indices into the layout; empty where they stay the base's.
    pub norms: Vec<usize>,
    /// What is added to the embeddings of some tokens; `None` where all stay the base's.
    pub embeddings: Option<Embeddings>,
    /// Probability that an element of an adapter's input is dropped in training.
    pub dropout: f32,
    /// Factors may be stored as f16, now or at a later stage of a chain.
    pub half: bool,
    /// Scales are alpha / sqrt(rank).
    pub rslora: bool,
    /// Blocks of the model, with an adapter or without.
    pub blocks: usize,
    /// Routers and experts of the feed-forward layers, where the method has them.
    pub experts: Option<Experts>,
}

impl AdapterLayout {
    /// Whether every product of an adapter with these values is zero, so that it changes nothing: B is where a run begins, and A, B or the
    /// learnable scale of a slice where something went wrong. Norms of its own are never nothing.
    ///
    /// # Panics
    /// When the buffer is shorter than the layout.
    pub fn changes_nothing(&self, values: &[f32]) -> bool {
        let zero = |index: usize| self.params.specs[index].to_rows(values).iter().all(|x| *x == 0.0);
        let zero_product = |slice: &Slice| slice.scale == 0.0 || zero(slice.b) || zero(slice.a);
        let experts = self.experts.iter().flat_map(|experts| &experts.sites).flat_map(|site| &site.experts);
        self.norms.is_empty()
            && self.embeddings.iter().all(|own| zero(own.param))
            && experts.into_iter().all(zero_product)
            && self.sites.iter().all(|site| {
                let scaled_away = |i: usize| site.scalings.get(i).is_some_and(|scale| zero(*scale));
                site.slices.iter().enumerate().all(|(i, slice)| zero_product(slice) || scaled_away(i))
            })
    }

    /// Makes every parameter frozen: no gradient, no moments. For generation and evaluation.
    pub fn freeze(&mut self) {
        self.params.specs.iter_mut().for_each(|spec| spec.trainable = false);
    }
}
