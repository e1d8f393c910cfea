// h[t, r] = c * sum_k drop(x[t, k]) * M[r, k], into the rank: M = A, c = 1 forward; M = Bt, c = scale, no dropout for dh.
// x [rows, width], M [rank, width] of the row's job, h [rows, r_max rounded up to whole vectors], written 0 past the job's rank.
//
// One lane owns GROUPS (2 or 4) rows WG apart and eight ranks, sixteen with WIDE: an element of x is loaded once and used that often, and no
// sum crosses lanes, so that the sum runs over k in order in every variant and a row's bits do not depend on its place in a tile. With
// SUBGROUPS one load per lane brings eight inputs of four ranks. Rows of a tile that belong to several jobs are walked segment by segment.
// Dropout masks the input of trainable ranks only: frozen links of a chain are part of the base.
#import handed_round
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

// Inputs k .. k + 4 of a row, zero past its end.
fn load4(row: u32, k: u32) -> vec4<f32> {
#ifdef VEC4
    return select(vec4(0.0), x[(row * p.width + k) / 4u], k < p.width);
#else
    let j = vec4(k) + vec4(0u, 1u, 2u, 3u);
    let c = vec4(row * p.width) + min(j, vec4(p.width - 1u));
    return select(vec4(0.0), vec4(x[c.x], x[c.y], x[c.z], x[c.w]), j < vec4(p.width));
#endif
}

// Inputs k .. k + 8 of ranks r .. r + 4, the last rank again past it.
fn ranks4(site: Site, r: u32, k: u32, lane: u32) -> Rows {
    let last = site.rank - 1u;
#ifdef QUADS
    let own = min(r + lane, last);
    return handed_round(factor4(site, own, k), factor4(site, own, k + 4u));
#else
#ifdef SUBGROUPS
    return handed_round(factor4(site, min(r + lane / 2u, last), k + 4u * (lane & 1u)));
#else
    let r0 = min(r, last);
    let r1 = min(r + 1u, last);
    let r2 = min(r + 2u, last);
    let r3 = min(r + 3u, last);
    return Rows(
        factor4(site, r0, k), factor4(site, r0, k + 4u), factor4(site, r1, k), factor4(site, r1, k + 4u),
        factor4(site, r2, k), factor4(site, r2, k + 4u), factor4(site, r3, k), factor4(site, r3, k + 4u));
#endif
#endif
}

// Eight inputs of a row; with DROPOUT also as trainable ranks see them.
struct Input {
    lo: vec4<f32>,
    hi: vec4<f32>,
#ifdef DROPOUT
    kept_lo: vec4<f32>,
    kept_hi: vec4<f32>,
#endif
}

fn input(job: Job, row: u32, k: u32) -> Input {
    let lo = load4(row, k);
    let hi = load4(row, k + 4u);
#ifdef DROPOUT
    return Input(lo, hi, lo * job_dropout4(job, row, k), hi * job_dropout4(job, row, k + 4u));
#else
    return Input(lo, hi);
#endif
}

fn dot8(sum: f32, lo: vec4<f32>, hi: vec4<f32>, m_lo: vec4<f32>, m_hi: vec4<f32>) -> f32 {
    let s = fma(lo.w, m_lo.w, fma(lo.z, m_lo.z, fma(lo.y, m_lo.y, fma(lo.x, m_lo.x, sum))));
    return fma(hi.w, m_hi.w, fma(hi.z, m_hi.z, fma(hi.y, m_hi.y, fma(hi.x, m_hi.x, s))));
}

// Four ranks of one row.
fn four(sum: vec4<f32>, v: Input, m: Rows, train: vec4<bool>) -> vec4<f32> {
#ifdef DROPOUT
    return vec4(
        dot8(sum.x, select(v.lo, v.kept_lo, train.x), select(v.hi, v.kept_hi, train.x), m.lo0, m.hi0),
        dot8(sum.y, select(v.lo, v.kept_lo, train.y), select(v.hi, v.kept_hi, train.y), m.lo1, m.hi1),
        dot8(sum.z, select(v.lo, v.kept_lo, train.z), select(v.hi, v.kept_hi, train.z), m.lo2, m.hi2),
        dot8(sum.w, select(v.lo, v.kept_lo, train.w), select(v.hi, v.kept_hi, train.w), m.lo3, m.hi3));
#else
    return vec4(
        dot8(sum.x, v.lo, v.hi, m.lo0, m.hi0), dot8(sum.y, v.lo, v.hi, m.lo1, m.hi1),
        dot8(sum.z, v.lo, v.hi, m.lo2, m.hi2), dot8(sum.w, v.lo, v.hi, m.lo3, m.hi3));
#endif
}

