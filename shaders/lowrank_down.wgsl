// h[t, r] = c * sum_k drop(x[t, k]) * M[r, k], into the rank: M = A, c = 1 forward; M = Bt, c = scale, no dropout for dh.
// x [rows, width], M [rank, width] of the row's job, h [rows, r_max rounded up to whole vectors], written 0 past the job's rank.
// Grid: row tiles x blocks of RANKS ranks x layers.
//
// One lane owns GROUPS (2 or 4) rows WG apart and RANKS ranks, 8 to 40 in octets: an element of x is loaded once and used that often, and no
// sum crosses lanes, so that the sum runs over k in order in every variant and a row's bits do not depend on its place in a tile. With
// SUBGROUPS lanes load a part of eight inputs of four ranks each. Rows of a tile that belong to several jobs are walked segment by segment.
// Dropout masks the input of trainable ranks only: frozen links of a chain are part of the base.
#import subgroup_rows
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
fn load4(layer: Layer, row: u32, k: u32) -> vec4<f32> {
#ifdef VEC4
    return select(vec4(0.0), x[(wide_row(layer, row) + k) / 4u], k < layer.width);
#else
    let j = vec4(k) + vec4(0u, 1u, 2u, 3u);
    let c = vec4(wide_row(layer, row)) + min(j, vec4(layer.width - 1u));
    return select(vec4(0.0), vec4(x[c.x], x[c.y], x[c.z], x[c.w]), j < vec4(layer.width));
#endif
}

