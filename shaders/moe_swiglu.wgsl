// The inner activations of experts, from the frozen products that all experts of a row share. For slot s of row t, with the factors of its expert:
//   g = gate[t, :] + c_g h_g[s, :] Btg,   u = up[t, :] + c_u h_u[s, :] Btu
//   act[s, :] = silu(g) u
// and with BACKWARD, σ = 1 / (1 + e^−g):
//   dg = da u σ (1 + g (1 − σ)) in place of da,   du = da g σ
// so that g and u need not be kept. gate, up [rows, width]; h_g, h_u [slots, ranks rounded up to whole vectors] in one tensor; act, da, du
// [slots, width]. Slots of nobody keep what they have. Without GATE or UP no job has experts there.
//
// A lane owns four columns of the ROWS slots of a tile, and walks them segment by segment, four slots at a time, the last slot again past it.
// With ONE_BLOCK there are at most eight ranks, whose factors stay in registers for a segment; otherwise they pass by once for every four slots.
// With SUBGROUPS lanes load a part of eight ranks of four slots each.
#import rows4
#import tile

struct Half {
    site: u32,  // row of the sites table
    first: u32, // row of h that belongs to slot 0
    pad0: u32,
    pad1: u32,
}

struct Params {
    slots: u32,
    choices: u32,
    segments: u32,
    width: u32,
    row_at: u32, // where slot_row begins in slot_tables
    stride: u32, // vectors of a row of h
    pad0: u32,
    pad1: u32,
    gate: Half,
    up: Half,
}

#ifdef VEC4
alias Lane = vec4<f32>;
#else
alias Lane = f32;
#endif

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> slot_tables: array<u32>;      // slot_segment, slot_row
@group(0) @binding(2) var<storage, read> sites: array<u32>;            // as in lib/segments.wgsl
@group(0) @binding(3) var<storage, read> adapter: array<Lane>;
@group(0) @binding(4) var<storage, read_write> gate: array<Lane>;
@group(0) @binding(5) var<storage, read_write> up: array<Lane>;
@group(0) @binding(6) var<storage, read_write> h: array<vec4<f32>>;
#ifdef BACKWARD
@group(0) @binding(7) var<storage, read_write> da: array<Lane>;        // becomes dg
@group(0) @binding(8) var<storage, read_write> du: array<Lane>;
#else
@group(0) @binding(7) var<storage, read_write> act: array<Lane>;
#endif

// Ranks 4 q .. + 4 of a row of h.
fn row4(row: u32, q: u32) -> vec4<f32> {
    return select(vec4(0.0), h[row * p.stride + q], q < p.stride);
}

// An expert's factor Bt [rank, width].
struct Expert {
    rank: u32,
    at: u32,
    scale: f32,
}

fn expert(half: Half, segment: u32) -> Expert {
    let at = (half.site * p.segments + segment) * 8u;
    return Expert(sites[at] & 0xffffu, sites[at + 2u], bitcast<f32>(sites[at + 7u]));
}

// Rank r of columns n .. n + 4, the last rank again past it, where h is 0.
fn factor4(e: Expert, r: u32, n: u32) -> vec4<f32> {
    let at = e.at + min(r, e.rank - 1u) * p.width;
#ifdef VEC4
    return adapter[(at + n) / 4u];
#else
    let last = p.width - 1u;
    return vec4(adapter[at + n], adapter[at + min(n + 1u, last)], adapter[at + min(n + 2u, last)], adapter[at + min(n + 3u, last)]);
#endif
}

fn tile(e: Expert, r: u32, n: u32) -> Tile {
    return Tile(
        factor4(e, r, n), factor4(e, r + 1u, n), factor4(e, r + 2u, n), factor4(e, r + 3u, n),
        factor4(e, r + 4u, n), factor4(e, r + 5u, n), factor4(e, r + 6u, n), factor4(e, r + 7u, n));
}

// Four columns of four slots.
struct Four {
    s0: vec4<f32>, s1: vec4<f32>, s2: vec4<f32>, s3: vec4<f32>,
}

fn multiply(s: Four, v: Rows, b: Tile) -> Four {
    return Four(dot8(s.s0, v.lo0, v.hi0, b), dot8(s.s1, v.lo1, v.hi1, b), dot8(s.s2, v.lo2, v.hi2, b), dot8(s.s3, v.lo3, v.hi3, b));
}

// Columns n .. n + 4 of a row.
#ifdef VEC4
fn gate4(row: u32, n: u32) -> vec4<f32> { return gate[(row * p.width + n) / 4u]; }
fn up4(row: u32, n: u32) -> vec4<f32> { return up[(row * p.width + n) / 4u]; }
#else
fn gate4(row: u32, n: u32) -> vec4<f32> {
    let i = vec4(row * p.width) + min(vec4(n) + vec4(0u, 1u, 2u, 3u), vec4(p.width - 1u));
    return vec4(gate[i.x], gate[i.y], gate[i.z], gate[i.w]);
}
fn up4(row: u32, n: u32) -> vec4<f32> {
    let i = vec4(row * p.width) + min(vec4(n) + vec4(0u, 1u, 2u, 3u), vec4(p.width - 1u));
    return vec4(up[i.x], up[i.y], up[i.z], up[i.w]);
}
#endif

