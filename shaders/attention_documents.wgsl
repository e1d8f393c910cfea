// Tiles of documents: TILE_ROWS rows, fewer at the end of a document. A tile never crosses a document and begins at a multiple of TILE_ROWS
// within it, so that results do not depend on where in the batch a document lies, and no number of one document meets another's.
//
// The importer declares `documents: array<u32>`, the table that kernels/attention/documents.rs writes:
//   words 2 l, 2 l + 1:  where the tiles of 8 << l rows begin, and how many there are
//   a document:          first row, end row, window, group (see attention_mask)
//   a tile:              first row, where its document begins in the table
// `p` has the part of the tiles that a dispatch takes.
// TILE_ROWS is 8 << TILE_LEVEL. A table of zeros, as kernels are timed on, stands for one document.

struct RowTile {
    first: u32,
    end: u32, // one past the last row
    doc: Document,
}

fn tile_count() -> u32 {
    let count = documents[2u * TILE_LEVEL + 1u];
    return select(count, (p.rows + TILE_ROWS - 1u) / TILE_ROWS, count == 0u);
}

// The tiles of this dispatch: long passes are recorded in parts.
fn tile_begin() -> u32 {
    return tile_count() * p.part / p.parts;
}

fn tile_end() -> u32 {
    return tile_count() * (p.part + 1u) / p.parts;
}

fn row_tile(n: u32) -> RowTile {
    if (documents[2u * TILE_LEVEL + 1u] == 0u) {
        let first = n * TILE_ROWS;
        return RowTile(first, min(first + TILE_ROWS, p.rows), Document(0u, p.rows, p.window, 0u));
    }
    let at = documents[2u * TILE_LEVEL] + 2u * n;
    let first = documents[at];
    let d = documents[at + 1u];
    let doc = Document(documents[d], documents[d + 1u], min(p.window, documents[d + 2u]), documents[d + 3u]);
    return RowTile(first, min(first + TILE_ROWS, doc.end), doc);
}
