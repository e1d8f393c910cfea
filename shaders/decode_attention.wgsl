// Attention of a few new rows against the key/value cache, one part of the keys per workgroup (a first pass; see
// decode_attention_merge): part = (sum of exp(score - highest) v, highest, sum of exp(score - highest)).
//   q: [N, H * hd]   k, v: [max_len, KV * hd]   state[0]: rows in the cache, the N new ones included
//   parts: [N, H, SPLITS, hd]   part_stats: [N, H, SPLITS, 2]
//
// Row n sits at position state[0] - N + n and sees everything up to itself, or the last `window` rows. The length is read
// here, so that one recording serves every token. A workgroup takes every SPLITS-th tile of 64 keys: one score per
// invocation, then one output column per invocation.
// Grid: (H, N, SPLITS).

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
@group(0) @binding(2) var<storage, read_write> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> v: array<f32>;
@group(0) @binding(4) var<storage, read> state: array<u32>;
@group(0) @binding(5) var<storage, read_write> parts: array<f32>;
@group(0) @binding(6) var<storage, read_write> part_stats: array<vec2<f32>>;

const WG: u32 = 64u;
#import reduce

const UNSEEN: f32 = -3.0e38;
const FLOOR: f32 = -1.0e30;
const COLUMNS: u32 = (HEAD_DIM + WG - 1u) / WG;

var<workgroup> query: array<vec4<f32>, HEAD_DIM / 4u>;
var<workgroup> weights: array<f32, WG>;

// Rows in the cache. 0, which cannot be (the new rows are there), stands for a full cache: kernels are timed on zeroed buffers.
fn cached_rows() -> u32 {
    return clamp(select(state[0], p.max_len, state[0] == 0u), p.rows, p.max_len);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = group.x;
    let kv_head = head / (p.heads / p.kv_heads);
    let end = cached_rows() - p.rows + group.y + 1u;
    let first = end - min(end, p.window);
    for (var c = lane; c < HEAD_DIM / 4u; c += WG) {
        let at = (group.y * p.heads + head) * HEAD_DIM + c * 4u;
        query[c] = vec4(q[at], q[at + 1u], q[at + 2u], q[at + 3u]) * p.scale;
    }
    workgroupBarrier();

    var highest = FLOOR;
    var total = 0.0;
    var output: array<f32, COLUMNS>;
    for (var j = first + group.z * WG; j < end; j += SPLITS * WG) {
        var score = UNSEEN;
        if (j + lane < end) {
            let at = ((j + lane) * p.kv_heads + kv_head) * (HEAD_DIM / 4u);
            score = 0.0;
            for (var c = 0u; c < HEAD_DIM / 4u; c++) {
                score += dot(query[c], k[at + c]);
            }
        }
        let before = highest;
        highest = max(highest, workgroup_max(score, lane));
        let rescale = exp(before - highest);
        let weight = exp(score - highest);
        weights[lane] = weight;
        total = total * rescale + workgroup_sum(weight, lane);
        for (var c = 0u; c < COLUMNS; c++) {
            let d = min(c * WG + lane, HEAD_DIM - 1u);
            var sum = output[c] * rescale;
            for (var n = 0u; n < min(WG, end - j); n++) {
                sum += weights[n] * v[((j + n) * p.kv_heads + kv_head) * HEAD_DIM + d];
            }
            output[c] = sum;
        }
        // weights are written again only behind the barriers of the next workgroup_max.
    }

    let part = (group.y * p.heads + head) * SPLITS + group.z;
    for (var c = 0u; c < COLUMNS; c++) {
        if (c * WG + lane < HEAD_DIM) {
            parts[part * HEAD_DIM + c * WG + lane] = output[c];
        }
    }
    if (lane == 0u) {
        part_stats[part] = vec2(highest, total);
    }
}
