//! Which variants of the low-rank kernels are worth measuring on an adapter. Measurements behind it: `docs/tuning.md`.

use super::{DOWN, DOWN_LANES, GRAD, GRAD_CHUNKS, GRAD_CHUNKS_RANGE, GRAD_RANGE, GRAD_SUM, GRAD_SUM_RANGE, UP};
use crate::gpu::device::{Facts, PlanLimits};
use crate::gpu::{Candidate, KernelSpec, Recorder, Variant};

/// Ranks that a lane handles at least.
const BLOCK: usize = 8;

/// What of a dispatch shapes its candidates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Rows of the batch, or of the range.
    pub(super) rows: usize,
    /// Rows of the batch.
    pub(super) total: usize,
    /// Width of the widest layer's factor.
    pub(super) width: usize,
    /// Largest rank.
    pub(super) r_max: usize,
    /// Most trainable ranks.
    pub(super) t_max: usize,
    /// Jobs in the tables.
    pub(super) jobs: usize,
    /// Layers.
    pub(super) layers: usize,
    /// All layers add to one tensor.
    pub(super) sum: bool,
    /// Rows of all activations, factors and gradients are whole vectors of four.
    pub(super) vectors: bool,
    /// Inputs may be dropped.
    pub(super) dropout: bool,
    /// Ranks may be f16.
    pub(super) half: bool,
    /// The rows are a range of the batch.
    pub(super) range: bool,
}

impl Work {
    /// The flags of a kernel that reads whole vectors where it can.
    fn flagged(&self) -> Variant {
        self.rows_flag().flag_if("VEC4", self.vectors).flag_if("DROPOUT", self.dropout).flag_if("SIBLINGS", self.layers > 1)
    }

    fn rows_flag(&self) -> Variant {
        Variant::new().flag_if("ROW_RANGE", self.range)
    }

    /// Ranks of sums of gradients: whole blocks, from the whole vector on in which the first rank that trains lies.
    pub(super) fn grad_ranks(&self) -> usize {
        (self.t_max + 3).div_ceil(BLOCK) * BLOCK
    }
}

/// What of the adapter shapes the candidates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes {
    /// Lanes of a workgroup that is made of whole subgroups, whichever size the driver picks.
    subgroup: usize,
    /// Lanes run one after the other on a CPU: register tiles first, workgroup memory last.
    cpu: bool,
    /// Neighbouring lanes that can broadcast to each other; 0: none.
    broadcast: u32,
    /// Words of the largest binding.
    binding: usize,
}

impl Lanes {
    /// What the recorder knows of its adapter.
    pub(super) fn of(rec: &Recorder) -> Self {
        let facts = rec.facts();
        let largest = facts.map_or(32, |f| f.subgroup_sizes.1);
        Self {
            subgroup: (largest as usize).clamp(8, 128),
            cpu: facts.is_some_and(|f| f.is_cpu),
            broadcast: facts.map_or(0, Facts::broadcast_width),
            binding: (facts.map_or(PlanLimits::FLOOR.max_binding, |f| f.max_binding) / 4) as usize,
        }
    }

    /// What is worth measuring on a CPU, the first of it where nothing is measured: where it has subgroups, they win over lanes that load alone.
    fn of_cpu(self, mut all: Vec<Candidate>) -> Vec<Candidate> {
        if self.cpu && self.broadcast > 0 {
            all.retain(|c| c.variant.needs_subgroups());
        }
        all
    }
}

fn candidate(spec: &'static KernelSpec, variant: Variant, grid: [usize; 3]) -> Candidate {
    Candidate { spec, variant, grid: grid.map(|n| n.max(1) as u32) }
}

/// More sums than registers are worth measuring: a CPU spills them to its cache. Not where four lanes broadcast (SwiftShader), where so much text
/// takes seconds to compile in a page, nor at widths that are no whole vectors, which belong to toys.
fn tall(work: &Work, lanes: Lanes) -> bool {
    lanes.cpu && lanes.broadcast == 8 && work.vectors
}

/// `h = drop(x) Aᵀ` and `dh = scale · dy Btᵀ`.
pub(super) fn down(work: &Work, lanes: Lanes) -> Vec<Candidate> {
    if !lanes.cpu {
        let variant = work.flagged().flag_if("HALF", work.half);
        return vec![candidate(&DOWN_LANES, variant, [work.rows.div_ceil(8), work.r_max.div_ceil(BLOCK), work.layers])];
    }
    let mut all = Vec::new();
    let octets = work.r_max.div_ceil(BLOCK);
    // Passes as even as they can be: 48 ranks are twice 24.
    let even = |most: usize| octets.div_ceil(octets.div_ceil(most));
    let mut register = |wg: usize, groups: usize, octets: usize, broadcast: u32| {
        let variant = work.flagged().with("WG", wg as u32).with("GROUPS", groups as u32).flag_if("GROUPS4", groups == 4);
        let ranks = octets * BLOCK;
        let flags = [("RANKS16", 16), ("RANKS24", 24), ("RANKS32", 32), ("RANKS40", 40)];
        let variant = flags.into_iter().fold(variant.with("RANKS", ranks as u32), |v, (flag, least)| v.flag_if(flag, ranks >= least));
        let variant = variant.flag_if("HALF", work.half).broadcast(broadcast);
        all.push(candidate(&DOWN, variant, [work.rows.div_ceil(wg * groups), work.r_max.div_ceil(ranks), work.layers]));
    };
    register(8, 4, even(2), 0);
    if lanes.broadcast > 0 {
        register(lanes.subgroup, 4, if tall(work, lanes) { even(5) } else { 1 }, lanes.broadcast);
        register(lanes.subgroup, 2, even(2), lanes.broadcast);
        if octets > 1 {
            register(lanes.subgroup, 4, even(2), lanes.broadcast);
        }
    }
    lanes.of_cpu(all)
}

