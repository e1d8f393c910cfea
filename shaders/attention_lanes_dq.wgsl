// Causal grouped-query attention, gradient of the queries, with the weights recomputed from lse:
//   w = exp(scale q kT - lse)   ds = w * (do vT - delta)   dq = scale ds k
//   q, do, dq: [T, H * hd]   k, v: [T, KV * hd]   stats: [T, H, 2] of (lse, delta)
//
// Tiles, registers and grid as in attention_lanes_forward: a lane keeps q, do and dq of ROWS pairs of (row, head), keys and values are read
// four at a time.
struct Params {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    window: u32,
    scale: f32,
    pad0: u32,
    part: u32,  // which of `parts` equal shares of the tiles
    parts: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> q: array<f32>;
@group(0) @binding(2) var<storage, read_write> k: array<f32>;
@group(0) @binding(3) var<storage, read_write> v: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_o: array<f32>;
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read> documents: array<u32>;
@group(0) @binding(7) var<storage, read_write> d_q: array<f32>;
#import attention_mask
#import attention_documents
#import attention_rows
#import attention_keys

const ROWS: u32 = HEADS * PER_HEAD;

var<private> query: array<Rows, PADDED_DIM>;
var<private> d_output: array<Rows, PADDED_DIM>;
var<private> d_query: array<Rows, PADDED_DIM>;
var<private> score: Rows;
var<private> d_weight: Rows;
var<private> d_score: array<Rows, 4>;

fn score8(d: u32, at: u32) {
    let x = key8(at, d);
    let y = value8(at, d);
    score = fma(query[d + 0u], Rows(x[0]), score);
    d_weight = fma(d_output[d + 0u], Rows(y[0]), d_weight);
    score = fma(query[d + 1u], Rows(x[1]), score);
    d_weight = fma(d_output[d + 1u], Rows(y[1]), d_weight);
    score = fma(query[d + 2u], Rows(x[2]), score);
    d_weight = fma(d_output[d + 2u], Rows(y[2]), d_weight);
    score = fma(query[d + 3u], Rows(x[3]), score);
    d_weight = fma(d_output[d + 3u], Rows(y[3]), d_weight);
    score = fma(query[d + 4u], Rows(x[4]), score);
    d_weight = fma(d_output[d + 4u], Rows(y[4]), d_weight);
    score = fma(query[d + 5u], Rows(x[5]), score);
    d_weight = fma(d_output[d + 5u], Rows(y[5]), d_weight);
    score = fma(query[d + 6u], Rows(x[6]), score);
    d_weight = fma(d_output[d + 6u], Rows(y[6]), d_weight);
    score = fma(query[d + 7u], Rows(x[7]), score);
    d_weight = fma(d_output[d + 7u], Rows(y[7]), d_weight);
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

fn d_query8(d: u32, at: vec4<u32>) {
    let x0 = key8(at.x, d);
    let x1 = key8(at.y, d);
    let x2 = key8(at.z, d);
    let x3 = key8(at.w, d);
    d_query[d + 0u] = add4(d_query[d + 0u], x0[0], x1[0], x2[0], x3[0]);
    d_query[d + 1u] = add4(d_query[d + 1u], x0[1], x1[1], x2[1], x3[1]);
    d_query[d + 2u] = add4(d_query[d + 2u], x0[2], x1[2], x2[2], x3[2]);
    d_query[d + 3u] = add4(d_query[d + 3u], x0[3], x1[3], x2[3], x3[3]);
    d_query[d + 4u] = add4(d_query[d + 4u], x0[4], x1[4], x2[4], x3[4]);
    d_query[d + 5u] = add4(d_query[d + 5u], x0[5], x1[5], x2[5], x3[5]);
    d_query[d + 6u] = add4(d_query[d + 6u], x0[6], x1[6], x2[6], x3[6]);
    d_query[d + 7u] = add4(d_query[d + 7u], x0[7], x1[7], x2[7], x3[7]);
}
fn d_query16(d: u32, at: vec4<u32>) {
    d_query8(d, at);
    if (d + 8u < HEAD_DIM) { d_query8(d + 8u, at); }
}
fn d_query32(d: u32, at: vec4<u32>) {
    d_query16(d, at);
    if (d + 16u < HEAD_DIM) { d_query16(d + 16u, at); }
}
fn d_query64(d: u32, at: vec4<u32>) {
    d_query32(d, at);
    if (d + 32u < HEAD_DIM) { d_query32(d + 32u, at); }
}
fn d_query128(d: u32, at: vec4<u32>) {
    d_query64(d, at);
    if (d + 64u < HEAD_DIM) { d_query64(d + 64u, at); }
}
fn d_query256(d: u32, at: vec4<u32>) {
    d_query128(d, at);
    if (d + 128u < HEAD_DIM) { d_query128(d + 128u, at); }
}

fn add4(sum: Rows, x0: f32, x1: f32, x2: f32, x3: f32) -> Rows {
    let two = fma(d_score[1], Rows(x1), fma(d_score[0], Rows(x0), sum));
    return fma(d_score[3], Rows(x3), fma(d_score[2], Rows(x2), two));
}

fn query_gradient(tile: RowTile, head0: u32, lane: u32) {
    let row0 = tile.first;
    let row_end = tile.end;
    let width = p.heads * HEAD_DIM;
    let kv_width = p.kv_heads * HEAD_DIM;
    let kv_at = head0 / (p.heads / p.kv_heads) * HEAD_DIM;

    var row: RowIndex;
    var first: RowIndex;
    var lse: Rows;
    var delta: Rows;
    for (var r = 0u; r < ROWS; r++) {
        let i = min(row0 + r / HEADS * LANES + lane, row_end - 1u);
        let head = head0 + r % HEADS;
        let at = i * width + head * HEAD_DIM;
        row[r] = i;
        first[r] = first_key(tile.doc, i, head);
        lse[r] = stats[i * p.heads + head].x;
        delta[r] = stats[i * p.heads + head].y;
        for (var d = 0u; d < HEAD_DIM; d++) {
            query[d][r] = q[at + d] * p.scale;
            d_output[d][r] = d_o[at + d];
        }
    }

    var begin = row_end;
    for (var h = 0u; h < HEADS; h++) {
        begin = min(begin, first_key(tile.doc, row0, head0 + h));
    }
    d_query = array<Rows, PADDED_DIM>();
    for (var j = begin; j < row_end; j += 4u) {
        let at = min(vec4(j) + vec4(0u, 1u, 2u, 3u), vec4(row_end - 1u)) * kv_width + kv_at;
        for (var n = 0u; n < 4u; n++) {
            score = Rows();
            d_weight = Rows();
            score256(0u, at[n]);
            let seen = (RowIndex(j + n) >= first) & (RowIndex(j + n) <= row);
            d_score[n] = select(Rows(), exp(score - lse) * (d_weight - delta), seen);
        }
        d_query256(0u, at);
    }

    for (var r = 0u; r < ROWS; r++) {
        let i = row0 + r / HEADS * LANES + lane;
        if (i < row_end) {
            let at = i * width + (head0 + r % HEADS) * HEAD_DIM;
            for (var d = 0u; d < HEAD_DIM; d++) {
                d_q[at + d] = d_query[d][r] * p.scale;
            }
        }
    }
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
#endif
) {
#ifdef QUADS
    lane4 = subgroup_lane % 4u;
#else
#ifdef SUBGROUPS
    lane8 = subgroup_lane % 8u;
#endif
#endif
    let turn = head_in_turn(group.y, groups.y);
    for (var n = tile_begin() + group.x; n < tile_end(); n += groups.x) {
        query_gradient(row_tile(n), turn * HEADS, lane);
    }
}
