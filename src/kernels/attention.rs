//! Causal grouped-query attention over packed documents, forward and backward: memory linear in the rows, work proportional to the
//! visible pairs.
//!
//! Query row i of a head sees the key rows `first_key(i) ..= i` (`shaders/attention_mask.wgsl`): its own document, no further back than
//! the sliding window. The forward pass keeps one number per row and head (the log-sum-exp of its scores); the backward pass recomputes
//! the weights from it. Gradients of keys and values are summed by the workgroup that owns the keys, in a fixed order.
//!
//! Two families of kernels compute the same. `attention_tile_*` stage 32 × 32 tiles in workgroup memory, the form for GPUs.
//! `attention_lanes_*` keep whole rows in the registers of one lane and hand the other operand round; they win on CPU adapters, whose
//! workgroup memory is slower than loads. Which one runs is measured.

mod decode;
mod twin;

pub use decode::{DECODE, DECODE_LANES, DECODE_MERGE, decode, decode_candidates, decode_key};
pub use twin::{Visible, attention_backward_twin, attention_twin, decode_twin};

use crate::gpu::device::Facts;
use crate::gpu::{Access, Candidate, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

const R: Access = Access::Read;
const RW: Access = Access::ReadWrite;

/// Forward, workgroup-memory tiles. Bindings: q, k, v, margins, o, lse.
pub const TILE_FORWARD: KernelSpec = KernelSpec {
    name: "attention_tile_forward",
    source: include_str!("../../shaders/attention_tile_forward.wgsl"),
    bindings: &[RW, RW, RW, R, RW, RW],
};
/// Gradient of the queries, workgroup-memory tiles. Bindings: q, k, v, do, stats, margins, dq.
pub const TILE_DQ: KernelSpec = KernelSpec {
    name: "attention_tile_dq",
    source: include_str!("../../shaders/attention_tile_dq.wgsl"),
    bindings: &[RW, RW, RW, RW, RW, R, RW],
};
/// Gradients of keys and values, workgroup-memory tiles. Bindings: q, k, v, do, stats, margins, dk, dv.
pub const TILE_DKV: KernelSpec = KernelSpec {
    name: "attention_tile_dkv",
    source: include_str!("../../shaders/attention_tile_dkv.wgsl"),
    bindings: &[RW, RW, RW, RW, RW, R, RW, RW],
};
/// Forward, rows in registers. Bindings as [`TILE_FORWARD`].
pub const LANES_FORWARD: KernelSpec = KernelSpec {
    name: "attention_lanes_forward",
    source: include_str!("../../shaders/attention_lanes_forward.wgsl"),
    bindings: TILE_FORWARD.bindings,
};
/// Gradient of the queries, rows in registers. Bindings as [`TILE_DQ`].
pub const LANES_DQ: KernelSpec =
    KernelSpec { name: "attention_lanes_dq", source: include_str!("../../shaders/attention_lanes_dq.wgsl"), bindings: TILE_DQ.bindings };
/// Gradients of keys and values, rows in registers. Bindings as [`TILE_DKV`].
pub const LANES_DKV: KernelSpec =
    KernelSpec { name: "attention_lanes_dkv", source: include_str!("../../shaders/attention_lanes_dkv.wgsl"), bindings: TILE_DKV.bindings };
/// stats = (lse, sum(o · do)) for every row and head. Bindings: o, do, lse, stats.
pub const DELTA: KernelSpec =
    KernelSpec { name: "attention_delta", source: include_str!("../../shaders/attention_delta.wgsl"), bindings: &[RW, RW, RW, RW] };

/// Rows of one workgroup of the `attention_tile_*` kernels.
const TILE: u32 = 32;
/// Head dimensions the kernels are written for: multiples of 4 up to this.
pub const MAX_HEAD_DIM: u32 = 256;

/// Sizes and mask of one attention layer over a packed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Rows t of the batch, all documents together.
    pub rows: u32,
    /// Query heads h.
    pub heads: u32,
    /// Key/value heads kv; divides `heads`.
    pub kv_heads: u32,
    /// Width hd of one head: a multiple of 4, at most [`MAX_HEAD_DIM`].
    pub head_dim: u32,
    /// Rows a query sees, itself included; `None` sees the whole document.
    pub window: Option<u32>,
}

/// Uniform parameters of every kernel of the family.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Params {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    window: u32,
    scale: f32,
    /// Rows of the key/value cache; only for decoding.
    max_len: u32,
    pad: [u32; 2],
}

impl AttentionShape {
    /// The factor on every score, hd^-1/2.
    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn params(&self) -> Params {
        let window = self.window.unwrap_or(u32::MAX);
        Params { rows: self.rows, heads: self.heads, kv_heads: self.kv_heads, window, scale: self.scale(), max_len: 0, pad: [0; 2] }
    }

