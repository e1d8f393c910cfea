// Rows whose expert was full skip the feed-forward layer: y[t, :] += w x[t, :]. With BACKWARD, of dy: dx[t, :] += w dy[t, :] and
// dw = dy[t, :] . x[t, :]. x, y, dy, dx [rows, width]. One workgroup of WG lanes a row.
#import index
#import reduce
#import moe

@group(0) @binding(1) var<storage, read> places: array<u32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
#ifdef BACKWARD
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;
@group(0) @binding(6) var<storage, read_write> dweight: array<f32>;
#endif

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let t = min(flat_workgroup(group, groups), p.rows - 1u);
    let place = t * p.choices * 2u;
    let full = places[place] != NONE && places[place + 1u] == NONE && flat_workgroup(group, groups) < p.rows;
    let w = weight[t * p.choices];
    var sum = 0.0;
    if (full) {
        for (var i = t * p.width + lane; i < (t + 1u) * p.width; i += WG) {
#ifdef BACKWARD
            sum = fma(y[i], x[i], sum);
            dx[i] = fma(w, y[i], dx[i]);
#else
            y[i] = fma(w, x[i], y[i]);
#endif
        }
    }
#ifdef BACKWARD
    let all = workgroup_sum(sum, lane);
    if (full && lane == 0u) {
        dweight[p.slots + t] = all;
    }
#endif
}
