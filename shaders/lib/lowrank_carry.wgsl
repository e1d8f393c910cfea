// Sums of gradients on their way from one range of rows to the next: [jobs, p.part_ranks, width in whole vectors] of a layer, ranks in blocks of
// eight from the whole vector on in which the first rank that trains lies. Behind them, as many sums of chunks of rows that go on in the next range.

// Vectors from a rank to the next.
fn carried_rank(layer: Layer) -> u32 { return (layer.width + 3u) / 4u; }

// The vector of a job's rank r and columns k .. k + 4.
fn carried(layer: Layer, id: u32, r: u32, k: u32) -> u32 {
    return layer.carry + (id * p.part_ranks + r) * carried_rank(layer) + k / 4u;
}

// Vectors from a sum to that of the chunk that goes on.
fn carried_chunk(layer: Layer) -> u32 { return p.jobs * p.part_ranks * carried_rank(layer); }
