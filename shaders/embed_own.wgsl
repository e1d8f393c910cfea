// y[t] += ΔE[i] for every row t whose job trains the embedding of its token, i being the token's place among those that the job trains.
// One invocation per element of y.
struct Params { rows: u32, cols: u32, vocab: u32, jobs: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;   // [rows]
@group(0) @binding(2) var<storage, read> row_job: array<u32>;  // [rows]
@group(0) @binding(3) var<storage, read> own: array<u32>;      // as lib/own_embedding describes it
@group(0) @binding(4) var<storage, read> values: array<f32>;   // adapter parameters
@group(0) @binding(5) var<storage, read_write> y: array<f32>;  // [rows, cols]
#import own_embedding

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.x + id.y * groups.x * 64u;
    let row = index / p.cols;
    if (row >= p.rows) {
        return;
    }
    let place = own_row(row);
    if (place != NO_ROW) {
        y[index] += values[own[2u * row_job[row]] + place * p.cols + index % p.cols];
    }
}