    /// Operations of `products` matrix products over the pairs of one document that fills the batch: an upper bound.
    fn flops(&self, products: u64) -> u64 {
        let rows = u64::from(self.rows);
        let seen = u64::from(self.window.unwrap_or(u32::MAX)).min(rows.div_ceil(2));
        2 * products * rows * seen * u64::from(self.heads) * u64::from(self.head_dim)
    }

    fn key(&self, kernel: &str) -> String {
        let AttentionShape { rows, heads, kv_heads, head_dim, window } = self;
        format!("{kernel} t={rows} h={heads} kv={kv_heads} hd={head_dim} window={}", window.unwrap_or(0))
    }

    /// # Panics
    /// On a shape the kernels are not written for: the model's configuration is checked before anything is recorded.
    fn check(&self) {
        assert!(self.rows >= 1 && self.kv_heads >= 1 && self.heads.is_multiple_of(self.kv_heads), "attention heads: {self:?}");
        assert!(self.head_dim >= 4 && self.head_dim.is_multiple_of(4) && self.head_dim <= MAX_HEAD_DIM, "attention head width: {self:?}");
        assert!(self.window != Some(0), "attention window of no rows: {self:?}");
    }
}

/// The margins table of documents packed one after the other: for every row (rows before its document, rows after it). `[t, 2]`.
///
/// All zeros means one document that fills the batch.
pub fn margins(lengths: &[usize]) -> Vec<u32> {
    let rows: usize = lengths.iter().sum();
    let mut table = Vec::with_capacity(2 * rows);
    let mut before = 0;
    for length in lengths {
        let pair = [before as u32, (rows - before - length) as u32];
        (0..*length).for_each(|_| table.extend(pair));
        before += length;
    }
    table
}

/// Which of the three kernels of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Outputs and log-sum-exp.
    Forward,
    /// Gradient of the queries.
    Queries,
    /// Gradients of keys and values.
    KeysValues,
}

impl Pass {
    fn name(self) -> &'static str {
        match self {
            Pass::Forward => "attention_forward",
            Pass::Queries => "attention_dq",
            Pass::KeysValues => "attention_dkv",
        }
    }
}

/// Every form that `pass` has on an adapter, also hopeless ones: for tests and benchmarks.
pub fn forms(pass: Pass, shape: &AttentionShape, facts: Option<&Facts>) -> Vec<Candidate> {
    let mut all = vec![tile(pass, shape)];
    let lanes = lane_count(facts);
    for (heads, per_head) in row_splits(pass, shape) {
        all.push(lanes_form(pass, shape, lanes, heads, per_head, 0));
        if sharing_lanes(facts) > 0 {
            all.push(lanes_form(pass, shape, lanes, heads, per_head, sharing_lanes(facts)));
        }
    }
    all
}

/// The forms worth measuring on an adapter, the default first. `None` is an adapter of which nothing is known.
///
/// A lane that holds whole rows needs registers for them: GPUs get that form for small heads only. A CPU adapter spills to its cache,
/// which is cheap up to a point; there the tile is not even tried, since it is never near and costs seconds to compile.
pub fn candidates(pass: Pass, shape: &AttentionShape, facts: Option<&Facts>) -> Vec<Candidate> {
    let is_cpu = facts.is_some_and(|f| f.is_cpu);
    let registers = if is_cpu { 2048 } else { 256 };
    let sharing = sharing_lanes(facts);
    let lanes: Vec<Candidate> = row_splits(pass, shape)
        .into_iter()
        .filter(|(heads, per_head)| facts.is_some() && row_arrays(pass) * heads * per_head * shape.head_dim <= registers)
        .map(|(heads, per_head)| lanes_form(pass, shape, lane_count(facts), heads, per_head, sharing))
        .take(if is_cpu { 1 } else { 2 })
        .collect();
    if is_cpu && !lanes.is_empty() { lanes } else { [vec![tile(pass, shape)], lanes].concat() }
}

fn sharing_lanes(facts: Option<&Facts>) -> u32 {
    facts.map_or(0, Facts::sharing_lanes)
}

/// Invocations per workgroup of the lanes forms: short tiles waste the least on the diagonal, a GPU wants a whole subgroup.
fn lane_count(facts: Option<&Facts>) -> u32 {
    if facts.is_some_and(|f| f.is_cpu) { 8 } else { 32 }
}

/// Head-wide arrays a row of the lanes form keeps; also the matrix products of the pass.
fn row_arrays(pass: Pass) -> u32 {
    match pass {
        Pass::Forward => 2,
        Pass::Queries => 3,
        Pass::KeysValues => 4,
    }
}

