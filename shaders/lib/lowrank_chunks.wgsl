// Chunks of CHUNK rows of a job, counted from its first row. Parts are [layers · p.chunks, ranks, p.part_width], ranks in blocks of eight from
// the whole vector on in which the first rank that trains lies.
#ifdef ROW_RANGE
// With ROW_RANGE only chunks that have rows of the range count. One that ends behind it is summed as far as it goes, and goes on in the next range.
fn job_chunks(id: u32) -> u32 {
    let begin = jobs[id * 8u];
    let end = min(jobs[id * 8u + 1u], p.rows);
    if (end <= max(begin, p.first)) { return 0u; }
    return (end - begin + CHUNK - 1u) / CHUNK - first_chunk(id);
}

// The first of them, counted from the job's first row.
fn first_chunk(id: u32) -> u32 {
    let begin = jobs[id * 8u];
    return (max(begin, p.first) - begin) / CHUNK;
}
#else
fn job_chunks(id: u32) -> u32 {
    let begin = jobs[id * 8u];
    let end = min(jobs[id * 8u + 1u], p.rows);
    return (max(end, begin) - begin + CHUNK - 1u) / CHUNK;
}

fn first_chunk(id: u32) -> u32 { return 0u; }
#endif

fn first_rank(site: Site) -> u32 { return site.train.x & ~3u; }

// The vector of rank r (counted from first_rank) and columns k .. k + 4 of a chunk, counted over all layers.
fn part(chunk: u32, r: u32, k: u32) -> u32 { return ((chunk * p.part_ranks + r) * p.part_width + k) / 4u; }
