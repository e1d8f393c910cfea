// Product with a frozen matrix through workgroup memory, the form for real GPUs: a workgroup computes TILE_T × TILE_C outputs (32 to 128 each).
// Of these one invocation owns 4 × 4, or with WIDE 8 × 8 as four such blocks, TILE_T/2 rows and TILE_C/2 columns apart. Weights are
// dequantised once, while they are staged, so every format shares the inner loop.
//
// Both operands are staged DEPTH inputs deep (16 with WIDE, else 32) with the inputs slowest, so that the inner loop reads whole vectors. Where vectors lie within
// an input is permuted (x_place, w_place): eight neighbouring lanes that store, and eight that load, meet eight different banks of 16 bytes.
// With SPLIT workgroups z sum p.span inputs
// each, from z · p.span on, and y is parts [z, rows, columns], which sum_parts.wgsl adds.
#import products

const QUADS_T: u32 = TILE_T / 4u;
const QUADS_C: u32 = TILE_C / 4u;
#ifdef WIDE
const ACROSS: u32 = TILE_C / 8u;
const DOWN: u32 = TILE_T / 8u;
#else
const ACROSS: u32 = TILE_C / 4u;
const DOWN: u32 = TILE_T / 4u;
#endif
const WG: u32 = ACROSS * DOWN;
// A unit of x is four rows of four inputs, one of w four columns of eight inputs (backward: four inputs of eight columns).
const X_UNITS: u32 = QUADS_T * DEPTH / 4u;
const W_UNITS: u32 = QUADS_C * DEPTH / 8u;
var<workgroup> xs: array<vec4<f32>, DEPTH * QUADS_T>;
var<workgroup> ws: array<vec4<f32>, DEPTH * QUADS_C>;

// Where the quad of rows has its vector for input i.
fn x_place(i: u32, quad: u32) -> u32 { return i * QUADS_T + (quad ^ ((32u / DEPTH) * (i / 4u))); }
#ifdef BACKWARD
fn w_place(i: u32, quad: u32) -> u32 { return i * QUADS_C + (quad ^ ((quad / 8u) % 2u)); }
#else
fn w_place(i: u32, quad: u32) -> u32 { return i * QUADS_C + (quad ^ ((64u / DEPTH) * (i / 8u))); }
#endif

struct Block { r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32> }
#ifdef WIDE
struct Sums { ap: Block, aq: Block, bp: Block, bq: Block }
#else
struct Sums { ap: Block }
#endif

fn load_x(r: u32, at: u32) -> Block {
  let last = p.t - 1u;
  let i = at / 4u;
  return Block(row4(min(r, last), i), row4(min(r + 1u, last), i), row4(min(r + 2u, last), i), row4(min(r + 3u, last), i));
}

fn store_x(unit: u32, b: Block) {
  let quad = unit / (DEPTH / 4u);
  let i = 4u * (unit % (DEPTH / 4u));
  xs[x_place(i, quad)] = vec4(b.r0.x, b.r1.x, b.r2.x, b.r3.x);
  xs[x_place(i + 1u, quad)] = vec4(b.r0.y, b.r1.y, b.r2.y, b.r3.y);
  xs[x_place(i + 2u, quad)] = vec4(b.r0.z, b.r1.z, b.r2.z, b.r3.z);
  xs[x_place(i + 3u, quad)] = vec4(b.r0.w, b.r1.w, b.r2.w, b.r3.w);
}

#ifdef BACKWARD
const OCTETS_C: u32 = TILE_C / 8u;
fn load_w(column: u32, at: u32, unit: u32) -> Tile {
  return tile_at(min(at / 4u + unit / OCTETS_C, quads() - 1u), min(column / 8u + unit % OCTETS_C, octets() - 1u));
}

fn store_w(unit: u32, c: Tile) {
  let i = 4u * (unit / OCTETS_C);
  let quad = 2u * (unit % OCTETS_C);
  ws[w_place(i, quad)] = vec4(c.k0.x, c.k1.x, c.k2.x, c.k3.x);
  ws[w_place(i, quad + 1u)] = vec4(c.k4.x, c.k5.x, c.k6.x, c.k7.x);
  ws[w_place(i + 1u, quad)] = vec4(c.k0.y, c.k1.y, c.k2.y, c.k3.y);
  ws[w_place(i + 1u, quad + 1u)] = vec4(c.k4.y, c.k5.y, c.k6.y, c.k7.y);
  ws[w_place(i + 2u, quad)] = vec4(c.k0.z, c.k1.z, c.k2.z, c.k3.z);
  ws[w_place(i + 2u, quad + 1u)] = vec4(c.k4.z, c.k5.z, c.k6.z, c.k7.z);
  ws[w_place(i + 3u, quad)] = vec4(c.k0.w, c.k1.w, c.k2.w, c.k3.w);
  ws[w_place(i + 3u, quad + 1u)] = vec4(c.k4.w, c.k5.w, c.k6.w, c.k7.w);
}
#else
const OCTETS_D: u32 = DEPTH / 8u;
fn load_w(column: u32, at: u32, unit: u32) -> Tile {
  return tile_at(min(column / 4u + unit / OCTETS_D, quads() - 1u), min(at / 8u + unit % OCTETS_D, octets() - 1u));
}

