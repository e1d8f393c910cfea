// Which rows see which: the one place that knows the mask of training and evaluation.
//
// Query row i of head h sees the key rows first_key(doc, i, h) ..= i: causal, inside its own document, no further back than the window, inside
// its group. Key row j is seen by the query rows j .. query_end(doc, j, h). Neither bound falls when its row grows, so a tile of rows asks
// only for its first row (first_key) or its last row (query_end), and what lies outside is never visited.
//
// Groups are those of shifted sparse attention (LongLoRA, without its wrap-around): positions a and b of a document see each other where
// floor((a + s) / group) == floor((b + s) / group); s is half a group for the second half of the query heads and 0 for the first.
//
// Imported where `p: Params` has `heads`.

struct Document {
    first: u32,
    end: u32,    // one past the last row
    window: u32, // rows a query sees, itself included; 0xffffffff for all
    group: u32,  // rows of a group; 0: no groups
}

fn group_shift(doc: Document, head: u32) -> u32 {
    return select(0u, doc.group / 2u, head >= p.heads / 2u);
}

// The heads that row y of `count` rows of workgroups takes: the two halves in turns. What rows of the two halves see differs in length, and an
// adapter may give each of its cores one run of workgroups.
fn head_in_turn(y: u32, count: u32) -> u32 {
    return select(y / 2u, (count + 1u) / 2u + y / 2u, y % 2u == 1u);
}

fn first_key(doc: Document, i: u32, head: u32) -> u32 {
    let position = i - doc.first;
    var first = position + 1u - min(position + 1u, doc.window);
    if (doc.group > 0u) {
        let shift = group_shift(doc, head);
        let begin = (position + shift) / doc.group * doc.group;
        first = max(first, begin - min(begin, shift));
    }
    return doc.first + first;
}

fn query_end(doc: Document, j: u32, head: u32) -> u32 {
    let position = j - doc.first;
    let length = doc.end - doc.first;
    var end = position + min(doc.window, length - position);
    if (doc.group > 0u) {
        let shift = group_shift(doc, head);
        end = min(end, ((position + shift) / doc.group + 1u) * doc.group - shift);
    }
    return doc.first + end;
}
