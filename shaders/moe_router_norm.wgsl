// norms[block, job] = square root of the sum of squares of the gradient of the job's router; 0 without one.
// routers_sites: the sites table of the routers (lib/segments.wgsl). Grid: jobs x blocks; lanes stride over the words, then a tree sum.
#import reduce
#import moe

@group(0) @binding(1) var<storage, read> sites: array<u32>;
@group(0) @binding(2) var<storage, read_write> grads: array<f32>;
@group(0) @binding(3) var<storage, read_write> norms: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let site = (group.y * p.jobs + group.x) * 8u;
    let words = (sites[site] & 0xffffu) * p.width;
    let begin = sites[site + 3u];
    var sum = 0.0;
    if (begin != NONE) {
        for (var i = lane; i < words; i += WG) {
            sum = fma(grads[begin + i], grads[begin + i], sum);
        }
    }
    let all = workgroup_sum(sum, lane);
    if (lane == 0u) {
        norms[group.y * p.jobs + group.x] = sqrt(all);
    }
}
