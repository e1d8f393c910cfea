//! The experts of a MixLoRA adapter: how rows are routed, the router of each block, and one low-rank product an expert beside the
//! feed-forward layers. The formulas are in [`crate::kernels::moe`].

use super::product::Slice;
use super::site::Site;

/// How a row chooses its experts from p = softmax(x Wgᵀ).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The k most probable; weights are their probabilities over the sum of them.
    TopK,
    /// The most probable until their probabilities exceed `top_p`.
    TopP,
    /// The most probable one, weighted by its probability; those past `capacity` in a document get none while training.
    Switch,
}

/// What the balance loss averages over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Each block by itself: no block may lean on few experts.
    PerLayer,
    /// All blocks together, as the authors' code has it: blocks that each lean on other experts look balanced.
    Concatenated,
}

/// The settings of the routers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// How experts are chosen.
    pub strategy: Strategy,
    /// Experts in each block.
    pub experts: usize,
    /// Experts a row gets at most.
    pub top_k: usize,
    /// For [`Strategy::TopP`]: where the chosen probabilities may end.
    pub top_p: f64,
    /// For [`Strategy::TopP`]: divides the probabilities (the authors do it after the softmax); 0 for none.
    pub temperature: f64,
    /// For [`Strategy::TopP`]: weights sum to one. The authors' do not.
    pub renormalize: bool,
    /// For [`Strategy::Switch`]: rows of a document that an expert takes.
    pub capacity: usize,
    /// Routers and experts see their input times a random factor in `1 - jitter .. 1 + jitter` while training.
    pub jitter: f64,
    /// Coefficient of the balance loss.
    pub aux_coef: f64,
    /// Coefficient of the mean squared log-sum-exp of the router's logits.
    pub z_coef: f64,
    /// What the balance loss averages over.
    pub balance: Balance,
}

/// The router of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Router {
    /// Which block.
    pub layer: usize,
    /// `[experts, d]`, an index into the layout's parameters.
    pub param: usize,
}

/// One feed-forward layer and its experts' products.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertSite {
    /// Which layer: gate, up or down of a block.
    pub site: Site,
    /// A product for each expert, all of one rank.
    pub experts: Vec<Slice>,
}

/// Routers and experts of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// How rows are routed.
    pub routing: Routing,
    /// Routers, in the order of the blocks.
    pub routers: Vec<Router>,
    /// Layers with experts, in the model's order; each is in a block with a router.
    pub sites: Vec<ExpertSite>,
    /// Probability that an element of an expert's input is dropped in training.
    pub dropout: f32,
}
