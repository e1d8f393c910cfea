// The same parts as decode_attention, by eight neighbouring lanes a key: each lane holds every eighth element of the queries
// and of the outputs of HEADS heads that share a key/value head, so that a key or value row is loaded once for all of them,
// eight neighbouring elements at a time. A score is summed over the eight lanes by shuffles; any subgroup size from 8 up.
// No workgroup memory. Part s takes the keys s, s + SPLITS, ...
// Grid: (H / HEADS, N, SPLITS * 8 / LANES).

struct Params {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    window: u32,
    scale: f32,
    max_len: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> q: array<f32>;
@group(0) @binding(2) var<storage, read_write> k: array<f32>;
@group(0) @binding(3) var<storage, read_write> v: array<f32>;
@group(0) @binding(4) var<storage, read> state: array<u32>;
@group(0) @binding(5) var<storage, read_write> parts: array<f32>;
@group(0) @binding(6) var<storage, read_write> part_stats: array<vec2<f32>>;
#import attention_rows

const FLOOR: f32 = -1.0e30;

// Rows in the cache. 0, which cannot be (the new rows are there), stands for a full cache: kernels are timed on zeroed buffers.
fn cached_rows() -> u32 {
    return clamp(select(state[0], p.max_len, state[0] == 0u), p.rows, p.max_len);
}

// Element d + lane8 of each head's row sits in register d / 8.
var<private> query: array<Rows, PADDED_DIM / 8u>;
var<private> output: array<Rows, PADDED_DIM / 8u>;
var<private> score: Rows;
var<private> weight: Rows;
var<private> rescale: Rows;

fn score8(d: u32, at: u32) {
    score = fma(query[d / 8u], Rows(k[at + min(d + lane8, HEAD_DIM - 1u)]), score);
}
fn score16(d: u32, at: u32) {
    score8(d, at);
    if (d + 8u < HEAD_DIM) { score8(d + 8u, at); }
}
fn score32(d: u32, at: u32) {
    score16(d, at);
    if (d + 16u < HEAD_DIM) { score16(d + 16u, at); }
}
fn score64(d: u32, at: u32) {
    score32(d, at);
    if (d + 32u < HEAD_DIM) { score32(d + 32u, at); }
}
fn score128(d: u32, at: u32) {
    score64(d, at);
    if (d + 64u < HEAD_DIM) { score64(d + 64u, at); }
}
fn score256(d: u32, at: u32) {
    score128(d, at);
    if (d + 128u < HEAD_DIM) { score128(d + 128u, at); }
}

fn output8(d: u32, at: u32) {
    output[d / 8u] = fma(weight, Rows(v[at + min(d + lane8, HEAD_DIM - 1u)]), output[d / 8u] * rescale);
}
fn output16(d: u32, at: u32) {
    output8(d, at);
    if (d + 8u < HEAD_DIM) { output8(d + 8u, at); }
}
fn output32(d: u32, at: u32) {
    output16(d, at);
    if (d + 16u < HEAD_DIM) { output16(d + 16u, at); }
}
fn output64(d: u32, at: u32) {
    output32(d, at);
    if (d + 32u < HEAD_DIM) { output32(d + 32u, at); }
}
fn output128(d: u32, at: u32) {
    output64(d, at);
    if (d + 64u < HEAD_DIM) { output64(d + 64u, at); }
}
fn output256(d: u32, at: u32) {
    output128(d, at);
    if (d + 128u < HEAD_DIM) { output128(d + 128u, at); }
}

fn sum_of_eight(x: Rows) -> Rows {
    let pairs = x + subgroupShuffleXor(x, 1u);
    let fours = pairs + subgroupShuffleXor(pairs, 2u);
    return fours + subgroupShuffleXor(fours, 4u);
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
) {
    lane8 = subgroup_lane % 8u;
    let split = group.z * (LANES / 8u) + lane / 8u;
    let kv_head = group.x * HEADS / (p.heads / p.kv_heads);
    let end = cached_rows() - p.rows + group.y + 1u;
    let first = end - min(end, p.window);
    for (var r = 0u; r < HEADS; r++) {
        for (var d = lane8; d < HEAD_DIM; d += 8u) {
            query[d / 8u][r] = q[(group.y * p.heads + group.x * HEADS + r) * HEAD_DIM + d] * p.scale;
        }
    }

    var highest = Rows(FLOOR);
    var total = Rows();
    // The same number of rounds for all lanes, so that shuffles stay in uniform control flow.
    for (var round = first; round < end; round += SPLITS) {
        let seen = round + split < end;
        let at = (min(round + split, end - 1u) * p.kv_heads + kv_head) * HEAD_DIM;
        score = Rows();
        score256(0u, at);
        score = sum_of_eight(score);
        let before = highest;
        highest = select(highest, max(highest, score), seen);
        rescale = exp(before - highest);
        weight = select(Rows(), exp(score - highest), seen);
        total = total * rescale + weight;
        output256(0u, at);
    }

    for (var r = 0u; r < HEADS; r++) {
        let part = (group.y * p.heads + group.x * HEADS + r) * SPLITS + split;
        for (var d = lane8; d < HEAD_DIM; d += 8u) {
            parts[part * HEAD_DIM + d] = output[d / 8u][r];
        }
        if (lane8 == 0u) {
            part_stats[part] = vec2(highest[r], total[r]);
        }
    }
}
