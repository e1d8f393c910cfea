// What the low-rank kernels share: parameters and segments.
struct Params {
    rows: u32,
    width: u32,
    r_max: u32,
    site: u32,
    jobs: u32,
    matrix: u32, // 0: A, 1: Bt
    scaled: u32, // 1: c = scale of the job
    dropout_key: u32,
}

@group(0) @binding(0) var<uniform> p: Params;

#import segments

// Vectors of a row of the inner activations h and dh: r_max, rounded up to whole vectors.
fn rank_vectors() -> u32 { return (p.r_max + 3u) / 4u; }

fn scale_of(site: Site) -> f32 { return select(1.0, site.scale, p.scaled == 1u); }
