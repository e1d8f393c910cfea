struct P { t: u32, n: u32, k: u32, n0: u32, ld: u32, acc: u32, dir: u32, z: u32 }
@group(0) @binding(0) var<uniform> p: P;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x; let t = id.y; var s = 0.0;
  if (p.dir == 0u) { if (i >= p.n) { return; }
    for (var k = 0u; k < p.k; k++) { s += x[t * p.k + k] * w[i * p.k + k]; }
    let a = t * p.ld + p.n0 + i; y[a] = select(0.0, y[a], p.acc == 1u) + s;
  } else if (p.dir == 1u) { if (i >= p.k) { return; }
    for (var n = 0u; n < p.n; n++) { s += x[t * p.ld + p.n0 + n] * w[n * p.k + i]; }
    let a = t * p.k + i; y[a] = select(0.0, y[a], p.acc == 1u) + s;
  } else { if (i >= p.k) { return; } x[t * p.k + i] = w[bitcast<u32>(y[t]) * p.k + i]; }
}