// Inputs k .. k + 8 of ranks r .. r + 4, the last rank again past it.
fn ranks4(layer: Layer, site: Site, r: u32, k: u32, lane: u32) -> Rows {
    let last = site.rank - 1u;
#ifdef QUADS
    let own = min(r + lane, last);
    return subgroup_rows(factor4(layer, site, own, k), factor4(layer, site, own, k + 4u));
#else
#ifdef SUBGROUPS
    return subgroup_rows(factor4(layer, site, min(r + lane / 2u, last), k + 4u * (lane & 1u)));
#else
    let r0 = min(r, last);
    let r1 = min(r + 1u, last);
    let r2 = min(r + 2u, last);
    let r3 = min(r + 3u, last);
    return Rows(
        factor4(layer, site, r0, k), factor4(layer, site, r0, k + 4u), factor4(layer, site, r1, k), factor4(layer, site, r1, k + 4u),
        factor4(layer, site, r2, k), factor4(layer, site, r2, k + 4u), factor4(layer, site, r3, k), factor4(layer, site, r3, k + 4u));
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

fn input(layer: Layer, segment: Segment, row: u32, k: u32) -> Input {
    let lo = load4(layer, row, k);
    let hi = load4(layer, row, k + 4u);
#ifdef DROPOUT
    return Input(lo, hi, lo * segment_dropout4(segment, row, k), hi * segment_dropout4(segment, row, k + 4u));
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

// Of eight ranks: the factor's next eight inputs, which of them train, the sums of one row.
struct Factor { lo: Rows, hi: Rows }
struct Train { lo: vec4<bool>, hi: vec4<bool> }
struct Sums { lo: vec4<f32>, hi: vec4<f32> }

fn factor(layer: Layer, site: Site, r: u32, k: u32, lane: u32) -> Factor {
    return Factor(ranks4(layer, site, r, k, lane), ranks4(layer, site, r + 4u, k, lane));
}

fn train(site: Site, r: u32) -> Train {
    return Train(trains(site, r), trains(site, r + 4u));
}

fn eight(s: Sums, v: Input, m: Factor, t: Train) -> Sums {
    return Sums(four(s.lo, v, m.lo, t.lo), four(s.hi, v, m.hi, t.hi));
}

// The rows of a lane.
struct Inputs {
    v0: Input,
    v1: Input,
#ifdef GROUPS4
    v2: Input,
    v3: Input,
#endif
}

struct Octet {
    s0: Sums,
    s1: Sums,
#ifdef GROUPS4
    s2: Sums,
    s3: Sums,
#endif
}

// Eight more inputs of the first `groups` rows, for eight ranks.
fn multiply(before: Octet, v: Inputs, m: Factor, t: Train, groups: u32) -> Octet {
    var o = before;
    if (groups > 0u) { o.s0 = eight(o.s0, v.v0, m, t); }
    if (groups > 1u) { o.s1 = eight(o.s1, v.v1, m, t); }
#ifdef GROUPS4
    if (groups > 2u) { o.s2 = eight(o.s2, v.v2, m, t); }
    if (groups > 3u) { o.s3 = eight(o.s3, v.v3, m, t); }
#endif
    return o;
}

fn store4(layer: Layer, row: u32, r: u32, rank: u32, sums: vec4<f32>) {
    if (r < p.r_max) {
        let on = vec4(r) + vec4(0u, 1u, 2u, 3u) < vec4(rank);
        h[inner_row(layer, row) * rank_vectors() + r / 4u] = select(vec4(0.0), sums, on);
    }
}

fn store8(layer: Layer, row: u32, r: u32, site: Site, s: Sums) {
    let c = scale_of(site);
    store4(layer, row, r, site.rank, c * s.lo);
    store4(layer, row, r + 4u, site.rank, c * s.hi);
}

// Of the rows of a lane, those in begin .. stop.
fn store(layer: Layer, t: vec4<u32>, begin: u32, stop: u32, r: u32, site: Site, o: Octet) {
    if (t.x >= begin && t.x < stop) { store8(layer, t.x, r, site, o.s0); }
    if (t.y >= begin && t.y < stop) { store8(layer, t.y, r, site, o.s1); }
#ifdef GROUPS4
    if (t.z >= begin && t.z < stop) { store8(layer, t.z, r, site, o.s2); }
    if (t.w >= begin && t.w < stop) { store8(layer, t.w, r, site, o.s3); }
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
    let lane = invocation % BROADCAST_WIDTH;
#else
    let lane = 0u;
#endif
    let layer = layer_at(group.z);
    let first = first_row() + group.x * WG * GROUPS;
    let end = min(first + WG * GROUPS, p.rows);
    let r = group.y * RANKS;
    let t = vec4(first + local) + vec4(0u, 1u, 2u, 3u) * WG;
    var begin = first;
    // What a pass begins with is written out: Tint zeroes a variable without a value once, not in every pass of a loop.
    while (begin < end) {
        let id = row_job[begin];
        var stop = begin + 1u;
        var site = Site();
        var segment = Segment();
        if (id < p.jobs) {
            stop = max(stop, min(end, jobs[id * 8u + 1u]));
            segment = load_segment(layer, id);
            site = load_site(layer, id);
        }
        var a = Octet();
#ifdef RANKS16
        var b = Octet();
#endif
#ifdef RANKS24
        var c = Octet();
#endif
#ifdef RANKS32
        var d = Octet();
#endif
#ifdef RANKS40
        var e = Octet();
#endif
        if (r < site.rank) {
            let row = clamp(t, vec4(begin), vec4(stop - 1u));
            let groups = (stop - first + WG - 1u) / WG;
            for (var k = 0u; k < layer.width; k += 8u) {
#ifdef GROUPS4
                let v = Inputs(input(layer, segment, row.x, k), input(layer, segment, row.y, k), input(layer, segment, row.z, k), input(layer, segment, row.w, k));
#else
                let v = Inputs(input(layer, segment, row.x, k), input(layer, segment, row.y, k));
#endif
                a = multiply(a, v, factor(layer, site, r, k, lane), train(site, r), groups);
#ifdef RANKS16
                b = multiply(b, v, factor(layer, site, r + 8u, k, lane), train(site, r + 8u), groups);
#endif
#ifdef RANKS24
                c = multiply(c, v, factor(layer, site, r + 16u, k, lane), train(site, r + 16u), groups);
#endif
#ifdef RANKS32
                d = multiply(d, v, factor(layer, site, r + 24u, k, lane), train(site, r + 24u), groups);
#endif
#ifdef RANKS40
                e = multiply(e, v, factor(layer, site, r + 32u, k, lane), train(site, r + 32u), groups);
#endif
            }
        }
        store(layer, t, begin, stop, r, site, a);
#ifdef RANKS16
        store(layer, t, begin, stop, r + 8u, site, b);
#endif
#ifdef RANKS24
        store(layer, t, begin, stop, r + 16u, site, c);
#endif
#ifdef RANKS32
        store(layer, t, begin, stop, r + 24u, site, d);
#endif
#ifdef RANKS40
        store(layer, t, begin, stop, r + 32u, site, e);
#endif
        begin = stop;
    }
}
