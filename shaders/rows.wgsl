// Moves the rows that have a target between the batch and the compact input of the head.
//   GATHER:  to[i, :] = from[rows[i], :]      (forward)
//   else:    to[rows[i], :] = from[i, :]      (backward; the caller clears `to`, rows are distinct)
//   APPEND:  the same without a look at targets: new keys and values join a cache.
// An entry without a target (target[i] < 0, the padding of the last chunk) gathers a row but scatters nothing.
#import index

struct Params { count: u32, cols: u32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> rows: array<u32>;             // [count]
@group(0) @binding(2) var<storage, read> target_ids: array<i32>;       // [count]
@group(0) @binding(3) var<storage, read_write> source: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let index = flat_workgroup(group, groups) * 64u + lane;
    let i = index / p.cols;
    if (i >= p.count) {
        return;
    }
    let c = index % p.cols;
#ifdef GATHER
    result[index] = source[rows[i] * p.cols + c];
#else
#ifdef APPEND
    let wanted = true;
#else
    let wanted = target_ids[i] >= 0;
#endif
    if (wanted) {
        result[rows[i] * p.cols + c] = source[index];
    }
#endif
}
