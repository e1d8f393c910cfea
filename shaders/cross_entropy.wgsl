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
    // Four loads are on their way before the first is used.
    let whole = p.vocab / (4u * WG) * (4u * WG);
    for (var v = lane; v < whole; v += 4u * WG) {
        let z = vec4(logits[base + v], logits[base + v + WG], logits[base + v + 2u * WG], logits[base + v + 3u * WG]);
        high = max(max(high, max(z.x, z.y)), max(z.z, z.w));
    }
    for (var v = whole + lane; v < p.vocab; v += WG) {
        high = max(high, logits[base + v]);
    }
    high = workgroup_max(high, lane);
    var sum = 0.0;
    for (var v = lane; v < whole; v += 4u * WG) {
        let z = vec4(logits[base + v], logits[base + v + WG], logits[base + v + 2u * WG], logits[base + v + 3u * WG]);
        let e = exp(z - high);
        sum = sum + e.x + e.y + e.z + e.w;
    }
    for (var v = whole + lane; v < p.vocab; v += WG) {
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
    let wanted = vec4(u32(max(goal, 0)));
    for (var v = lane; v < whole; v += 4u * WG) {
        let at = vec4(v) + vec4(0u, 1u, 2u, 3u) * WG;
        let z = vec4(logits[base + at.x], logits[base + at.y], logits[base + at.z], logits[base + at.w]);
        let g = scale * (exp(z - high) / sum - select(vec4(0.0), vec4(1.0), at == wanted));
        logits[base + at.x] = g.x;
        logits[base + at.y] = g.y;
        logits[base + at.z] = g.z;
        logits[base + at.w] = g.w;
    }
    for (var v = whole + lane; v < p.vocab; v += WG) {
        let softmax = exp(logits[base + v] - high) / sum;
        logits[base + v] = scale * (softmax - select(0.0, 1.0, v == wanted.x));
    }
#endif
}