/// (heads, rows per head) of one lane: as many heads of a key/value group as divide it, so that they share every load.
fn row_splits(pass: Pass, shape: &AttentionShape) -> Vec<(u32, u32)> {
    if pass == Pass::KeysValues {
        return vec![(1, 4), (1, 2)];
    }
    let group = shape.heads / shape.kv_heads;
    match (2..=4).rev().find(|n| group.is_multiple_of(*n)) {
        Some(2) => vec![(2, 2), (2, 1)],
        Some(heads) => vec![(heads, 1), (1, 2)],
        None => vec![(1, 4), (1, 2)],
    }
}

fn tile(pass: Pass, shape: &AttentionShape) -> Candidate {
    let (spec, heads) = match pass {
        Pass::Forward => (&TILE_FORWARD, shape.heads),
        Pass::Queries => (&TILE_DQ, shape.heads),
        Pass::KeysValues => (&TILE_DKV, shape.kv_heads),
    };
    let variant =
        Variant::new().with("HEAD_DIM", shape.head_dim).import("attention_mask", MASK, "").import("attention_tile", TILE_PARTS, "");
    Candidate { spec, variant, grid: [shape.rows.div_ceil(TILE), heads, 1] }
}

fn lanes_form(pass: Pass, shape: &AttentionShape, lanes: u32, heads: u32, per_head: u32, sharing: u32) -> Candidate {
    let (spec, groups) = match pass {
        Pass::Forward => (&LANES_FORWARD, shape.heads / heads),
        Pass::Queries => (&LANES_DQ, shape.heads / heads),
        Pass::KeysValues => (&LANES_DKV, shape.kv_heads),
    };
    let rows_flag = ["ROWS_2", "ROWS_3", "ROWS_4"][(heads * per_head) as usize - 2];
    let variant = Variant::new()
        .with("HEAD_DIM", shape.head_dim)
        .with("LANES", lanes)
        .with("HEADS", heads)
        .with("PER_HEAD", per_head)
        .flag(rows_flag)
        .sharing(sharing)
        .import("attention_mask", MASK, "")
        .import("attention_rows", ROWS_PARTS, "")
        .import("attention_keys", KEYS_PARTS, "");
    Candidate { spec, variant, grid: [shape.rows.div_ceil(lanes * per_head), groups, 1] }
}

const MASK: &str = include_str!("../../shaders/attention_mask.wgsl");
const TILE_PARTS: &str = include_str!("../../shaders/attention_tile.wgsl");
const ROWS_PARTS: &str = include_str!("../../shaders/attention_rows.wgsl");
const KEYS_PARTS: &str = include_str!("../../shaders/attention_keys.wgsl");

/// Records o = softmax(scale q kᵀ) v.
///
/// `q`, `o`: `[t, h*hd]`; `k`, `v`: `[t, kv*hd]`; `margins`: `[t, 2]` u32 of [`margins`] in a buffer that is only read;
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
    margins: Tensor,
    o: Tensor,
    lse: Tensor,
) {
    let what = pass_dispatch(Pass::Forward, label, shape, &[q, k, v, margins, o, lse]);
    record(rec, Pass::Forward, shape, what);
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
    margins: Tensor,
    o: Tensor,
    lse: Tensor,
    d_o: Tensor,
    d_q: Tensor,
    d_k: Tensor,
    d_v: Tensor,
) {
    let stats = rec.transient(&format!("{label}.stats"), 2 * (shape.rows * shape.heads) as usize);
    delta(rec, &format!("{label}.delta"), shape, o, d_o, lse, stats);
    let what = pass_dispatch(Pass::Queries, &format!("{label}.dq"), shape, &[q, k, v, d_o, stats, margins, d_q]);
    record(rec, Pass::Queries, shape, what);
    let what = pass_dispatch(Pass::KeysValues, &format!("{label}.dkv"), shape, &[q, k, v, d_o, stats, margins, d_k, d_v]);
    record(rec, Pass::KeysValues, shape, what);
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
    shape.check();
    Dispatch::new(label, &shape.params(), bind, shape.flops(u64::from(row_arrays(pass))))
}

fn record(rec: &mut Recorder, pass: Pass, shape: &AttentionShape, what: Dispatch) {
    let ways = candidates(pass, shape, rec.facts());
    rec.dispatch_tuned(shape.key(pass.name()), ways, what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_count_rows_before_and_after_the_document() {
        assert_eq!(margins(&[2, 1]), [0, 1, 0, 1, 2, 0]);
        assert_eq!(margins(&[3]), [0; 6]);
    }

    #[test]
    fn an_unknown_adapter_gets_the_tile() {
        let shape = AttentionShape { rows: 5, heads: 9, kv_heads: 3, head_dim: 64, window: None };
        let ways = candidates(Pass::KeysValues, &shape, None);
        assert_eq!((ways.len(), ways[0].spec.name, ways[0].grid), (1, "attention_tile_dkv", [1, 3, 1]));
    }
}
