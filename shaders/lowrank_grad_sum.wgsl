// The second pass: dM[r, k] += c * sum over the chunks of a job, in order, of parts[layer, chunk, r, k]; see lowrank_grad_chunks.wgsl.
// One lane a quad of columns of a rank. Grid: (columns / 4 / 64, ranks, layers · jobs).
#import lowrank

@group(0) @binding(1) var<storage, read> jobs: array<u32>;
@group(0) @binding(2) var<storage, read> sites: array<u32>;
@group(0) @binding(3) var<storage, read_write> parts: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> grads: array<vec4<f32>>;
#import lowrank_chunks

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let number = group.z / p.jobs;
    let layer = layer_at(number);
    let id = group.z % p.jobs;
    let site = load_site(layer, id);
    let r = first_rank(site) + group.y;
    let k = (group.x * 64u + local) * 4u;
    let count = job_chunks(id);
    if (site.rank == 0u || r < site.train.x || r >= site.train.y || site.gradient[p.matrix] == NO_GRADIENT || k >= layer.width || count == 0u) {
        return;
    }
    var first = number * p.chunks;
    for (var other = 0u; other < id; other++) { first += job_chunks(other); }
    var sum = parts[part(first, group.y, k)];
    var i = 1u;
    for (; i + 4u <= count; i += 4u) {
        // Four loads are on their way before the first is added.
        let a = parts[part(first + i, group.y, k)];
        let b = parts[part(first + i + 1u, group.y, k)];
        let c = parts[part(first + i + 2u, group.y, k)];
        let d = parts[part(first + i + 3u, group.y, k)];
        sum = sum + a + b + c + d;
    }
    for (; i < count; i++) { sum += parts[part(first + i, group.y, k)]; }
    let at = (site.gradient[p.matrix] + (r - site.train.x) * layer.width + k) / 4u;
    grads[at] = fma(vec4(scale_of(site)), sum, grads[at]);
}
