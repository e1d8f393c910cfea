//! From logits to slots, and from the gradients of weights to those of logits.

use super::{BLOCK, MOST_SEGMENTS, Moe};
use crate::gpu::{Access, KernelSpec, Recorder, Tensor, Variant, grid_1d};

use Access::{Input, Read, ReadWrite};

/// row_job, routers, logits, probs, places, weight.
pub const ROUTE: KernelSpec = KernelSpec {
    name: "moe_route",
    source: include_str!("../../../shaders/moe_route.wgsl"),
    bindings: &[Read, Read, Input, ReadWrite, ReadWrite, ReadWrite],
};
/// row_job, routers, documents, places, counts.
pub const COUNT: KernelSpec = KernelSpec {
    name: "moe_count",
    source: include_str!("../../../shaders/moe_count.wgsl"),
    bindings: &[Read, Read, Read, ReadWrite, ReadWrite],
};
/// jobs, routers, counts, segments, chosen, slot_segment, slot_row.
pub const SCAN: KernelSpec = KernelSpec {
    name: "moe_scan",
    source: include_str!("../../../shaders/moe_scan.wgsl"),
    bindings: &[Read, Read, ReadWrite, ReadWrite, ReadWrite, ReadWrite, ReadWrite],
};
/// row_job, routers, segments, counts, places, weight, slot_row, slot_weight.
pub const SCATTER: KernelSpec = KernelSpec {
    name: "moe_scatter",
    source: include_str!("../../../shaders/moe_scatter.wgsl"),
    bindings: &[Read, Read, Read, Input, ReadWrite, Input, ReadWrite, ReadWrite],
};
/// row_job, routers, probs, places, aux, dweight, dlogits.
pub const ROUTE_BACKWARD: KernelSpec = KernelSpec {
    name: "moe_route_backward",
    source: include_str!("../../../shaders/moe_route_backward.wgsl"),
    bindings: &[Read, Read, Read, Read, Read, Input, ReadWrite],
};

impl Moe {
    /// Records all of [`super::Routed`] but `aux` from `logits` `[rows, stride]`.
    pub fn route(&self, rec: &mut Recorder, label: &str, logits: Tensor) {
        let (s, r) = (&self.shape, self.routed);
        let what = self.dispatch(format!("{label}.route"), 0, &[self.row_job, self.routers, logits, r.probs, r.places, r.weight], 0);
        rec.dispatch(&ROUTE, Variant::new(), grid_1d(s.rows.div_ceil(64) as u32), what);
        let blocks = s.rows.div_ceil(BLOCK);
        let counts = rec.transient(&format!("{label}.counts"), blocks * s.segments * 2);
        let what = self.dispatch(format!("{label}.count"), 0, &[self.row_job, self.routers, self.documents, r.places, counts], 0);
        rec.dispatch(&COUNT, Variant::new(), [blocks as u32, 1, 1], what);
        let bind = [self.jobs, self.routers, counts, r.segments, r.chosen, self.slot_segment(), self.slot_row()];
        let what = self.dispatch(format!("{label}.scan"), 0, &bind, 0);
        rec.dispatch(&SCAN, Variant::new().with("MOST_SEGMENTS", MOST_SEGMENTS as u32), [1, 1, 1], what);
        let bind = [self.row_job, self.routers, r.segments, counts, r.places, r.weight, self.slot_row(), self.slot_weight()];
        let what = self.dispatch(format!("{label}.scatter"), 0, &bind, 0);
        rec.dispatch(&SCATTER, Variant::new(), [blocks as u32, 1, 1], what);
    }

    /// Records `dlogits` `[rows, stride]` from the gradients of the weights, `dweight` `[slots + rows]`, and of the balance losses.
    pub fn route_backward(&self, rec: &mut Recorder, label: &str, dweight: Tensor, dlogits: Tensor) {
        let r = self.routed;
        let bind = [self.row_job, self.routers, r.probs, r.places, r.aux, dweight, dlogits];
        let what = self.dispatch(format!("{label}.route_backward"), 0, &bind, 0);
        rec.dispatch(&ROUTE_BACKWARD, Variant::new(), grid_1d(self.shape.rows.div_ceil(64) as u32), what);
    }
}
