// The inner activations of experts, from the frozen products that all experts of a row share. For slot s of row t, with the factors of its expert:
//   g = gate[t, :] + c_g h_g[s, :] Btg,   u = up[t, :] + c_u h_u[s, :] Btu
//   act[s, :] = silu(g) u
// and with BACKWARD, σ = 1 / (1 + e^−g):
//   dg = da u σ (1 + g (1 − σ)) in place of da,   du = da g σ
// so that g and u need not be kept. gate, up [rows, width]; h_g, h_u [slots, ranks rounded up to whole vectors] in one tensor; act, da, du
// [slots, width]. Slots of nobody keep what they have. Without GATE or UP no job has experts there.
//
// A lane owns one column (four with VEC4) of the ROWS slots of a tile, and walks them segment by segment. With ONE_BLOCK there are at most eight
// ranks, whose factors stay in registers for a segment; otherwise they pass by once for every four slots.

struct Half {
    site: u32,   // row of the sites table
    stride: u32, // vectors of a row of h
    inner: u32,  // first vector of its h
    pad: u32,
}

struct Params {
    slots: u32,
    choices: u32,
    segments: u32,
    width: u32,
    row_at: u32, // where slot_row begins in slot_tables
    pad0: u32,
    pad1: u32,
    pad2: u32,
    gate: Half,
    up: Half,
}

#ifdef VEC4
alias Lane = vec4<f32>;
const WIDE: u32 = 4u;
#else
alias Lane = f32;
const WIDE: u32 = 1u;
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

// An expert's factor Bt [rank, width] at one column.
struct Expert {
    rank: u32,
    at: u32,
    scale: f32,
}

fn expert(half: Half, segment: u32) -> Expert {
    let at = (half.site * p.segments + segment) * 8u;
    return Expert(sites[at] & 0xffffu, sites[at + 2u] / WIDE, bitcast<f32>(sites[at + 7u]));
}

// Eight ranks of a factor at one column, the last rank again past it, where h is 0.
struct Eight {
    k0: Lane, k1: Lane, k2: Lane, k3: Lane, k4: Lane, k5: Lane, k6: Lane, k7: Lane,
}

fn eight(e: Expert, r: u32, column: u32) -> Eight {
    let width = p.width / WIDE;
    let last = e.rank - 1u;
    let at = e.at + column;
    return Eight(
        adapter[at + min(r, last) * width], adapter[at + min(r + 1u, last) * width], adapter[at + min(r + 2u, last) * width],
        adapter[at + min(r + 3u, last) * width], adapter[at + min(r + 4u, last) * width], adapter[at + min(r + 5u, last) * width],
        adapter[at + min(r + 6u, last) * width], adapter[at + min(r + 7u, last) * width]);
}

// Adds ranks r .. r + 8 of a slot.
fn add8(sum: Lane, half: Half, slot: u32, r: u32, b: Eight) -> Lane {
    let q = r / 4u;
    let at = half.inner + slot * half.stride + q;
    let lo = h[at];
    let hi = select(vec4(0.0), h[select(at, at + 1u, q + 1u < half.stride)], q + 1u < half.stride);
    var s = fma(Lane() + lo.x, b.k0, sum);
    s = fma(Lane() + lo.y, b.k1, s);
    s = fma(Lane() + lo.z, b.k2, s);
    s = fma(Lane() + lo.w, b.k3, s);
    s = fma(Lane() + hi.x, b.k4, s);
    s = fma(Lane() + hi.y, b.k5, s);
    s = fma(Lane() + hi.z, b.k6, s);
    return fma(Lane() + hi.w, b.k7, s);
}

// Products of four slots at one column.
struct Four {
    s0: Lane, s1: Lane, s2: Lane, s3: Lane,
}

fn add_four(s: Four, half: Half, slot: vec4<u32>, r: u32, b: Eight) -> Four {
    return Four(
        add8(s.s0, half, slot.x, r, b), add8(s.s1, half, slot.y, r, b), add8(s.s2, half, slot.z, r, b), add8(s.s3, half, slot.w, r, b));
}

#ifndef ONE_BLOCK
fn product(half: Half, e: Expert, slot: vec4<u32>, column: u32) -> Four {
    var s = Four();
    for (var r = 0u; r < e.rank; r += 8u) {
        s = add_four(s, half, slot, r, eight(e, r, column));
    }
    return s;
}
#endif

fn finish(slot: u32, column: u32, cg: f32, bg: Lane, cu: f32, bu: Lane) {
    let width = p.width / WIDE;
    let base = slot_tables[p.row_at + slot] / p.choices * width + column;
    let i = slot * width + column;
    let g = fma(Lane() + cg, bg, gate[base]);
    let u = fma(Lane() + cu, bu, up[base]);
#ifdef BACKWARD
    let s = 1.0 / (1.0 + exp(-g));
    let d = da[i];
    da[i] = d * u * s * (1.0 + g * (1.0 - s));
    du[i] = d * g * s;
#else
    act[i] = g / (1.0 + exp(-g)) * u;
#endif
}

// One past the last slot of a segment, at most `end`.
fn run_end(begin: u32, end: u32, segment: u32) -> u32 {
    var stop = begin + 1u;
    while (stop < end && slot_tables[stop] == segment) { stop++; }
    return stop;
}

fn walk(begin: u32, stop: u32, segment: u32, column: u32) {
    var eg = Expert();
    var eu = Expert();
#ifdef GATE
    eg = expert(p.gate, segment);
#endif
#ifdef UP
    eu = expert(p.up, segment);
#endif
    let cg = select(0.0, eg.scale, eg.rank > 0u);
    let cu = select(0.0, eu.scale, eu.rank > 0u);
#ifdef ONE_BLOCK
    var bg = Eight();
    var bu = Eight();
    if (eg.rank > 0u) { bg = eight(eg, 0u, column); }
    if (eu.rank > 0u) { bu = eight(eu, 0u, column); }
#endif
    for (var t = begin; t < stop; t += 4u) {
        let slot = min(vec4(t) + vec4(0u, 1u, 2u, 3u), vec4(stop - 1u));
        var g = Four();
        var u = Four();
#ifdef ONE_BLOCK
        if (eg.rank > 0u) { g = add_four(g, p.gate, slot, 0u, bg); }
        if (eu.rank > 0u) { u = add_four(u, p.up, slot, 0u, bu); }
#else
        if (eg.rank > 0u) { g = product(p.gate, eg, slot, column); }
        if (eu.rank > 0u) { u = product(p.up, eu, slot, column); }
#endif
        finish(t, column, cg, g.s0, cu, u.s0);
        if (t + 1u < stop) { finish(t + 1u, column, cg, g.s1, cu, u.s1); }
        if (t + 2u < stop) { finish(t + 2u, column, cg, g.s2, cu, u.s2); }
        if (t + 3u < stop) { finish(t + 3u, column, cg, g.s3, cu, u.s3); }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = group.x * WG + local;
    if (column >= p.width / WIDE) {
        return;
    }
    let end = min((group.y + 1u) * ROWS, p.slots);
    var begin = group.y * ROWS;
    while (begin < end) {
        let segment = slot_tables[begin];
        let stop = run_end(begin, end, segment);
        if (segment < p.segments) {
            walk(begin, stop, segment, column);
        }
        begin = stop;
    }
}
