// How many rows of each block of 64 go to each segment: counts [blocks, segments, 2] (with a slot, chosen), and which choices get a slot
// (`places` holds 0 for them until moe_scatter). While training, a switch router's expert takes the first `capacity` rows of a document.
// One workgroup a block of rows; lanes are rows first, then segments.
#import moe

@group(0) @binding(1) var<storage, read> row_job: array<u32>;
@group(0) @binding(2) var<storage, read> routers: array<u32>;
@group(0) @binding(3) var<storage, read> documents: array<u32>; // as attention_documents.wgsl describes it
@group(0) @binding(4) var<storage, read_write> places: array<u32>;
@group(0) @binding(5) var<storage, read_write> counts: array<u32>;

// First row of the document of row t: a search among the documents, which lie in order.
fn document_begin(t: u32) -> u32 {
    var low = 0u;
    var high = (documents[0] - 10u) / 4u;
    while (high - low > 1u) {
        let middle = (low + high) / 2u;
        if (documents[10u + 4u * middle] <= t) { low = middle; } else { high = middle; }
    }
    return documents[10u + 4u * low];
}

// Whether the expert has room for row t: fewer than `capacity` rows of its document before it chose the same.
fn fits(t: u32, expert: u32, capacity: u32) -> bool {
    var before = 0u;
    for (var u = document_begin(t); u < t; u++) {
        before += select(0u, 1u, places[u * p.choices * 2u] == expert);
    }
    return before < capacity;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * 64u;
    let end = min(first + 64u, p.rows);
    let own = first + lane;
    if (own < end && row_job[own] < p.jobs) {
        let router = router_at(p.layer, row_job[own]);
        let limited = p.training == 1u && routers[router + 2u] == SWITCH;
        for (var j = 0u; j < p.choices; j++) {
            let at = (own * p.choices + j) * 2u;
            let expert = places[at];
            var kept = expert != NONE;
            if (kept && limited) {
                kept = fits(own, expert, routers[router + 7u]);
            }
            places[at + 1u] = select(NONE, 0u, kept);
        }
    }
    storageBarrier();
    for (var s = lane; s < p.segments; s += 64u) {
        var kept = 0u;
        var chosen = 0u;
        for (var t = first; t < end; t++) {
            let job = row_job[t];
            if (job < p.jobs) {
                let begin = routers[router_at(p.layer, job)];
                for (var j = 0u; j < p.choices; j++) {
                    let at = (t * p.choices + j) * 2u;
                    if (places[at] != NONE && begin + places[at] == s) {
                        chosen += 1u;
                        kept += select(1u, 0u, places[at + 1u] == NONE);
                    }
                }
            }
        }
        counts[(group.x * p.segments + s) * 2u] = kept;
        counts[(group.x * p.segments + s) * 2u + 1u] = chosen;
    }
}