// The ranks that a lane owns, four by four: of the factor, which of them train, and the sums of one row.
#ifdef WIDE
const RANKS: u32 = 16u;
struct Factor { a: Rows, b: Rows, c: Rows, d: Rows }
struct Train { a: vec4<bool>, b: vec4<bool>, c: vec4<bool>, d: vec4<bool> }
struct Sums { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }
#else
const RANKS: u32 = 8u;
struct Factor { a: Rows, b: Rows }
struct Train { a: vec4<bool>, b: vec4<bool> }
struct Sums { a: vec4<f32>, b: vec4<f32> }
#endif

fn factor(site: Site, r: u32, k: u32, lane: u32) -> Factor {
#ifdef WIDE
    return Factor(
        ranks4(site, r, k, lane), ranks4(site, r + 4u, k, lane), ranks4(site, r + 8u, k, lane), ranks4(site, r + 12u, k, lane));
#else
    return Factor(ranks4(site, r, k, lane), ranks4(site, r + 4u, k, lane));
#endif
}

fn train(site: Site, r: u32) -> Train {
#ifdef WIDE
    return Train(trains(site, r), trains(site, r + 4u), trains(site, r + 8u), trains(site, r + 12u));
#else
    return Train(trains(site, r), trains(site, r + 4u));
#endif
}

fn multiply(s: Sums, v: Input, m: Factor, t: Train) -> Sums {
#ifdef WIDE
    return Sums(four(s.a, v, m.a, t.a), four(s.b, v, m.b, t.b), four(s.c, v, m.c, t.c), four(s.d, v, m.d, t.d));
#else
    return Sums(four(s.a, v, m.a, t.a), four(s.b, v, m.b, t.b));
#endif
}

fn store4(row: u32, r: u32, rank: u32, sums: vec4<f32>) {
    if (r < p.r_max) {
        let on = vec4(r) + vec4(0u, 1u, 2u, 3u) < vec4(rank);
        h[row * rank_vectors() + r / 4u] = select(vec4(0.0), sums, on);
    }
}

fn store(row: u32, r0: u32, site: Site, s: Sums) {
    let c = scale_of(site);
    store4(row, r0, site.rank, c * s.a);
    store4(row, r0 + 4u, site.rank, c * s.b);
#ifdef WIDE
    store4(row, r0 + 8u, site.rank, c * s.c);
    store4(row, r0 + 12u, site.rank, c * s.d);
#endif
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) invocation: u32,
#endif
) {
#ifdef SUBGROUPS
    let lane = invocation % GROUP_LANES;
#else
    let lane = 0u;
#endif
    let first = group.x * WG * GROUPS;
    let end = min(first + WG * GROUPS, p.rows);
    let r0 = group.y * RANKS;
    // The rows of a lane.
    let t0 = first + local;
    let t1 = t0 + WG;
#ifdef GROUPS4
    let t2 = t1 + WG;
    let t3 = t2 + WG;
#endif
    var begin = first;
    while (begin < end) {
        let id = row_job[begin];
        var stop = begin + 1u;
        var site: Site;
        var job: Job;
        if (id < p.jobs) {
            stop = max(stop, min(end, jobs[id * 8u + 1u]));
            job = load_job(id);
            site = load_site(id);
        }
        var s0: Sums;
        var s1: Sums;
#ifdef GROUPS4
        var s2: Sums;
        var s3: Sums;
#endif
        if (r0 < site.rank) {
            let t = train(site, r0);
            let last = stop - 1u;
            for (var k = 0u; k < p.width; k += 8u) {
                let m = factor(site, r0, k, lane);
                if (first < stop) { s0 = multiply(s0, input(job, clamp(t0, begin, last), k), m, t); }
                if (first + WG < stop) { s1 = multiply(s1, input(job, clamp(t1, begin, last), k), m, t); }
#ifdef GROUPS4
                if (first + 2u * WG < stop) { s2 = multiply(s2, input(job, clamp(t2, begin, last), k), m, t); }
                if (first + 3u * WG < stop) { s3 = multiply(s3, input(job, clamp(t3, begin, last), k), m, t); }
#endif
            }
        }
        if (t0 >= begin && t0 < stop) { store(t0, r0, site, s0); }
        if (t1 >= begin && t1 < stop) { store(t1, r0, site, s1); }
#ifdef GROUPS4
        if (t2 >= begin && t2 < stop) { store(t2, r0, site, s2); }
        if (t3 >= begin && t3 < stop) { store(t3, r0, site, s3); }
#endif
        begin = stop;
    }
}
