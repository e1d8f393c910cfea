// y[t, c] (+)= Σ_s parts[s, t, c], in the order of s: the second pass of a product whose inputs were dealt to several workgroups.
// parts [count, rows, width], y rows of `stride` numbers of which this sums `width` from `offset` on, beginning with row `first`.
// One lane a vector of four columns.
struct Params { rows: u32, width: u32, count: u32, first: u32, stride: u32, offset: u32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> parts: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
#import index

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let i = flat_workgroup(group, groups) * 64u + local;
  let vectors = p.width / 4u;
  let each = p.rows * vectors;
  if (i >= each) { return; }
  var sum = parts[i];
  for (var s = 1u; s < p.count; s++) { sum += parts[s * each + i]; }
  let at = ((p.first + i / vectors) * p.stride + p.offset) / 4u + i % vectors;
#ifdef ACCUMULATE
  y[at] += sum;
#else
  y[at] = sum;
#endif
}
