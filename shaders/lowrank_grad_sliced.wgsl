// The product of lowrank_grad.wgsl for adapters with many cores: the job's rows are dealt to SLICES slices of a workgroup, slice s taking
// rows s, s + SLICES, .. of the job, and the slices' sums are added in the order of the slices. Another order than lowrank_grad.wgsl
// (equal within rounding), as fixed as that one.
//
// A workgroup has WIDE columns x SLICES slices (WG = WIDE * SLICES); a lane owns one column and eight ranks. Workgroup memory: 8 * WG words.
#import lowrank

@group(0) @binding(1) var<storage, read> jobs: array<u32>;
@group(0) @binding(2) var<storage, read> sites: array<u32>;
@group(0) @binding(3) var<storage, read_write> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> z: array<f32>;
@group(0) @binding(5) var<storage, read_write> grads: array<f32>;

const WG: u32 = WIDE * SLICES;
var<workgroup> parts: array<f32, 8u * WG>;

fn ranks_of(layer: Layer, row: u32, r0: u32, last: u32) -> vec4<f32> {
    let at = inner_row(layer, row) * 4u * rank_vectors() + min(vec4(r0) + vec4(0u, 1u, 2u, 3u), vec4(last));
    return vec4(g[at.x], g[at.y], g[at.z], g[at.w]);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = group.x * WIDE + lane % WIDE;
    let slice = lane / WIDE;
    let layer = layer_at(group.z / p.jobs);
    let job = load_job(layer, group.z % p.jobs);
    let site = load_site(layer, group.z % p.jobs);
    let r0 = site.train.x + group.y * 8u;
    let outside = r0 >= site.train.y || group.x * WIDE >= layer.width;
    if (site.rank == 0u || outside || site.gradient[p.matrix] == NO_GRADIENT) {
        return;
    }
    let last = site.train.y - 1u;
    let k = min(column, layer.width - 1u);
    var lo = vec4(0.0);
    var hi = vec4(0.0);
    for (var row = job.row_begin + slice; row < min(job.row_end, p.rows); row += SLICES) {
        var value = z[wide_row(layer, row) + k];
#ifdef DROPOUT
        value *= job_dropout(job, row, k);
#endif
        lo = fma(vec4(value), ranks_of(layer, row, r0, last), lo);
        hi = fma(vec4(value), ranks_of(layer, row, r0 + 4u, last), hi);
    }
    for (var i = 0u; i < 4u; i++) {
        parts[i * WG + lane] = lo[i];
        parts[(i + 4u) * WG + lane] = hi[i];
    }
    workgroupBarrier();
    let c = scale_of(site);
    for (var r = slice; r < 8u; r += SLICES) {
        if (column < layer.width && r0 + r <= last) {
            var sum = 0.0;
            for (var s = 0u; s < SLICES; s++) {
                sum += parts[r * WG + s * WIDE + lane % WIDE];
            }
            let at = site.gradient[p.matrix] + (r0 - site.train.x + r) * layer.width + column;
            grads[at] = fma(c, sum, grads[at]);
        }
    }
}
