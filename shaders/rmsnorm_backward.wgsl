// With n = x · rstd and g = w · dy:  dx[t,c] (+)= rstd[t] · (g[t,c] − n[t,c] · mean_c(g · n)).
// One workgroup per row, as in the forward pass. OWN: jobs may have weights w of their own
// (lib/own_norm). ACCUMULATE adds to dx (the residual gradient), else dx is overwritten.
#import index
#import reduce

#ifdef VEC4
alias Lane = vec4<f32>;
const WIDE: u32 = 4u;
fn total(v: Lane) -> f32 { return (v.x + v.y) + (v.z + v.w); }
#else
alias Lane = f32;
const WIDE: u32 = 1u;
fn total(v: Lane) -> f32 { return v; }
#endif

// `cols` counts elements; a lane handles WIDE neighbours at a time.
struct Params { rows: u32, cols: u32, eps: f32, first: u32, jobs: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<Lane>;    // [rows, cols]
@group(0) @binding(2) var<storage, read> w: array<Lane>;          // [cols]
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>; // [rows]
@group(0) @binding(4) var<storage, read_write> dy: array<Lane>;   // [rows, cols]
@group(0) @binding(5) var<storage, read_write> dx: array<Lane>;   // [rows, cols]
#ifdef OWN
@group(0) @binding(6) var<storage, read> row_job: array<u32>;   // [rows]
@group(0) @binding(7) var<storage, read> own: array<u32>;       // [norms, jobs, 2]
@group(0) @binding(8) var<storage, read> values: array<Lane>;   // adapter parameters
#import own_norm
#else
const NO_WEIGHTS: u32 = 0u;
fn own_weights(row: u32) -> u32 { return NO_WEIGHTS; }
fn weight(begin: u32, c: u32) -> Lane { return w[c]; }
#endif

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = flat_workgroup(group, groups);
    let safe = min(row, p.rows - 1u);
    let width = p.cols / WIDE;
    let base = safe * width;
    let scale = rstd[safe];
    let begin = own_weights(safe);
    var sum = Lane();
    for (var c = lane; c < width; c += WG) {
        sum = fma(weight(begin, c) * dy[base + c], x[base + c] * scale, sum);
    }
    let mean = workgroup_sum(total(sum), lane) / f32(p.cols);
    if (row >= p.rows) {
        return;
    }
    for (var c = lane; c < width; c += WG) {
        let value = scale * (weight(begin, c) * dy[base + c] - x[base + c] * scale * mean);
#ifdef ACCUMULATE
        dx[base + c] = dx[base + c] + value;
#else
        dx[base + c] = value;
#endif
    }
}
