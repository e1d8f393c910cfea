// Product with a frozen matrix from registers alone: one invocation owns ROWS (4 to 32) rows and eight columns, dequantises each weight
// once and multiplies it into every row. No workgroup memory, so it also suits adapters where that is slow (software ones, some mobile).
//
// With SUBGROUPS neighbouring lanes load a part of the inputs each and broadcast it; without, every lane loads the same vectors. With GROUPED
// a format's scales are decoded once a group of inputs, in a loop around the loop; without, for every eight inputs.
//
// On llvmpipe loads cost most (a branch a lane), so weights come as vectors of four rows and inputs four rows at once; every four rows sit in
// an `if`, which keeps that compiler from spreading the arithmetic over the whole body and spilling.
// Figures: docs/tuning.md.
#import products
#import rows4

// Weights of eight columns for eight inputs.
struct Pair { a: Tile, b: Tile }
struct Sums {
  a0: vec4<f32>, b0: vec4<f32>, a1: vec4<f32>, b1: vec4<f32>,
  a2: vec4<f32>, b2: vec4<f32>, a3: vec4<f32>, b3: vec4<f32>,
}

fn multiply(s: Sums, r: Rows, c: Pair) -> Sums {
  return Sums(
    dot8(s.a0, r.lo0, r.hi0, c.a), dot8(s.b0, r.lo0, r.hi0, c.b), dot8(s.a1, r.lo1, r.hi1, c.a), dot8(s.b1, r.lo1, r.hi1, c.b),
    dot8(s.a2, r.lo2, r.hi2, c.a), dot8(s.b2, r.lo2, r.hi2, c.b), dot8(s.a3, r.lo3, r.hi3, c.a), dot8(s.b3, r.lo3, r.hi3, c.b));
}

// Columns c .. c + 4, which are there, of rows t .. t + 4.
fn store_rows(t: u32, c: u32, s0: vec4<f32>, s1: vec4<f32>, s2: vec4<f32>, s3: vec4<f32>) {
  if (t < p.t) { store4(t, c, s0); }
  if (t + 1u < p.t) { store4(t + 1u, c, s1); }
  if (t + 2u < p.t) { store4(t + 2u, c, s2); }
  if (t + 3u < p.t) { store4(t + 3u, c, s3); }
}

#ifdef BACKWARD
// Two units below each other, turned: their eight rows are the inputs here, their eight inputs the columns.
fn turned(u: Tile, v: Tile) -> Pair {
  return Pair(
    Tile(
      vec4(u.k0.x, u.k1.x, u.k2.x, u.k3.x), vec4(u.k0.y, u.k1.y, u.k2.y, u.k3.y),
      vec4(u.k0.z, u.k1.z, u.k2.z, u.k3.z), vec4(u.k0.w, u.k1.w, u.k2.w, u.k3.w),
      vec4(v.k0.x, v.k1.x, v.k2.x, v.k3.x), vec4(v.k0.y, v.k1.y, v.k2.y, v.k3.y),
      vec4(v.k0.z, v.k1.z, v.k2.z, v.k3.z), vec4(v.k0.w, v.k1.w, v.k2.w, v.k3.w)),
    Tile(
      vec4(u.k4.x, u.k5.x, u.k6.x, u.k7.x), vec4(u.k4.y, u.k5.y, u.k6.y, u.k7.y),
      vec4(u.k4.z, u.k5.z, u.k6.z, u.k7.z), vec4(u.k4.w, u.k5.w, u.k6.w, u.k7.w),
      vec4(v.k4.x, v.k5.x, v.k6.x, v.k7.x), vec4(v.k4.y, v.k5.y, v.k6.y, v.k7.y),
      vec4(v.k4.z, v.k5.z, v.k6.z, v.k7.z), vec4(v.k4.w, v.k5.w, v.k6.w, v.k7.w)));
}
#endif

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
#ifdef SUBGROUPS
  @builtin(subgroup_invocation_id) invocation: u32,
