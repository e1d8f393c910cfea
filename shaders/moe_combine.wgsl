// y[t, :] = sum over the choices j of row t of v[slot(t, j), :], times weight(t, j) with WEIGHTED, added to y with ADD; in the order of
// the choices. v [slots, width], y [rows, width]. Rows of jobs without a router keep what they have.
#import index
#import moe

#ifdef VEC4
alias Lane = vec4<f32>;
const WIDE: u32 = 4u;
#else
alias Lane = f32;
const WIDE: u32 = 1u;
#endif

@group(0) @binding(1) var<storage, read> row_job: array<u32>;
@group(0) @binding(2) var<storage, read> routers: array<u32>;
@group(0) @binding(3) var<storage, read> places: array<u32>;
@group(0) @binding(4) var<storage, read> weight: array<f32>;
@group(0) @binding(5) var<storage, read_write> v: array<Lane>;
@group(0) @binding(6) var<storage, read_write> y: array<Lane>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = flat_workgroup(group, groups) * 64u + lane;
    let width = p.width / WIDE;
    let t = i / width;
    if (t >= p.rows || row_job[t] >= p.jobs) {
        return;
    }
    if (routers[router_at(p.layer, row_job[t]) + 1u] == 0u) {
        return;
    }
    var sum = Lane();
    for (var j = 0u; j < p.choices; j++) {
        let slot = places[(t * p.choices + j) * 2u + 1u];
        if (slot != NONE) {
#ifdef WEIGHTED
            sum = fma(Lane() + weight[t * p.choices + j], v[slot * width + i % width], sum);
#else
            sum += v[slot * width + i % width];
#endif
        }
    }
#ifdef ADD
    y[i] += sum;
#else
    y[i] = sum;
#endif
}
