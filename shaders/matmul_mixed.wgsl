// Product with a frozen matrix on matrix units: operands in f16, sums in f32, one power of two a row of x against under- and overflow
// (row_scale.wgsl). A workgroup of eight subgroups of 32 computes 128 × 128 outputs; a subgroup owns 32 rows and 64 columns, 2 × 4
// cooperative matrices of 16 × 16. For adapters that have those; y is parts [z, rows, columns] with SPLIT, as in matmul_tile.wgsl.
//
// Both operands are staged DEPTH (32 or 64) inputs deep, the inputs of a row (and of a column) side by side; two vectors of padding keep
// neighbouring rows in different banks. All loads of a stage are on their way before the first is stored.
#import products
@group(0) @binding(4) var<storage, read_write> row_scale: array<vec2<f32>>;

const TILE: u32 = 128u;
// Vectors of a row's inputs, and from a row (column) to the next.
const VECTORS: u32 = DEPTH / 4u;
const STRIDE: u32 = VECTORS + 2u;
// Rows that the 256 lanes load at once.
const ROWS: u32 = 256u / VECTORS;
// A unit of w is four columns of eight inputs, backward eight columns of four inputs.
const W_UNITS: u32 = TILE * DEPTH / 32u;
var<workgroup> xs: array<vec4<f16>, TILE * STRIDE>;
var<workgroup> ws: array<vec4<f16>, TILE * STRIDE>;
// 16 × 16 outputs of each subgroup.
var<workgroup> out: array<f32, 2048>;

// This lane's vector of row r of the tile.
fn load_x(t: u32, at: u32, r: u32, i: u32) -> vec4<f32> {
  let row = min(t + r, p.t - 1u);
  return row4(row, at / 4u + i) * row_scale[row - p.first].x;
}

#ifdef BACKWARD
const OCTETS: u32 = TILE / 8u;
fn load_w(column: u32, at: u32, unit: u32) -> Tile {
  return tile_at(min(at / 4u + unit / OCTETS, quads() - 1u), min(column / 8u + unit % OCTETS, octets() - 1u));
}

fn store_w(unit: u32, c: Tile) {
  let o = 8u * (unit % OCTETS) * STRIDE + unit / OCTETS;
  ws[o] = vec4<f16>(c.k0);
  ws[o + STRIDE] = vec4<f16>(c.k1);
  ws[o + 2u * STRIDE] = vec4<f16>(c.k2);
  ws[o + 3u * STRIDE] = vec4<f16>(c.k3);
  ws[o + 4u * STRIDE] = vec4<f16>(c.k4);
  ws[o + 5u * STRIDE] = vec4<f16>(c.k5);
  ws[o + 6u * STRIDE] = vec4<f16>(c.k6);
  ws[o + 7u * STRIDE] = vec4<f16>(c.k7);
}
#else
const OCTETS: u32 = DEPTH / 8u;
fn load_w(column: u32, at: u32, unit: u32) -> Tile {
  return tile_at(min(column / 4u + unit / OCTETS, quads() - 1u), min(at / 8u + unit % OCTETS, octets() - 1u));
}

fn store_w(unit: u32, c: Tile) {
  let o = 4u * (unit / OCTETS) * STRIDE + 2u * (unit % OCTETS);
  ws[o] = vec4<f16>(vec4(c.k0.x, c.k1.x, c.k2.x, c.k3.x));
  ws[o + 1u] = vec4<f16>(vec4(c.k4.x, c.k5.x, c.k6.x, c.k7.x));
  ws[o + STRIDE] = vec4<f16>(vec4(c.k0.y, c.k1.y, c.k2.y, c.k3.y));
  ws[o + STRIDE + 1u] = vec4<f16>(vec4(c.k4.y, c.k5.y, c.k6.y, c.k7.y));
  ws[o + 2u * STRIDE] = vec4<f16>(vec4(c.k0.z, c.k1.z, c.k2.z, c.k3.z));
  ws[o + 2u * STRIDE + 1u] = vec4<f16>(vec4(c.k4.z, c.k5.z, c.k6.z, c.k7.z));
  ws[o + 3u * STRIDE] = vec4<f16>(vec4(c.k0.w, c.k1.w, c.k2.w, c.k3.w));
  ws[o + 3u * STRIDE + 1u] = vec4<f16>(vec4(c.k4.w, c.k5.w, c.k6.w, c.k7.w));
}
#endif

// Columns c .. c + 4 of row t of part z.
fn store_part(t: u32, c: u32, z: u32, v: vec4<f32>) {
  if (t >= p.t || c >= columns()) { return; }
  let r = t - p.first;
  let scaled = v * row_scale[r].y;
#ifdef SPLIT
  y[((z * (p.t - p.first) + r) * columns() + c) / 4u] = scaled;
#else
  store4(t, c, scaled);
#endif
}

