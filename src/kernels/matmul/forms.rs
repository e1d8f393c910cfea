//! The forms of a product that an adapter can run, and which of them are worth measuring. Measurements behind it: `docs/tuning.md`.

use super::mixed;
use super::product::{Direction, MATMUL, MATMUL_TILE};
use crate::gpu::device::Facts;
use crate::gpu::{Candidate, Recorder, Variant};
use crate::kernels::matrix::{Matrix, Part};
use crate::kernels::matvec::{self, MATVEC};

/// Invocations of a register-tile workgroup: few, since each owns eight columns.
const LANES: usize = 32;
/// The same on adapters with at most eight lanes, where a wider group only coarsens the work.
const NARROW_LANES: usize = 8;
/// Rows of the tallest tile.
pub(super) const TALLEST_TILE: usize = 128;

/// The forms worth measuring on the recorder's adapter, a good guess first.
pub fn candidates(rec: &Recorder, direction: Direction, t: usize, w: &Matrix, part: &Part, accumulate: bool) -> Vec<Candidate> {
    let mut all = forms(rec, direction, t, w, part, accumulate);
    if rec.facts().is_some_and(|f| f.is_cpu) {
        // Workgroup memory is ordinary memory here, and loads that are not broadcast cost most (docs/tuning.md).
        let shared = all.iter().any(|c| c.variant.needs_subgroups());
        all.retain(|c| c.spec.name != MATMUL_TILE.name && (!shared || c.spec.name == MATVEC.name || c.variant.needs_subgroups()));
        all.sort_by_key(|c| c.spec.name == MATVEC.name);
    }
    all
}

/// Every form that can run on the recorder's adapter.
pub fn forms(rec: &Recorder, direction: Direction, t: usize, w: &Matrix, part: &Part, accumulate: bool) -> Vec<Candidate> {
    let (_, width) = direction.sizes(w, part);
    let vectors = [w.cols, w.rows, part.rows].iter().all(|size| size.is_multiple_of(4));
    let base = direction.variant(w, vectors).flag_if("ACCUMULATE", accumulate);
    if mixed::applies(rec.facts(), vectors) && !(t <= matvec::MAX_ROWS && direction == Direction::Forward) {
        return mixed::forms(&base, t, width, 1);
    }
    let mut all = Vec::new();
    if t <= matvec::MAX_ROWS && direction == Direction::Forward {
        all.push(matvec::candidate(&base, t, part.rows));
    } else {
        all.extend(tiles(&base, t, width, 1));
    }
    let facts = rec.facts();
    let lanes = if facts.is_some_and(|f| (1..=8).contains(&f.subgroup_sizes.1)) { NARROW_LANES } else { LANES };
    if let Some(facts) = facts.filter(|f| f.broadcast_width() > 0) {
        let rows = rows_of(w, t, vectors, facts).iter();
        all.extend(rows.map(|&rows| registers(&base, w, direction, lanes, rows, facts.broadcast_width(), t, width)));
    }
    // More than four rows of unshared loads gain nothing.
    all.push(registers(&base, w, direction, lanes, 4, 0, t, width));
    all
}

/// Row counts of a register tile worth measuring. A CPU adapter spills to its cache, which is cheap: there, formats whose weights are many
/// loads need more rows to pay for them, and so do all where only four lanes share. Elsewhere 16 rows of eight columns are as many sums as
/// a lane has registers for all it does. Widths that are no whole vectors belong to toys, not worth the time to compile tall tiles.
fn rows_of(w: &Matrix, t: usize, vectors: bool, facts: &Facts) -> &'static [usize] {
    let heavy = w.format.gpu.planes[0].bits > 64;
    let tall = vectors && facts.is_cpu;
    match t {
        0..=4 => &[4],
        5..=8 => &[8],
        _ if tall && facts.broadcast_width() == 4 => &[16],
        9..=16 if tall && heavy => &[16],
        _ if tall && heavy => &[16, 32],
        _ => &[8],
    }
}

/// A tile in workgroup memory.
struct Tile {
    rows: usize,
    columns: usize,
    /// Inputs that are staged at a time.
    depth: usize,
    /// An invocation owns 8 × 8 outputs instead of 4 × 4.
    wide: bool,
}

/// Tiles worth measuring: the larger ones read less, the smaller ones make more workgroups.
const TILES: &[Tile] = &[
    Tile { rows: 128, columns: 128, depth: 16, wide: true },
    Tile { rows: 128, columns: 64, depth: 16, wide: true },
    Tile { rows: 64, columns: 64, depth: 32, wide: false },
    Tile { rows: 32, columns: 32, depth: 32, wide: false },
];
/// Workgroups from which on a large card is busy: of equal tiles the first that makes as many is the guess.
const ENOUGH_WORKGROUPS: u32 = 256;

/// The tiles for `t` rows and `width` columns whose inputs are dealt to `parts` workgroups, a good guess first.
pub(super) fn tiles(base: &Variant, t: usize, width: usize, parts: usize) -> Vec<Candidate> {
    let useful = TILES.iter().filter(|tile| tile.rows < 2 * t.max(17) && tile.columns < 2 * width.max(17));
    let mut all: Vec<Candidate> = useful.map(|tile| tile.candidate(base, t, width, parts)).collect();
    let enough = |c: &Candidate| c.grid.iter().product::<u32>() >= ENOUGH_WORKGROUPS;
    if let Some(guess) = all.iter().position(enough).or(all.len().checked_sub(1)) {
        all[..=guess].rotate_right(1);
    }
    all
}

impl Tile {
    fn candidate(&self, base: &Variant, t: usize, width: usize, parts: usize) -> Candidate {
        let grid = [width.div_ceil(self.columns) as u32, t.div_ceil(self.rows) as u32, parts as u32];
        let sized = base.clone().with("TILE_T", self.rows as u32).with("TILE_C", self.columns as u32).with("DEPTH", self.depth as u32);
        Candidate { spec: &MATMUL_TILE, variant: sized.flag_if("WIDE", self.wide), grid }
    }
}

fn registers(
    base: &Variant,
    w: &Matrix,
    direction: Direction,
    lanes: usize,
    rows: usize,
    broadcast: u32,
    t: usize,
    width: usize,
) -> Candidate {
    // Adapters with subgroups of four (SwiftShader) pay more for a loop in a loop than for decoding scales again.
    let grouped = direction == Direction::Forward && w.format.block > 8 && broadcast != 4;
    let variant = base
        .clone()
        .flag_if("GROUPED", grouped)
        .with("WG", lanes as u32)
        .with("ROWS", rows as u32)
        .flag_if("ROWS8", rows >= 8)
        .flag_if("ROWS16", rows >= 16)
        .flag_if("ROWS32", rows >= 32)
        .broadcast(broadcast);
    let (columns, rows) = (width.div_ceil(8 * lanes) as u32, t.div_ceil(rows) as u32);
    let grid = if direction == Direction::Forward { [rows, columns, 1] } else { [columns, rows, 1] };
    Candidate { spec: &MATMUL, variant, grid }
}
