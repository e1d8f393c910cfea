// Causal grouped-query attention, gradients of keys and values, with the weights recomputed from lse:
//   w = exp(scale q kT - lse)   ds = w * (do vT - delta)   dk = scale dsT q   dv = wT do
// summed over the query rows that see a key and over the heads of its group, in that fixed order: no atomics. With BY_HEAD only over the rows
// of one query head: dk and dv are parts [group, T, KV * hd] then, which sum_parts.wgsl adds.
//   q, do: [T, H * hd]   k, v, dk, dv: [T, KV * hd]   stats: [T, H, 2] of (lse, delta)
//
// A workgroup takes tiles of 32 key rows (the rows of its pairs) of one key/value head; query rows (the columns) are staged 32 at a time,
// head by head.
// Grid: (tiles, KV), with BY_HEAD (tiles, H).
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
@group(0) @binding(7) var<storage, read_write> d_k: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> d_v: array<vec4<f32>>;
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

var<private> d_key: array<mat4x4<f32>, SLICES>;
var<private> d_value: array<mat4x4<f32>, SLICES>;

// d_value += pairs . do, then d_key += pairs . q, slice by slice; unrolled by halving, so that both can live in registers.
fn accumulate_value1(slice: u32, i: u32, end: u32, head: u32, lane: u32) {
    workgroupBarrier();
    stage(COLUMN_SIDE, D_O, i, end, head, slice, lane);
    workgroupBarrier();
    d_value[slice] = gather_columns(d_value[slice], lane / 8u, lane % 8u);
}
fn accumulate_value2(slice: u32, i: u32, end: u32, head: u32, lane: u32) {
    accumulate_value1(slice, i, end, head, lane);
    if (slice + 1u < SLICES) { accumulate_value1(slice + 1u, i, end, head, lane); }
}
fn accumulate_value4(slice: u32, i: u32, end: u32, head: u32, lane: u32) {
    accumulate_value2(slice, i, end, head, lane);
    if (slice + 2u < SLICES) { accumulate_value2(slice + 2u, i, end, head, lane); }
}
fn accumulate_value8(slice: u32, i: u32, end: u32, head: u32, lane: u32) {
    accumulate_value4(slice, i, end, head, lane);
    if (slice + 4u < SLICES) { accumulate_value4(slice + 4u, i, end, head, lane); }
}

fn accumulate_key1(slice: u32, i: u32, end: u32, head: u32, lane: u32) {
    workgroupBarrier();
    stage(COLUMN_SIDE, Q, i, end, head, slice, lane);
    workgroupBarrier();
    d_key[slice] = gather_columns(d_key[slice], lane / 8u, lane % 8u);
}
fn accumulate_key2(slice: u32, i: u32, end: u32, head: u32, lane: u32) {
    accumulate_key1(slice, i, end, head, lane);
    if (slice + 1u < SLICES) { accumulate_key1(slice + 1u, i, end, head, lane); }
}
fn accumulate_key4(slice: u32, i: u32, end: u32, head: u32, lane: u32) {
    accumulate_key2(slice, i, end, head, lane);
    if (slice + 2u < SLICES) { accumulate_key2(slice + 2u, i, end, head, lane); }
}
fn accumulate_key8(slice: u32, i: u32, end: u32, head: u32, lane: u32) {
    accumulate_key4(slice, i, end, head, lane);
    if (slice + 4u < SLICES) { accumulate_key4(slice + 4u, i, end, head, lane); }
}

// Writes this invocation's part of the result; `factor` per row.
fn store_d_key(first: u32, end: u32, head: u32, place: u32, factor: vec4<f32>, y: u32, x: u32) {
    for (var slice = 0u; slice < SLICES; slice++) {
        for (var r = 0u; r < 4u; r++) {
            let row = first + y * 4u + r;
            let c = slice * 8u + x;
            if (row < end && c < HEAD_VECTORS) {
                d_k[((place + row) * p.kv_heads + head) * HEAD_VECTORS + c] = d_key[slice][r] * factor[r];
            }
        }
    }
}

// Writes this invocation's part of the result; `factor` per row.
fn store_d_value(first: u32, end: u32, head: u32, place: u32, factor: vec4<f32>, y: u32, x: u32) {
    for (var slice = 0u; slice < SLICES; slice++) {
        for (var r = 0u; r < 4u; r++) {
            let row = first + y * 4u + r;
            let c = slice * 8u + x;
            if (row < end && c < HEAD_VECTORS) {
                d_v[((place + row) * p.kv_heads + head) * HEAD_VECTORS + c] = d_value[slice][r] * factor[r];
            }
        }
    }
}

// The heads first_head .. + heads of the group of kv_head, into the part that begins at row `place`.
fn key_value_gradients(tile: RowTile, kv_head: u32, first_head: u32, heads: u32, place: u32, lane: u32) {
    let y = lane / 8u;
    let x = lane % 8u;
    let row0 = tile.first;
    let row_end = tile.end;
    let row = vec4(row0 + y * 4u) + vec4(0u, 1u, 2u, 3u);

    d_key = array<mat4x4<f32>, SLICES>();
    d_value = array<mat4x4<f32>, SLICES>();
    for (var head = first_head; head < first_head + heads; head++) {
        var last: vec4<u32>;
        for (var r = 0u; r < 4u; r++) {
            last[r] = query_end(tile.doc, min(row[r], row_end - 1u), head);
        }
        let end = query_end(tile.doc, row_end - 1u, head);
        for (var i = row0; i < end; i += TILE) {
            var s = mat4x4<f32>();
            var d_s = mat4x4<f32>();
            for (var slice = 0u; slice < SLICES; slice++) {
                workgroupBarrier();
                stage(ROW_SIDE, K, row0, row_end, kv_head, slice, lane);
                stage(COLUMN_SIDE, Q, i, end, head, slice, lane);
                workgroupBarrier();
                s = multiply(s, y, x);
                workgroupBarrier();
                stage(ROW_SIDE, V, row0, row_end, kv_head, slice, lane);
                stage(COLUMN_SIDE, D_O, i, end, head, slice, lane);
                workgroupBarrier();
                d_s = multiply(d_s, y, x);
            }
            for (var n = 0u; n < 4u; n++) {
                let query = i + x + 8u * n;
                let stat = stats[min(query, end - 1u) * p.heads + head];
                let w = exp(s[n] * p.scale - stat.x);
                s[n] = select(vec4<f32>(), w, (vec4(query) >= row) & (vec4(query) < last));
                d_s[n] = s[n] * (d_s[n] - stat.y);
            }
            publish(s, y, x);
            accumulate_value8(0u, i, end, head, lane);
            workgroupBarrier();
            publish(d_s, y, x);
            accumulate_key8(0u, i, end, head, lane);
        }
    }
    store_d_key(row0, row_end, kv_head, place, vec4(p.scale), y, x);
    store_d_value(row0, row_end, kv_head, place, vec4(1.0), y, x);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let heads = p.heads / p.kv_heads;
    let turn = head_in_turn(group.y, groups.y);
    for (var n = tile_begin() + group.x; n < tile_end(); n += groups.x) {
#ifdef BY_HEAD
        key_value_gradients(row_tile(n), turn / heads, turn, 1u, turn % heads * p.rows, lane);
#else
        key_value_gradients(row_tile(n), turn, turn * heads, heads, 0u, lane);
#endif
    }
}
