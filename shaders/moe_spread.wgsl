// The gradient of rows' weighted sums of slots: da[s, :] = w * dy[row, :] and dw[s] = dy[row, :] . a[s, :], added to with ADD.
// dy [rows, width], a and da [slots, width]. One workgroup of WG lanes a slot, then a tree sum.
#import index
#import reduce
#import moe

#ifdef VEC4
alias Lane = vec4<f32>;
const WIDE: u32 = 4u;
fn total(v: Lane) -> f32 { return (v.x + v.y) + (v.z + v.w); }
#else
alias Lane = f32;
const WIDE: u32 = 1u;
fn total(v: Lane) -> f32 { return v; }
#endif

@group(0) @binding(1) var<storage, read> slot_row: array<u32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> dy: array<Lane>;
@group(0) @binding(4) var<storage, read_write> a: array<Lane>;
@group(0) @binding(5) var<storage, read_write> da: array<Lane>;
@group(0) @binding(6) var<storage, read_write> dweight: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let slot = flat_workgroup(group, groups);
    let width = p.width / WIDE;
    var place = NONE;
    if (slot < p.slots) {
        place = slot_row[slot];
    }
    var sum = Lane();
    if (place != NONE) {
        let row = place / p.choices * width;
        let w = weight[place];
        for (var c = lane; c < width; c += WG) {
            let d = dy[row + c];
            sum = fma(d, a[slot * width + c], sum);
            da[slot * width + c] = w * d;
        }
    }
    let all = workgroup_sum(total(sum), lane);
    if (place != NONE && lane == 0u) {
#ifdef ADD
        dweight[slot] += all;
#else
        dweight[slot] = all;
#endif
    }
}
