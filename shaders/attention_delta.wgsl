// What the attention backward needs of each (row, head): stats = (lse, delta), delta = sum(o * do) over the head dimension.
// Side by side, because the gradient of keys and values has no storage binding to spare for two.
//   o, do: [T, H * hd]   lse: [T, H]   stats: [T, H, 2]
// One invocation per (row, head). Grid: grid_1d(T * H / 64).

struct Params {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    window: u32,
    scale: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> o: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> d_o: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<vec2<f32>>;
#import index

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let pair = flat_workgroup(group, groups) * 64u + lane;
    if (pair >= p.rows * p.heads) {
        return;
    }
    var sum = 0.0;
    for (var c = 0u; c < HEAD_DIM / 4u; c++) {
        let at = pair * (HEAD_DIM / 4u) + c;
        sum += dot(o[at], d_o[at]);
    }
    stats[pair] = vec2(lse[pair], sum);
}
