// Product with a frozen matrix through workgroup memory, the form for real GPUs: 64 invocations compute TILE × TILE outputs (64 or 32), each
// TILE/8 × TILE/8. Weights are dequantised while they are staged, so every format shares the inner loop. Both operands are staged 32 inputs
// deep with the inputs slowest, so that the inner loop reads whole vectors: 2 · 32 · TILE · 4 bytes, 16 KiB at most.
#import products

const DEPTH: u32 = 32u;
const QUADS: u32 = TILE / 4u;
// Quads of rows (and of columns) of one invocation.
const OWN: u32 = TILE / 32u;
var<workgroup> xs: array<vec4<f32>, 32u * TILE / 4u>;
var<workgroup> ws: array<vec4<f32>, 32u * TILE / 4u>;

// Rows t .. t + TILE of inputs from `at` on, turned.
fn stage_x(t: u32, at: u32, local: u32) {
  let last = p.t - 1u;
  for (var u = local; u < QUADS * (DEPTH / 4u); u += 64u) {
    let quad = u / (DEPTH / 4u);
    let i = u % (DEPTH / 4u);
    let r = t + 4u * quad;
    let a = row4(min(r, last), at / 4u + i);
    let b = row4(min(r + 1u, last), at / 4u + i);
    let c = row4(min(r + 2u, last), at / 4u + i);
    let d = row4(min(r + 3u, last), at / 4u + i);
    xs[(4u * i) * QUADS + quad] = vec4(a.x, b.x, c.x, d.x);
    xs[(4u * i + 1u) * QUADS + quad] = vec4(a.y, b.y, c.y, d.y);
    xs[(4u * i + 2u) * QUADS + quad] = vec4(a.z, b.z, c.z, d.z);
    xs[(4u * i + 3u) * QUADS + quad] = vec4(a.w, b.w, c.w, d.w);
  }
}

#ifdef BACKWARD
fn stage_w(column: u32, at: u32, local: u32) {
  for (var u = local; u < (DEPTH / 4u) * (TILE / 8u); u += 64u) {
    let quad = u / (TILE / 8u);
    let octet = u % (TILE / 8u);
    let c = tile_at(min(at / 4u + quad, quads() - 1u), min(column / 8u + octet, octets() - 1u));
    let o = 4u * quad * QUADS + 2u * octet;
    ws[o] = vec4(c.k0.x, c.k1.x, c.k2.x, c.k3.x);
    ws[o + 1u] = vec4(c.k4.x, c.k5.x, c.k6.x, c.k7.x);
    ws[o + QUADS] = vec4(c.k0.y, c.k1.y, c.k2.y, c.k3.y);
    ws[o + QUADS + 1u] = vec4(c.k4.y, c.k5.y, c.k6.y, c.k7.y);
    ws[o + 2u * QUADS] = vec4(c.k0.z, c.k1.z, c.k2.z, c.k3.z);
    ws[o + 2u * QUADS + 1u] = vec4(c.k4.z, c.k5.z, c.k6.z, c.k7.z);
    ws[o + 3u * QUADS] = vec4(c.k0.w, c.k1.w, c.k2.w, c.k3.w);
    ws[o + 3u * QUADS + 1u] = vec4(c.k4.w, c.k5.w, c.k6.w, c.k7.w);
  }
}
#else
fn stage_w(column: u32, at: u32, local: u32) {
  for (var u = local; u < QUADS * (DEPTH / 8u); u += 64u) {
    let quad = u / (DEPTH / 8u);
    let octet = u % (DEPTH / 8u);
    let c = tile_at(min(column / 4u + quad, quads() - 1u), min(at / 8u + octet, octets() - 1u));
    let o = 8u * octet * QUADS + quad;
    ws[o] = c.k0;
    ws[o + QUADS] = c.k1;
    ws[o + 2u * QUADS] = c.k2;
    ws[o + 3u * QUADS] = c.k3;
    ws[o + 4u * QUADS] = c.k4;
    ws[o + 5u * QUADS] = c.k5;
    ws[o + 6u * QUADS] = c.k6;
    ws[o + 7u * QUADS] = c.k7;
  }
}
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let t = p.first + group.y * TILE;
  let column = group.x * TILE;
  let across = local % 8u;
  let down = local / 8u;
  var sums: array<vec4<f32>, 4u * OWN * OWN>;
  for (var at = 0u; at < inner(); at += DEPTH) {
    stage_x(t, at, local);
    stage_w(column, at, local);
    workgroupBarrier();
    for (var i = 0u; i < DEPTH; i++) {
      for (var r = 0u; r < OWN; r++) {
        let v = xs[i * QUADS + down + 8u * r];
        for (var c = 0u; c < OWN; c++) {
          let m = ws[i * QUADS + across + 8u * c];
          let s = 4u * (r * OWN + c);
          sums[s] = fma(vec4(v.x), m, sums[s]);
          sums[s + 1u] = fma(vec4(v.y), m, sums[s + 1u]);
          sums[s + 2u] = fma(vec4(v.z), m, sums[s + 2u]);
          sums[s + 3u] = fma(vec4(v.w), m, sums[s + 3u]);
        }
      }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < OWN; r++) {
    for (var c = 0u; c < OWN; c++) {
      for (var i = 0u; i < 4u; i++) {
        let row = t + 4u * (down + 8u * r) + i;
        if (row < p.t && column + 4u * (across + 8u * c) < columns()) { store4(row, column + 4u * (across + 8u * c), sums[4u * (r * OWN + c) + i]); }
      }
    }
  }
}
