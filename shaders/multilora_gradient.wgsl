// ds[i, o] = sum over k of Bt[i r + k, o] * M[i r + k, o], then dBt = s * M in the place of M, for every site
// whose job steps now; s has one number per output.
// A lane owns one output of one module and walks its ranks in order, so nothing is summed across lanes.
// Grid: column tiles x modules x sites.

struct Params { first: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> grads: array<f32>;
@group(0) @binding(4) var<storage, read> hyper: array<u32>; // as lib/optimizer.wgsl describes it: [12 job + 8] is "steps now"

#import modules

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let site = load_modules(group.z);
    let o = group.x * WG + lane;
    if (o >= site.outputs || group.y >= site.modules || site.grad_b == NO_GRADIENT || hyper[12u * site.job + 8u] == 0u) {
        return;
    }
    let s = values[site.scale + group.y * site.outputs + o];
    let begin = group.y * site.rank * site.outputs + o;
    var sum = 0.0;
    for (var k = 0u; k < site.rank; k++) {
        let at = begin + k * site.outputs;
        let m = grads[site.grad_b + at];
        sum = fma(values[site.b + at], m, sum);
        grads[site.grad_b + at] = s * m;
    }
    grads[site.grad_scale + group.y * site.outputs + o] = sum;
}
