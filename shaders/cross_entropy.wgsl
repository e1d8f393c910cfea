// Cross-entropy of one row of logits per workgroup, and its gradient written over the logits:
//   loss[i] = log Σ_v e^{z[v]} − z[target],   z[v] ← weight[i] · (softmax(z)[v] − 1[v = target]).
// target −1: loss 0 and gradient 0. Without BACKWARD the logits stay and only loss[i] is written.
// The maximum is subtracted first, so that no exponential overflows.
#import index
#import reduce

struct Params { rows: u32, vocab: u32, first: u32, stride: u32 }           // `first`: number of the first row in the whole list
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> target_ids: array<i32>;           // [all rows]
@group(0) @binding(2) var<storage, read> weight: array<f32>;               // [all rows], 1 / targets of the row's job
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;         // [rows, vocab], rows `stride` apart
@group(0) @binding(4) var<storage, read_write> loss: array<f32>;           // [all rows]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = flat_workgroup(group, groups);
    let safe = min(row, p.rows - 1u);
    let base = safe * p.stride;
    var high = logits[base];
    for (var v = lane; v < p.vocab; v += WG) {
        high = max(high, logits[base + v]);
    }
    high = workgroup_max(high, lane);
    var sum = 0.0;
    for (var v = lane; v < p.vocab; v += WG) {
        sum += exp(logits[base + v] - high);
    }
    sum = workgroup_sum(sum, lane);
    if (row >= p.rows) {
        return;
    }
    let goal = target_ids[p.first + row];
    if (lane == 0u) {
        loss[p.first + row] = select(0.0, high + log(sum) - logits[base + u32(max(goal, 0))], goal >= 0);
    }
#ifdef BACKWARD
    storageBarrier();
    workgroupBarrier();
    let scale = select(0.0, weight[p.first + row], goal >= 0);
    for (var v = lane; v < p.vocab; v += WG) {
        let softmax = exp(logits[base + v] - high) / sum;
        logits[base + v] = scale * (softmax - select(0.0, 1.0, i32(v) == goal));
    }
#endif
}
