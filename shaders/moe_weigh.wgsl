// Of the product beside `down`, whose output is weighted by w: dw = sum over r of dh[s, r] h[s, r], then h *= w and dh *= w, for every slot.
// h, dh [slots, width]; one lane a slot.
#import index
#import moe

@group(0) @binding(1) var<storage, read> slot_row: array<u32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> h: array<f32>;
@group(0) @binding(4) var<storage, read_write> dh: array<f32>;
@group(0) @binding(5) var<storage, read_write> dweight: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let slot = flat_workgroup(group, groups) * 64u + lane;
    if (slot >= p.slots || slot_row[slot] == NONE) {
        return;
    }
    let w = weight[slot_row[slot]];
    var sum = 0.0;
    for (var i = slot * p.width; i < (slot + 1u) * p.width; i++) {
        sum = fma(dh[i], h[i], sum);
        h[i] *= w;
        dh[i] *= w;
    }
    dweight[slot] = sum;
}
