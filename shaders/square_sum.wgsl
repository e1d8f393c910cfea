// Partial sums of squares of gradients, in a fixed order, for every job that steps now:
//   partial[sum of b] = Σ_{i < words} grads[i]²   over block b of the blocks table.
// One workgroup a row of the table; lane l sums the words l, l + WG, … of the block. Where the block goes on in the next page, whose dispatch
// follows, the lanes' sums wait in `carried`: the order of the sum is that of a block in one page.
// global_norm.wgsl adds the partial sums. Empty rows of the table and blocks of other jobs do nothing.
#import index
#import reduce
#import optimizer

@group(0) @binding(1) var<storage, read> blocks: array<u32>;
@group(0) @binding(2) var<storage, read> hyper: array<u32>;
@group(0) @binding(3) var<storage, read_write> grads: array<f32>;
@group(0) @binding(4) var<storage, read_write> partial: array<f32>;
@group(0) @binding(5) var<storage, read_write> carried: array<f32>; // [places, WG]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let index = flat_workgroup(group, groups);
    let block = load_block(min(index, p.blocks - 1u));
    let works = index < p.blocks && block.len > 0u && steps_now(block.job);
    let end = select(0u, block.skip + block.len, works);
    var sum = 0.0;
    if (works && block.skip > 0u) {
        sum = carried[block.carry_in * WG + lane];
    }
    // The lane's first word that is not in pages before.
    let first = lane + (max(block.skip, lane) - lane + WG - 1u) / WG * WG;
    for (var i = first; i < end; i += WG) {
        let value = grads[block.grad_begin + (i - block.skip)];
        sum = fma(value, value, sum);
    }
    let continues = block.sum == CONTINUES;
    if (works && continues) {
        carried[block.carry_out * WG + lane] = sum;
    }
    sum = workgroup_sum(sum, lane);
    if (lane == 0u && works && !continues) {
        partial[block.sum] = sum;
    }
}
