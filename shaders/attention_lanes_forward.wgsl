// Causal grouped-query attention, forward: o = softmax(scale q kT) v and lse = log(sum(exp(scale q kT))), over the visible
// rows of each query row, one pass over the keys (online softmax).
//   q, o: [T, H * hd]   k, v: [T, KV * hd]   lse: [T, H]
//
// A workgroup takes tiles of LANES * PER_HEAD query rows, one after the other if there are more tiles than workgroups. A lane owns
// ROWS = HEADS * PER_HEAD pairs of (row, head) that share a key/value head: row r is head r % HEADS of its heads and query row
// r / HEADS * LANES + lane of the tile. Its queries and outputs stay in registers; keys and values are read once, four at a time, so that
// outputs are rescaled once in four, and broadcast to all lanes. No workgroup memory and no barrier: the kernel for CPU adapters and for
// small heads on a GPU; attention_tile_forward is the other one.
// Grid: (tiles, H / HEADS).
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
@group(0) @binding(4) var<storage, read> documents: array<u32>;
@group(0) @binding(5) var<storage, read_write> o: array<f32>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;
#import attention_mask
#import attention_documents
#import attention_rows
#import attention_keys

const ROWS: u32 = HEADS * PER_HEAD;
// Scores of unseen rows, and the floor of the running maximum: exp(UNSEEN - FLOOR) is exactly zero.
const UNSEEN: f32 = -3.0e38;
const FLOOR: f32 = -1.0e30;

var<private> query: array<Rows, PADDED_DIM>;
var<private> output: array<Rows, PADDED_DIM>;
var<private> score: Rows;
var<private> weight: array<Rows, 4>;
var<private> rescale: Rows;

fn score8(d: u32, at: u32) {
    let x = key8(at, d);
    score = fma(query[d + 0u], Rows(x[0]), score);
    score = fma(query[d + 1u], Rows(x[1]), score);
    score = fma(query[d + 2u], Rows(x[2]), score);
    score = fma(query[d + 3u], Rows(x[3]), score);
    score = fma(query[d + 4u], Rows(x[4]), score);
    score = fma(query[d + 5u], Rows(x[5]), score);
    score = fma(query[d + 6u], Rows(x[6]), score);
    score = fma(query[d + 7u], Rows(x[7]), score);
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

fn output8(d: u32, at: vec4<u32>) {
    let x0 = value8(at.x, d);
    let x1 = value8(at.y, d);
    let x2 = value8(at.z, d);
    let x3 = value8(at.w, d);
    output[d + 0u] = add4(output[d + 0u], x0[0], x1[0], x2[0], x3[0]);
    output[d + 1u] = add4(output[d + 1u], x0[1], x1[1], x2[1], x3[1]);
    output[d + 2u] = add4(output[d + 2u], x0[2], x1[2], x2[2], x3[2]);
    output[d + 3u] = add4(output[d + 3u], x0[3], x1[3], x2[3], x3[3]);
    output[d + 4u] = add4(output[d + 4u], x0[4], x1[4], x2[4], x3[4]);
    output[d + 5u] = add4(output[d + 5u], x0[5], x1[5], x2[5], x3[5]);
    output[d + 6u] = add4(output[d + 6u], x0[6], x1[6], x2[6], x3[6]);
    output[d + 7u] = add4(output[d + 7u], x0[7], x1[7], x2[7], x3[7]);
}
fn output16(d: u32, at: vec4<u32>) {
    output8(d, at);
    if (d + 8u < HEAD_DIM) { output8(d + 8u, at); }
}
fn output32(d: u32, at: vec4<u32>) {
    output16(d, at);
    if (d + 16u < HEAD_DIM) { output16(d + 16u, at); }
}
fn output64(d: u32, at: vec4<u32>) {
    output32(d, at);
    if (d + 32u < HEAD_DIM) { output32(d + 32u, at); }
}
fn output128(d: u32, at: vec4<u32>) {
    output64(d, at);
    if (d + 64u < HEAD_DIM) { output64(d + 64u, at); }
}
fn output256(d: u32, at: vec4<u32>) {
    output128(d, at);
    if (d + 128u < HEAD_DIM) { output128(d + 128u, at); }
}

fn add4(sum: Rows, x0: f32, x1: f32, x2: f32, x3: f32) -> Rows {
    let two = fma(weight[1], Rows(x1), fma(weight[0], Rows(x0), sum * rescale));
    return fma(weight[3], Rows(x3), fma(weight[2], Rows(x2), two));
}

fn forward(tile: RowTile, head0: u32, lane: u32) {
    let row0 = tile.first;
    let row_end = tile.end;
    let width = p.heads * HEAD_DIM;
    let kv_width = p.kv_heads * HEAD_DIM;
    let kv_at = head0 / (p.heads / p.kv_heads) * HEAD_DIM;

    var row: RowIndex;
    var first: RowIndex;
    for (var r = 0u; r < ROWS; r++) {
        let i = min(row0 + r / HEADS * LANES + lane, row_end - 1u);
        let at = i * width + (head0 + r % HEADS) * HEAD_DIM;
        row[r] = i;
        first[r] = first_key(tile.doc, i, head0 + r % HEADS);
        for (var d = 0u; d < HEAD_DIM; d++) {
            query[d][r] = q[at + d] * p.scale;
        }
    }

    var begin = row_end;
    for (var h = 0u; h < HEADS; h++) {
        begin = min(begin, first_key(tile.doc, row0, head0 + h));
    }
    // Fours of keys are counted from the document's first row: rescaling then happens at the same keys in every variant.
    begin -= (begin - tile.doc.first) % 4u;
    var highest = Rows(FLOOR);
    var total = Rows();
    output = array<Rows, PADDED_DIM>();
    for (var j = begin; j < row_end; j += 4u) {
        let at = min(vec4(j) + vec4(0u, 1u, 2u, 3u), vec4(row_end - 1u)) * kv_width + kv_at;
        for (var n = 0u; n < 4u; n++) {
            score = Rows();
            score256(0u, at[n]);
            let seen = (RowIndex(j + n) >= first) & (RowIndex(j + n) <= row);
            weight[n] = select(Rows(UNSEEN), score, seen);
        }
        let before = highest;
        highest = max(highest, max(max(weight[0], weight[1]), max(weight[2], weight[3])));
        rescale = exp(before - highest);
        for (var n = 0u; n < 4u; n++) {
            weight[n] = exp(weight[n] - highest);
        }
        total = total * rescale + (weight[0] + weight[1]) + (weight[2] + weight[3]);
        output256(0u, at);
    }

    for (var r = 0u; r < ROWS; r++) {
        let i = row0 + r / HEADS * LANES + lane;
        if (i < row_end) {
            let head = head0 + r % HEADS;
            lse[i * p.heads + head] = highest[r] + log(total[r]);
            let inverse = 1.0 / total[r];
            for (var d = 0u; d < HEAD_DIM; d++) {
                o[i * width + head * HEAD_DIM + d] = output[d][r] * inverse;
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
        forward(row_tile(n), turn * HEADS, lane);
    }
}
