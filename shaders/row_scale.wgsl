// scale[t] = (s, 1 / s) for the rows of x of a product in f16: s is the power of two that brings the row's largest magnitude to 2^10 .. 2^11, so
// that neither large activations overflow nor small gradients vanish. Rows of zeros, and rows that are not finite, keep s = 1.
// One workgroup of 64 lanes a row.
#import products
@group(0) @binding(4) var<storage, read_write> row_scale: array<vec2<f32>>;
#import index
#import reduce

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let r = flat_workgroup(group, groups);
  let row = min(p.first + r, p.t - 1u);
  var high = 0.0;
  for (var i = lane; 4u * i < inner(); i += WG) {
    let v = abs(row4(row, i));
    high = max(high, max(max(v.x, v.y), max(v.z, v.w)));
  }
  high = workgroup_max(high, lane);
  // The exponent as it is stored: 0 is zero (or less than any normal number), 255 is infinite or NaN.
  let e = (bitcast<u32>(high) >> 23u) & 255u;
  let up = clamp(264u - min(e, 263u), 1u, 253u);
  let usual = e > 0u && e < 255u;
  if (lane == 0u && p.first + r < p.t) {
    row_scale[r] = select(vec2(1.0), vec2(bitcast<f32>(up << 23u), bitcast<f32>((254u - up) << 23u)), usual);
  }
}