fn store_w(unit: u32, c: Tile) {
  let i = 8u * (unit % OCTETS_D);
  let quad = unit / OCTETS_D;
  ws[w_place(i, quad)] = c.k0;
  ws[w_place(i + 1u, quad)] = c.k1;
  ws[w_place(i + 2u, quad)] = c.k2;
  ws[w_place(i + 3u, quad)] = c.k3;
  ws[w_place(i + 4u, quad)] = c.k4;
  ws[w_place(i + 5u, quad)] = c.k5;
  ws[w_place(i + 6u, quad)] = c.k6;
  ws[w_place(i + 7u, quad)] = c.k7;
}
#endif

fn outer(s: Block, v: vec4<f32>, m: vec4<f32>) -> Block {
  return Block(fma(vec4(v.x), m, s.r0), fma(vec4(v.y), m, s.r1), fma(vec4(v.z), m, s.r2), fma(vec4(v.w), m, s.r3));
}

// Adds the products of input i.
fn multiply(s: Sums, i: u32, across: u32, down: u32) -> Sums {
  let a = xs[x_place(i, down)];
  let p = ws[w_place(i, across)];
#ifdef WIDE
  let b = xs[x_place(i, down + DOWN)];
  let q = ws[w_place(i, across + ACROSS)];
  return Sums(outer(s.ap, a, p), outer(s.aq, a, q), outer(s.bp, b, p), outer(s.bq, b, q));
#else
  return Sums(outer(s.ap, a, p));
#endif
}

// Columns c .. c + 4 of rows t .. t + 4 of part z.
fn store_block(t: u32, c: u32, z: u32, b: Block) {
  if (c >= columns()) { return; }
  if (t < p.t) { store_part(t, c, z, b.r0); }
  if (t + 1u < p.t) { store_part(t + 1u, c, z, b.r1); }
  if (t + 2u < p.t) { store_part(t + 2u, c, z, b.r2); }
  if (t + 3u < p.t) { store_part(t + 3u, c, z, b.r3); }
}

fn store_part(t: u32, c: u32, z: u32, v: vec4<f32>) {
#ifdef SPLIT
  y[((z * (p.t - p.first) + t - p.first) * columns() + c) / 4u] = v;
#else
  store4(t, c, v);
#endif
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let t = p.first + group.y * TILE_T;
  let column = group.x * TILE_C;
  let across = local % ACROSS;
  let down = local / ACROSS;
  // The first lanes stage x, the last ones w.
  let has_x = local < X_UNITS;
  let has_w = local >= WG - W_UNITS;
  let x_row = t + 4u * (local / (DEPTH / 4u));
  let x_input = 4u * (local % (DEPTH / 4u));
  let w_unit = local - (WG - W_UNITS);
#ifdef SPLIT
  let begin = group.z * p.span;
  let end = min(begin + p.span, inner());
#else
  let begin = 0u;
  let end = inner();
#endif
  var s: Sums;
  for (var at = begin; at < end; at += DEPTH) {
    if (has_x) { store_x(local, load_x(x_row, at + x_input)); }
    if (has_w) { store_w(w_unit, load_w(column, at, w_unit)); }
    workgroupBarrier();
#ifdef WIDE
    // Written out, so that every place in workgroup memory is a constant away from the lane's own.
    s = multiply(s, 0u, across, down);
    s = multiply(s, 1u, across, down);
    s = multiply(s, 2u, across, down);
    s = multiply(s, 3u, across, down);
    s = multiply(s, 4u, across, down);
    s = multiply(s, 5u, across, down);
    s = multiply(s, 6u, across, down);
    s = multiply(s, 7u, across, down);
    s = multiply(s, 8u, across, down);
    s = multiply(s, 9u, across, down);
    s = multiply(s, 10u, across, down);
    s = multiply(s, 11u, across, down);
    s = multiply(s, 12u, across, down);
    s = multiply(s, 13u, across, down);
    s = multiply(s, 14u, across, down);
    s = multiply(s, 15u, across, down);
#else
    for (var i = 0u; i < DEPTH; i += 4u) {
      s = multiply(s, i, across, down);
      s = multiply(s, i + 1u, across, down);
      s = multiply(s, i + 2u, across, down);
      s = multiply(s, i + 3u, across, down);
    }
#endif
    workgroupBarrier();
  }
  store_block(t + 4u * down, column + 4u * across, group.z, s.ap);
#ifdef WIDE
  store_block(t + 4u * down, column + 4u * (across + ACROSS), group.z, s.aq);
  store_block(t + 4u * (down + DOWN), column + 4u * across, group.z, s.bp);
  store_block(t + 4u * (down + DOWN), column + 4u * (across + ACROSS), group.z, s.bq);
#endif
}
