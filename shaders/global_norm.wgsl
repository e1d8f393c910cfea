// norms[job] = (norm, factor) of every job that steps now: norm = sqrt(Σ partial sums of its blocks), and the factor that clips it as
// torch.nn.utils.clip_grad_norm_ does: min(1, clip / (norm + 1e-6)), or 1 when clip is 0.
// One workgroup a job: its partial sums are few.
#import reduce
#import optimizer

@group(0) @binding(1) var<storage, read> blocks: array<u32>;
@group(0) @binding(2) var<storage, read> hyper: array<u32>;
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;
@group(0) @binding(4) var<storage, read_write> norms: array<f32>; // [jobs, 2]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let job = group.x;
    let range = block_range(job);
    let works = steps_now(job);
    let end = select(range.x, range.y, works);
    var sum = 0.0;
    for (var i = range.x + lane; i < end; i += WG) {
        sum += partial[i];
    }
    sum = workgroup_sum(sum, lane);
    if (lane == 0u && works) {
        let norm = sqrt(sum);
        let clip = hyper_value(job, CLIP);
        norms[2u * job] = norm;
        norms[2u * job + 1u] = select(1.0, min(1.0, clip / (norm + 1e-6)), clip > 0.0);
    }
}
