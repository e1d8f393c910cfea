//! Causal grouped-query attention over packed documents, forward and backward: memory linear in the rows, work proportional to the
//! visible pairs.
//!
//! Query row i of a head sees the key rows `first_key(i) ..= i` (`shaders/attention_mask.wgsl`): its own document, no further back than
//! the sliding window, inside its group. Workgroups take tiles that lie in one document each ([`documents`]), so results do not depend on
//! where a document lies, and documents cannot disturb each other. The forward pass saves one number per row and head (the log-sum-exp of its
//! scores); the backward pass recomputes the weights from it. Gradients of keys and values are summed by the workgroup that owns the keys, in
//! a fixed order.
//!
//! Two families of kernels compute the same. `attention_tile_*` stage 32 × 32 tiles in workgroup memory, the form for GPUs.
//! `attention_lanes_*` keep whole rows in the registers of one lane and broadcast the other operand; they win on CPU adapters, whose
//! workgroup memory is slower than loads. Which one runs is measured.

mod candidates;
mod decode;
pub mod documents;
mod shape;
mod twin;

pub use candidates::{candidates, forms};
pub use decode::{DECODE, DECODE_LANES, DECODE_MERGE, decode, decode_candidates, decode_key};
pub use documents::Document;
pub use shape::{AttentionShape, DELTA, LANES_DKV, LANES_DQ, LANES_FORWARD, MAX_HEAD_DIM, Pass, TILE_DKV, TILE_DQ, TILE_FORWARD};
pub use twin::{Visible, attention_backward_twin, attention_twin, decode_twin};

use self::shape::Params;
use super::matmul::Rows;
use super::sum_parts::{Place, sum_parts};
use super::work::most_flops;
use crate::gpu::{Dispatch, Recorder, Tensor, Variant, grid_1d};

/// Records o = softmax(scale q kᵀ) v.
///
/// `q`, `o`: `[t, h*hd]`; `k`, `v`: `[t, kv*hd]`; `documents`: the [`documents::table`] of the batch in a buffer that is only read;
/// `lse`: `[t, h]`, the natural log of the sum of exp(score), which [`backward`] needs. Rotary positions are applied already.
///
/// # Panics
/// On a shape the kernels are not written for (see [`AttentionShape`]): a bug of the caller.
pub fn forward(
    rec: &mut Recorder,
    label: &str,
    shape: &AttentionShape,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    documents: Tensor,
    o: Tensor,
    lse: Tensor,
) {
    record(rec, Pass::Forward, label, shape, &[q, k, v, documents, o, lse]);
}

/// Records the gradients `d_q`, `d_k`, `d_v` (overwritten) of [`forward`], given its inputs, its outputs `o` and `lse`, and `d_o`.
///
/// Shapes as there. One transient of `[t, h, 2]` words is all the memory it needs.
///
/// # Panics
/// As [`forward`].
pub fn backward(
    rec: &mut Recorder,
    label: &str,
    shape: &AttentionShape,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    documents: Tensor,
    o: Tensor,
    lse: Tensor,
    d_o: Tensor,
    d_q: Tensor,
    d_k: Tensor,
    d_v: Tensor,
) {
    let stats = rec.transient(&format!("{label}.stats"), 2 * (shape.rows * shape.heads) as usize);
    delta(rec, &format!("{label}.delta"), shape, o, d_o, lse, stats);
    record(rec, Pass::Queries, &format!("{label}.dq"), shape, &[q, k, v, d_o, stats, documents, d_q]);
    let label = format!("{label}.dkv");
    if !candidates::by_head(shape, rec.facts()) {
        return record(rec, Pass::KeysValues, &label, shape, &[q, k, v, d_o, stats, documents, d_k, d_v]);
    }
    let (rows, width) = (shape.rows as usize, (shape.kv_heads * shape.head_dim) as usize);
    let parts =
        ["d_k", "d_v"].map(|name| rec.transient(&format!("{label}.{name}"), (shape.heads / shape.kv_heads) as usize * rows * width));
    record(rec, Pass::KeysValues, &label, shape, &[q, k, v, d_o, stats, documents, parts[0], parts[1]]);
    for (parts, sum) in parts.into_iter().zip([d_k, d_v]) {
        let to = Place { y: Rows { tensor: sum, stride: width }, row: 0, column: 0 };
        sum_parts(rec, &format!("{label}.sum"), parts, (rows, width), to, false);
    }
}

