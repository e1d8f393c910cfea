//! Products whose inputs are dealt to several workgroups, for GPUs with many cores: few outputs of many inputs each, such as the head's
//! backward product, would leave most of them idle. The sums of the parts are added in order by a second pass.

use std::ops::Range;

use super::forms::tiles;
use super::mixed;
use super::product::{Direction, Rows, key, part_of_product};
use crate::gpu::Recorder;
use crate::gpu::device::Facts;
use crate::kernels::matrix::{Matrix, Part};
use crate::kernels::matvec;
use crate::kernels::sum_parts::{Place, sum_parts};

/// Tiles across the outputs from which on a product has workgroups enough.
const ENOUGH_TILES: usize = 32;
const TILE: usize = 64;
/// Inputs that a part has at least: what staging costs beside them is small.
const LEAST_INPUTS: usize = 256;
/// Inputs of a part of a product that is so deep that a workgroup would take long, where there are few tiles and where there are enough.
const MANY_INPUTS: [usize; 2] = [4096, 8192];
const MOST_PARTS: usize = 16;
/// Inputs of a part are a multiple of what any form stages at a time: a part must not reach into the next one.
const SPAN_STEP: usize = 64;
/// Inputs that only the head's backward product has.
const VOCABULARY: usize = 32_000;

/// Parts of the inputs. They depend on the matrix and the adapter, never on the number of rows: a row's bits must not depend on what else is in the
/// batch.
pub(super) fn count(facts: Option<&Facts>, direction: Direction, t: usize, w: &Matrix, part: &Part, y: Rows) -> usize {
    let (inputs, outputs) = direction.sizes(w, part);
    let vectors = [inputs, outputs, w.cols, w.rows, y.stride].iter().all(|size| size.is_multiple_of(4));
    let (forward, alone) = (direction == Direction::Forward, w.members.is_empty());
    let row_by_row = forward && t <= matvec::MAX_ROWS;
    if facts.is_none_or(|f| f.is_cpu) || !vectors || row_by_row || forward && !alone {
        return 1;
    }
    let tiles = outputs.div_ceil(TILE);
    if tiles >= ENOUGH_TILES {
        // Vocabularies: their products come a few rows at a time.
        return if inputs >= VOCABULARY { (inputs / MANY_INPUTS[1]).min(MOST_PARTS) } else { 1 };
    }
    ENOUGH_TILES.div_ceil(tiles).max(inputs / MANY_INPUTS[0]).min(inputs / LEAST_INPUTS).clamp(1, MOST_PARTS)
}

/// Records both passes of the rows `rows` of `t`; `of_all` is what the tunable case's name ends with.
pub(super) fn record(
    rec: &mut Recorder,
    label: &str,
    direction: Direction,
    (x, y): (Rows, Rows),
    (t, rows): (usize, Range<usize>),
    w: &Matrix,
    part: &Part,
    (accumulate, count): (bool, usize),
    of_all: &str,
) {
    let (inputs, outputs) = direction.sizes(w, part);
    let span = inputs.div_ceil(count).next_multiple_of(SPAN_STEP);
    let count = inputs.div_ceil(span);
    let parts = rec.transient(&format!("{label}.parts"), count * rows.len() * outputs);
    let mut what = part_of_product(label, direction, (x, y), t, rows.clone(), w, part, span);
    what.bind[2] = parts;
    let mut what = what.touching(rows.len() * inputs + part.tensor.len as usize + parts.len as usize);
    let key = format!("{} in {count}{of_all}", key(direction, rows.len(), w, part, false));
    let base = direction.variant(w, true).flag("SPLIT");
    if mixed::applies(rec.facts(), true) {
        mixed::scale_rows(rec, direction, w, rows.len(), &mut what);
        rec.dispatch_tuned(key + " mixed", mixed::forms(&base, rows.len(), outputs, count), what);
    } else {
        rec.dispatch_tuned(key, tiles(&base, rows.len(), outputs, count), what);
    }

    let column = if direction == Direction::Forward { part.row_start } else { 0 };
    sum_parts(rec, &format!("{label}.sum"), parts, (rows.len(), outputs), Place { y, row: rows.start, column }, accumulate);
}
