// What the low-rank kernels share: parameters, segments, and eight numbers of four rows at once.
struct Params {
    rows: u32,
    width: u32,
    r_max: u32,
    site: u32,
    jobs: u32,
    matrix: u32, // 0: A, 1: Bt
    scaled: u32, // 1: c = scale of the job
    pad: u32,
}

@group(0) @binding(0) var<uniform> p: Params;

#import segments

// Eight numbers of each of four rows, (lo, hi) a row.
struct Rows {
    lo0: vec4<f32>, hi0: vec4<f32>, lo1: vec4<f32>, hi1: vec4<f32>,
    lo2: vec4<f32>, hi2: vec4<f32>, lo3: vec4<f32>, hi3: vec4<f32>,
}

#ifdef SUBGROUPS
// Lane 2 i holds the first four numbers of row i, lane 2 i + 1 the others. Subgroups have whole octets of lanes, and every octet loads the same.
fn handed_round(mine: vec4<f32>) -> Rows {
    return Rows(
        subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u), subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u),
        subgroupBroadcast(mine, 4u), subgroupBroadcast(mine, 5u), subgroupBroadcast(mine, 6u), subgroupBroadcast(mine, 7u));
}
#endif

// Vectors of a row of the inner activations h and dh: r_max, rounded up to whole vectors.
fn rank_vectors() -> u32 { return (p.r_max + 3u) / 4u; }

fn scale_of(site: Site) -> f32 { return select(1.0, site.scale, p.scaled == 1u); }
