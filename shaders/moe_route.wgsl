// Each row's experts: prob = softmax(logits) over the job's experts, then the most probable ones, the first of equals.
// top-k: weight = prob / sum of the chosen. top-p: prob / temperature until their sum exceeds top_p. switch: the first alone, weight = prob.
// logits [rows, experts]; one lane a row. Rows without a router choose nobody.
#import index
#import moe

@group(0) @binding(1) var<storage, read> row_job: array<u32>;
@group(0) @binding(2) var<storage, read> routers: array<u32>;
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;
@group(0) @binding(4) var<storage, read_write> probs: array<f32>;
@group(0) @binding(5) var<storage, read_write> places: array<u32>;
@group(0) @binding(6) var<storage, read_write> weight: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let t = flat_workgroup(group, groups) * 64u + lane;
    if (t >= p.rows) {
        return;
    }
    for (var j = 0u; j < p.choices; j++) {
        places[(t * p.choices + j) * 2u] = NONE;
        places[(t * p.choices + j) * 2u + 1u] = NONE;
        weight[t * p.choices + j] = 0.0;
    }
    let out = probs_at(t);
    for (var e = 0u; e < p.experts + 4u; e++) {
        probs[out + e] = 0.0;
    }
    let job = row_job[t];
    if (job >= p.jobs) {
        return;
    }
    let router = router_at(p.layer, job);
    let experts = routers[router + 1u];
    if (experts == 0u) {
        return;
    }
    let at = t * p.experts;
    var top = logits[at];
    for (var e = 1u; e < experts; e++) {
        top = max(top, logits[at + e]);
    }
    var sum = 0.0;
    for (var e = 0u; e < experts; e++) {
        let x = exp(logits[at + e] - top);
        probs[out + e] = x;
        sum += x;
    }
    for (var e = 0u; e < experts; e++) {
        probs[out + e] = probs[out + e] / sum;
    }
    probs[out + p.experts] = top + log(sum);

    let limit = min(routers[router + 3u], p.choices);
    let top_p = bitcast<f32>(routers[router + 4u]);
    let temperature = bitcast<f32>(routers[router + 5u]);
    var taken = vec2(0u);
    var total = 0.0;
    for (var j = 0u; j < limit; j++) {
        var best = NONE;
        var most = -1.0;
        for (var e = 0u; e < experts; e++) {
            let bit = 1u << (e % 32u);
            let free = (select(taken.x, taken.y, e >= 32u) & bit) == 0u;
            if (free && probs[out + e] > most) {
                best = e;
                most = probs[out + e];
            }
        }
        if (best == NONE) {
            break; // not a number
        }
        let bit = 1u << (best % 32u);
        taken = select(vec2(taken.x | bit, taken.y), vec2(taken.x, taken.y | bit), best >= 32u);
        places[(t * p.choices + j) * 2u] = best;
        weight[t * p.choices + j] = most / temperature;
        total += most / temperature;
        if (routers[router + 2u] == TOP_P && total > top_p) {
            break;
        }
    }
    if (routers[router + 6u] == 1u) {
        for (var j = 0u; j < limit; j++) {
            weight[t * p.choices + j] = weight[t * p.choices + j] / total;
        }
    }
}
