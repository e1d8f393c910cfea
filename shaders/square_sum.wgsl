// Partial sums of squares of gradients, in a fixed order, for every job that steps now:
//   partial[b] = Σ_{i < len} grads[grad_begin + i]²   over block b of the blocks table.
// One workgroup a block; global_norm.wgsl adds the partial sums. Empty rows of the table and blocks of other jobs do nothing.
#import index
#import reduce
#import optimizer

@group(0) @binding(1) var<storage, read> blocks: array<u32>;
@group(0) @binding(2) var<storage, read> hyper: array<u32>;
@group(0) @binding(3) var<storage, read_write> grads: array<f32>;
@group(0) @binding(4) var<storage, read_write> partial: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let index = flat_workgroup(group, groups);
    let block = load_block(min(index, p.blocks - 1u));
    let works = index < p.blocks && block.len > 0u && steps_now(block.job);
    let end = select(0u, block.len, works);
    var sum = 0.0;
    for (var i = lane; i < end; i += WG) {
        let value = grads[block.grad_begin + i];
        sum = fma(value, value, sum);
    }
    sum = workgroup_sum(sum, lane);
    if (lane == 0u && works) {
        partial[index] = sum;
    }
}
