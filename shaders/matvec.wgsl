// y[t, n] (+)= Σ_k x[t, k] W[n, k] for a few rows (decoding), bound by reading W: one workgroup of WG invocations reads a quad of rows of W
// once, each invocation every WG-th octet, and the partial sums are added in a fixed tree. Not for many rows: matmul reuses each weight.
#import products

var<workgroup> partial: array<vec4<f32>, 4u * WG>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let quad = group.x + group.y * groups.x;
  let t = group.z * 4u;
  let q = min(quad, quads() - 1u);
  var s0 = vec4<f32>();
  var s1 = vec4<f32>();
  var s2 = vec4<f32>();
  var s3 = vec4<f32>();
  for (var o = local; o < octets(); o += WG) {
    let c = tile_at(q, o);
    s0 = dot8(s0, row4(t, 2u * o), row4(t, 2u * o + 1u), c);
    if (t + 1u < p.t) { s1 = dot8(s1, row4(t + 1u, 2u * o), row4(t + 1u, 2u * o + 1u), c); }
    if (t + 2u < p.t) { s2 = dot8(s2, row4(t + 2u, 2u * o), row4(t + 2u, 2u * o + 1u), c); }
    if (t + 3u < p.t) { s3 = dot8(s3, row4(t + 3u, 2u * o), row4(t + 3u, 2u * o + 1u), c); }
  }
  partial[local] = s0;
  partial[WG + local] = s1;
  partial[2u * WG + local] = s2;
  partial[3u * WG + local] = s3;
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (local < half) {
      partial[local] += partial[local + half];
      partial[WG + local] += partial[WG + local + half];
      partial[2u * WG + local] += partial[2u * WG + local + half];
      partial[3u * WG + local] += partial[3u * WG + local + half];
    }
  }
  workgroupBarrier();
  if (local < 4u && t + local < p.t && quad * 4u < columns()) { store4(t + local, quad * 4u, partial[local * WG]); }
}