/// Records stats = (lse, sum(o · do)), `[t, h, 2]`: the first part of [`backward`].
pub fn delta(rec: &mut Recorder, label: &str, shape: &AttentionShape, o: Tensor, d_o: Tensor, lse: Tensor, stats: Tensor) {
    let pairs = shape.rows * shape.heads;
    let what = Dispatch::new(label, &shape.params(), &[o, d_o, lse, stats], 2 * u64::from(pairs) * u64::from(shape.head_dim));
    rec.dispatch(&DELTA, Variant::new().with("HEAD_DIM", shape.head_dim), grid_1d(pairs.div_ceil(64)), what);
}

/// What [`forward`] and [`backward`] dispatch for one pass, for a form of one's own choice among [`forms`]; `bind` as the kernel has it.
///
/// # Panics
/// As [`forward`].
pub fn pass_dispatch(pass: Pass, label: &str, shape: &AttentionShape, bind: &[Tensor]) -> Dispatch {
    part_dispatch(pass, label, shape, bind, (0, 1))
}

/// As [`pass_dispatch`] for part `part` of `parts`; all parts together are the pass, in any order, bit for bit.
///
/// # Panics
/// As [`forward`].
pub fn part_dispatch(pass: Pass, label: &str, shape: &AttentionShape, bind: &[Tensor], (part, parts): (u32, u32)) -> Dispatch {
    shape.check();
    let params = Params { part, parts, ..shape.params() };
    Dispatch::new(label, &params, bind, shape.flops(pass.products()) / u64::from(parts)).at_most(shape.part_flops(pass, parts))
}

/// Records a pass in as many parts as it needs.
fn record(rec: &mut Recorder, pass: Pass, label: &str, shape: &AttentionShape, bind: &[Tensor]) {
    let parts = shape.parts(pass, most_flops(rec.facts()));
    let mut ways = candidates(pass, shape, rec.facts());
    ways.iter_mut().for_each(|way| way.grid[0] = way.grid[0].div_ceil(parts));
    let key = if parts == 1 { shape.key(pass.name()) } else { format!("{} parts={parts}", shape.key(pass.name())) };
    for part in 0..parts {
        rec.dispatch_tuned(key.clone(), ways.clone(), part_dispatch(pass, label, shape, bind, (part, parts)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_passes_come_in_parts_that_are_short() {
        let shape = |rows| AttentionShape { rows, heads: 32, kv_heads: 32, head_dim: 128, window: None };
        assert_eq!(shape(1024).parts(Pass::Forward, most_flops(None)), 1);
        let long = shape(32 << 10);
        for pass in [Pass::Forward, Pass::Queries, Pass::KeysValues] {
            let (all, parts) = (long.flops(pass.products()), long.parts(pass, most_flops(None)));
            assert_eq!(parts, 1024, "{pass:?}: a tile each");
            let part = part_dispatch(pass, "part", &long, &[], (parts - 1, parts));
            // The last rows see all others.
            let most = 2 * pass.products() * 32 * (32 << 10) * 32 * 128;
            assert!(part.flops == all / u64::from(parts) && part.most_flops == most && most < 4 * most_flops(None));
            let shorter = shape(4096);
            let parts = shorter.parts(pass, most_flops(None));
            assert!(parts > 1 && shorter.part_flops(pass, parts) <= most_flops(None), "{pass:?}: {parts} parts");
        }
    }

    #[test]
    fn an_unknown_adapter_gets_the_tile() {
        let shape = AttentionShape { rows: 5, heads: 9, kv_heads: 3, head_dim: 64, window: None };
        let ways = candidates(Pass::KeysValues, &shape, None);
        assert_eq!((ways.len(), ways[0].spec.name, ways[0].grid), (1, "attention_tile_dkv", [2, 3, 1]));
    }
}
