// dΔE[i] += sum over the rows t of a job that have its token i of dx[t].
//
// `order` lists the rows that have a job, those of one job and token side by side and ascending, with the length of such a run at its first row
// and 0 elsewhere. An invocation owns a column of one run and adds its rows in order: bits do not depend on where the job's rows lie in the batch.
// Grid: column groups of 64, times entries of `order`, flattened.
struct Params { rows: u32, cols: u32, vocab: u32, jobs: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;    // [rows]
@group(0) @binding(2) var<storage, read> row_job: array<u32>;   // [rows]
@group(0) @binding(3) var<storage, read> own: array<u32>;       // as lib/own_embedding describes it
@group(0) @binding(4) var<storage, read> order: array<u32>;     // [rows, 2]: row, length of the run that begins here
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;  // [rows, cols]
@group(0) @binding(6) var<storage, read_write> grads: array<f32>;
#import index
#import own_embedding

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let column_groups = (p.cols + 63u) / 64u;
    let flat = flat_workgroup(group, groups);
    let entry = flat / column_groups;
    let column = flat % column_groups * 64u + lane;
    if (entry >= p.rows || column >= p.cols) {
        return;
    }
    let length = min(order[2u * entry + 1u], p.rows - entry);
    if (length == 0u) {
        return;
    }
    let first = order[2u * entry];
    let place = own_row(first);
    if (place == NO_ROW) {
        return;
    }
    let begin = own[2u * row_job[first] + 1u];
    if (begin == NO_ROW) {
        return;
    }
    var sum = 0.0;
    for (var i = entry; i < entry + length; i++) {
        sum += dx[order[2u * i] * p.cols + column];
    }
    grads[begin + place * p.cols + column] += sum;
}
