// ds[i] = sum over k and o of Bt[i r + k, o] * M[i r + k, o], then dBt = s * M in the place of M, for every site
// whose job steps now; one scale a module.
// A workgroup owns a module: lanes take every WG-th of its numbers and a tree adds the lanes, both in a fixed order.
// Grid: modules x sites.

struct Params { first: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> grads: array<f32>;
@group(0) @binding(4) var<storage, read> hyper: array<u32>; // as lib/optimizer.wgsl describes it: [12 job + 8] is "steps now"

#import modules
#import reduce

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let site = load_modules(group.y);
    // A site with fewer modules than the largest has nothing to do, but every lane must reach the sum's barriers.
    let trains = group.x < site.modules && site.grad_b != NO_GRADIENT && hyper[12u * site.job + 8u] != 0u;
    let count = select(0u, site.rank * site.outputs, trains);
    let begin = group.x * site.rank * site.outputs;
    let s = values[site.scale + min(group.x, max(site.modules, 1u) - 1u)];
    var sum = 0.0;
    for (var at = begin + lane; at < begin + count; at += WG) {
        let m = grads[site.grad_b + at];
        sum = fma(values[site.b + at], m, sum);
        grads[site.grad_b + at] = s * m;
    }
    sum = workgroup_sum(sum, lane);
    if (lane == 0u && trains) {
        grads[site.grad_scale + group.x] = sum;
    }
}