// Eight outputs of this lane of the 16 × 16, from row t and column c on, that its subgroup has put into `out`.
fn store_share(t: u32, c: u32, z: u32, subgroup: u32, lane: u32) {
  let at = subgroup * 256u + lane * 8u;
  let row = t + lane / 2u;
  let column = c + (lane % 2u) * 8u;
  store_part(row, column, z, vec4(out[at], out[at + 1u], out[at + 2u], out[at + 3u]));
  store_part(row, column + 4u, z, vec4(out[at + 4u], out[at + 5u], out[at + 6u], out[at + 7u]));
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let t = p.first + group.y * TILE;
  let column = group.x * TILE;
  let subgroup = local / 32u;
  let lane = local % 32u;
  let own_row = (subgroup / 2u) * 32u;
  let own_column = (subgroup % 2u) * 64u;
  let r = local / VECTORS;
  let i = local % VECTORS;
  let has_w = local < W_UNITS;
#ifdef SPLIT
  let begin = group.z * p.span;
  let end = min(begin + p.span, inner());
#else
  let begin = 0u;
  let end = inner();
#endif
  var c00: coop_mat16x16<f32, C>;
  var c01: coop_mat16x16<f32, C>;
  var c02: coop_mat16x16<f32, C>;
  var c03: coop_mat16x16<f32, C>;
  var c10: coop_mat16x16<f32, C>;
  var c11: coop_mat16x16<f32, C>;
  var c12: coop_mat16x16<f32, C>;
  var c13: coop_mat16x16<f32, C>;
  for (var at = begin; at < end; at += DEPTH) {
    let x0 = load_x(t, at, r, i);
    let x1 = load_x(t, at, r + ROWS, i);
    let x2 = load_x(t, at, r + 2u * ROWS, i);
    let x3 = load_x(t, at, r + 3u * ROWS, i);
#ifdef DEEP
    let x4 = load_x(t, at, r + 4u * ROWS, i);
    let x5 = load_x(t, at, r + 5u * ROWS, i);
    let x6 = load_x(t, at, r + 6u * ROWS, i);
    let x7 = load_x(t, at, r + 7u * ROWS, i);
#endif
    if (has_w) { store_w(local, load_w(column, at, local)); }
    let o = r * STRIDE + i;
    xs[o] = vec4<f16>(x0);
    xs[o + ROWS * STRIDE] = vec4<f16>(x1);
    xs[o + 2u * ROWS * STRIDE] = vec4<f16>(x2);
    xs[o + 3u * ROWS * STRIDE] = vec4<f16>(x3);
#ifdef DEEP
    xs[o + 4u * ROWS * STRIDE] = vec4<f16>(x4);
    xs[o + 5u * ROWS * STRIDE] = vec4<f16>(x5);
    xs[o + 6u * ROWS * STRIDE] = vec4<f16>(x6);
    xs[o + 7u * ROWS * STRIDE] = vec4<f16>(x7);
#endif
    workgroupBarrier();
    for (var k = 0u; k < VECTORS; k += 4u) {
      let a0 = coopLoadT<coop_mat16x16<f16, A>>(&xs[own_row * STRIDE + k], STRIDE);
      let a1 = coopLoadT<coop_mat16x16<f16, A>>(&xs[(own_row + 16u) * STRIDE + k], STRIDE);
      let b0 = coopLoad<coop_mat16x16<f16, B>>(&ws[own_column * STRIDE + k], STRIDE);
      let b1 = coopLoad<coop_mat16x16<f16, B>>(&ws[(own_column + 16u) * STRIDE + k], STRIDE);
      let b2 = coopLoad<coop_mat16x16<f16, B>>(&ws[(own_column + 32u) * STRIDE + k], STRIDE);
      let b3 = coopLoad<coop_mat16x16<f16, B>>(&ws[(own_column + 48u) * STRIDE + k], STRIDE);
      c00 = coopMultiplyAdd(a0, b0, c00);
      c10 = coopMultiplyAdd(a1, b0, c10);
      c01 = coopMultiplyAdd(a0, b1, c01);
      c11 = coopMultiplyAdd(a1, b1, c11);
      c02 = coopMultiplyAdd(a0, b2, c02);
      c12 = coopMultiplyAdd(a1, b2, c12);
      c03 = coopMultiplyAdd(a0, b3, c03);
      c13 = coopMultiplyAdd(a1, b3, c13);
    }
    workgroupBarrier();
  }
  let row = t + own_row;
  let c = column + own_column;
  let z = group.z;
  // Each lane reads what its whole subgroup has stored.
  coopStoreT(c00, &out[subgroup * 256u], 16u);
  workgroupBarrier();
  store_share(row, c, z, subgroup, lane);
  workgroupBarrier();
  coopStoreT(c01, &out[subgroup * 256u], 16u);
  workgroupBarrier();
  store_share(row, c + 16u, z, subgroup, lane);
  workgroupBarrier();
  coopStoreT(c02, &out[subgroup * 256u], 16u);
  workgroupBarrier();
  store_share(row, c + 32u, z, subgroup, lane);
  workgroupBarrier();
  coopStoreT(c03, &out[subgroup * 256u], 16u);
  workgroupBarrier();
  store_share(row, c + 48u, z, subgroup, lane);
  workgroupBarrier();
  coopStoreT(c10, &out[subgroup * 256u], 16u);
  workgroupBarrier();
  store_share(row + 16u, c, z, subgroup, lane);
  workgroupBarrier();
  coopStoreT(c11, &out[subgroup * 256u], 16u);
  workgroupBarrier();
  store_share(row + 16u, c + 16u, z, subgroup, lane);
  workgroupBarrier();
  coopStoreT(c12, &out[subgroup * 256u], 16u);
  workgroupBarrier();
  store_share(row + 16u, c + 32u, z, subgroup, lane);
  workgroupBarrier();
  coopStoreT(c13, &out[subgroup * 256u], 16u);
  workgroupBarrier();
  store_share(row + 16u, c + 48u, z, subgroup, lane);
}
