// The first pass of lowrank_grad.wgsl's product for GPUs with many cores: sums over CHUNK rows of a job each, counted from its first row,
//   parts[layer, chunk, r, k] = sum over the chunk's rows t of g[t, r] * drop(z[t, k]), for trainable r,
// which lowrank_grad_sum.wgsl adds in order. Another order than lowrank_grad.wgsl (equal within rounding), as fixed as that one.
//
// A lane owns a quad of columns and eight ranks. Chunks of all jobs are numbered one after the other. Rows are whole vectors.
// Grid: (columns / 4 / WG, blocks of eight ranks, layers · p.chunks).
#import lowrank

@group(0) @binding(1) var<storage, read> jobs: array<u32>;
@group(0) @binding(2) var<storage, read> sites: array<u32>;
@group(0) @binding(3) var<storage, read_write> g: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> z: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> parts: array<vec4<f32>>;
#import lowrank_chunks
#ifdef ROW_RANGE
@group(0) @binding(6) var<storage, read_write> carry: array<vec4<f32>>;
#import lowrank_carry
#endif

// Columns k .. k + 4 of row t of z, dropped.
fn column4(layer: Layer, segment: Segment, t: u32, k: u32) -> vec4<f32> {
    let v = z[(wide_row(layer, t) + k) / 4u];
#ifdef DROPOUT
    return v * segment_dropout4(segment, t, k);
#else
    return v;
#endif
}

// Eight ranks of four columns.
struct Sums {
    r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>,
    r4: vec4<f32>, r5: vec4<f32>, r6: vec4<f32>, r7: vec4<f32>,
}

// One row more. Ranks past the last of h's are not stored.
fn add_row(s: Sums, layer: Layer, t: u32, q: u32, v: vec4<f32>) -> Sums {
    let at = inner_row(layer, t) * rank_vectors();
    let lo = g[at + min(q, rank_vectors() - 1u)];
    let hi = g[at + min(q + 1u, rank_vectors() - 1u)];
    return Sums(
        fma(vec4(lo.x), v, s.r0), fma(vec4(lo.y), v, s.r1), fma(vec4(lo.z), v, s.r2), fma(vec4(lo.w), v, s.r3),
        fma(vec4(hi.x), v, s.r4), fma(vec4(hi.y), v, s.r5), fma(vec4(hi.z), v, s.r6), fma(vec4(hi.w), v, s.r7));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let layer = layer_at(group.z / p.chunks);
    let chunk = group.z % p.chunks;
    // Whose chunk it is, and which of its owner's.
    var id = 0u;
    var own = chunk;
    while (id < p.jobs && own >= job_chunks(id)) {
        own -= job_chunks(id);
        id++;
    }
    if (id >= p.jobs) { return; }
    let segment = load_segment(layer, id);
    let site = load_site(layer, id);
    let r = first_rank(site) + group.y * 8u;
    let k = (group.x * WG + local) * 4u;
    if (site.rank == 0u || r >= site.train.y || site.gradient[p.matrix] == NO_GRADIENT || k >= layer.width) { return; }
    let begin = segment.row_begin + (first_chunk(id) + own) * CHUNK;
    let end = min(begin + CHUNK, min(segment.row_end, p.rows));
    let q = r / 4u;
    var s = Sums();
    var t = begin;
#ifdef ROW_RANGE
    if (begin < p.first) {
        // The chunk began in the range before.
        let kept = carried(layer, id, 8u * group.y, k) + carried_chunk(layer);
        let next = carried_rank(layer);
        s = Sums(carry[kept], carry[kept + next], carry[kept + 2u * next], carry[kept + 3u * next],
            carry[kept + 4u * next], carry[kept + 5u * next], carry[kept + 6u * next], carry[kept + 7u * next]);
        t = p.first;
    }
#endif
    for (; t + 4u <= end; t += 4u) {
        // Four loads are on their way before the first is used.
        let a = column4(layer, segment, t, k);
        let b = column4(layer, segment, t + 1u, k);
        let c = column4(layer, segment, t + 2u, k);
        let d = column4(layer, segment, t + 3u, k);
        s = add_row(s, layer, t, q, a);
        s = add_row(s, layer, t + 1u, q, b);
        s = add_row(s, layer, t + 2u, q, c);
        s = add_row(s, layer, t + 3u, q, d);
    }
    for (; t < end; t++) { s = add_row(s, layer, t, q, column4(layer, segment, t, k)); }
    let at = part(group.z, 8u * group.y, k);
    let row = p.part_width / 4u;
    parts[at] = s.r0;
    parts[at + row] = s.r1;
    parts[at + 2u * row] = s.r2;
    parts[at + 3u * row] = s.r3;
    parts[at + 4u * row] = s.r4;
    parts[at + 5u * row] = s.r5;
    parts[at + 6u * row] = s.r6;
    parts[at + 7u * row] = s.r7;
}
