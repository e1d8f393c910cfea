// Sum over the invocations of a workgroup of WG lanes, in a fixed order (a tree), so that two runs agree bit for bit.
// WG must be a power of two. Every lane gets the result. Uniform control flow only.
var<workgroup> reduce_lanes: array<f32, WG>;

fn workgroup_sum(value: f32, lane: u32) -> f32 {
    workgroupBarrier();
    reduce_lanes[lane] = value;
    for (var stride = WG / 2u; stride > 0u; stride = stride / 2u) {
        workgroupBarrier();
        if (lane < stride) {
            reduce_lanes[lane] = reduce_lanes[lane] + reduce_lanes[lane + stride];
        }
    }
    workgroupBarrier();
    return reduce_lanes[0];
}

fn workgroup_max(value: f32, lane: u32) -> f32 {
    workgroupBarrier();
    reduce_lanes[lane] = value;
    for (var stride = WG / 2u; stride > 0u; stride = stride / 2u) {
        workgroupBarrier();
        if (lane < stride) {
            reduce_lanes[lane] = max(reduce_lanes[lane], reduce_lanes[lane + stride]);
        }
    }
    workgroupBarrier();
    return reduce_lanes[0];
}
