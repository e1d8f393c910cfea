// y[s, :] = x[row of slot s, :]. x [rows, width], y [slots, width]; slots of nobody keep what they have. One workgroup of WG
// lanes a slot.
#import index
#import moe

#ifdef VEC4
alias Lane = vec4<f32>;
const WIDE: u32 = 4u;
#else
alias Lane = f32;
const WIDE: u32 = 1u;
#endif

@group(0) @binding(1) var<storage, read> slot_row: array<u32>;
@group(0) @binding(2) var<storage, read_write> x: array<Lane>;
@group(0) @binding(3) var<storage, read_write> y: array<Lane>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let slot = flat_workgroup(group, groups);
    if (slot >= p.slots || slot_row[slot] == NONE) {
        return;
    }
    let width = p.width / WIDE;
    let row = slot_row[slot] / p.choices * width;
    for (var c = lane; c < width; c += WG) {
        y[slot * width + c] = x[row + c];
    }
}
