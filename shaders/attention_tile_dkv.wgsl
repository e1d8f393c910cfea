// Causal grouped-query attention, gradients of keys and values, with the weights recomputed from lse:
//   w = exp(scale q kT - lse)   ds = w * (do vT - delta)   dk = scale dsT q   dv = wT do
// summed over the query rows that see a key and over the heads of its group, in that fixed order: no atomics.
//   q, do: [T, H * hd]   k, v, dk, dv: [T, KV * hd]   stats: [T, H, 2] of (lse, delta)   margins: [T, 2]
//
// One workgroup per 32 key rows (the rows of the tile) of one key/value head; query rows (its columns) pass by 32 at a
// time, head by head.
// Grid: (T / 32, KV).
struct Params {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    window: u32,
    scale: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> d_o: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read> margins: array<vec2<u32>>;
@group(0) @binding(7) var<storage, read_write> d_k: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> d_v: array<vec4<f32>>;
#import attention_mask
#import attention_tile

var<private> d_key: array<mat4x4<f32>, SLICES>;
var<private> d_value: array<mat4x4<f32>, SLICES>;

// 32 rows of k from `first` on, slice `slice` of one head; zeros past the last row or the head.
fn stage_key(first: u32, head: u32, slice: u32, lane: u32) {
    for (var n = lane; n < TILE * 8u; n += 64u) {
        let row = first + n / 8u;
        let c = slice * 8u + n % 8u;
        var x = vec4<f32>();
        if (row < p.rows && c < HEAD_VECTORS) {
            x = k[(row * p.kv_heads + head) * HEAD_VECTORS + c];
        }
        row_slice[n / 8u * STRIDE + n % 8u] = x;
    }
}

// 32 rows of v from `first` on, slice `slice` of one head; zeros past the last row or the head.
fn stage_value(first: u32, head: u32, slice: u32, lane: u32) {
    for (var n = lane; n < TILE * 8u; n += 64u) {
        let row = first + n / 8u;
        let c = slice * 8u + n % 8u;
        var x = vec4<f32>();
        if (row < p.rows && c < HEAD_VECTORS) {
            x = v[(row * p.kv_heads + head) * HEAD_VECTORS + c];
        }
        row_slice[n / 8u * STRIDE + n % 8u] = x;
    }
}

// 32 rows of q from `first` on, slice `slice` of one head; zeros past the last row or the head.
fn stage_query(first: u32, head: u32, slice: u32, lane: u32) {
    for (var n = lane; n < TILE * 8u; n += 64u) {
        let row = first + n / 8u;
        let c = slice * 8u + n % 8u;
        var x = vec4<f32>();
        if (row < p.rows && c < HEAD_VECTORS) {
            x = q[(row * p.heads + head) * HEAD_VECTORS + c];
        }
        column_slice[n / 8u * STRIDE + n % 8u] = x;
    }
}

// 32 rows of do from `first` on, slice `slice` of one head; zeros past the last row or the head.
fn stage_d_output(first: u32, head: u32, slice: u32, lane: u32) {
    for (var n = lane; n < TILE * 8u; n += 64u) {
        let row = first + n / 8u;
        let c = slice * 8u + n % 8u;
        var x = vec4<f32>();
        if (row < p.rows && c < HEAD_VECTORS) {
            x = d_o[(row * p.heads + head) * HEAD_VECTORS + c];
        }
        column_slice[n / 8u * STRIDE + n % 8u] = x;
    }
}

// d_value += pairs . do, then d_key += pairs . q, slice by slice; unrolled by halving, so that both can live in registers.
fn accumulate_value1(slice: u32, i: u32, head: u32, lane: u32) {
    workgroupBarrier();
    stage_d_output(i, head, slice, lane);
    workgroupBarrier();
    d_value[slice] = gather_columns(d_value[slice], lane / 8u, lane % 8u);
}
fn accumulate_value2(slice: u32, i: u32, head: u32, lane: u32) {
    accumulate_value1(slice, i, head, lane);
    if (slice + 1u < SLICES) { accumulate_value1(slice + 1u, i, head, lane); }
}
fn accumulate_value4(slice: u32, i: u32, head: u32, lane: u32) {
    accumulate_value2(slice, i, head, lane);
    if (slice + 2u < SLICES) { accumulate_value2(slice + 2u, i, head, lane); }
}
fn accumulate_value8(slice: u32, i: u32, head: u32, lane: u32) {
    accumulate_value4(slice, i, head, lane);
    if (slice + 4u < SLICES) { accumulate_value4(slice + 4u, i, head, lane); }
}

fn accumulate_key1(slice: u32, i: u32, head: u32, lane: u32) {
    workgroupBarrier();
    stage_query(i, head, slice, lane);
    workgroupBarrier();
    d_key[slice] = gather_columns(d_key[slice], lane / 8u, lane % 8u);
}
fn accumulate_key2(slice: u32, i: u32, head: u32, lane: u32) {
    accumulate_key1(slice, i, head, lane);
    if (slice + 1u < SLICES) { accumulate_key1(slice + 1u, i, head, lane); }
}
fn accumulate_key4(slice: u32, i: u32, head: u32, lane: u32) {
    accumulate_key2(slice, i, head, lane);
    if (slice + 2u < SLICES) { accumulate_key2(slice + 2u, i, head, lane); }
}
fn accumulate_key8(slice: u32, i: u32, head: u32, lane: u32) {
    accumulate_key4(slice, i, head, lane);
    if (slice + 4u < SLICES) { accumulate_key4(slice + 4u, i, head, lane); }
}

// Writes this invocation's part of the result; `factor` per row.
fn store_d_key(first: u32, head: u32, factor: vec4<f32>, y: u32, x: u32) {
    for (var slice = 0u; slice < SLICES; slice++) {
        for (var r = 0u; r < 4u; r++) {
            let row = first + y * 4u + r;
            let c = slice * 8u + x;
            if (row < p.rows && c < HEAD_VECTORS) {
                d_k[(row * p.kv_heads + head) * HEAD_VECTORS + c] = d_key[slice][r] * factor[r];
            }
        }
    }
}

// Writes this invocation's part of the result; `factor` per row.
fn store_d_value(first: u32, head: u32, factor: vec4<f32>, y: u32, x: u32) {
    for (var slice = 0u; slice < SLICES; slice++) {
        for (var r = 0u; r < 4u; r++) {
            let row = first + y * 4u + r;
            let c = slice * 8u + x;
            if (row < p.rows && c < HEAD_VECTORS) {
                d_v[(row * p.kv_heads + head) * HEAD_VECTORS + c] = d_value[slice][r] * factor[r];
            }
        }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let y = lane / 8u;
    let x = lane % 8u;
    let kv_head = group.y;
    let heads = p.heads / p.kv_heads;
    let row0 = group.x * TILE;
    let row_end = min(row0 + TILE, p.rows);
    let row = vec4(row0 + y * 4u) + vec4(0u, 1u, 2u, 3u);

    for (var head = kv_head * heads; head < (kv_head + 1u) * heads; head++) {
        var last: vec4<u32>;
        for (var r = 0u; r < 4u; r++) {
            last[r] = query_end(min(row[r], p.rows - 1u), head);
        }
        let end = query_end(row_end - 1u, head);
        for (var i = row0; i < end; i += TILE) {
            var s = mat4x4<f32>();
            var d_s = mat4x4<f32>();
            for (var slice = 0u; slice < SLICES; slice++) {
                workgroupBarrier();
                stage_key(row0, kv_head, slice, lane);
                stage_query(i, head, slice, lane);
                workgroupBarrier();
                s = multiply(s, y, x);
                workgroupBarrier();
                stage_value(row0, kv_head, slice, lane);
                stage_d_output(i, head, slice, lane);
                workgroupBarrier();
                d_s = multiply(d_s, y, x);
            }
            for (var n = 0u; n < 4u; n++) {
                let query = i + x + 8u * n;
                let stat = stats[min(query, p.rows - 1u) * p.heads + head];
                let w = exp(s[n] * p.scale - stat.x);
                s[n] = select(vec4<f32>(), w, (vec4(query) >= row) & (vec4(query) < last));
                d_s[n] = s[n] * (d_s[n] - stat.y);
            }
            publish(s, y, x);
            accumulate_value8(0u, i, head, lane);
            workgroupBarrier();
            publish(d_s, y, x);
            accumulate_key8(0u, i, head, lane);
        }
    }
    store_d_key(row0, kv_head, vec4(p.scale), y, x);
    store_d_value(row0, kv_head, vec4(1.0), y, x);
}
