//! Attention of a few new rows against a key/value cache, for generation.

use super::candidates::{ROWS_PARTS, broadcast_width};
use super::shape::{AttentionShape, IN, Params, R, RW};
use crate::gpu::device::Facts;
use crate::gpu::{Candidate, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

/// One part of the keys per workgroup, through workgroup memory. Bindings: q, k, v, state, parts, part_stats.
pub const DECODE: KernelSpec = KernelSpec {
    name: "decode_attention",
    source: include_str!("../../../shaders/decode_attention.wgsl"),
    bindings: &[IN, IN, IN, R, RW, RW],
};
/// The same parts, eight lanes a key. Bindings as [`DECODE`].
pub const DECODE_LANES: KernelSpec = KernelSpec {
    name: "decode_attention_lanes",
    source: include_str!("../../../shaders/decode_attention_lanes.wgsl"),
    bindings: DECODE.bindings,
};
/// Joins the parts. Bindings: parts, part_stats, o.
pub const DECODE_MERGE: KernelSpec = KernelSpec {
    name: "decode_attention_merge",
    source: include_str!("../../../shaders/decode_attention_merge.wgsl"),
    bindings: &[IN, IN, RW],
};

/// Parts the keys are cut into: enough workgroups for one new row of a model with few heads, more for long caches. Many rows are workgroups enough.
fn splits(rows: u32, max_len: u32) -> u32 {
    if rows > 8 { 8 } else { (max_len / 256).next_power_of_two().clamp(8, 32) }
}

/// Every way to run the first pass, the default first.
pub fn decode_candidates(shape: &AttentionShape, max_len: u32, facts: Option<&Facts>) -> Vec<Candidate> {
    let splits = splits(shape.rows, max_len);
    let plain = Variant::new().with("HEAD_DIM", shape.head_dim).with("SPLITS", splits);
    let mut all = vec![Candidate { spec: &DECODE, variant: plain.clone(), grid: [shape.heads, shape.rows, splits] }];
    if broadcast_width(facts) == 8 {
        let group = shape.heads / shape.kv_heads;
        let heads = (1..=4).rev().find(|n| group.is_multiple_of(*n)).unwrap_or(1);
        let lanes = if facts.is_some_and(|f| f.is_cpu) { 8 } else { 64 };
        let rows_flag = ["ROWS_2", "ROWS_2", "ROWS_3", "ROWS_4"][heads as usize - 1];
        let variant = plain.with("LANES", lanes).with("HEADS", heads).flag(rows_flag).flag("SUBGROUPS");
        let variant = variant.import("attention_rows", ROWS_PARTS, "");
        let grid = [shape.heads / heads, shape.rows, splits * 8 / lanes];
        all.insert(0, Candidate { spec: &DECODE_LANES, variant, grid });
    }
    all
}

/// The tuner's key of [`decode`].
pub fn decode_key(shape: &AttentionShape, max_len: u32) -> String {
    shape.key(&format!("decode_attention max_len={max_len}"))
}

/// Records the attention of `shape.rows` new rows against a cache of at most `max_len` rows.
///
/// `q`, `o`: `[n, h*hd]`; `k`, `v`: `[max_len, kv*hd]`, the new rows already appended; `state`: u32, `state[0]` the rows in the cache,
/// the new ones included, so that one recording serves every token; a buffer that is only read here. Rotary positions are applied
/// already. New row i sits at position `state[0] - n + i`.
///
/// # Panics
/// On a shape the kernels are not written for (see [`AttentionShape`]): a bug of the caller.
pub fn decode(
    rec: &mut Recorder,
    label: &str,
    shape: &AttentionShape,
    max_len: u32,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    o: Tensor,
) {
    shape.check();
    assert!(shape.rows <= max_len, "{label}: {} new rows in a cache of {max_len}", shape.rows);
    let count = (shape.rows * shape.heads * splits(shape.rows, max_len)) as usize;
    let parts = rec.transient(&format!("{label}.parts"), count * shape.head_dim as usize);
    let stats = rec.transient(&format!("{label}.part_stats"), 2 * count);
    let pairs = u64::from(shape.rows) * u64::from(shape.heads) * u64::from(max_len);
    let params = Params { max_len, ..shape.params() };
    let what = Dispatch::new(label, &params, &[q, k, v, state, parts, stats], 4 * pairs * u64::from(shape.head_dim));
    let ways = decode_candidates(shape, max_len, rec.facts());
    rec.dispatch_tuned(decode_key(shape, max_len), ways, what);
    let outputs = shape.rows * shape.heads * shape.head_dim;
    let merge = Dispatch::new(format!("{label}.merge"), &params, &[parts, stats, o], 3 * count as u64 * u64::from(shape.head_dim));
    let variant = Variant::new().with("HEAD_DIM", shape.head_dim).with("SPLITS", splits(shape.rows, max_len));
    rec.dispatch(&DECODE_MERGE, variant, grid_1d(outputs.div_ceil(64)), merge);
}
