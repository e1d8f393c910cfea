// y[t, n] += c * sum_r mask * h[t, r] * M[r, n], out of the rank: M = Bt, c = scale, no mask forward; M = A for dx, where trainable ranks
// have the dropout mask of element (t, n) of the input and frozen ones have none.
// h [rows, r_max rounded up to whole vectors], M [rank, width] of the row's job, y [rows, width].
//
// One lane owns eight columns, two quads WG apart, of the ROWS rows of a tile. With ONE_BLOCK there are at most eight ranks: they stay in
// registers while rows pass by, four at a time. Otherwise ROWS is 16 or 32, and sums of all rows stay while eight ranks at a time pass by. The sum
// runs over r in order in every variant. With SUBGROUPS lanes load a part of eight ranks of four rows of h each.
#import lowrank
#import rows4
#import tile
#import lowrank_factor

@group(0) @binding(1) var<storage, read> row_job: array<u32>;
@group(0) @binding(2) var<storage, read> jobs: array<u32>;
@group(0) @binding(3) var<storage, read> sites: array<u32>;
@group(0) @binding(5) var<storage, read_write> h: array<vec4<f32>>;
#ifdef VEC4
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;
#else
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
#endif

// Ranks 4 q .. + 4 of a row of h.
fn row4(row: u32, q: u32) -> vec4<f32> {
    return select(vec4(0.0), h[row * rank_vectors() + q], q < rank_vectors());
}

// Ranks 4 q .. + 8 of the rows t .. t + 4 of h that belong to the layer, the last row again past it.
fn inner4(layer: Layer, t: u32, q: u32, lane: u32) -> Rows {
    return rows4(inner_row(layer, t), inner_row(layer, p.rows - 1u), q, lane);
}

// Ranks r .. r + 8 of columns n .. n + 4, the last rank again past it, where h is 0.
fn tile(layer: Layer, site: Site, r: u32, n: u32) -> Tile {
    let last = site.rank - 1u;
    return Tile(
        factor4(layer, site, min(r, last), n), factor4(layer, site, min(r + 1u, last), n), factor4(layer, site, min(r + 2u, last), n),
        factor4(layer, site, min(r + 3u, last), n), factor4(layer, site, min(r + 4u, last), n), factor4(layer, site, min(r + 5u, last), n),
        factor4(layer, site, min(r + 6u, last), n), factor4(layer, site, min(r + 7u, last), n));
}

// What all rows of a turn of eight ranks share: the factor at columns n.x .. + 4 and n.y .. + 4; with DROPOUT which ranks train, if any.
struct Turn {
    n: vec2<u32>,
    a: Tile,
    b: Tile,
#ifdef DROPOUT
    segment: Segment,
    masked: bool,
    train_lo: vec4<bool>,
    train_hi: vec4<bool>,
#endif
}

fn turn_at(layer: Layer, segment: Segment, site: Site, r: u32, n: vec2<u32>) -> Turn {
#ifdef DROPOUT
    let masked = r < site.train.y && r + 8u > site.train.x;
    return Turn(n, tile(layer, site, r, n.x), tile(layer, site, r, n.y), segment, masked, trains(site, r), trains(site, r + 4u));
#else
    return Turn(n, tile(layer, site, r, n.x), tile(layer, site, r, n.y));
#endif
}

struct Sums {
    a0: vec4<f32>, b0: vec4<f32>, a1: vec4<f32>, b1: vec4<f32>,
    a2: vec4<f32>, b2: vec4<f32>, a3: vec4<f32>, b3: vec4<f32>,
}

