// AdamW (Loshchilov & Hutter) as torch.optim.AdamW computes it, one lane per parameter:
//   g' = g · factor (clipping),  x ← x · (1 − lr · wd),  m ← β1 m + (1 − β1) g',  v ← β2 v + (1 − β2) g'²,
//   x ← x − (lr / c1) · m / (sqrt(v) / sqrt(c2) + eps),   c1 = 1 − β1^step,  c2 = 1 − β2^step.
// `hyper` is uploaded each step; everything that depends on the step count is computed on the host in f64.
// A step whose norm is not finite changes nothing: the host sees the norm and stops the job.
#import index

struct Params { begin: u32, len: u32, job: u32, lr_multiplier: f32, grad_begin: u32, decay: f32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> hyper: array<f32>;            // [jobs, 8]: lr, β1, β2, eps, weight decay, c1, sqrt(c2), 0
@group(0) @binding(2) var<storage, read_write> norms: array<f32>;      // [jobs, 2]: norm, clipping factor
@group(0) @binding(3) var<storage, read_write> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> grads: array<f32>;
@group(0) @binding(5) var<storage, read_write> m: array<f32>;
@group(0) @binding(6) var<storage, read_write> v: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = flat_workgroup(group, groups) * 64u + lane;
    let norm = norms[2u * p.job];
    // A comparison with NaN is false, and an infinite norm exceeds every finite bound.
    if (i >= p.len || !(norm <= 3.0e38)) {
        return;
    }
    let h = 8u * p.job;
    let lr = hyper[h] * p.lr_multiplier;
    let gradient = grads[p.grad_begin + i] * norms[2u * p.job + 1u];
    let mean = hyper[h + 1u] * m[p.grad_begin + i] + (1.0 - hyper[h + 1u]) * gradient;
    let square = hyper[h + 2u] * v[p.grad_begin + i] + (1.0 - hyper[h + 2u]) * gradient * gradient;
    m[p.grad_begin + i] = mean;
    v[p.grad_begin + i] = square;
    let decayed = x[p.begin + i] * (1.0 - lr * hyper[h + 4u] * p.decay);
    x[p.begin + i] = decayed - lr / hyper[h + 5u] * mean / (sqrt(square) / hyper[h + 6u] + hyper[h + 3u]);
}
