// Which rows see which: the one place that knows the mask of training and evaluation.
//
// Query row i of head h sees the key rows first_key(i, h) ..= i: causal, inside its own document, no further back than the
// sliding window. Key row j is seen by the query rows j .. query_end(j, h). Neither bound falls when its row grows, so a
// tile of rows asks only for its first row (first_key) or its last row (query_end), and what lies outside is never visited.
// A rule added here (groups of rows, shifted for some heads) must keep both properties; kernels ask per head already.
//
// Included where `p: Params` has `rows` and `window` (rows a query sees, itself included; 0xffffffff for all), and
// `margins`: [T] of (rows before the row's document, rows after it). All zeros: one document.

fn first_key(i: u32, head: u32) -> u32 {
    return max(margins[i].x, i + 1u - min(i + 1u, p.window));
}

fn query_end(j: u32, head: u32) -> u32 {
    return min(p.rows - margins[j].y, j + min(p.window, p.rows - j));
}
