// Of each (block, job) with a router over the job's rows t: P[e] = mean of prob[t, e], f[e] = rows that chose e / rows (several choices a
// row count each), the mean entropy of prob and the mean square of the log-sum-exp. No gradient flows through f.
//   balance loss of a block = experts * sum over e of F[e] P[e], F = f, or with `concatenated` its mean over the job's blocks
// Writes stats, blocks after each other: [segments, 2] (P, f), then [jobs, 2] (entropy, z); and aux: [segments] what prob[t, e] counts in the
// loss, then [jobs] what the square of a log-sum-exp does.
// Grid: jobs x blocks. A lane sums a share of the rows of one expert; shares are added in order. Workgroup memory: 2 * WG words.
#import moe

@group(0) @binding(1) var<storage, read> jobs: array<u32>;
@group(0) @binding(2) var<storage, read> routers: array<u32>;
@group(0) @binding(3) var<storage, read> probs: array<f32>;  // of all blocks
@group(0) @binding(4) var<storage, read> chosen: array<u32>; // of all blocks
@group(0) @binding(5) var<storage, read_write> aux: array<f32>;
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;

const WG: u32 = 256u;
var<workgroup> sums: array<f32, WG>;
var<workgroup> entropies: array<f32, WG>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let job = group.x;
    let layer = group.y;
    let router = router_at(layer, job);
    let experts = routers[router + 1u];
    let begin = jobs[job * 8u];
    let end = min(jobs[job * 8u + 1u], p.rows);
    let rows = end - min(begin, end);
    // The experts and the log-sum-exp: one lane each, and as many shares of the rows as there are lanes.
    let columns = p.experts + 1u;
    let shares = WG / columns;
    let column = lane % columns;
    let share = lane / columns;
    var sum = 0.0;
    var entropy = 0.0;
    if (experts > 0u && share < shares) {
        for (var t = begin + share; t < end; t += shares) {
            let x = probs[layer * p.layer_probs + probs_at(t) + column];
            if (column < p.experts) {
                sum += x;
                entropy -= select(0.0, x * log(max(x, 1e-38)), x > 0.0);
            } else {
                sum = fma(x, x, sum);
            }
        }
    }
    sums[lane] = sum;
    entropies[lane] = entropy;
    workgroupBarrier();
    let block = p.segments * 2u + p.jobs * 2u;
    let of_job = layer * block + p.segments * 2u + job * 2u;
    let coefficients = layer * (p.segments + p.jobs);
    let count = f32(max(rows, 1u));
    let scale = bitcast<f32>(jobs[job * 8u + 5u]) / (count * f32(max(routers[router + 11u], 1u)));
    if (lane < columns) {
        var total = 0.0;
        for (var s = 0u; s < shares; s++) {
            total += sums[s * columns + lane];
        }
        if (lane < experts) {
            let segment = routers[router] + lane;
            let f = f32(chosen[layer * p.segments + segment]) / count;
            var balanced = f;
            if (routers[router + 12u] == 1u) {
                balanced = 0.0;
                for (var l = 0u; l < p.layers; l++) {
                    let other = router_at(l, job);
                    if (routers[other + 1u] > 0u) {
                        balanced += f32(chosen[l * p.segments + routers[other] + lane]) / count;
                    }
                }
                balanced /= f32(max(routers[router + 11u], 1u));
            }
            stats[layer * block + segment * 2u] = total / count;
            stats[layer * block + segment * 2u + 1u] = f;
            aux[coefficients + segment] = bitcast<f32>(routers[router + 9u]) * scale * f32(experts) * balanced;
        }
        if (lane == p.experts) {
            stats[of_job + 1u] = total / count;
            aux[coefficients + p.segments + job] = bitcast<f32>(routers[router + 10u]) * scale;
        }
    }
    if (lane == 0u) {
        var total = 0.0;
        for (var i = 0u; i < shares * columns; i++) {
            total += entropies[i];
        }
        stats[of_job] = total / count;
    }
}
