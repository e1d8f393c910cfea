// Causal grouped-query attention, gradients of keys and values, with the weights recomputed from lse:
//   w = exp(scale q kT - lse)   ds = w * (do vT - delta)   dk = scale dsT q   dv = wT do
// summed over the query rows that see a key and over the heads of its group, in that fixed order: no atomics.
//   q, do: [T, H * hd]   k, v, dk, dv: [T, KV * hd]   stats: [T, H, 2] of (lse, delta)
//
// A workgroup takes tiles of LANES * ROWS key rows. A lane keeps k, v, dk and dv of ROWS of them (row r is r * LANES + lane of the tile);
// query rows are read two at a time, head by head, and broadcast to all lanes.
// Grid: (tiles, KV).
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
@group(0) @binding(7) var<storage, read_write> d_k: array<f32>;
@group(0) @binding(8) var<storage, read_write> d_v: array<f32>;
#import attention_mask
#import attention_documents
#import attention_rows

const ROWS: u32 = PER_HEAD;

var<private> key: array<Rows, PADDED_DIM>;
var<private> value: array<Rows, PADDED_DIM>;
var<private> d_key: array<Rows, PADDED_DIM>;
var<private> d_value: array<Rows, PADDED_DIM>;
var<private> score: Rows;
var<private> d_weight: Rows;
var<private> weight: array<Rows, 2>;
var<private> d_score: array<Rows, 2>;

fn query8(at: u32, d: u32) -> array<f32, 8> {
#ifdef QUADS
    return share(q[at + d + lane4], q[at + min(d + 4u, HEAD_DIM - 4u) + lane4]);
#else
#ifdef SUBGROUPS
    return share(q[at + min(d + lane8, HEAD_DIM - 1u)]);
#else
    let e = at + min(d + 4u, HEAD_DIM - 4u);
    return array<f32, 8>(
        q[at + d], q[at + d + 1u], q[at + d + 2u], q[at + d + 3u], q[e], q[e + 1u], q[e + 2u], q[e + 3u]);
#endif
#endif
}
fn d_output8(at: u32, d: u32) -> array<f32, 8> {
#ifdef QUADS
    return share(d_o[at + d + lane4], d_o[at + min(d + 4u, HEAD_DIM - 4u) + lane4]);
#else
#ifdef SUBGROUPS
    return share(d_o[at + min(d + lane8, HEAD_DIM - 1u)]);
#else
    let e = at + min(d + 4u, HEAD_DIM - 4u);
    return array<f32, 8>(
        d_o[at + d], d_o[at + d + 1u], d_o[at + d + 2u], d_o[at + d + 3u], d_o[e], d_o[e + 1u], d_o[e + 2u], d_o[e + 3u]);
#endif
#endif
}

