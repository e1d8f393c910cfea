// Causal grouped-query attention, forward: o = softmax(scale q kT) v and lse = log(sum(exp(scale q kT))), over the visible
// rows of each query row, one pass over the keys (online softmax).
//   q, o: [T, H * hd]   k, v: [T, KV * hd]   lse: [T, H]
//
// A workgroup takes tiles of 32 query rows of one head, one after the other if there are more tiles than workgroups: scores of 32 keys at
// a time in registers, operands through workgroup memory (see attention_tile), outputs in registers. The kernel for GPUs; on CPU
// adapters, whose workgroup memory is slower than plain loads, attention_lanes_forward wins.
// Grid: (tiles, H).
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
@group(0) @binding(4) var<storage, read> documents: array<u32>;
@group(0) @binding(5) var<storage, read_write> o: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;
#import attention_mask
#import attention_documents
#import attention_tile

fn operand4(operand: u32, at: u32) -> vec4<f32> {
    switch operand {
        case Q: { return q[at]; }
        case K: { return k[at]; }
        default: { return v[at]; }
    }
}

// Scores of unseen rows, and the floor of the running maximum: exp(UNSEEN - FLOOR) is exactly zero.
const UNSEEN = vec4<f32>(-3.0e38);
const FLOOR = vec4<f32>(-1.0e30);

var<private> output: array<mat4x4<f32>, SLICES>;

// output = output * rescale + pairs . v, slice by slice; unrolled by halving, so that `output` can live in registers.
fn accumulate1(slice: u32, j: u32, row_end: u32, kv_head: u32, rescale: vec4<f32>, lane: u32) {
    workgroupBarrier();
    stage(COLUMN_SIDE, V, j, row_end, kv_head, slice, lane);
    workgroupBarrier();
    let y = lane / 8u;
    var sum = output[slice];
    sum[0] *= rescale.x;
    sum[1] *= rescale.y;
    sum[2] *= rescale.z;
    sum[3] *= rescale.w;
    output[slice] = gather_columns(sum, y, lane % 8u);
}
fn accumulate2(slice: u32, j: u32, row_end: u32, kv_head: u32, rescale: vec4<f32>, lane: u32) {
    accumulate1(slice, j, row_end, kv_head, rescale, lane);
    if (slice + 1u < SLICES) { accumulate1(slice + 1u, j, row_end, kv_head, rescale, lane); }
}
fn accumulate4(slice: u32, j: u32, row_end: u32, kv_head: u32, rescale: vec4<f32>, lane: u32) {
    accumulate2(slice, j, row_end, kv_head, rescale, lane);
    if (slice + 2u < SLICES) { accumulate2(slice + 2u, j, row_end, kv_head, rescale, lane); }
}
fn accumulate8(slice: u32, j: u32, row_end: u32, kv_head: u32, rescale: vec4<f32>, lane: u32) {
    accumulate4(slice, j, row_end, kv_head, rescale, lane);
    if (slice + 4u < SLICES) { accumulate4(slice + 4u, j, row_end, kv_head, rescale, lane); }
}

// Writes this invocation's part of the result; `factor` per row.
fn store_output(first: u32, end: u32, head: u32, factor: vec4<f32>, y: u32, x: u32) {
    for (var slice = 0u; slice < SLICES; slice++) {
        for (var r = 0u; r < 4u; r++) {
            let row = first + y * 4u + r;
            let c = slice * 8u + x;
            if (row < end && c < HEAD_VECTORS) {
                o[(row * p.heads + head) * HEAD_VECTORS + c] = output[slice][r] * factor[r];
            }
        }
    }
}

fn forward(tile: RowTile, head: u32, lane: u32) {
    let y = lane / 8u;
    let x = lane % 8u;
    let kv_head = head / (p.heads / p.kv_heads);
    let row0 = tile.first;
    let row_end = tile.end;
    let row = vec4(row0 + y * 4u) + vec4(0u, 1u, 2u, 3u);
    var first: vec4<u32>;
    for (var r = 0u; r < 4u; r++) {
        first[r] = first_key(tile.doc, min(row[r], row_end - 1u), head);
    }

    var highest = FLOOR;
    var total = vec4<f32>();
    output = array<mat4x4<f32>, SLICES>();
    for (var j = first_key(tile.doc, row0, head); j < row_end; j += TILE) {
        var s = mat4x4<f32>();
        for (var slice = 0u; slice < SLICES; slice++) {
            workgroupBarrier();
            stage(ROW_SIDE, Q, row0, row_end, head, slice, lane);
            stage(COLUMN_SIDE, K, j, row_end, kv_head, slice, lane);
            workgroupBarrier();
            s = multiply(s, y, x);
        }
        for (var n = 0u; n < 4u; n++) {
            let key = vec4(j + x + 8u * n);
            s[n] = select(UNSEEN, s[n] * p.scale, (key >= first) & (key <= row));
        }
        let before = highest;
        highest = max(highest, rows_max(max(max(s[0], s[1]), max(s[2], s[3])), y, x));
        let rescale = exp(before - highest);
        for (var n = 0u; n < 4u; n++) {
            s[n] = exp(s[n] - highest);
        }
        total = total * rescale + (s[0] + s[1]) + (s[2] + s[3]);
        publish(s, y, x);
        accumulate8(0u, j, row_end, kv_head, rescale, lane);
    }

    total = rows_sum(total, y, x);
    store_output(row0, row_end, head, 1.0 / total, y, x);
    if (x == 0u) {
        for (var r = 0u; r < 4u; r++) {
            if (row[r] < row_end) {
                lse[row[r] * p.heads + head] = highest[r] + log(total[r]);
            }
        }
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let turn = head_in_turn(group.y, groups.y);
    for (var n = tile_begin() + group.x; n < tile_end(); n += groups.x) {
        forward(row_tile(n), turn, lane);
    }
}
