// Partial sums of squares of one job's gradients, in a fixed order:
//   partial[first + g] = Σ over block g of (grads[begin + i])²,  BLOCK elements a workgroup.
// The second pass (global_norm.wgsl) adds the partials, also in a fixed order.
#import index
#import reduce

struct Params { begin: u32, len: u32, first: u32, pad: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> grads: array<f32>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let block = flat_workgroup(group, groups);
    let start = block * BLOCK;
    let end = min(start + BLOCK, p.len);
    var sum = 0.0;
    for (var i = start + lane; i < end; i += WG) {
        let value = grads[p.begin + i];
        sum = fma(value, value, sum);
    }
    sum = workgroup_sum(sum, lane);
    if (lane == 0u && start < p.len) {
        partial[p.first + block] = sum;
    }
}