#ifdef DROPOUT
// dot8 where the mask of a column multiplies what trains.
fn masked8(sum: vec4<f32>, lo: vec4<f32>, hi: vec4<f32>, c: Tile, row: u32, n: u32, turn: Turn) -> vec4<f32> {
    let mask = segment_dropout4(turn.segment, row, n);
    var s = fma(select(vec4(lo.x), lo.x * mask, turn.train_lo.x), c.k0, sum);
    s = fma(select(vec4(lo.y), lo.y * mask, turn.train_lo.y), c.k1, s);
    s = fma(select(vec4(lo.z), lo.z * mask, turn.train_lo.z), c.k2, s);
    s = fma(select(vec4(lo.w), lo.w * mask, turn.train_lo.w), c.k3, s);
    s = fma(select(vec4(hi.x), hi.x * mask, turn.train_hi.x), c.k4, s);
    s = fma(select(vec4(hi.y), hi.y * mask, turn.train_hi.y), c.k5, s);
    s = fma(select(vec4(hi.z), hi.z * mask, turn.train_hi.z), c.k6, s);
    return fma(select(vec4(hi.w), hi.w * mask, turn.train_hi.w), c.k7, s);
}
#endif

fn multiply(s: Sums, t: u32, v: Rows, turn: Turn) -> Sums {
#ifdef DROPOUT
    if (turn.masked) {
        return Sums(
            masked8(s.a0, v.lo0, v.hi0, turn.a, t, turn.n.x, turn), masked8(s.b0, v.lo0, v.hi0, turn.b, t, turn.n.y, turn),
            masked8(s.a1, v.lo1, v.hi1, turn.a, t + 1u, turn.n.x, turn), masked8(s.b1, v.lo1, v.hi1, turn.b, t + 1u, turn.n.y, turn),
            masked8(s.a2, v.lo2, v.hi2, turn.a, t + 2u, turn.n.x, turn), masked8(s.b2, v.lo2, v.hi2, turn.b, t + 2u, turn.n.y, turn),
            masked8(s.a3, v.lo3, v.hi3, turn.a, t + 3u, turn.n.x, turn), masked8(s.b3, v.lo3, v.hi3, turn.b, t + 3u, turn.n.y, turn));
    }
#endif
    return Sums(
        dot8(s.a0, v.lo0, v.hi0, turn.a), dot8(s.b0, v.lo0, v.hi0, turn.b), dot8(s.a1, v.lo1, v.hi1, turn.a), dot8(s.b1, v.lo1, v.hi1, turn.b),
        dot8(s.a2, v.lo2, v.hi2, turn.a), dot8(s.b2, v.lo2, v.hi2, turn.b), dot8(s.a3, v.lo3, v.hi3, turn.a), dot8(s.b3, v.lo3, v.hi3, turn.b));
}

// Adds to columns n .. n + 4 of row t, at most the last row; c is 0 where the row is another segment's, which keeps what it has even when
// this one's numbers are not finite.
fn add4(layer: Layer, t: u32, n: u32, c: f32, sum: vec4<f32>) {
    let at = wide_row(layer, min(t, p.rows - 1u)) + n;
#ifdef VEC4
    let before = y[at / 4u];
    y[at / 4u] = select(before, fma(vec4(c), sum, before), c != 0.0);
#else
    if (c == 0.0) { return; }
    y[at] = fma(c, sum.x, y[at]);
    if (n + 1u < layer.width) { y[at + 1u] = fma(c, sum.y, y[at + 1u]); }
    if (n + 2u < layer.width) { y[at + 2u] = fma(c, sum.z, y[at + 2u]); }
    if (n + 3u < layer.width) { y[at + 3u] = fma(c, sum.w, y[at + 3u]); }
#endif
}

// Adds to rows t .. t + 4, of which those outside the segment keep their values. All four are stored, which avoids branches, so they must lie
// inside this workgroup's tile: rows of another tile are being changed by another workgroup.
fn add_rows(layer: Layer, t: u32, own: vec2<u32>, n: vec2<u32>, scale: f32, s: Sums) {
    let rows = vec4(t) + vec4(0u, 1u, 2u, 3u);
    let c = select(vec4(0.0), vec4(scale), (rows >= vec4(own.x)) & (rows < vec4(own.y)));
    if (n.x < layer.width) {
        add4(layer, t, n.x, c.x, s.a0);
        add4(layer, t + 1u, n.x, c.y, s.a1);
        add4(layer, t + 2u, n.x, c.z, s.a2);
        add4(layer, t + 3u, n.x, c.w, s.a3);
    }
    if (n.y < layer.width) {
        add4(layer, t, n.y, c.x, s.b0);
        add4(layer, t + 1u, n.y, c.y, s.b1);
        add4(layer, t + 2u, n.y, c.z, s.b2);
        add4(layer, t + 3u, n.y, c.w, s.b3);
    }
}

