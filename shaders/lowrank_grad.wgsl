// dM[r, k] += c * sum over the job's rows t of g[t, r] * drop(z[t, k]), for trainable r: dA with g = dh, z = x, c = 1;
// dBt with g = h, z = dy, c = scale, no dropout. g [rows, r_max rounded up to whole vectors], z [rows, width], dM [train_end - train_begin, width].
//
// A lane owns a quad of columns and eight ranks, and walks the job's rows in order, four at a time: no partial sums,
// no atomics, nothing that depends on other jobs. Grid: column tiles x blocks of eight ranks x (layers · jobs). With SUBGROUPS lanes
// load a part of eight ranks of four rows of g each.
//
// With ROW_RANGE g and z hold some rows of the batch. Sums are carried from one range to the next, in row order, so that the bits are those of one
// dispatch over all rows; the last range adds them to dM.
#import lowrank
#import rows4

@group(0) @binding(1) var<storage, read> jobs: array<u32>;
@group(0) @binding(2) var<storage, read> sites: array<u32>;
@group(0) @binding(3) var<storage, read_write> g: array<vec4<f32>>;
#ifdef VEC4
@group(0) @binding(4) var<storage, read_write> z: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> grads: array<vec4<f32>>;
#else
@group(0) @binding(4) var<storage, read_write> z: array<f32>;
@group(0) @binding(5) var<storage, read_write> grads: array<f32>;
#endif

#ifdef ROW_RANGE
@group(0) @binding(6) var<storage, read_write> carry: array<vec4<f32>>;
#import lowrank_carry
#endif

// Ranks 4 q .. + 4 of a row of g. What does not train is not stored.
fn row4(row: u32, q: u32) -> vec4<f32> {
    return g[row * rank_vectors() + min(q, rank_vectors() - 1u)];
}

// Columns k .. k + 4 of row t of z, dropped; zero past the job's last row.
fn column4(layer: Layer, segment: Segment, t: u32, last: u32, k: u32) -> vec4<f32> {
    let row = min(t, last);
#ifdef VEC4
    var v = z[(wide_row(layer, row) + min(k, layer.width - 4u)) / 4u];
#else
    let c = vec4(wide_row(layer, row)) + min(vec4(k) + vec4(0u, 1u, 2u, 3u), vec4(layer.width - 1u));
    var v = vec4(z[c.x], z[c.y], z[c.z], z[c.w]);
#endif
#ifdef DROPOUT
    v *= segment_dropout4(segment, row, k);
#endif
    return select(vec4(0.0), v, t <= last);
}

// Eight ranks of four columns.
struct Sums {
    r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>,
    r4: vec4<f32>, r5: vec4<f32>, r6: vec4<f32>, r7: vec4<f32>,
}

// One row more.
fn add_row(s: Sums, lo: vec4<f32>, hi: vec4<f32>, v: vec4<f32>) -> Sums {
    return Sums(
        fma(vec4(lo.x), v, s.r0), fma(vec4(lo.y), v, s.r1), fma(vec4(lo.z), v, s.r2), fma(vec4(lo.w), v, s.r3),
        fma(vec4(hi.x), v, s.r4), fma(vec4(hi.y), v, s.r5), fma(vec4(hi.z), v, s.r6), fma(vec4(hi.w), v, s.r7));
}

fn add_rows(layer: Layer, s: Sums, segment: Segment, t: u32, last: u32, k: u32, m: Rows) -> Sums {
    let one = add_row(s, m.lo0, m.hi0, column4(layer, segment, t, last, k));
    let two = add_row(one, m.lo1, m.hi1, column4(layer, segment, t + 1u, last, k));
    let three = add_row(two, m.lo2, m.hi2, column4(layer, segment, t + 2u, last, k));
    return add_row(three, m.lo3, m.hi3, column4(layer, segment, t + 3u, last, k));
}

// Rank r, if it trains.
fn store4(layer: Layer, site: Site, r: u32, k: u32, sum: vec4<f32>) {
    if (r < site.train.x || r >= site.train.y || k >= layer.width) {
        return;
    }
    let c = scale_of(site);
    let at = site.gradient[p.matrix] + (r - site.train.x) * layer.width + k;
#ifdef VEC4
    grads[at / 4u] = fma(vec4(c), sum, grads[at / 4u]);
#else
    grads[at] = fma(c, sum.x, grads[at]);
    if (k + 1u < layer.width) { grads[at + 1u] = fma(c, sum.y, grads[at + 1u]); }
    if (k + 2u < layer.width) { grads[at + 2u] = fma(c, sum.z, grads[at + 2u]); }
    if (k + 3u < layer.width) { grads[at + 3u] = fma(c, sum.w, grads[at + 3u]); }
#endif
}

fn store(layer: Layer, site: Site, r: u32, k: u32, s: Sums) {
    store4(layer, site, r, k, s.r0);
    store4(layer, site, r + 1u, k, s.r1);
    store4(layer, site, r + 2u, k, s.r2);
    store4(layer, site, r + 3u, k, s.r3);
    store4(layer, site, r + 4u, k, s.r4);
    store4(layer, site, r + 5u, k, s.r5);
    store4(layer, site, r + 6u, k, s.r6);
    store4(layer, site, r + 7u, k, s.r7);
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
    let layer = layer_at(group.z / p.jobs);
    let segment = load_segment(layer, group.z % p.jobs);
    let site = load_site(layer, group.z % p.jobs);
    // From the whole vector on in which the first rank that trains lies.
    let r = (site.train.x & ~3u) + group.y * 8u;
    let outside = r >= site.train.y || group.x * WG * 4u >= layer.width;
    if (site.rank == 0u || outside || site.gradient[p.matrix] == NO_GRADIENT) {
        return;
    }
    let k = (group.x * WG + local) * 4u;
    let end = min(segment.row_end, p.rows);
#ifdef ROW_RANGE
    let begin = max(segment.row_begin, p.first);
    let at = carried(layer, group.z % p.jobs, 8u * group.y, k);
    let next = carried_rank(layer);
    var s = Sums();
    if (p.first > 0u && k < layer.width) {
        s = Sums(carry[at], carry[at + next], carry[at + 2u * next], carry[at + 3u * next],
            carry[at + 4u * next], carry[at + 5u * next], carry[at + 6u * next], carry[at + 7u * next]);
    }
#else
    let begin = segment.row_begin;
    var s: Sums;
#endif
    let last = max(end, 1u) - 1u;
    for (var t = begin; t < end; t += 4u) {
        s = add_rows(layer, s, segment, t, last, k, rows4(inner_row(layer, t), inner_row(layer, last), r / 4u, lane));
    }
#ifdef ROW_RANGE
    if (p.rows < p.total) {
        if (k < layer.width) {
            carry[at] = s.r0;
            carry[at + next] = s.r1;
            carry[at + 2u * next] = s.r2;
            carry[at + 3u * next] = s.r3;
            carry[at + 4u * next] = s.r4;
            carry[at + 5u * next] = s.r5;
            carry[at + 6u * next] = s.r6;
            carry[at + 7u * next] = s.r7;
        }
        return;
    }
#endif
    store(layer, site, r, k, s);
}
