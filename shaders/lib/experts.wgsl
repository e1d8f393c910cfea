// What the kernels share that put together, slot by slot, what experts add to gate and up, and with DOWN to the gradient of down's input:
//   c_g h_g[s, :] Btg,   c_u h_u[s, :] Btu,   dh[s, :] A
// h: [slots, ranks rounded up to whole vectors] of gate, of up, and the gradient of down's, in one tensor. Without GATE, UP or DOWN no job has
// experts there. slot_tables: segments, places in the batch (row · choices + choice) and weights of the slots.
//
// A lane owns four columns of the ROWS slots of a tile, and walks them segment by segment, four slots at a time, the last slot again past it.
// With ONE_BLOCK there are at most eight ranks, whose factors stay in registers for a segment; otherwise they pass by once for every four slots.
// With SUBGROUPS lanes load a part of eight ranks of four slots each. The importer declares finish(slots, column, sums).
#import rows4
#import tile

struct Half {
    site: u32,  // row of the sites table
    first: u32, // row of h that belongs to slot 0
    dropout_key: u32,
    pad0: u32,
}

struct Params {
    slots: u32,
    choices: u32,
    segments: u32,
    width: u32,
    row_at: u32,    // where the places begin in slot_tables
    weight_at: u32, // where the weights begin there
    stride: u32,    // vectors of a row of h
    up_at: u32,     // where up begins behind gate, dg, du and parts behind act, in words
    dg_at: u32,
    du_at: u32,
    parts_at: u32,
    part_stride: u32,
    gate: Half,
    up: Half,
    down: Half,
}

#ifdef VEC4
alias Lane = vec4<f32>;
#else
alias Lane = f32;
#endif

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> slot_tables: array<u32>;
@group(0) @binding(2) var<storage, read> sites: array<u32>; // as in lib/segments.wgsl
@group(0) @binding(3) var<storage, read> adapter: array<Lane>;
@group(0) @binding(4) var<storage, read_write> h: array<vec4<f32>>;

// Ranks 4 q .. + 4 of a row of h.
fn row4(row: u32, q: u32) -> vec4<f32> {
    return select(vec4(0.0), h[row * p.stride + q], q < p.stride);
}

// A factor of an expert, [rank, width].
struct Factor {
    rank: u32,
    at: u32,
    scale: f32,
}

// Matrix 0 is A, 1 is Bt.
fn factor(half: Half, segment: u32, matrix: u32) -> Factor {
    let at = (half.site * p.segments + segment) * 8u;
    return Factor(sites[at] & 0xffffu, sites[at + 1u + matrix], bitcast<f32>(sites[at + 7u]));
}

// Rank r of columns n .. n + 4, the last rank again past it, where h is 0.
fn factor4(e: Factor, r: u32, n: u32) -> vec4<f32> {
    let at = e.at + min(r, e.rank - 1u) * p.width;
#ifdef VEC4
    return adapter[(at + n) / 4u];
#else
    let last = p.width - 1u;
    return vec4(adapter[at + n], adapter[at + min(n + 1u, last)], adapter[at + min(n + 2u, last)], adapter[at + min(n + 3u, last)]);
#endif
}

fn tile(e: Factor, r: u32, n: u32) -> Tile {
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

// What the expert of four slots adds, but for the scales of gate and up.
struct Sums {
    cg: f32,
    cu: f32,
    g: Four,
    u: Four,
    d: Four,
}

// The rows of the batch of four slots.
fn rows_of(slot: vec4<u32>) -> vec4<u32> {
    let at = vec4(p.row_at) + slot;
    return vec4(slot_tables[at.x], slot_tables[at.y], slot_tables[at.z], slot_tables[at.w]) / p.choices;
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
    var eg = Factor();
    var eu = Factor();
    var ed = Factor();
#ifdef GATE
    eg = factor(p.gate, segment, 1u);
#endif
#ifdef UP
    eu = factor(p.up, segment, 1u);
#endif
#ifdef DOWN
    ed = factor(p.down, segment, 0u);
#endif
#ifdef ONE_BLOCK
    var tg = Tile();
    var tu = Tile();
    var td = Tile();
    if (eg.rank > 0u) { tg = tile(eg, 0u, n); }
    if (eu.rank > 0u) { tu = tile(eu, 0u, n); }
    if (ed.rank > 0u) { td = tile(ed, 0u, n); }
#endif
    for (var t = begin; t < stop; t += 4u) {
        let last = stop - 1u;
        var g = Four();
        var u = Four();
        var d = Four();
#ifdef ONE_BLOCK
        if (eg.rank > 0u) { g = multiply(g, rows4(p.gate.first + t, p.gate.first + last, 0u, lane), tg); }
        if (eu.rank > 0u) { u = multiply(u, rows4(p.up.first + t, p.up.first + last, 0u, lane), tu); }
        if (ed.rank > 0u) { d = multiply(d, rows4(p.down.first + t, p.down.first + last, 0u, lane), td); }
#else
        for (var r = 0u; r < eg.rank; r += 8u) {
            g = multiply(g, rows4(p.gate.first + t, p.gate.first + last, r / 4u, lane), tile(eg, r, n));
        }
        for (var r = 0u; r < eu.rank; r += 8u) {
            u = multiply(u, rows4(p.up.first + t, p.up.first + last, r / 4u, lane), tile(eu, r, n));
        }
        for (var r = 0u; r < ed.rank; r += 8u) {
            d = multiply(d, rows4(p.down.first + t, p.down.first + last, r / 4u, lane), tile(ed, r, n));
        }
#endif
        if (column < p.width) {
            finish(min(vec4(t) + vec4(0u, 1u, 2u, 3u), vec4(last)), n, Sums(eg.scale, eu.scale, g, u, d));
        }
    }
}

// The tile of workgroup `group`; `local` is the lane's place in it.
fn walk_tile(group: vec2<u32>, local: u32, lane: u32) {
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
