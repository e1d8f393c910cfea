// y[t] = row tokens[t] of a table in any stored format, dequantised exactly as the decoder does: one invocation per (token, octet). A part of
// the table (its rows from p.offset on) writes only its own tokens; the first part writes zeros for tokens past the table's p.rows rows.
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
#import matrix

fn write(at: u32, i: u32, v: f32) {
  if (i < p.k) { y[at + i] = v; }
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let index = id.x + id.y * groups.x * 64u;
  let t = index / octets();
  if (t >= p.t) { return; }
  let token = tokens[t];
  let own = token >= p.offset && token < p.offset + p.n;
  if (!own && !(token >= p.rows && p.offset == 0u)) { return; }
  let octet = index % octets();
  let row = select(0u, token - p.offset, own);
  let c = tile_at(row / 4u, octet);
  let r = row % 4u;
  let at = t * p.ldy;
  write(at, 8u * octet, select(0.0, c.k0[r], own));
  write(at, 8u * octet + 1u, select(0.0, c.k1[r], own));
  write(at, 8u * octet + 2u, select(0.0, c.k2[r], own));
  write(at, 8u * octet + 3u, select(0.0, c.k3[r], own));
  write(at, 8u * octet + 4u, select(0.0, c.k4[r], own));
  write(at, 8u * octet + 5u, select(0.0, c.k5[r], own));
  write(at, 8u * octet + 6u, select(0.0, c.k6[r], own));
  write(at, 8u * octet + 7u, select(0.0, c.k7[r], own));
}
