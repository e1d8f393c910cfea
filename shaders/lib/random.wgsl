// Dropout bits: a hash of (seed, step, site, row, column), never of a position in the fused batch, so that a job draws the same
// mask alone and among others, forward and backward. The mixer is the 32-bit finaliser "lowbias32" applied per word.
fn mix32(value: u32) -> u32 {
    var x = value;
    x = x ^ (x >> 16u);
    x = x * 0x7feb352du;
    x = x ^ (x >> 15u);
    x = x * 0x846ca68bu;
    x = x ^ (x >> 16u);
    return x;
}

// seed: per job, step and site already mixed (see dropout_seed).
fn dropout_bits(seed: u32, row: u32, column: u32) -> u32 {
    return mix32(mix32(seed ^ (row * 0x9e3779b9u)) ^ (column * 0x85ebca6bu));
}

fn dropout_seed(job_seed: u32, step: u32, site: u32) -> u32 {
    return mix32(mix32(mix32(job_seed) ^ step) ^ site);
}

// 0 or 1/(1-p); `threshold` is p scaled to 2^32.
fn dropout_scale(seed: u32, row: u32, column: u32, threshold: u32, keep: f32) -> f32 {
    return select(0.0, keep, dropout_bits(seed, row, column) >= threshold);
}