#endif
) {
#ifdef SUBGROUPS
  let lane = invocation % BROADCAST_WIDTH;
#else
  let lane = 0u;
#endif
#ifdef BACKWARD
  let tile = group.xy;
#else
  // Neighbouring workgroups share weights, which then come from memory once.
  let tile = group.yx;
#endif
  let t = p.first + tile.y * ROWS;
  let last_row = p.t - 1u;
  var s0: Sums;
#ifdef ROWS8
  var s1: Sums;
#endif
#ifdef ROWS16
  var s2: Sums;
  var s3: Sums;
#endif
#ifdef ROWS32
  var s4: Sums;
  var s5: Sums;
  var s6: Sums;
  var s7: Sums;
#endif

#ifdef BACKWARD
  let octet = tile.x * WG + local;
  let ca = octet * 8u;
  let cb = ca + 4u;
  let column = min(octet, octets() - 1u);
  let last_quad = quads() - 1u;
  for (var o = 0u; 8u * o < p.n; o++) {
    let c = turned(tile_at(2u * o, column), tile_at(min(2u * o + 1u, last_quad), column));
#else
  let quad = tile.x * WG * 2u + local;
  let ca = quad * 4u;
  let cb = (quad + WG) * 4u;
  let qa = min(quad, quads() - 1u);
  let qb = min(quad + WG, quads() - 1u);
#ifdef GROUPED
  for (var g = 0u; g * GROUP < p.k; g++) {
    let ga = quant_group(qa, g);
    let gb = quant_group(qb, g);
    for (var j = 0u; j < GROUP / 8u; j++) {
      let o = g * (GROUP / 8u) + j;
      let c = Pair(quant_tile(ga, qa, g, j), quant_tile(gb, qb, g, j));
#else
  for (var o = 0u; 8u * o < p.k; o++) {
    let c = Pair(tile_at(qa, o), tile_at(qb, o));
#endif
#endif
    if (t < p.t) { s0 = multiply(s0, rows4(t, last_row, 2u * o, lane), c); }
#ifdef ROWS8
    if (t + 4u < p.t) { s1 = multiply(s1, rows4(t + 4u, last_row, 2u * o, lane), c); }
#endif
#ifdef ROWS16
    if (t + 8u < p.t) { s2 = multiply(s2, rows4(t + 8u, last_row, 2u * o, lane), c); }
    if (t + 12u < p.t) { s3 = multiply(s3, rows4(t + 12u, last_row, 2u * o, lane), c); }
#endif
#ifdef ROWS32
    if (t + 16u < p.t) { s4 = multiply(s4, rows4(t + 16u, last_row, 2u * o, lane), c); }
    if (t + 20u < p.t) { s5 = multiply(s5, rows4(t + 20u, last_row, 2u * o, lane), c); }
    if (t + 24u < p.t) { s6 = multiply(s6, rows4(t + 24u, last_row, 2u * o, lane), c); }
    if (t + 28u < p.t) { s7 = multiply(s7, rows4(t + 28u, last_row, 2u * o, lane), c); }
#endif
#ifdef GROUPED
    }
#endif
  }
  // Every branch here is compiled, and run, once a row.
  if (ca >= columns()) { return; }
  store_rows(t, ca, s0.a0, s0.a1, s0.a2, s0.a3);
#ifdef ROWS8
  store_rows(t + 4u, ca, s1.a0, s1.a1, s1.a2, s1.a3);
#endif
#ifdef ROWS16
  store_rows(t + 8u, ca, s2.a0, s2.a1, s2.a2, s2.a3);
  store_rows(t + 12u, ca, s3.a0, s3.a1, s3.a2, s3.a3);
#endif
#ifdef ROWS32
  store_rows(t + 16u, ca, s4.a0, s4.a1, s4.a2, s4.a3);
  store_rows(t + 20u, ca, s5.a0, s5.a1, s5.a2, s5.a3);
  store_rows(t + 24u, ca, s6.a0, s6.a1, s6.a2, s6.a3);
  store_rows(t + 28u, ca, s7.a0, s7.a1, s7.a2, s7.a3);
#endif
  if (cb >= columns()) { return; }
  store_rows(t, cb, s0.b0, s0.b1, s0.b2, s0.b3);
#ifdef ROWS8
  store_rows(t + 4u, cb, s1.b0, s1.b1, s1.b2, s1.b3);
#endif
#ifdef ROWS16
  store_rows(t + 8u, cb, s2.b0, s2.b1, s2.b2, s2.b3);
  store_rows(t + 12u, cb, s3.b0, s3.b1, s3.b2, s3.b3);
#endif
#ifdef ROWS32
  store_rows(t + 16u, cb, s4.b0, s4.b1, s4.b2, s4.b3);
  store_rows(t + 20u, cb, s5.b0, s5.b1, s5.b2, s5.b3);
  store_rows(t + 24u, cb, s6.b0, s6.b1, s6.b2, s6.b3);
  store_rows(t + 28u, cb, s7.b0, s7.b1, s7.b2, s7.b3);
#endif
}
