// norm[job] = sqrt(Σ partial), and the factor that clips it as torch.nn.utils.clip_grad_norm_ does:
//   factor = min(1, clip / (norm + 1e-6)), or 1 when clip is 0.   norms[2·job] = norm, norms[2·job + 1] = factor.
// One workgroup: the partial sums of one job are few.
#import reduce

struct Params { count: u32, first: u32, job: u32, clip: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> partial: array<f32>;
@group(0) @binding(2) var<storage, read_write> norms: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < p.count; i += WG) {
        sum += partial[p.first + i];
    }
    sum = workgroup_sum(sum, lane);
    if (lane == 0u) {
        let norm = sqrt(sum);
        norms[2u * p.job] = norm;
        norms[2u * p.job + 1u] = select(1.0, min(1.0, p.clip / (norm + 1e-6)), p.clip > 0.0);
    }
}