#ifdef BACKWARD
#ifdef VEC4
fn da4(slot: u32, n: u32) -> vec4<f32> { return da[(slot * p.width + n) / 4u]; }
#else
fn da4(slot: u32, n: u32) -> vec4<f32> {
    let i = vec4(slot * p.width) + min(vec4(n) + vec4(0u, 1u, 2u, 3u), vec4(p.width - 1u));
    return vec4(da[i.x], da[i.y], da[i.z], da[i.w]);
}
#endif

fn put(slot: u32, n: u32, g: vec4<f32>, u: vec4<f32>, d: vec4<f32>) {
    let s = 1.0 / (1.0 + exp(-g));
    let dg4 = d * u * s * (1.0 + g * (1.0 - s));
    let du4 = d * g * s;
    let at = slot * p.width + n;
#ifdef VEC4
    da[at / 4u] = dg4;
    du[at / 4u] = du4;
#else
    for (var i = 0u; i < min(4u, p.width - n); i++) {
        da[at + i] = dg4[i];
        du[at + i] = du4[i];
    }
#endif
}
#else
fn put(slot: u32, n: u32, g: vec4<f32>, u: vec4<f32>) {
    let a = g / (1.0 + exp(-g)) * u;
    let at = slot * p.width + n;
#ifdef VEC4
    act[at / 4u] = a;
#else
    for (var i = 0u; i < min(4u, p.width - n); i++) {
        act[at + i] = a[i];
    }
#endif
}
#endif

// Four slots, of which the last may be named several times: all are read before one is written.
fn finish(slot: vec4<u32>, n: u32, cg: f32, bg: Four, cu: f32, bu: Four) {
    let at = vec4(p.row_at) + slot;
    let row = vec4(slot_tables[at.x], slot_tables[at.y], slot_tables[at.z], slot_tables[at.w]) / p.choices;
    let g = Four(
        fma(vec4(cg), bg.s0, gate4(row.x, n)), fma(vec4(cg), bg.s1, gate4(row.y, n)),
        fma(vec4(cg), bg.s2, gate4(row.z, n)), fma(vec4(cg), bg.s3, gate4(row.w, n)));
    let u = Four(
        fma(vec4(cu), bu.s0, up4(row.x, n)), fma(vec4(cu), bu.s1, up4(row.y, n)),
        fma(vec4(cu), bu.s2, up4(row.z, n)), fma(vec4(cu), bu.s3, up4(row.w, n)));
#ifdef BACKWARD
    let d = Four(da4(slot.x, n), da4(slot.y, n), da4(slot.z, n), da4(slot.w, n));
    put(slot.x, n, g.s0, u.s0, d.s0);
    put(slot.y, n, g.s1, u.s1, d.s1);
    put(slot.z, n, g.s2, u.s2, d.s2);
    put(slot.w, n, g.s3, u.s3, d.s3);
#else
    put(slot.x, n, g.s0, u.s0);
    put(slot.y, n, g.s1, u.s1);
    put(slot.z, n, g.s2, u.s2);
    put(slot.w, n, g.s3, u.s3);
#endif
}

// One past the last slot of a segment, at most `end`.
fn run_end(begin: u32, end: u32, segment: u32) -> u32 {
    var stop = begin + 1u;
    while (stop < end && slot_tables[stop] == segment) { stop++; }
    return stop;
}

fn walk(begin: u32, stop: u32, segment: u32, column: u32, lane: u32) {
    // Lanes past the last column load what others do, and write nothing.
    let n = min(column, (p.width - 1u) / 4u * 4u);
#ifdef GATE
    let eg = expert(p.gate, segment);
#else
    let eg = Expert();
#endif
#ifdef UP
    let eu = expert(p.up, segment);
#else
    let eu = Expert();
#endif
#ifdef ONE_BLOCK
    var tg = Tile();
    var tu = Tile();
    if (eg.rank > 0u) { tg = tile(eg, 0u, n); }
    if (eu.rank > 0u) { tu = tile(eu, 0u, n); }
#endif
    for (var t = begin; t < stop; t += 4u) {
        let last = stop - 1u;
        var g = Four();
        var u = Four();
#ifdef ONE_BLOCK
        if (eg.rank > 0u) { g = multiply(g, rows4(p.gate.first + t, p.gate.first + last, 0u, lane), tg); }
        if (eu.rank > 0u) { u = multiply(u, rows4(p.up.first + t, p.up.first + last, 0u, lane), tu); }
#else
        for (var r = 0u; r < eg.rank; r += 8u) {
            g = multiply(g, rows4(p.gate.first + t, p.gate.first + last, r / 4u, lane), tile(eg, r, n));
        }
        for (var r = 0u; r < eu.rank; r += 8u) {
            u = multiply(u, rows4(p.up.first + t, p.up.first + last, r / 4u, lane), tile(eu, r, n));
        }
#endif
        if (column < p.width) {
            finish(min(vec4(t) + vec4(0u, 1u, 2u, 3u), vec4(last)), n, eg.scale, g, eu.scale, u);
        }
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
    let column = (group.x * WG + local) * 4u;
    let end = min((group.y + 1u) * ROWS, p.slots);
    var begin = group.y * ROWS;
    while (begin < end) {
        let segment = slot_tables[begin];
        let stop = run_end(begin, end, segment);
        if (segment < p.segments) {
            walk(begin, stop, segment, column, lane);
        }
        begin = stop;
    }
}
