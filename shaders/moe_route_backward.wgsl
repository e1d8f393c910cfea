// The gradient of the router's logits. With dw of the weights and w = prob / s (s: sum of the chosen, the temperature, or 1):
//   top-k: dprob_j = (dw_j - sum over i of dw_i w_i) / s;  else dprob_j = dw_j / s
//   dprob[e] += aux[e] for every expert;  dlogit = prob * (dprob - sum over e of prob dprob) + 2 z logsumexp prob
// dlogits [rows, experts], zero where there is no router. One lane a row.
#import index
#import moe

@group(0) @binding(1) var<storage, read> row_job: array<u32>;
@group(0) @binding(2) var<storage, read> routers: array<u32>;
@group(0) @binding(3) var<storage, read> probs: array<f32>;
@group(0) @binding(4) var<storage, read> places: array<u32>;
@group(0) @binding(5) var<storage, read> aux: array<f32>; // of all blocks
@group(0) @binding(6) var<storage, read_write> dweight: array<f32>; // of slots, then of rows whose expert was full
@group(0) @binding(7) var<storage, read_write> dlogits: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let t = flat_workgroup(group, groups) * 64u + lane;
    if (t >= p.rows) {
        return;
    }
    let out = t * p.experts;
    for (var e = 0u; e < p.experts; e++) {
        dlogits[out + e] = 0.0;
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
    let at = probs_at(t);
    let segment = routers[router];
    let coefficients = p.layer * (p.segments + p.jobs);
    for (var e = 0u; e < experts; e++) {
        dlogits[out + e] = aux[coefficients + segment + e];
    }
    var s = bitcast<f32>(routers[router + 5u]);
    var mean = 0.0;
    if (routers[router + 6u] == 1u) {
        s = 0.0;
        for (var j = 0u; j < p.choices; j++) {
            let expert = places[(t * p.choices + j) * 2u];
            if (expert != NONE) { s += probs[at + expert]; }
        }
        for (var j = 0u; j < p.choices; j++) {
            let place = (t * p.choices + j) * 2u;
            if (places[place] != NONE) { mean += dweight[places[place + 1u]] * probs[at + places[place]] / s; }
        }
    }
    for (var j = 0u; j < p.choices; j++) {
        let place = (t * p.choices + j) * 2u;
        let expert = places[place];
        if (expert != NONE) {
            let slot = places[place + 1u];
            let dw = dweight[select(slot, p.slots + t, slot == NONE)];
            dlogits[out + expert] += (dw - mean) / s;
        }
    }
    var sum = 0.0;
    for (var e = 0u; e < experts; e++) {
        sum = fma(probs[at + e], dlogits[out + e], sum);
    }
    let z = 2.0 * aux[coefficients + p.segments + job] * probs[at + p.experts];
    for (var e = 0u; e < experts; e++) {
        dlogits[out + e] = probs[at + e] * (dlogits[out + e] - sum + z);
    }
}
