// What each target of a pair of answers counts in the loss of direct preference optimisation (DPO, Rafailov et al. 2023), one pair a workgroup.
//   S = Σ loss[i] over an answer's targets = −log π(answer | prompt);  c: chosen, r: rejected; the reference's losses lie `reference` further on
//   h = (S_ref(c) − S(c)) − (S_ref(r) − S(r))
//   L = −(1−ε) log σ(β h) − ε log σ(−β h);  ∂L/∂S(c) = −∂L/∂h = g,  ∂L/∂S(r) = −g,  g = β ((1−ε) σ(−β h) − ε σ(β h))
//   weight[i] = ±g · share for the targets of the adapter's answers; those of the reference keep theirs, which is 0.
// A pair without targets is none: the table is as long as the batch could need.
#import index
#import reduce

struct Params { pairs: u32 }
struct Pair {
    chosen: u32,       // its first target's number in the batch
    rejected: u32,     // where the chosen answer's targets end
    end: u32,
    reference: u32,
    beta: f32,
    smoothing: f32,    // ε
    share: f32,        // 1 / pairs of the job's step
    unused: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> pairs: array<Pair>;               // [pairs]
@group(0) @binding(2) var<storage, read> loss: array<f32>;                 // [all targets], without gradients so far
@group(0) @binding(3) var<storage, read_write> weight: array<f32>;         // [all targets]

fn sigmoid(x: f32) -> f32 {
    // exp of what is never positive.
    let e = exp(-abs(x));
    return select(e / (1.0 + e), 1.0 / (1.0 + e), x >= 0.0);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let number = flat_workgroup(group, groups);
    let pair = pairs[min(number, p.pairs - 1u)];
    var sum = 0.0;
    for (var i = pair.chosen + lane; i < pair.end; i += WG) {
        let ratio = loss[i + pair.reference] - loss[i];
        sum += select(-ratio, ratio, i < pair.rejected);
    }
    let h = pair.beta * workgroup_sum(sum, lane);
    if (number >= p.pairs) {
        return;
    }
    let g = pair.share * pair.beta * ((1.0 - pair.smoothing) * sigmoid(-h) - pair.smoothing * sigmoid(h));
    for (var i = pair.chosen + lane; i < pair.end; i += WG) {
        weight[i] = select(-g, g, i < pair.rejected);
    }
}
