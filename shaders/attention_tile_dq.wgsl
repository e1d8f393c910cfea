// Causal grouped-query attention, gradient of the queries, with the weights recomputed from lse:
//   w = exp(scale q kT - lse)   ds = w * (do vT - delta)   dq = scale ds k
//   q, do, dq: [T, H * hd]   k, v: [T, KV * hd]   stats: [T, H, 2] of (lse, delta)
//
// Workgroups, tiles and grid as in attention_tile_forward.
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
@group(0) @binding(1) var<storage, read_write> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> d_o: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read> documents: array<u32>;
@group(0) @binding(7) var<storage, read_write> d_q: array<vec4<f32>>;
#import attention_mask
#import attention_documents
#import attention_tile

fn operand4(operand: u32, at: u32) -> vec4<f32> {
    switch operand {
        case Q: { return q[at]; }
        case K: { return k[at]; }
        case V: { return v[at]; }
        default: { return d_o[at]; }
    }
}

var<private> d_query: array<mat4x4<f32>, SLICES>;

// d_query += pairs . k, slice by slice; unrolled by halving, so that `d_query` can live in registers.
fn accumulate1(slice: u32, j: u32, row_end: u32, kv_head: u32, lane: u32) {
    workgroupBarrier();
    stage(COLUMN_SIDE, K, j, row_end, kv_head, slice, lane);
    workgroupBarrier();
    d_query[slice] = gather_columns(d_query[slice], lane / 8u, lane % 8u);
}
fn accumulate2(slice: u32, j: u32, row_end: u32, kv_head: u32, lane: u32) {
    accumulate1(slice, j, row_end, kv_head, lane);
    if (slice + 1u < SLICES) { accumulate1(slice + 1u, j, row_end, kv_head, lane); }
}
fn accumulate4(slice: u32, j: u32, row_end: u32, kv_head: u32, lane: u32) {
    accumulate2(slice, j, row_end, kv_head, lane);
    if (slice + 2u < SLICES) { accumulate2(slice + 2u, j, row_end, kv_head, lane); }
}
fn accumulate8(slice: u32, j: u32, row_end: u32, kv_head: u32, lane: u32) {
    accumulate4(slice, j, row_end, kv_head, lane);
    if (slice + 4u < SLICES) { accumulate4(slice + 4u, j, row_end, kv_head, lane); }
}

// Writes this invocation's part of the result; `factor` per row.
fn store_d_query(first: u32, end: u32, head: u32, factor: vec4<f32>, y: u32, x: u32) {
    for (var slice = 0u; slice < SLICES; slice++) {
        for (var r = 0u; r < 4u; r++) {
            let row = first + y * 4u + r;
            let c = slice * 8u + x;
            if (row < end && c < HEAD_VECTORS) {
                d_q[(row * p.heads + head) * HEAD_VECTORS + c] = d_query[slice][r] * factor[r];
            }
        }
    }
}

fn query_gradient(tile: RowTile, head: u32, lane: u32) {
    let y = lane / 8u;
    let x = lane % 8u;
    let kv_head = head / (p.heads / p.kv_heads);
    let row0 = tile.first;
    let row_end = tile.end;
    let row = vec4(row0 + y * 4u) + vec4(0u, 1u, 2u, 3u);
    var first: vec4<u32>;
    var lse: vec4<f32>;
    var delta: vec4<f32>;
    for (var r = 0u; r < 4u; r++) {
        let i = min(row[r], row_end - 1u);
        first[r] = first_key(tile.doc, i, head);
        lse[r] = stats[i * p.heads + head].x;
        delta[r] = stats[i * p.heads + head].y;
    }

    d_query = array<mat4x4<f32>, SLICES>();
    for (var j = first_key(tile.doc, row0, head); j < row_end; j += TILE) {
        var s = mat4x4<f32>();
        var d_w = mat4x4<f32>();
        for (var slice = 0u; slice < SLICES; slice++) {
            workgroupBarrier();
            stage(ROW_SIDE, Q, row0, row_end, head, slice, lane);
            stage(COLUMN_SIDE, K, j, row_end, kv_head, slice, lane);
            workgroupBarrier();
            s = multiply(s, y, x);
            workgroupBarrier();
            stage(ROW_SIDE, D_O, row0, row_end, head, slice, lane);
            stage(COLUMN_SIDE, V, j, row_end, kv_head, slice, lane);
            workgroupBarrier();
            d_w = multiply(d_w, y, x);
        }
        for (var n = 0u; n < 4u; n++) {
            let key = vec4(j + x + 8u * n);
            let d_s = exp(s[n] * p.scale - lse) * (d_w[n] - delta);
            s[n] = select(vec4<f32>(), d_s, (key >= first) & (key <= row));
        }
        // Everyone has read the pairs of the tile before: a barrier lies in the loop above.
        publish(s, y, x);
        accumulate8(0u, j, row_end, kv_head, lane);
    }
    store_d_query(row0, row_end, head, vec4(p.scale), y, x);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let turn = head_in_turn(group.y, groups.y);
    for (var n = tile_begin() + group.x; n < tile_end(); n += groups.x) {
        query_gradient(row_tile(n), turn, lane);
    }
}