fn score8(d: u32, at: u32) {
    let x = query8(at, d);
    let y = d_output8(at, d);
    score = fma(key[d + 0u], Rows(x[0]), score);
    d_weight = fma(value[d + 0u], Rows(y[0]), d_weight);
    score = fma(key[d + 1u], Rows(x[1]), score);
    d_weight = fma(value[d + 1u], Rows(y[1]), d_weight);
    score = fma(key[d + 2u], Rows(x[2]), score);
    d_weight = fma(value[d + 2u], Rows(y[2]), d_weight);
    score = fma(key[d + 3u], Rows(x[3]), score);
    d_weight = fma(value[d + 3u], Rows(y[3]), d_weight);
    score = fma(key[d + 4u], Rows(x[4]), score);
    d_weight = fma(value[d + 4u], Rows(y[4]), d_weight);
    score = fma(key[d + 5u], Rows(x[5]), score);
    d_weight = fma(value[d + 5u], Rows(y[5]), d_weight);
    score = fma(key[d + 6u], Rows(x[6]), score);
    d_weight = fma(value[d + 6u], Rows(y[6]), d_weight);
    score = fma(key[d + 7u], Rows(x[7]), score);
    d_weight = fma(value[d + 7u], Rows(y[7]), d_weight);
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

fn d_key8(d: u32, at: vec2<u32>) {
    let x0 = query8(at.x, d);
    let x1 = query8(at.y, d);
    let y0 = d_output8(at.x, d);
    let y1 = d_output8(at.y, d);
    d_key[d + 0u] = fma(d_score[1], Rows(x1[0]), fma(d_score[0], Rows(x0[0]), d_key[d + 0u]));
    d_value[d + 0u] = fma(weight[1], Rows(y1[0]), fma(weight[0], Rows(y0[0]), d_value[d + 0u]));
    d_key[d + 1u] = fma(d_score[1], Rows(x1[1]), fma(d_score[0], Rows(x0[1]), d_key[d + 1u]));
    d_value[d + 1u] = fma(weight[1], Rows(y1[1]), fma(weight[0], Rows(y0[1]), d_value[d + 1u]));
    d_key[d + 2u] = fma(d_score[1], Rows(x1[2]), fma(d_score[0], Rows(x0[2]), d_key[d + 2u]));
    d_value[d + 2u] = fma(weight[1], Rows(y1[2]), fma(weight[0], Rows(y0[2]), d_value[d + 2u]));
    d_key[d + 3u] = fma(d_score[1], Rows(x1[3]), fma(d_score[0], Rows(x0[3]), d_key[d + 3u]));
    d_value[d + 3u] = fma(weight[1], Rows(y1[3]), fma(weight[0], Rows(y0[3]), d_value[d + 3u]));
    d_key[d + 4u] = fma(d_score[1], Rows(x1[4]), fma(d_score[0], Rows(x0[4]), d_key[d + 4u]));
    d_value[d + 4u] = fma(weight[1], Rows(y1[4]), fma(weight[0], Rows(y0[4]), d_value[d + 4u]));
    d_key[d + 5u] = fma(d_score[1], Rows(x1[5]), fma(d_score[0], Rows(x0[5]), d_key[d + 5u]));
    d_value[d + 5u] = fma(weight[1], Rows(y1[5]), fma(weight[0], Rows(y0[5]), d_value[d + 5u]));
    d_key[d + 6u] = fma(d_score[1], Rows(x1[6]), fma(d_score[0], Rows(x0[6]), d_key[d + 6u]));
    d_value[d + 6u] = fma(weight[1], Rows(y1[6]), fma(weight[0], Rows(y0[6]), d_value[d + 6u]));
    d_key[d + 7u] = fma(d_score[1], Rows(x1[7]), fma(d_score[0], Rows(x0[7]), d_key[d + 7u]));
    d_value[d + 7u] = fma(weight[1], Rows(y1[7]), fma(weight[0], Rows(y0[7]), d_value[d + 7u]));
}
fn d_key16(d: u32, at: vec2<u32>) {
    d_key8(d, at);
    if (d + 8u < HEAD_DIM) { d_key8(d + 8u, at); }
}
fn d_key32(d: u32, at: vec2<u32>) {
    d_key16(d, at);
    if (d + 16u < HEAD_DIM) { d_key16(d + 16u, at); }
}
fn d_key64(d: u32, at: vec2<u32>) {
    d_key32(d, at);
    if (d + 32u < HEAD_DIM) { d_key32(d + 32u, at); }
}
fn d_key128(d: u32, at: vec2<u32>) {
    d_key64(d, at);
    if (d + 64u < HEAD_DIM) { d_key64(d + 64u, at); }
}
fn d_key256(d: u32, at: vec2<u32>) {
    d_key128(d, at);
    if (d + 128u < HEAD_DIM) { d_key128(d + 128u, at); }
}

fn key_value_gradients(tile: RowTile, kv_head: u32, lane: u32) {
    let row0 = tile.first;
    let row_end = tile.end;
    let width = p.heads * HEAD_DIM;
    let kv_width = p.kv_heads * HEAD_DIM;
    let heads = p.heads / p.kv_heads;

    var row: RowIndex;
    for (var r = 0u; r < ROWS; r++) {
        let j = min(row0 + r * LANES + lane, row_end - 1u);
        let at = j * kv_width + kv_head * HEAD_DIM;
        row[r] = j;
        for (var d = 0u; d < HEAD_DIM; d++) {
            key[d][r] = k[at + d] * p.scale;
            value[d][r] = v[at + d];
        }
    }

    d_key = array<Rows, PADDED_DIM>();
    d_value = array<Rows, PADDED_DIM>();
    for (var head = kv_head * heads; head < (kv_head + 1u) * heads; head++) {
        var last: RowIndex;
        for (var r = 0u; r < ROWS; r++) {
            last[r] = query_end(tile.doc, row[r], head);
        }
        let end = query_end(tile.doc, row_end - 1u, head);
        for (var i = row0; i < end; i += 2u) {
            let two = min(vec2(i, i + 1u), vec2(end - 1u));
            let at = two * width + head * HEAD_DIM;
            for (var n = 0u; n < 2u; n++) {
                score = Rows();
                d_weight = Rows();
                score256(0u, at[n]);
                let stat = stats[two[n] * p.heads + head];
                let seen = (RowIndex(i + n) >= row) & (RowIndex(i + n) < last);
                weight[n] = select(Rows(), exp(score - stat.x), seen);
                d_score[n] = weight[n] * (d_weight - stat.y);
            }
            d_key256(0u, at);
        }
    }

    for (var r = 0u; r < ROWS; r++) {
        let j = row0 + r * LANES + lane;
        if (j < row_end) {
            let at = j * kv_width + kv_head * HEAD_DIM;
            for (var d = 0u; d < HEAD_DIM; d++) {
                d_k[at + d] = d_key[d][r] * p.scale;
                d_v[at + d] = d_value[d][r];
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
        key_value_gradients(row_tile(n), turn, lane);
    }
}
