// The slot of every choice that has one, and the row and weight of every slot: within a segment in the order of the rows.
// One workgroup a block of 64 rows, as in moe_count; a lane is a segment.
#import moe

@group(0) @binding(1) var<storage, read> row_job: array<u32>;
@group(0) @binding(2) var<storage, read> routers: array<u32>;
@group(0) @binding(3) var<storage, read> segments: array<u32>;
@group(0) @binding(4) var<storage, read_write> counts: array<u32>; // slots of the segment before this block
@group(0) @binding(5) var<storage, read_write> places: array<u32>;
@group(0) @binding(6) var<storage, read_write> weight: array<f32>;
@group(0) @binding(7) var<storage, read_write> slot_row: array<u32>;
@group(0) @binding(8) var<storage, read_write> slot_weight: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * 64u;
    let end = min(first + 64u, p.rows);
    for (var s = lane; s < p.segments; s += 64u) {
        var slot = segments[s * 8u] + counts[(group.x * p.segments + s) * 2u];
        for (var t = first; t < end; t++) {
            let job = row_job[t];
            if (job < p.jobs) {
                let begin = routers[router_at(p.layer, job)];
                for (var j = 0u; j < p.choices; j++) {
                    let at = t * p.choices + j;
                    let expert = places[at * 2u];
                    if (expert != NONE && begin + expert == s && places[at * 2u + 1u] != NONE) {
                        places[at * 2u + 1u] = slot;
                        slot_row[slot] = at;
                        slot_weight[slot] = weight[at];
                        slot += 1u;
                    }
                }
            }
        }
    }
}
