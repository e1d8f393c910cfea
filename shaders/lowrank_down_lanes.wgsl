// The product of lowrank_down.wgsl for GPUs with many cores: h[t, r] = c * sum_k drop(x[t, k]) * M[r, k].
//
// 32 lanes share a row and eight ranks: each sums every 32nd vector of the row, so that loads are coalesced, and the sums of the lanes are added
// pairwise through workgroup memory. The order depends on the width alone. A workgroup has eight rows; grid: (rows / 8, ranks / 8, layers).
#import lowrank
#import lowrank_factor

@group(0) @binding(1) var<storage, read> row_job: array<u32>;
@group(0) @binding(2) var<storage, read> jobs: array<u32>;
@group(0) @binding(3) var<storage, read> sites: array<u32>;
#ifdef VEC4
@group(0) @binding(5) var<storage, read_write> x: array<vec4<f32>>;
#else
@group(0) @binding(5) var<storage, read_write> x: array<f32>;
#endif
@group(0) @binding(6) var<storage, read_write> h: array<vec4<f32>>;

const LANES: u32 = 32u;
const ROWS: u32 = 8u;
const WG: u32 = LANES * ROWS;
var<workgroup> shared_lo: array<vec4<f32>, WG>;
var<workgroup> shared_hi: array<vec4<f32>, WG>;

// Inputs k .. k + 4 of a row, zero past its end.
fn load4(layer: Layer, row: u32, k: u32) -> vec4<f32> {
#ifdef VEC4
    return select(vec4(0.0), x[(wide_row(layer, row) + k) / 4u], k < layer.width);
#else
    let j = vec4(k) + vec4(0u, 1u, 2u, 3u);
    let c = vec4(wide_row(layer, row)) + min(j, vec4(layer.width - 1u));
    return select(vec4(0.0), vec4(x[c.x], x[c.y], x[c.z], x[c.w]), j < vec4(layer.width));
#endif
}

fn dot4(sum: f32, v: vec4<f32>, m: vec4<f32>) -> f32 {
    return fma(v.w, m.w, fma(v.z, m.z, fma(v.y, m.y, fma(v.x, m.x, sum))));
}

// Four inputs of ranks r .. r + 4, the last rank again past it; `kept` is what ranks that train see.
fn four(layer: Layer, site: Site, r: u32, k: u32, v: vec4<f32>, kept: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    let last = site.rank - 1u;
    let train = trains(site, r);
    return vec4(
        dot4(sum.x, select(v, kept, train.x), factor4(layer, site, min(r, last), k)),
        dot4(sum.y, select(v, kept, train.y), factor4(layer, site, min(r + 1u, last), k)),
        dot4(sum.z, select(v, kept, train.z), factor4(layer, site, min(r + 2u, last), k)),
        dot4(sum.w, select(v, kept, train.w), factor4(layer, site, min(r + 3u, last), k)));
}

fn store4(layer: Layer, row: u32, r: u32, rank: u32, sums: vec4<f32>) {
    if (r < 4u * rank_vectors()) {
        let on = vec4(r) + vec4(0u, 1u, 2u, 3u) < vec4(rank);
        h[inner_row(layer, row) * rank_vectors() + r / 4u] = select(vec4(0.0), sums, on);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let layer = layer_at(group.z);
    let row = first_row() + group.x * ROWS + local / LANES;
    let lane = local % LANES;
    let r = group.y * 8u;
    var site = Site();
    var segment = Segment();
    if (row < p.rows) {
        let id = row_job[row];
        if (id < p.jobs) {
            site = load_site(layer, id);
            segment = load_segment(layer, id);
        }
    }
    var lo = vec4(0.0);
    var hi = vec4(0.0);
    if (r < site.rank) {
        for (var k = 4u * lane; k < layer.width; k += 4u * LANES) {
            let v = load4(layer, row, k);
#ifdef DROPOUT
            let kept = v * segment_dropout4(segment, row, k);
#else
            let kept = v;
#endif
            lo = four(layer, site, r, k, v, kept, lo);
            hi = four(layer, site, r + 4u, k, v, kept, hi);
        }
    }
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        shared_lo[local] = lo;
        shared_hi[local] = hi;
        workgroupBarrier();
        let other = local ^ half;
        lo += shared_lo[other];
        hi += shared_hi[other];
    }
    if (lane == 0u && row < p.rows) {
        let c = scale_of(site);
        store4(layer, row, r, site.rank, c * lo);
        store4(layer, row, r + 4u, site.rank, c * hi);
    }
}
