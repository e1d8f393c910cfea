// x[t, c] *= 1 + jitter * u with u uniform in (-1, 1), for rows of jobs with a router; keyed by step, block, row of the job and column.
// x [rows, width]; one lane an element. The same factors again for the gradient.
#import index
#import random
#import moe

@group(0) @binding(1) var<storage, read> row_job: array<u32>;
@group(0) @binding(2) var<storage, read> jobs: array<u32>;
@group(0) @binding(3) var<storage, read> routers: array<u32>;
@group(0) @binding(4) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = flat_workgroup(group, groups) * 64u + lane;
    let t = i / p.width;
    if (t >= p.rows || row_job[t] >= p.jobs) {
        return;
    }
    let job = row_job[t];
    let router = router_at(p.layer, job);
    if (routers[router + 1u] > 0u) {
        let seed = mix32(jobs[job * 8u + 2u] ^ (0x6a697474u + routers[router + 15u]));
        let bits = dropout_bits(seed, t - jobs[job * 8u], i % p.width);
        let u = f32(bits >> 8u) * (2.0 / 16777216.0) - 1.0;
        x[i] *= fma(bitcast<f32>(routers[router + 8u]), u, 1.0);
    }
}
