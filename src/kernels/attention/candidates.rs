//! Which variants of the attention kernels run on an adapter. Measurements behind it: `docs/tuning.md`.

use super::documents;
use super::shape::{AttentionShape, LANES_DKV, LANES_DQ, LANES_FORWARD, Pass, TILE_DKV, TILE_DQ, TILE_FORWARD};
use crate::gpu::device::Facts;
use crate::gpu::{Candidate, Variant};

/// Rows of one workgroup of the `attention_tile_*` kernels.
const TILE: u32 = 32;

/// Every form that `pass` has on an adapter, also hopeless ones: for tests and benchmarks.
pub fn forms(pass: Pass, shape: &AttentionShape, facts: Option<&Facts>) -> Vec<Candidate> {
    let mut all = vec![tile(pass, shape)];
    let lanes = lane_count(facts);
    for (heads, per_head) in row_splits(pass, shape) {
        all.push(lanes_form(pass, shape, lanes, heads, per_head, 0));
        if broadcast_width(facts) > 0 {
            all.push(lanes_form(pass, shape, lanes, heads, per_head, broadcast_width(facts)));
        }
    }
    all
}

/// The forms worth measuring on an adapter, the default first. `None` is an adapter of which nothing is known.
///
/// A lane that holds whole rows needs registers for them, one head-wide array a product: GPUs get that form for small heads only. A CPU adapter spills to its cache,
/// which is cheap up to a point; there the tile is not even tried, since it is never near and costs seconds to compile.
pub fn candidates(pass: Pass, shape: &AttentionShape, facts: Option<&Facts>) -> Vec<Candidate> {
    if pass == Pass::KeysValues && by_head(shape, facts) {
        let mut tile = tile(pass, shape);
        tile.variant = tile.variant.flag("BY_HEAD");
        tile.grid[1] = shape.heads;
        return vec![tile];
    }
    let is_cpu = facts.is_some_and(|f| f.is_cpu);
    let registers = if is_cpu { 2048 } else { 256 };
    let broadcast = broadcast_width(facts);
    let lanes: Vec<Candidate> = row_splits(pass, shape)
        .into_iter()
        .filter(|(heads, per_head)| facts.is_some() && u64::from(heads * per_head * shape.head_dim) * pass.products() <= registers)
        .map(|(heads, per_head)| lanes_form(pass, shape, lane_count(facts), heads, per_head, broadcast))
        .take(if is_cpu { 1 } else { 2 })
        .collect();
    if is_cpu && !lanes.is_empty() { lanes } else { [vec![tile(pass, shape)], lanes].concat() }
}

/// Bytes that the gradients of keys and values may take while those of each query head are apart.
const APART_BYTES: u64 = 512 << 20;

/// Whether workgroups sum the gradients of keys and values over the rows of one query head each, for GPUs with many cores; a second pass adds the
/// heads of a group.
pub(super) fn by_head(shape: &AttentionShape, facts: Option<&Facts>) -> bool {
    let bytes = 8 * u64::from(shape.rows) * u64::from(shape.heads) * u64::from(shape.head_dim);
    facts.is_some_and(|f| !f.is_cpu) && shape.heads > shape.kv_heads && bytes <= APART_BYTES
}

pub(super) fn broadcast_width(facts: Option<&Facts>) -> u32 {
    facts.map_or(0, Facts::broadcast_width)
}

/// Invocations per workgroup of the lanes forms: short tiles waste the least on the diagonal, a GPU wants a whole subgroup.
fn lane_count(facts: Option<&Facts>) -> u32 {
    if facts.is_some_and(|f| f.is_cpu) { 8 } else { 32 }
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
    let variant = tiled(shape, TILE).import("attention_tile", TILE_PARTS, "");
    Candidate { spec, variant, grid: [documents::workgroups(shape.rows, TILE), heads, 1] }
}

fn lanes_form(pass: Pass, shape: &AttentionShape, lanes: u32, heads: u32, per_head: u32, broadcast: u32) -> Candidate {
    let (spec, groups) = match pass {
        Pass::Forward => (&LANES_FORWARD, shape.heads / heads),
        Pass::Queries => (&LANES_DQ, shape.heads / heads),
        Pass::KeysValues => (&LANES_DKV, shape.kv_heads),
    };
    let rows_flag = ["ROWS_2", "ROWS_3", "ROWS_4"][(heads * per_head) as usize - 2];
    let variant = tiled(shape, lanes * per_head)
        .with("LANES", lanes)
        .with("HEADS", heads)
        .with("PER_HEAD", per_head)
        .flag(rows_flag)
        .broadcast(broadcast)
        .import("attention_rows", ROWS_PARTS, "")
        .import("attention_keys", KEYS_PARTS, "");
    Candidate { spec, variant, grid: [documents::workgroups(shape.rows, lanes * per_head), groups, 1] }
}

/// What every kernel over tiles of `height` rows has.
fn tiled(shape: &AttentionShape, height: u32) -> Variant {
    Variant::new()
        .with("HEAD_DIM", shape.head_dim)
        .with("TILE_ROWS", height)
        .with("TILE_LEVEL", documents::level(height))
        .import("attention_mask", MASK, "")
        .import("attention_documents", DOCUMENTS, "")
}

const MASK: &str = include_str!("../../../shaders/attention_mask.wgsl");
const DOCUMENTS: &str = include_str!("../../../shaders/attention_documents.wgsl");
const TILE_PARTS: &str = include_str!("../../../shaders/attention_tile.wgsl");
pub(super) const ROWS_PARTS: &str = include_str!("../../../shaders/attention_rows.wgsl");
const KEYS_PARTS: &str = include_str!("../../../shaders/attention_keys.wgsl");
