// AdamW (Loshchilov & Hutter) as torch.optim.AdamW computes it, for every job that steps now:
//   g' = g · factor (clipping),  x ← x · (1 − lr · wd),  m ← β1 m + (1 − β1) g',  v ← β2 v + (1 − β2) g'²,
//   x ← x − (lr / c1) · m / (sqrt(v) / sqrt(c2) + eps),   c1 = 1 − β1^step,  c2 = 1 − β2^step,  then g ← 0.
// One workgroup a row of the blocks table. What depends on the step count is computed on the host in f64.
// Where the norm is not finite only the gradients are cleared: the host sees the norm and stops the job.
#import index
#import optimizer

@group(0) @binding(1) var<storage, read> blocks: array<u32>;
@group(0) @binding(2) var<storage, read> hyper: array<u32>;
@group(0) @binding(3) var<storage, read_write> norms: array<f32>; // [jobs, 2]: norm, clipping factor
@group(0) @binding(4) var<storage, read_write> x: array<f32>;
@group(0) @binding(5) var<storage, read_write> grads: array<f32>;
@group(0) @binding(6) var<storage, read_write> m: array<f32>;
@group(0) @binding(7) var<storage, read_write> v: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let index = flat_workgroup(group, groups);
    if (index >= p.blocks) {
        return;
    }
    let block = load_block(index);
    let job = block.job;
    if (block.len == 0u || !steps_now(job)) {
        return;
    }
    // A comparison with NaN is false, and an infinite norm exceeds every finite bound.
    let finite = norms[2u * job] <= 3.0e38;
    let factor = norms[2u * job + 1u];
    let lr = hyper_value(job, LR) * block.lr_multiplier;
    let beta1 = hyper_value(job, BETA1);
    let beta2 = hyper_value(job, BETA2);
    let kept = 1.0 - lr * hyper_value(job, DECAY) * block.decay;
    let rate = lr / hyper_value(job, C1);
    let root_c2 = hyper_value(job, ROOT_C2);
    let eps = hyper_value(job, EPS);
    for (var i = lane; i < block.len; i += WG) {
        let at = block.grad_begin + i;
        if (finite) {
            let gradient = grads[at] * factor;
            let mean = beta1 * m[at] + (1.0 - beta1) * gradient;
            let square = beta2 * v[at] + (1.0 - beta2) * gradient * gradient;
            m[at] = mean;
            v[at] = square;
            x[block.begin + i] = x[block.begin + i] * kept - rate * mean / (sqrt(square) / root_c2 + eps);
        }
        grads[at] = 0.0;
    }
}