// What one workgroup adds to y for one layer.
fn add_layer(layer: Layer, group: vec2<u32>, local: u32, lane: u32) {
    let na = (group.x * WG * 2u + local) * 4u;
    let n = vec2(na, na + 4u * WG);
    let t = first_row() + group.y * ROWS;
#ifdef SIBLINGS
    // The grid is as wide as the widest layer.
    let end = select(t, min(t + ROWS, p.rows), group.x * WG * 8u < layer.width);
#else
    let end = min(t + ROWS, p.rows);
#endif
    var begin = t;
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
        if (site.rank > 0u) {
            let c = scale_of(site);
            let own = vec2(begin, stop);
#ifdef ONE_BLOCK
            let turn = turn_at(layer, segment, site, 0u, n);
            // Fours of rows are counted from the tile's first row, so that each lies inside the tile.
            for (var row = begin - (begin - t) % 4u; row < stop; row += 4u) {
                var s = Sums();
                add_rows(layer, row, own, n, c, multiply(s, row, inner4(layer, row, 0u, lane), turn));
            }
#else
            var s0 = Sums();
            var s1 = Sums();
            var s2 = Sums();
            var s3 = Sums();
#ifdef ROWS32
            var s4 = Sums();
            var s5 = Sums();
            var s6 = Sums();
            var s7 = Sums();
#endif
            for (var r = 0u; r < site.rank; r += 8u) {
                let turn = turn_at(layer, segment, site, r, n);
                if (t < stop) { s0 = multiply(s0, t, inner4(layer, t, r / 4u, lane), turn); }
                if (t + 4u < stop) { s1 = multiply(s1, t + 4u, inner4(layer, t + 4u, r / 4u, lane), turn); }
                if (t + 8u < stop) { s2 = multiply(s2, t + 8u, inner4(layer, t + 8u, r / 4u, lane), turn); }
                if (t + 12u < stop) { s3 = multiply(s3, t + 12u, inner4(layer, t + 12u, r / 4u, lane), turn); }
#ifdef ROWS32
                if (t + 16u < stop) { s4 = multiply(s4, t + 16u, inner4(layer, t + 16u, r / 4u, lane), turn); }
                if (t + 20u < stop) { s5 = multiply(s5, t + 20u, inner4(layer, t + 20u, r / 4u, lane), turn); }
                if (t + 24u < stop) { s6 = multiply(s6, t + 24u, inner4(layer, t + 24u, r / 4u, lane), turn); }
                if (t + 28u < stop) { s7 = multiply(s7, t + 28u, inner4(layer, t + 28u, r / 4u, lane), turn); }
#endif
            }
            add_rows(layer, t, own, n, c, s0);
            add_rows(layer, t + 4u, own, n, c, s1);
            add_rows(layer, t + 8u, own, n, c, s2);
            add_rows(layer, t + 12u, own, n, c, s3);
#ifdef ROWS32
            add_rows(layer, t + 16u, own, n, c, s4);
            add_rows(layer, t + 20u, own, n, c, s5);
            add_rows(layer, t + 24u, own, n, c, s6);
            add_rows(layer, t + 28u, own, n, c, s7);
#endif
#endif
        }
        begin = stop;
    }
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
#ifdef SUM
    // dx: what several layers add to one tensor, in their order.
    for (var i = 0u; i < p.count; i++) {
        add_layer(layer_at(i), group.xy, local, lane);
    }
#else
    add_layer(layer_at(group.z), group.xy, local, lane);
#endif
}
