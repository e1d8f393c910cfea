//! Which variants of the low-rank kernels are worth measuring on an adapter. Measurements behind it: `docs/tuning.md`.

use super::{DOWN, DOWN_TILE, GRAD, GRAD_SLICED, LowrankSite, UP};
use crate::gpu::device::Facts;
use crate::gpu::{Candidate, KernelSpec, Recorder, Variant};

/// Ranks that a lane handles at least.
const BLOCK: usize = 8;

/// What of the adapter shapes the candidates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes {
    /// Lanes of a workgroup that is made of whole subgroups, whichever size the driver picks.
    subgroup: usize,
    /// Lanes run one after the other on a CPU: register tiles first, workgroup memory last.
    cpu: bool,
    /// Neighbouring lanes that can broadcast to each other; 0: none.
    broadcast: u32,
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
        }
    }

    /// What is worth measuring, the first of it where nothing is measured. The leading `for_gpus` need fast workgroup memory or many
    /// lanes, which a CPU does not have; where a CPU has subgroups, they win over lanes that load alone.
    fn order(self, mut all: Vec<Candidate>, for_gpus: usize) -> Vec<Candidate> {
        if self.cpu {
            all.drain(..for_gpus);
            if self.broadcast > 0 {
                all.retain(|c| c.variant.needs_subgroups());
            }
        }
        all
    }
}

/// The flags that follow from the site.
fn flagged(site: &LowrankSite, dropout: bool) -> Variant {
    Variant::new().flag_if("VEC4", site.vectors()).flag_if("DROPOUT", dropout)
}

fn candidate(spec: &'static KernelSpec, variant: Variant, grid: [usize; 3]) -> Candidate {
    Candidate { spec, variant, grid: grid.map(|n| n.max(1) as u32) }
}

/// More sums than registers are worth measuring: a CPU spills them to its cache. Not where four lanes broadcast (SwiftShader), where so much text
/// takes seconds to compile in a page, nor at widths that are no whole vectors, which belong to toys.
fn tall(site: &LowrankSite, lanes: Lanes) -> bool {
    lanes.cpu && lanes.broadcast == 8 && site.vectors()
}

/// `h = drop(x) Aᵀ` and `dh = scale · dy Btᵀ`.
pub(super) fn down(site: &LowrankSite, dropout: bool, lanes: Lanes) -> Vec<Candidate> {
    let mut all = Vec::new();
    for rows in [8, 32] {
        let variant = Variant::new().flag_if("DROPOUT", dropout).flag_if("HALF", site.half).with("ROWS", rows as u32).order(DOWN.name);
        all.push(candidate(&DOWN_TILE, variant, [site.rows.div_ceil(rows), site.r_max.div_ceil(BLOCK), 1]));
    }
    let octets = site.r_max.div_ceil(BLOCK);
    // Passes as even as they can be: 48 ranks are twice 24.
    let even = |most: usize| octets.div_ceil(octets.div_ceil(most));
    let mut register = |wg: usize, groups: usize, octets: usize, broadcast: u32| {
        let variant = flagged(site, dropout).with("WG", wg as u32).with("GROUPS", groups as u32).flag_if("GROUPS4", groups == 4);
        let ranks = octets * BLOCK;
        let flags = [("RANKS16", 16), ("RANKS24", 24), ("RANKS32", 32), ("RANKS40", 40)];
        let variant = flags.into_iter().fold(variant.with("RANKS", ranks as u32), |v, (flag, least)| v.flag_if(flag, ranks >= least));
        let variant = variant.flag_if("HALF", site.half).broadcast(broadcast);
        all.push(candidate(&DOWN, variant, [site.rows.div_ceil(wg * groups), site.r_max.div_ceil(ranks), 1]));
    };
    register(8, 4, even(2), 0);
    if lanes.broadcast > 0 {
        register(lanes.subgroup, 4, if tall(site, lanes) { even(5) } else { 1 }, lanes.broadcast);
        register(lanes.subgroup, 2, even(2), lanes.broadcast);
        if octets > 1 {
            register(lanes.subgroup, 4, even(2), lanes.broadcast);
        }
    }
    lanes.order(all, 2)
}

/// `y += scale · h Bt` and `dx += mask ⊙ (dh A)`.
pub(super) fn up(site: &LowrankSite, width: usize, dropout: bool, lanes: Lanes) -> Vec<Candidate> {
    let one = site.r_max <= BLOCK;
    let mut all = Vec::new();
    // Few rows a tile make many lanes; many make few loads of the factor.
    let many = if one { 64 } else { 16 };
    let few = if one { 4 } else { 16 };
    let shared = (lanes.broadcast > 0).then_some((lanes.subgroup, many, lanes.broadcast));
    let tall = (tall(site, lanes) && site.r_max > 2 * BLOCK).then_some((lanes.subgroup, 32, lanes.broadcast));
    for (wg, rows, broadcast) in [(32, few, 0), (8, many, 0)].into_iter().chain(shared).chain(tall) {
        let variant =
            flagged(site, dropout).with("WG", wg as u32).with("ROWS", rows as u32).flag_if("ONE_BLOCK", one).flag_if("ROWS32", rows == 32);
        let variant = variant.flag_if("HALF", site.half).broadcast(broadcast);
        all.push(candidate(&UP, variant, [width.div_ceil(8 * wg), site.rows.div_ceil(rows), 1]));
    }
    lanes.order(all, 1)
}

/// `dA` and `dBt`.
pub(super) fn grad(site: &LowrankSite, width: usize, dropout: bool, lanes: Lanes) -> Vec<Candidate> {
    let blocks = site.t_max.div_ceil(BLOCK);
    let mut all = Vec::new();
    for (wide, slices, order) in [(32, 8, "lowrank_grad in 8 slices"), (16, 16, "lowrank_grad in 16 slices")] {
        let variant = Variant::new().flag_if("DROPOUT", dropout).with("WIDE", wide as u32).with("SLICES", slices).order(order);
        all.push(candidate(&GRAD_SLICED, variant, [width.div_ceil(wide), blocks, site.jobs]));
    }
    // Blocks begin with a whole vector, where the first rank that trains need not.
    let vectors = (site.t_max + 3).div_ceil(BLOCK);
    let shared = (lanes.broadcast > 0).then_some((lanes.subgroup, lanes.broadcast));
    for (wg, broadcast) in [(8, 0)].into_iter().chain(shared) {
        let variant = flagged(site, dropout).with("WG", wg as u32).broadcast(broadcast);
        all.push(candidate(&GRAD, variant, [width.div_ceil(4 * wg), vectors, site.jobs]));
    }
    lanes.order(all, 2)
}
