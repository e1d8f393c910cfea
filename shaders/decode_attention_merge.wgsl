// Joins the parts of decode_attention: o = sum(exp(h_s - h) part_s) / sum(exp(h_s - h) total_s), h the highest h_s.
//   parts: [N, H, SPLITS, hd]   part_stats: [N, H, SPLITS, 2] of (h_s, total_s)   o: [N, H * hd]
// One invocation per output. Grid: grid_1d(N * H * hd / 64).

struct Params {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    window: u32,
    scale: f32,
    max_len: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> part_stats: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> o: array<f32>;
#import index

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = flat_workgroup(group, groups) * 64u + lane;
    if (at >= p.rows * p.heads * HEAD_DIM) {
        return;
    }
    let first = at / HEAD_DIM * SPLITS;
    var highest = part_stats[first].x;
    for (var s = 1u; s < SPLITS; s++) {
        highest = max(highest, part_stats[first + s].x);
    }
    var sum = 0.0;
    var total = 0.0;
    for (var s = 0u; s < SPLITS; s++) {
        let stat = part_stats[first + s];
        let share = exp(stat.x - highest);
        sum += share * parts[(first + s) * HEAD_DIM + at % HEAD_DIM];
        total += share * stat.y;
    }
    o[at] = sum / total;
}
