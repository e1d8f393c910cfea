// Causal grouped-query attention, gradient of the queries, with the weights recomputed from lse:
//   w = exp(scale q kT - lse)   ds = w * (do vT - delta)   dq = scale ds k
//   q, do, dq: [T, H * hd]   k, v: [T, KV * hd]   stats: [T, H, 2] of (lse, delta)   margins: [T, 2]
//
// Workgroups and tiles as in attention_tile_forward.
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
@group(0) @binding(7) var<storage, read_write> d_q: array<vec4<f32>>;
#import attention_mask
#import attention_tile

var<private> d_query: array<mat4x4<f32>, SLICES>;

// 32 rows of q from `first` on, slice `slice` of one head; zeros past the last row or the head.
fn stage_query(first: u32, head: u32, slice: u32, lane: u32) {
    for (var n = lane; n < TILE * 8u; n += 64u) {
        let row = first + n / 8u;
        let c = slice * 8u + n % 8u;
        var x = vec4<f32>();
        if (row < p.rows && c < HEAD_VECTORS) {
            x = q[(row * p.heads + head) * HEAD_VECTORS + c];
        }
        row_slice[n / 8u * STRIDE + n % 8u] = x;
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
        row_slice[n / 8u * STRIDE + n % 8u] = x;
    }
}

// 32 rows of k from `first` on, slice `slice` of one head; zeros past the last row or the head.
fn stage_key(first: u32, head: u32, slice: u32, lane: u32) {
    for (var n = lane; n < TILE * 8u; n += 64u) {
        let row = first + n / 8u;
        let c = slice * 8u + n % 8u;
        var x = vec4<f32>();
        if (row < p.rows && c < HEAD_VECTORS) {
            x = k[(row * p.kv_heads + head) * HEAD_VECTORS + c];
        }
        column_slice[n / 8u * STRIDE + n % 8u] = x;
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
        column_slice[n / 8u * STRIDE + n % 8u] = x;
    }
}

// d_query += pairs . k, slice by slice; unrolled by halving, so that `d_query` can live in registers.
fn accumulate1(slice: u32, j: u32, kv_head: u32, lane: u32) {
    workgroupBarrier();
    stage_key(j, kv_head, slice, lane);
    workgroupBarrier();
    d_query[slice] = gather_columns(d_query[slice], lane / 8u, lane % 8u);
}
fn accumulate2(slice: u32, j: u32, kv_head: u32, lane: u32) {
    accumulate1(slice, j, kv_head, lane);
    if (slice + 1u < SLICES) { accumulate1(slice + 1u, j, kv_head, lane); }
}
fn accumulate4(slice: u32, j: u32, kv_head: u32, lane: u32) {
    accumulate2(slice, j, kv_head, lane);
    if (slice + 2u < SLICES) { accumulate2(slice + 2u, j, kv_head, lane); }
}
fn accumulate8(slice: u32, j: u32, kv_head: u32, lane: u32) {
    accumulate4(slice, j, kv_head, lane);
    if (slice + 4u < SLICES) { accumulate4(slice + 4u, j, kv_head, lane); }
}

// Writes this invocation's part of the result; `factor` per row.
fn store_d_query(first: u32, head: u32, factor: vec4<f32>, y: u32, x: u32) {
    for (var slice = 0u; slice < SLICES; slice++) {
        for (var r = 0u; r < 4u; r++) {
            let row = first + y * 4u + r;
            let c = slice * 8u + x;
            if (row < p.rows && c < HEAD_VECTORS) {
                d_q[(row * p.heads + head) * HEAD_VECTORS + c] = d_query[slice][r] * factor[r];
            }
        }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let y = lane / 8u;
    let x = lane % 8u;
    let head = group.y;
    let kv_head = head / (p.heads / p.kv_heads);
    let row0 = group.x * TILE;
    let row_end = min(row0 + TILE, p.rows);
    let row = vec4(row0 + y * 4u) + vec4(0u, 1u, 2u, 3u);
    var first: vec4<u32>;
    var lse: vec4<f32>;
    var delta: vec4<f32>;
    for (var r = 0u; r < 4u; r++) {
        let i = min(row[r], p.rows - 1u);
        first[r] = first_key(i, head);
        lse[r] = stats[i * p.heads + head].x;
        delta[r] = stats[i * p.heads + head].y;
    }

    for (var j = first_key(row0, head); j < row_end; j += TILE) {
        var s = mat4x4<f32>();
        var d_w = mat4x4<f32>();
        for (var slice = 0u; slice < SLICES; slice++) {
            workgroupBarrier();
            stage_query(row0, head, slice, lane);
            stage_key(j, kv_head, slice, lane);
            workgroupBarrier();
            s = multiply(s, y, x);
            workgroupBarrier();
            stage_d_output(row0, head, slice, lane);
            stage_value(j, kv_head, slice, lane);
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
        accumulate8(0u, j, kv_head, lane);
    }
    store_d_query(row0, head, vec4(p.scale), y, x);
}
