// What the `attention_tile_*` kernels share: 32 x 32 pairs of (row, column) by 64 invocations, staged through workgroup memory.
//
// Invocation (y, x) = (lane / 8, lane % 8) owns rows 4y .. 4y + 3 and the columns x, x + 8, x + 16, x + 24 of the pairs, and of
// a [32 rows, hd] result the columns 4x .. 4x + 3 of every 32. Both operands pass in slices of 32 along the head dimension,
// padded to 9 vectors a row so that neighbouring invocations hit different banks; any head dimension that is a multiple
// of 4 fits in 14 KiB. Results stay in registers, one mat4x4 per 32 of the head dimension: column r is row 4y + r.

const TILE: u32 = 32u;
const STRIDE: u32 = 9u;
// Vectors in one row of one head, and slices of 32 in it.
const HEAD_VECTORS: u32 = HEAD_DIM / 4u;
const SLICES: u32 = (HEAD_DIM + 31u) / 32u;

var<workgroup> row_slice: array<vec4<f32>, 288>;
var<workgroup> column_slice: array<vec4<f32>, 288>;
// One factor per pair: element column * 8 + y holds rows 4y .. 4y + 3.
var<workgroup> pairs: array<vec4<f32>, 256>;

// What `stage` copies, and where.
const Q: u32 = 0u;
const K: u32 = 1u;
const V: u32 = 2u;
const D_O: u32 = 3u;
const ROW_SIDE: u32 = 0u;
const COLUMN_SIDE: u32 = 1u;

// Stages 32 rows of q, k, v or do from row `first` on, slice `slice` of one head; zeros from row `end` on and past the head, so that no row of
// another document is ever multiplied. The importer declares operand4(operand, at), vector `at` of that tensor.
fn stage(side: u32, operand: u32, first: u32, end: u32, head: u32, slice: u32, lane: u32) {
    // Four loads are on their way before the first is stored.
    let a = staged4(operand, first, end, head, slice, lane);
    let b = staged4(operand, first + 8u, end, head, slice, lane);
    let c = staged4(operand, first + 16u, end, head, slice, lane);
    let d = staged4(operand, first + 24u, end, head, slice, lane);
    let at = lane / 8u * STRIDE + lane % 8u;
    if (side == ROW_SIDE) {
        row_slice[at] = a;
        row_slice[at + 8u * STRIDE] = b;
        row_slice[at + 16u * STRIDE] = c;
        row_slice[at + 24u * STRIDE] = d;
    } else {
        column_slice[at] = a;
        column_slice[at + 8u * STRIDE] = b;
        column_slice[at + 16u * STRIDE] = c;
        column_slice[at + 24u * STRIDE] = d;
    }
}

// This invocation's vector of the eight rows from `first` on.
fn staged4(operand: u32, first: u32, end: u32, head: u32, slice: u32, lane: u32) -> vec4<f32> {
    let heads = select(p.heads, p.kv_heads, operand == K || operand == V);
    let row = first + lane / 8u;
    let c = slice * 8u + lane % 8u;
    if (row < end && c < HEAD_VECTORS) { return operand4(operand, (row * heads + head) * HEAD_VECTORS + c); }
    return vec4<f32>();
}

// pairs[n] += row_slice . column_slice for this invocation's column x + 8n, its four rows in one vector.
fn multiply(sum: mat4x4<f32>, y: u32, x: u32) -> mat4x4<f32> {
    var s = sum;
    for (var c = 0u; c < 8u; c += 4u) {
        s = multiply1(s, y, x, c);
        s = multiply1(s, y, x, c + 1u);
        s = multiply1(s, y, x, c + 2u);
        s = multiply1(s, y, x, c + 3u);
    }
    return s;
}

fn multiply1(s: mat4x4<f32>, y: u32, x: u32, c: u32) -> mat4x4<f32> {
    let at = y * 4u * STRIDE + c;
    let rows = mat4x4<f32>(row_slice[at], row_slice[at + STRIDE], row_slice[at + 2u * STRIDE], row_slice[at + 3u * STRIDE]);
    return mat4x4<f32>(
        s[0] + column_slice[x * STRIDE + c] * rows,
        s[1] + column_slice[(x + 8u) * STRIDE + c] * rows,
        s[2] + column_slice[(x + 16u) * STRIDE + c] * rows,
        s[3] + column_slice[(x + 24u) * STRIDE + c] * rows);
}

// sum += pairs . column_slice: 32 columns of pairs times 32 staged rows.
fn gather_columns(sum: mat4x4<f32>, y: u32, x: u32) -> mat4x4<f32> {
    var s = sum;
    for (var j = 0u; j < TILE; j += 4u) {
        s = gather1(s, y, x, j);
        s = gather1(s, y, x, j + 1u);
        s = gather1(s, y, x, j + 2u);
        s = gather1(s, y, x, j + 3u);
    }
    return s;
}

fn gather1(s: mat4x4<f32>, y: u32, x: u32, j: u32) -> mat4x4<f32> {
    let factor = pairs[j * 8u + y];
    let value = column_slice[j * STRIDE + x];
    return mat4x4<f32>(s[0] + value * factor.x, s[1] + value * factor.y, s[2] + value * factor.z, s[3] + value * factor.w);
}

// This invocation's share of the pairs, where all can read it. The caller puts a barrier before and after.
fn publish(s: mat4x4<f32>, y: u32, x: u32) {
    pairs[x * 8u + y] = s[0];
    pairs[(x + 8u) * 8u + y] = s[1];
    pairs[(x + 16u) * 8u + y] = s[2];
    pairs[(x + 24u) * 8u + y] = s[3];
}

// The eight invocations of a row group combine a vector of their four rows.
var<workgroup> shares: array<vec4<f32>, 64>;

fn rows_max(value: vec4<f32>, y: u32, x: u32) -> vec4<f32> {
    workgroupBarrier();
    shares[y * 8u + x] = value;
    workgroupBarrier();
    var result = shares[y * 8u];
    for (var n = 1u; n < 8u; n++) {
        result = max(result, shares[y * 8u + n]);
    }
    return result;
}

fn rows_sum(value: vec4<f32>, y: u32, x: u32) -> vec4<f32> {
    workgroupBarrier();
    shares[y * 8u + x] = value;
    workgroupBarrier();
    var result = shares[y * 8u];
    for (var n = 1u; n < 8u; n++) {
        result += shares[y * 8u + n];
    }
    return result;
}
