// The second pass: dM[r, k] += c * sum over the chunks of a job, in order, of parts[layer, chunk, r, k]; see lowrank_grad_chunks.wgsl.
// One lane a quad of columns of a rank. Grid: (columns / 4 / 64, ranks, layers · jobs). With ROW_RANGE the sum is carried from one range of rows to
// the next, beside that of a chunk that goes on there; the last range adds it to dM.
#import lowrank

@group(0) @binding(1) var<storage, read> jobs: array<u32>;
@group(0) @binding(2) var<storage, read> sites: array<u32>;
@group(0) @binding(3) var<storage, read_write> parts: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> grads: array<vec4<f32>>;
#import lowrank_chunks
#ifdef ROW_RANGE
@group(0) @binding(5) var<storage, read_write> carry: array<vec4<f32>>;
#import lowrank_carry
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let number = group.z / p.jobs;
    let layer = layer_at(number);
    let id = group.z % p.jobs;
    let site = load_site(layer, id);
    let r = first_rank(site) + group.y;
    let k = (group.x * 64u + local) * 4u;
    var count = job_chunks(id);
    if (site.rank == 0u || r < site.train.x || r >= site.train.y || site.gradient[p.matrix] == NO_GRADIENT || k >= layer.width) {
        return;
    }
    var first = number * p.chunks;
    for (var other = 0u; other < id; other++) { first += job_chunks(other); }
#ifdef ROW_RANGE
    let kept = carried(layer, id, group.y, k);
    var sum = vec4(0.0);
    if (p.first > 0u) { sum = carry[kept]; }
    if (count > 0u && p.rows < jobs[id * 8u + 1u] && (p.rows - jobs[id * 8u]) % CHUNK > 0u) {
        count -= 1u;
        carry[kept + carried_chunk(layer)] = parts[part(first + count, group.y, k)];
    }
    var i = 0u;
#else
    if (count == 0u) { return; }
    var sum = parts[part(first, group.y, k)];
    var i = 1u;
#endif
    for (; i + 4u <= count; i += 4u) {
        // Four loads are on their way before the first is added.
        let a = parts[part(first + i, group.y, k)];
        let b = parts[part(first + i + 1u, group.y, k)];
        let c = parts[part(first + i + 2u, group.y, k)];
        let d = parts[part(first + i + 3u, group.y, k)];
        sum = sum + a + b + c + d;
    }
    for (; i < count; i++) { sum += parts[part(first + i, group.y, k)]; }
#ifdef ROW_RANGE
    if (p.rows < p.total) {
        carry[kept] = sum;
        return;
    }
#endif
    let at = (site.gradient[p.matrix] + (r - site.train.x) * layer.width + k) / 4u;
    grads[at] = fma(vec4(scale_of(site)), sum, grads[at]);
}
