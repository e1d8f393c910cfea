// y[t, n] += c * sum_r mask * h[t, r] * M[r, n], out of the rank: M = Bt, c = scale, no mask forward; M = A for dx, where trainable ranks
// have the dropout mask of element (t, n) of the input and frozen ones have none.
// h [rows, r_max], M [rank, width] of the row's job, y [rows, width].
//
// Lanes lie along n, so that M and y are read and written side by side; a lane owns COLS columns WG apart. Eight ranks of M stay in
// registers while rows pass by; where there are more than eight ranks a lane holds TILE rows of sums instead. The sum runs over r in
// order in every variant. SUBGROUPS: a lane loads one rank of h and eight lanes hand it round.

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
@group(0) @binding(5) var<storage, read_write> h: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

#import segments

// Ranks r0..r0+3 of a row of h; 0 past the rank, so that what M holds there does not count.
fn ranks_of(row: u32, r0: u32, rank: u32) -> vec4<f32> {
    let at = row * p.r_max;
    let r = min(vec4(r0) + vec4(0u, 1u, 2u, 3u), vec4(rank - 1u));
    let found = vec4(h[at + r.x], h[at + r.y], h[at + r.z], h[at + r.w]);
    return select(vec4(0.0), found, vec4(r0) + vec4(0u, 1u, 2u, 3u) < vec4(rank));
}

// M[r0..r0+3, n], clamped to the rank.
fn column(matrix: u32, r0: u32, rank: u32, n: u32) -> vec4<f32> {
    let at = matrix + min(vec4(r0) + vec4(0u, 1u, 2u, 3u), vec4(rank - 1u)) * p.width + n;
    return vec4(adapter[at.x], adapter[at.y], adapter[at.z], adapter[at.w]);
}

// sum + a . b, one rank after the other.
fn dot_in_order(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
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
    let n0 = group.x * WG * COLS + lane;
    let end = min(group.y * ROWS + ROWS, p.rows);
#ifdef SUBGROUPS
    let eighth = subgroup_lane & 7u;
    let base = subgroup_lane - eighth;
#endif
    var begin = group.y * ROWS;
    while (begin < end) {
        let id = row_job[begin];
        var stop = begin + 1u;
        var rank = 0u;
        if (id < p.jobs) {
            stop = max(stop, min(end, jobs[id * 8u + 1u]));
            rank = sites[(p.site * p.jobs + id) * 8u];
        }
        if (rank > 0u) {
            let job = load_job(id);
            let site = load_site(id);
            let matrix = site.matrix[p.matrix];
            let c = select(1.0, site.scale, p.scaled == 1u);
            var m_lo: array<vec4<f32>, COLS>;
            var m_hi: array<vec4<f32>, COLS>;
#ifdef ONE_BLOCK
            for (var j = 0u; j < COLS; j++) {
                m_lo[j] = column(matrix, 0u, rank, min(n0 + j * WG, p.width - 1u));
                m_hi[j] = column(matrix, 4u, rank, min(n0 + j * WG, p.width - 1u));
            }
#endif
            for (var t0 = begin; t0 < stop; t0 += TILE) {
                var sums: array<f32, TILE * COLS>;
                for (var i = 0u; i < TILE * COLS; i++) {
                    sums[i] = 0.0;
                }
#ifdef ONE_BLOCK
                let r0 = 0u;
                {
#else
                for (var r0 = 0u; r0 < rank; r0 += 8u) {
                    for (var j = 0u; j < COLS; j++) {
                        m_lo[j] = column(matrix, r0, rank, min(n0 + j * WG, p.width - 1u));
                        m_hi[j] = column(matrix, r0 + 4u, rank, min(n0 + j * WG, p.width - 1u));
                    }
#endif
                    for (var i = 0u; i < TILE; i++) {
                        let row = min(t0 + i, stop - 1u);
                        var lo: vec4<f32>;
                        var hi: vec4<f32>;
#ifdef SUBGROUPS
                        if (subgroup_size >= 8u) {
                            let mine = select(0.0, h[row * p.r_max + min(r0 + eighth, rank - 1u)], r0 + eighth < rank);
                            lo = vec4(subgroupShuffle(mine, base), subgroupShuffle(mine, base + 1u),
                                subgroupShuffle(mine, base + 2u), subgroupShuffle(mine, base + 3u));
                            hi = vec4(subgroupShuffle(mine, base + 4u), subgroupShuffle(mine, base + 5u),
                                subgroupShuffle(mine, base + 6u), subgroupShuffle(mine, base + 7u));
                        } else {
                            lo = ranks_of(row, r0, rank);
                            hi = ranks_of(row, r0 + 4u, rank);
                        }
#else
                        lo = ranks_of(row, r0, rank);
                        hi = ranks_of(row, r0 + 4u, rank);
#endif
                        for (var j = 0u; j < COLS; j++) {
#ifdef DROPOUT
                            if (r0 < site.train.y && r0 + 8u > site.train.x) {
                                let mask = vec4(job_dropout(job, row, n0 + j * WG));
                                let lo_kept = select(lo, lo * mask, trains(site, r0));
                                let hi_kept = select(hi, hi * mask, trains(site, r0 + 4u));
                                sums[i * COLS + j] = dot_in_order(hi_kept, m_hi[j], dot_in_order(lo_kept, m_lo[j], sums[i * COLS + j]));
                                continue;
                            }
#endif
                            sums[i * COLS + j] = dot_in_order(hi, m_hi[j], dot_in_order(lo, m_lo[j], sums[i * COLS + j]));
                        }
                    }
                }
                for (var i = 0u; i < TILE; i++) {
                    for (var j = 0u; j < COLS; j++) {
                        let row = t0 + i;
                        let n = n0 + j * WG;
                        if (row < stop && n < p.width) {
                            let at = row * p.width + n;
                            y[at] = fma(c, sums[i * COLS + j], y[at]);
                        }
                    }
                }
            }
        }
        begin = stop;
    }
}
