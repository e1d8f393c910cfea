// Dropout bits: a hash of (seed, step, key, row, column). The key depends on layer and projection only and the row counts within the
// segment, so that a job draws the same mask alone and fused, forward and backward. The mixer is the 32-bit finaliser "lowbias32" applied per word.
fn mix32(value: u32) -> u32 {
    var x = value;
    x = x ^ (x >> 16u);
    x = x * 0x7feb352du;
    x = x ^ (x >> 15u);
    x = x * 0x846ca68bu;
    x = x ^ (x >> 16u);
    return x;
}

// seed: of job, step and key, already mixed.
fn dropout_bits(seed: u32, row: u32, column: u32) -> u32 {
    return mix32(mix32(seed ^ (row * 0x9e3779b9u)) ^ (column * 0x85ebca6bu));
}

// 0 or 1/(1-p); `threshold` is p scaled to 2^32.
fn dropout_scale(seed: u32, row: u32, column: u32, threshold: u32, keep: f32) -> f32 {
    return select(0.0, keep, dropout_bits(seed, row, column) >= threshold);
}
