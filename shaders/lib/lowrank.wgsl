// What the low-rank kernels share: parameters and segments.

// One linear layer [n, k] of a dispatch. With SIBLINGS there are up to three of one input (q, k, v; gate, up): their tensors [rows, width] lie in
// one binding, and so do their inner activations, [count · rows, r_max rounded up to whole vectors].
struct Layer {
    width: u32,   // of the rows of M
    site: u32,    // row of the sites table
    dropout_key: u32,
    wide: u32,    // where its tensor [rows, width] begins
    inner: u32,   // first of its rows of inner activations
    carry: u32,   // ROW_RANGE: where its carried sums begin, in vectors
    pad0: u32,
    pad1: u32,
}

struct Params {
    rows: u32,   // one past the last row
    jobs: u32,
    matrix: u32, // 0: A, 1: Bt
    scaled: u32, // 1: c = scale of the job
    r_max: u32,
    count: u32,  // of layers
    chunks: u32, // of all jobs, see lowrank_chunks.wgsl
    part_ranks: u32,
    part_width: u32,
    first: u32,  // ROW_RANGE: rows first .. rows of the batch, which the tensors hold
    total: u32,  // rows of the batch
    pad0: u32,
    layers: array<Layer, 3>,
}

@group(0) @binding(0) var<uniform> p: Params;

#import segments

#ifdef SIBLINGS
fn layer_at(i: u32) -> Layer { return p.layers[i]; }
#else
fn layer_at(i: u32) -> Layer { return p.layers[0]; }
#endif

// Vectors of a row of the inner activations h and dh: r_max, rounded up to whole vectors.
fn rank_vectors() -> u32 { return (p.r_max + 3u) / 4u; }

#ifdef ROW_RANGE
fn first_row() -> u32 { return p.first; }
#else
fn first_row() -> u32 { return 0u; }
#endif

// First word of row `row` of the batch in the layer's tensor [rows, width].
fn wide_row(layer: Layer, row: u32) -> u32 {
#ifdef SIBLINGS
    return layer.wide + (row - first_row()) * layer.width;
#else
    return (row - first_row()) * layer.width;
#endif
}

// The row of inner activations that belongs to row `row` of the batch.
fn inner_row(layer: Layer, row: u32) -> u32 {
#ifdef SIBLINGS
    return layer.inner + row - first_row();
#else
    return row - first_row();
#endif
}

fn scale_of(site: Site) -> f32 { return select(1.0, site.scale, p.scaled == 1u); }
