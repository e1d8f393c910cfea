// h[t, r] = c * sum_k drop(x[t, k]) * M[r, k], into the rank: M = A, c = 1 forward; M = Bt, c = scale, no dropout for dh.
// x [rows, width], M [rank, width] of the row's job, h [rows, r_max]; columns past the job's rank are written 0.
//
// One lane owns GROUPS rows and eight ranks: an element of x is loaded once and used eight times, and no sum crosses lanes, so that the
// sum runs over k in order in every variant and a row's bits do not depend on its place in a tile. SUBGROUPS: a lane loads one k of M
// and eight lanes hand it round, since on adapters that execute loads lane by lane even a uniform load costs as much as a gather.
// Rows of a tile that belong to several jobs are walked segment by segment. Dropout masks the input of trainable ranks only: frozen links
// of a chain are part of the base.

struct Params {
    rows: u32,
    width: u32,
    r_max: u32,
    site: u32,
    jobs: u32,
    matrix: u32, // 0: A, 1: Bt
    scaled: u32, // 1: c = scale of the job
    pad: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> row_job: array<u32>;
@group(0) @binding(2) var<storage, read> jobs: array<u32>;
@group(0) @binding(3) var<storage, read> sites: array<u32>;
@group(0) @binding(4) var<storage, read> adapter: array<f32>;
@group(0) @binding(5) var<storage, read_write> x: array<f32>;
@group(0) @binding(6) var<storage, read_write> h: array<f32>;

#import segments

// Column k of the eight ranks at word offsets `lo` and `hi`.
fn column(at: vec4<u32>, k: u32) -> vec4<f32> {
    return vec4(adapter[at.x + k], adapter[at.y + k], adapter[at.z + k], adapter[at.w + k]);
}

fn store(row: u32, r0: u32, lo: vec4<f32>, hi: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if (r0 + i < p.r_max) {
            h[row * p.r_max + r0 + i] = lo[i];
        }
        if (r0 + i + 4u < p.r_max) {
            h[row * p.r_max + r0 + i + 4u] = hi[i];
        }
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
    @builtin(subgroup_size) subgroup_size: u32,
#endif
) {
    let first = group.x * WG * GROUPS;
    let end = min(first + WG * GROUPS, p.rows);
    let r0 = group.y * 8u;
#ifdef SUBGROUPS
    // Eight lanes hand M round; a narrower subgroup takes the plain loop for everything.
    let shared_width = select(0u, p.width & ~7u, subgroup_size >= 8u);
    let eighth = subgroup_lane & 7u;
    let base = subgroup_lane - eighth;
#else
    let shared_width = 0u;
#endif
    var begin = first;
    while (begin < end) {
        let id = row_job[begin];
        var stop = begin + 1u;
        var rank = 0u;
        if (id < p.jobs) {
            stop = max(stop, min(end, jobs[id * 8u + 1u]));
            rank = sites[(p.site * p.jobs + id) * 8u];
        }
        var acc_lo: array<vec4<f32>, GROUPS>;
        var acc_hi: array<vec4<f32>, GROUPS>;
        for (var g = 0u; g < GROUPS; g++) {
            acc_lo[g] = vec4(0.0);
            acc_hi[g] = vec4(0.0);
        }
        if (r0 < rank) {
            let job = load_job(id);
            let site = load_site(id);
            let ranks = min(vec4(r0) + vec4(0u, 1u, 2u, 3u), vec4(rank - 1u));
            let more = min(vec4(r0) + vec4(4u, 5u, 6u, 7u), vec4(rank - 1u));
            let lo = site.matrix[p.matrix] + ranks * p.width;
            let hi = site.matrix[p.matrix] + more * p.width;
#ifdef DROPOUT
            let lo_train = trains(site, r0);
            let hi_train = trains(site, r0 + 4u);
#endif
#ifdef SUBGROUPS
            for (var k0 = 0u; k0 < shared_width; k0 += 8u) {
                let mine_lo = column(lo, k0 + eighth);
                let mine_hi = column(hi, k0 + eighth);
                for (var i = 0u; i < 8u; i++) {
                    let a_lo = subgroupShuffle(mine_lo, base + i);
                    let a_hi = subgroupShuffle(mine_hi, base + i);
                    for (var g = 0u; g < GROUPS; g++) {
                        let row = clamp(first + g * WG + lane, begin, stop - 1u);
                        let value = x[row * p.width + k0 + i];
#ifdef DROPOUT
                        let kept = value * job_dropout(job, row, k0 + i);
                        acc_lo[g] = fma(select(vec4(value), vec4(kept), lo_train), a_lo, acc_lo[g]);
                        acc_hi[g] = fma(select(vec4(value), vec4(kept), hi_train), a_hi, acc_hi[g]);
#else
                        acc_lo[g] = fma(vec4(value), a_lo, acc_lo[g]);
                        acc_hi[g] = fma(vec4(value), a_hi, acc_hi[g]);
#endif
                    }
                }
            }
#endif
            for (var k = shared_width; k < p.width; k++) {
                let a_lo = column(lo, k);
                let a_hi = column(hi, k);
                for (var g = 0u; g < GROUPS; g++) {
                    let row = clamp(first + g * WG + lane, begin, stop - 1u);
                    let value = x[row * p.width + k];
#ifdef DROPOUT
                    let kept = value * job_dropout(job, row, k);
                    acc_lo[g] = fma(select(vec4(value), vec4(kept), lo_train), a_lo, acc_lo[g]);
                    acc_hi[g] = fma(select(vec4(value), vec4(kept), hi_train), a_hi, acc_hi[g]);
#else
                    acc_lo[g] = fma(vec4(value), a_lo, acc_lo[g]);
                    acc_hi[g] = fma(vec4(value), a_hi, acc_hi[g]);
#endif
                }
            }
            let c = select(1.0, site.scale, p.scaled == 1u);
            let lo_on = vec4(r0) + vec4(0u, 1u, 2u, 3u) < vec4(rank);
            let hi_on = vec4(r0) + vec4(4u, 5u, 6u, 7u) < vec4(rank);
            for (var g = 0u; g < GROUPS; g++) {
                acc_lo[g] = select(vec4(0.0), c * acc_lo[g], lo_on);
                acc_hi[g] = select(vec4(0.0), c * acc_hi[g], hi_on);
            }
        }
        for (var g = 0u; g < GROUPS; g++) {
            let row = first + g * WG + lane;
            if (row >= begin && row < stop) {
                store(row, r0, acc_lo[g], acc_hi[g]);
            }
        }
        begin = stop;
    }
}
