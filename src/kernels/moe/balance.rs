//! The losses that keep experts in use, and what tells whether they are.

use super::MoeShape;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant};
use crate::kernels::reduce::row_lanes;

use Access::{Input, Read, ReadWrite};

/// jobs, routers, probs, chosen, aux, stats.
pub const BALANCE: KernelSpec = KernelSpec {
    name: "moe_balance",
    source: include_str!("../../../shaders/moe_balance.wgsl"),
    bindings: &[Read, Read, Read, Read, ReadWrite, ReadWrite],
};
/// sites, grads, norms.
pub const ROUTER_NORM: KernelSpec = KernelSpec {
    name: "moe_router_norm",
    source: include_str!("../../../shaders/moe_router_norm.wgsl"),
    bindings: &[Read, Input, ReadWrite],
};

/// What all blocks' routing of a batch comes to.
#[derive(Debug, Clone, Copy)]
pub struct Stats {
    /// Probabilities of all blocks.
    pub probs: Tensor,
    /// `[blocks, segments]` u32.
    pub chosen: Tensor,
    /// `[blocks, segments + jobs]` out.
    pub aux: Tensor,
    /// `[blocks, segments · 2 + jobs · 2]` out: P and f of each segment, then entropy and mean square of the log-sum-exp of each job.
    pub stats: Tensor,
}

impl MoeShape {
    /// Words of one block in [`Stats::stats`].
    pub fn stat_words(&self) -> usize {
        2 * self.segments + 2 * self.jobs
    }

    /// Records the statistics of all blocks and the coefficients that their backward passes need.
    pub fn balance(&self, rec: &mut Recorder, jobs: Tensor, routers: Tensor, s: Stats) {
        let bind = [jobs, routers, s.probs, s.chosen, s.aux, s.stats];
        let flops = (2 * self.layers * self.rows * self.experts) as u64;
        let what = Dispatch::new("moe.balance", &self.params(0, 0), &bind, flops);
        rec.dispatch(&BALANCE, Variant::new(), [self.jobs as u32, self.layers as u32, 1], what);
    }

    /// Records the norm of every router's gradient; a router is `[experts, width]`.
    pub fn router_norms(&self, rec: &mut Recorder, width: usize, sites: Tensor, grads: Tensor, norms: Tensor) {
        let flops = (2 * self.layers * self.jobs * self.experts * width) as u64;
        let what = Dispatch::new("moe.router_norms", &self.params(0, width), &[sites, grads, norms], flops);
        let variant = Variant::new().with("WG", row_lanes(rec, 256));
        rec.dispatch(&ROUTER_NORM, variant, [self.jobs as u32, self.layers as u32, 1], what);
    }
}
