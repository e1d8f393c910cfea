// y[t,c] = x[t,c] · rstd[t] · w[c],  rstd[t] = 1 / sqrt(mean_c(x[t,c]²) + eps).
// OWN: jobs may have weights w of their own (lib/own_norm). ADD: first x[t,c] += b[t,c], the residual, and y is the norm of the sum.
// One workgroup per row: WG lanes stride over the columns, then a tree sum. rstd is kept for the backward pass.
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
@group(0) @binding(3) var<storage, read_write> y: array<Lane>;    // [rows, cols]
@group(0) @binding(4) var<storage, read_write> rstd: array<f32>; // [rows]
#ifdef ADD
#ifdef OWN
@group(0) @binding(8) var<storage, read_write> b: array<Lane>;    // [rows, cols]
#else
@group(0) @binding(5) var<storage, read_write> b: array<Lane>;    // [rows, cols]
#endif
#endif
#ifdef OWN
@group(0) @binding(5) var<storage, read> row_job: array<u32>;   // [rows]
@group(0) @binding(6) var<storage, read> own: array<u32>;       // [norms, jobs, 2]
@group(0) @binding(7) var<storage, read> values: array<Lane>;   // adapter parameters
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
    let width = p.cols / WIDE;
    let base = min(row, p.rows - 1u) * width;
    var sum = Lane();
    for (var c = lane; c < width; c += WG) {
#ifdef ADD
        let value = x[base + c] + b[base + c];
        if (row < p.rows) {
            x[base + c] = value;
        }
#else
        let value = x[base + c];
#endif
        sum = fma(value, value, sum);
    }
    let scale = 1.0 / sqrt(workgroup_sum(total(sum), lane) / f32(p.cols) + p.eps);
    if (row >= p.rows) {
        return;
    }
    let begin = own_weights(row);
    for (var c = lane; c < width; c += WG) {
        y[base + c] = x[base + c] * scale * weight(begin, c);
    }
    if (lane == 0u) {
        rstd[row] = scale;
    }
}
