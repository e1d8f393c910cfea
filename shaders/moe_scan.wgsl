// Where segments begin among the slots: sums of moe_count's counts over blocks of rows, then over segments, in order. Writes the segments
// table, how many rows chose each segment, the segment of every slot, and in place of the counts how many slots come before each block.
// One workgroup. Workgroup memory: 2 * MOST_SEGMENTS + 1 words.
#import random
#import moe

@group(0) @binding(1) var<storage, read> jobs: array<u32>;
@group(0) @binding(2) var<storage, read> routers: array<u32>;
@group(0) @binding(3) var<storage, read_write> counts: array<u32>;
@group(0) @binding(4) var<storage, read_write> segments: array<u32>;
@group(0) @binding(5) var<storage, read_write> chosen: array<u32>; // of all blocks
@group(0) @binding(6) var<storage, read_write> slot_segment: array<u32>;
@group(0) @binding(7) var<storage, read_write> slot_row: array<u32>;

const WG: u32 = 256u;
var<workgroup> lengths: array<u32, MOST_SEGMENTS>;
var<workgroup> begins: array<u32, MOST_SEGMENTS>;
var<workgroup> used: u32;

fn aligned(n: u32) -> u32 { return (n + p.align - 1u) / p.align * p.align; }

// The job whose segment s is, or NONE.
fn owner(s: u32) -> u32 {
    for (var job = 0u; job < p.jobs; job++) {
        let router = router_at(p.layer, job);
        if (s - routers[router] < routers[router + 1u]) { // below the first segment the difference wraps around
            return job;
        }
    }
    return NONE;
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
    let blocks = (p.rows + 63u) / 64u;
    for (var s = lane; s < p.segments; s += WG) {
        var before = 0u;
        var all = 0u;
        for (var b = 0u; b < blocks; b++) {
            let at = (b * p.segments + s) * 2u;
            let here = counts[at];
            counts[at] = before;
            before += here;
            all += counts[at + 1u];
        }
        lengths[s] = before;
        chosen[p.layer * p.segments + s] = all;
    }
    workgroupBarrier();
    if (lane == 0u) {
        var next = 0u;
        for (var s = 0u; s < p.segments; s++) {
            begins[s] = next;
            next += aligned(lengths[s]);
        }
        used = next;
    }
    workgroupBarrier();
    for (var s = lane; s < p.segments; s += WG) {
        let job = owner(s);
        let at = s * 8u;
        for (var i = 0u; i < 8u; i++) {
            segments[at + i] = 0u;
        }
        segments[at] = begins[s];
        segments[at + 1u] = begins[s] + lengths[s];
        if (job != NONE) {
            let router = router_at(p.layer, job);
            segments[at + 2u] = mix32(jobs[job * 8u + 2u] ^ ((s - routers[router] + 1u) * 0x9e3779b9u));
            segments[at + 3u] = select(0u, routers[router + 13u], p.training == 1u);
            segments[at + 4u] = routers[router + 14u];
        }
    }
    for (var s = 0u; s < p.segments; s++) {
        let end = begins[s] + lengths[s];
        for (var i = begins[s] + lane; i < begins[s] + aligned(lengths[s]); i += WG) {
            slot_segment[i] = select(NONE, s, i < end);
            slot_row[i] = NONE;
        }
    }
    for (var i = used + lane; i < p.slots; i += WG) {
        slot_segment[i] = NONE;
        slot_row[i] = NONE;
    }
}