/// `y += scale · h Bt` and `dx += mask ⊙ (dh A)`.
pub(super) fn up(work: &Work, lanes: Lanes) -> Vec<Candidate> {
    let one = work.r_max <= BLOCK;
    let mut all = Vec::new();
    // Few rows a tile make many lanes; many make few loads of the factor.
    let many = if one { 64 } else { 16 };
    let few = if one { 4 } else { 16 };
    let shared = (lanes.broadcast > 0).then_some((lanes.subgroup, many, lanes.broadcast));
    let tall = (tall(work, lanes) && work.r_max > 2 * BLOCK).then_some((lanes.subgroup, 32, lanes.broadcast));
    let wide = (!lanes.cpu).then_some((32, few, 0));
    for (wg, rows, broadcast) in wide.into_iter().chain([(8, many, 0)]).chain(shared).chain(tall) {
        let variant = work.flagged().flag_if("SUM", work.sum).with("WG", wg as u32).with("ROWS", rows as u32);
        let variant = variant.flag_if("ONE_BLOCK", one).flag_if("ROWS32", rows == 32);
        let variant = variant.flag_if("HALF", work.half).broadcast(broadcast);
        let layers = if work.sum { 1 } else { work.layers };
        all.push(candidate(&UP, variant, [work.width.div_ceil(8 * wg), work.rows.div_ceil(rows), layers]));
    }
    lanes.of_cpu(all)
}

/// `dA` and `dBt`, rows in order.
pub(super) fn grad(work: &Work, lanes: Lanes) -> Vec<Candidate> {
    // Blocks begin with a whole vector, where the first rank that trains need not.
    let spec = if work.range { &GRAD_RANGE } else { &GRAD };
    let shared = (lanes.broadcast > 0).then_some((lanes.subgroup, lanes.broadcast));
    let mut all = Vec::new();
    for (wg, broadcast) in [(8, 0)].into_iter().chain(shared) {
        let variant = work.flagged().with("WG", wg as u32).broadcast(broadcast);
        all.push(candidate(spec, variant, [work.width.div_ceil(4 * wg), work.grad_ranks() / BLOCK, work.layers * work.jobs]));
    }
    lanes.of_cpu(all)
}

/// Rows of a job that one workgroup sums, where a binding holds all their sums; else twice as many, and so on, which is another order of the sum:
/// such large adapters may have other last digits in recordings of other sizes.
const CHUNK: usize = 32;
/// Lanes of such a workgroup.
const CHUNK_LANES: usize = 32;

/// Chunks of the gradients' rows, for GPUs with many cores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunks {
    /// Rows of one.
    rows: usize,
    /// Of all jobs, at most.
    pub(super) count: usize,
    /// Ranks of a part: whole blocks.
    pub(super) ranks: usize,
    /// Columns of a part.
    pub(super) width: usize,
}

impl Chunks {
    /// Those of a dispatch; `None` where one lane sums all rows of a job: on a CPU, at widths of toys, and where no binding holds the sums of any
    /// chunks.
    pub(super) fn of(work: &Work, lanes: Lanes) -> Option<Self> {
        if lanes.cpu || !work.vectors {
            return None;
        }
        // Ranges of a batch take the chunks of all of it, so that sums go on from one to the next.
        let of = |rows: usize, of: usize, ends: usize| Self {
            rows,
            count: of.div_ceil(rows) + ends,
            ranks: work.grad_ranks(),
            width: work.width,
        };
        let mut sizes = std::iter::successors(Some(CHUNK), |rows| (*rows < work.total).then_some(2 * rows));
        let rows = sizes.find(|rows| of(*rows, work.total, work.jobs).words(work) <= lanes.binding)?;
        // A job has a part at the end that is no whole chunk, and in a range of rows one at the beginning.
        Some(of(rows, work.rows, if work.range { 2 * work.jobs } else { work.jobs }))
    }

    /// Words of all parts.
    pub(super) fn words(self, work: &Work) -> usize {
        work.layers * self.count * self.ranks * self.width
    }

    /// The two passes.
    pub(super) fn passes(self, work: &Work) -> [Candidate; 2] {
        let of = |variant: Variant| variant.with("CHUNK", self.rows as u32);
        let columns = work.width.div_ceil(4 * CHUNK_LANES);
        let chunks = of(work.flagged().with("WG", CHUNK_LANES as u32));
        let sum = of(work.rows_flag().flag_if("SIBLINGS", work.layers > 1));
        let [first, second] = if work.range { [&GRAD_CHUNKS_RANGE, &GRAD_SUM_RANGE] } else { [&GRAD_CHUNKS, &GRAD_SUM] };
        [
            candidate(first, chunks, [columns, self.ranks / BLOCK, work.layers * self.count]),
            candidate(second, sum, [work.width.div_ceil(4 * 64), self.ranks, work.layers * work.jobs]),
        ]
    }
}
