// Segments: contiguous rows of a packed batch with an adapter of their own (or none) at each site, which is one linear layer of the model. A
// segment is a job, or with MixLoRA one expert of one. The including kernel declares `Layer`, `p.jobs`, `jobs` and `sites`.
//
//   jobs:  8 words a segment:     [row_begin, row_end, dropout seed of this step, dropout threshold p*2^32, 1/(1-p) as f32,
//                                  weight of its balance losses as f32, 0, 0]
//   sites: 8 words a (site, segment): [rank | half << 16, A offset, Bt offset, grad A offset, grad Bt offset, train_begin, train_end, scale as f32]
//
// A is [rank, k] and Bt (B transposed) is [rank, n], both row-major, at word offsets of one buffer; the last `half` of their ranks are f16.
// Rank 0: no adapter here. A gradient's offset is NO_GRADIENT where its factor does not train.

const NO_GRADIENT: u32 = 0xffffffffu;

struct Segment {
    row_begin: u32,
    row_end: u32,
    seed: u32,      // mixed with the dropout key: ready for dropout_scale
    threshold: u32, // 0: no dropout
    keep: f32,
}

struct Site {
    rank: u32,
    half: u32,           // of these, stored as f16
    matrix: vec2<u32>,   // A, Bt
    gradient: vec2<u32>, // dA, dBt; trainable ranks only
    train: vec2<u32>,    // ranks begin..end
    scale: f32,
}

#import random

fn load_segment(layer: Layer, segment: u32) -> Segment {
    let at = segment * 8u;
    return Segment(jobs[at], jobs[at + 1u], mix32(jobs[at + 2u] ^ layer.dropout_key), jobs[at + 3u], bitcast<f32>(jobs[at + 4u]));
}

fn load_site(layer: Layer, segment: u32) -> Site {
    let at = (layer.site * p.jobs + segment) * 8u;
    return Site(
        sites[at] & 0xffffu,
        sites[at] >> 16u,
        vec2(sites[at + 1u], sites[at + 2u]),
        vec2(sites[at + 3u], sites[at + 4u]),
        vec2(sites[at + 5u], sites[at + 6u]),
        bitcast<f32>(sites[at + 7u]),
    );
}

// The factor of element (row, column) of a job's input; `row` counts in the packed batch, the mask does not.
fn segment_dropout(segment: Segment, row: u32, column: u32) -> f32 {
    return dropout_scale(segment.seed, row - segment.row_begin, column, segment.threshold, segment.keep);
}

fn segment_dropout4(segment: Segment, row: u32, column: u32) -> vec4<f32> {
    return vec4(
        segment_dropout(segment, row, column), segment_dropout(segment, row, column + 1u), segment_dropout(segment, row, column + 2u), segment_dropout(segment, row, column + 3u));
}

// Which of the ranks r0..r0+3 train: the input of the others is never dropped.
fn trains(site: Site, r0: u32) -> vec4<bool> {
    let ranks = vec4(r0) + vec4(0u, 1u, 2u, 3u);
    return (ranks >= vec4(site.train.x)) & (ranks < vec4(site.train.y));
}
