//! Segmented low-rank products beside a frozen linear layer: every adapter method is a choice of segments and of what trains.
//!
//! Rows of a packed batch belong to jobs; at each site (one linear layer `[n, k]`) each job brings its own `A` `[rank, k]` and `Bt`
//! `[rank, n]` (B transposed), or none. One dispatch serves all jobs:
//!
//! | what | kernel |
//! |---|---|
//! | `h = drop(x) Aᵀ`, `y += scale · h Bt` | down, up |
//! | `dh = scale · dy Btᵀ`, `dx += mask ⊙ (dh A)` | down, up |
//! | `dBt += scale · hᵀ dy`, `dA += dhᵀ drop(x)` | grad |
//!
//! `drop` and `mask` concern the ranks that train; frozen ones, the earlier links of a chain, see every input.
//! `h` and `dh` are `[rows, stride]`, `stride` being `r_max` rounded up to whole vectors of four, zero past a job's rank. A row of `h`, `y` and `dx` has the same bits in every variant and whatever
//! else is in the batch; gradients sum the job's rows in an order counted from its first row.

use bytemuck::{Pod, Zeroable};

use crate::gpu::device::Facts;
use crate::gpu::{Access, Candidate, Dispatch, KernelSpec, Recorder, Tensor, Variant};

/// Ranks that a lane handles at least.
const BLOCK: usize = 8;

/// One job's rows and dropout, a row of the jobs table. Uploaded every step.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct JobRow {
    /// First row in the packed batch.
    pub row_begin: u32,
    /// One past the last row.
    pub row_end: u32,
    /// [`dropout_step_seed`] of the job and the step.
    pub dropout_seed: u32,
    /// Probability times 2³²; 0 for no dropout.
    pub dropout_threshold: u32,
    /// `1 / (1 - p)`.
    pub keep: f32,
    /// Zero.
    pub reserved: [u32; 3],
}

impl JobRow {
    /// Rows `rows` without dropout.
    pub fn new(rows: std::ops::Range<usize>) -> Self {
        Self { row_begin: rows.start as u32, row_end: rows.end as u32, dropout_seed: 0, dropout_threshold: 0, keep: 1.0, reserved: [0; 3] }
    }

    /// Drops inputs of the low-rank path with probability `p` in `0.0..1.0`; the mask is keyed by (`seed`, `step`, site, row of the job, column).
    pub fn with_dropout(self, p: f32, seed: u32, step: u32) -> Self {
        let threshold = (f64::from(p.clamp(0.0, 1.0)) * 4_294_967_296.0).min(4_294_967_295.0) as u32;
        let keep = (1.0 / (1.0 - f64::from(p))) as f32;
        Self { dropout_seed: dropout_step_seed(seed, step), dropout_threshold: threshold, keep, ..self }
    }
}

/// Place of the gradient of a factor that does not train.
pub const NO_GRADIENT: u32 = u32::MAX;

/// One job's adapter at one site, a row of the sites table `[sites, jobs]`. Offsets count words from the start of the bound tensor; where
/// both widths of the layer are multiples of four, so are the offsets.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct SiteRow {
    /// Sum of the ranks of all slices; 0 where the job has no adapter.
    pub rank: u16,
    /// How many of these, the last ones, are stored as f16: see [`half_stride`]. None of them trains.
    pub half: u16,
    /// `A` `[rank, k]`.
    pub a_offset: u32,
    /// `Bt` `[rank, n]`.
    pub b_offset: u32,
    /// `dA` `[train_end - train_begin, k]`, or [`NO_GRADIENT`].
    pub grad_a_offset: u32,
    /// `dBt` `[train_end - train_begin, n]`, or [`NO_GRADIENT`].
    pub grad_b_offset: u32,
    /// First trainable rank. Only the inputs of trainable ranks are ever dropped: frozen links of a chain are part of the base.
    pub train_begin: u32,
    /// One past the last trainable rank, at most `rank`.
    pub train_end: u32,
    /// What multiplies the product, `alpha / rank` or `alpha / sqrt(rank)`. Slices with another scale have it folded into their `Bt`.
    pub scale: f32,
}

/// Words of a row of `width` numbers that is stored as f16: two a word, padded to whole pairs of words, so that four neighbours lie in one
/// vector.
pub const fn half_stride(width: usize) -> usize {
    2 * width.div_ceil(4)
}

/// 32-bit finaliser "lowbias32", as in `shaders/lib/random.wgsl`.
fn mix32(value: u32) -> u32 {
    let x = (value ^ (value >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The seed that a [`JobRow`] carries during optimizer step `step`; kernels mix the site into it.
pub fn dropout_step_seed(job_seed: u32, step: u32) -> u32 {
    mix32(mix32(job_seed) ^ step)
}

/// The factor, 0 or `keep`, of element (`row` of the packed batch, `column`) of a job's input at `site`.
pub fn dropout_factor(job: &JobRow, site: u32, row: u32, column: u32) -> f32 {
    let seed = mix32(job.dropout_seed ^ site);
    let row = (row - job.row_begin).wrapping_mul(0x9e37_79b9);
    let bits = mix32(mix32(seed ^ row) ^ column.wrapping_mul(0x85eb_ca6b));
    if bits >= job.dropout_threshold { job.keep } else { 0.0 }
}

/// The buffers that all sites share. A model whose adapters exceed one binding binds slices, with offsets counted from the slice.
#[derive(Debug, Clone, Copy)]
pub struct LowrankTables {
    /// Job of each row, `[rows]`; a number of jobs or more means no job.
    pub row_job: Tensor,
    /// [`JobRow`]s, `[jobs]`.
    pub jobs: Tensor,
    /// [`SiteRow`]s, `[sites, jobs]`.
    pub sites: Tensor,
    /// Values of `A` and `Bt`.
    pub adapter: Tensor,
    /// Gradients of the trainable ranks; accumulated into.
    pub grads: Tensor,
}

/// One linear layer with adapters beside it.
#[derive(Debug, Clone, Copy)]
pub struct LowrankSite {
    /// Rows of the packed batch.
    pub rows: usize,
    /// Inputs of the layer.
    pub k: usize,
    /// Outputs of the layer.
    pub n: usize,
    /// Largest rank of any job here, at least 1.
    pub r_max: usize,
    /// Most trainable ranks of any job here, at most `r_max`.
    pub t_max: usize,
    /// Row of the sites table; keys dropout, so a job must meet the same number alone and among others.
    pub site: usize,
    /// Jobs in the tables.
    pub jobs: usize,
    /// Whether any job may drop inputs; without it thresholds are not looked at.
    pub dropout: bool,
    /// Whether any job may have ranks stored as f16; without it [`SiteRow::half`] is not looked at.
    pub half: bool,
    /// Shared buffers.
    pub tables: LowrankTables,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    width: u32,
    r_max: u32,
    site: u32,
    jobs: u32,
    matrix: u32,
    scaled: u32,
    pad: u32,
}

const ROWS_BINDINGS: &[Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::ReadWrite, Access::ReadWrite];
const GRAD_BINDINGS: &[Access] = &[Access::Read, Access::Read, Access::ReadWrite, Access::ReadWrite, Access::ReadWrite];

/// Into the rank, one lane a row.
pub const DOWN: KernelSpec =
    KernelSpec { name: "lowrank_down", source: include_str!("../../shaders/lowrank_down.wgsl"), bindings: ROWS_BINDINGS };
/// Into the rank through workgroup memory.
pub const DOWN_TILE: KernelSpec =
    KernelSpec { name: "lowrank_down_tile", source: include_str!("../../shaders/lowrank_down_tile.wgsl"), bindings: ROWS_BINDINGS };
/// Out of the rank.
pub const UP: KernelSpec =
    KernelSpec { name: "lowrank_up", source: include_str!("../../shaders/lowrank_up.wgsl"), bindings: ROWS_BINDINGS };
/// Gradients of the factors, rows in order.
pub const GRAD: KernelSpec =
    KernelSpec { name: "lowrank_grad", source: include_str!("../../shaders/lowrank_grad.wgsl"), bindings: GRAD_BINDINGS };
/// Gradients of the factors, rows dealt to slices.
pub const GRAD_SLICED: KernelSpec =
    KernelSpec { name: "lowrank_grad_sliced", source: include_str!("../../shaders/lowrank_grad_sliced.wgsl"), bindings: GRAD_BINDINGS };

/// All kernels of the family, for listings and for checking that they compile.
pub const SPECS: &[&KernelSpec] = &[&DOWN, &DOWN_TILE, &UP, &GRAD, &GRAD_SLICED];

/// Which factor a dispatch uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Factor {
    A,
    Bt,
}

/// One product: which factor, whether the job's scale multiplies it, whether the input's dropout mask applies.
#[derive(Debug, Clone, Copy)]
struct Product {
    factor: Factor,
    scaled: bool,
    dropout: bool,
}

impl LowrankSite {
    /// Words from a row of `h` to the next: `r_max` rounded up to whole vectors of four.
    pub fn stride(&self) -> usize {
        self.r_max.next_multiple_of(4)
    }

    /// Rows of activations, factors and gradients are whole vectors of four.
    fn vectors(&self) -> bool {
        self.k.is_multiple_of(4) && self.n.is_multiple_of(4)
    }

    fn width(&self, factor: Factor) -> usize {
        match factor {
            Factor::A => self.k,
            Factor::Bt => self.n,
        }
    }

    /// `ranks` make work; `tables_at` is the binding of the jobs table, which the sites table follows.
    fn dispatch(&self, label: String, product: Product, ranks: usize, bind: &[Tensor], tables_at: usize) -> Dispatch {
        let width = self.width(product.factor);
        let params = Params {
            rows: self.rows as u32,
            width: width as u32,
            r_max: self.r_max as u32,
            site: self.site as u32,
            jobs: self.jobs as u32,
            matrix: u32::from(product.factor == Factor::Bt),
            scaled: u32::from(product.scaled),
            pad: 0,
        };
        let (job, site) = self.sample(product.dropout);
        Dispatch::new(label, &params, bind, 2 * (self.rows * width * ranks) as u64).sample(tables_at, 0, bytemuck::bytes_of(&job)).sample(
            tables_at + 1,
            self.site * self.jobs * size_of::<SiteRow>(),
            bytemuck::bytes_of(&site),
        )
    }

    /// What candidates are measured on: all rows belong to the first job, with the largest rank.
    fn sample(&self, dropout: bool) -> (JobRow, SiteRow) {
        let job = JobRow::new(0..self.rows).with_dropout(if dropout { 0.1 } else { 0.0 }, 1, 1);
        (job, SiteRow { rank: self.r_max as u16, train_end: self.t_max as u32, scale: 1.0, ..SiteRow::default() })
    }

    fn key(&self, name: &str, product: Product) -> String {
        let dropout = if product.dropout { " dropout" } else { "" };
        let half = if self.half { " half" } else { "" };
        format!("{name} {}x{} r{} j{}{dropout}{half}", self.rows, self.width(product.factor), self.r_max, self.jobs)
    }

    fn down(&self, rec: &mut Recorder, label: String, product: Product, x: Tensor, h: Tensor) {
        let t = self.tables;
        let what = self.dispatch(label, product, self.r_max, &[t.row_job, t.jobs, t.sites, t.adapter, x, h], 1);
        rec.dispatch_tuned(self.key("lowrank_down", product), down_candidates(self, product.dropout, Lanes::of(rec)), what);
    }

    fn up(&self, rec: &mut Recorder, label: String, product: Product, h: Tensor, y: Tensor) {
        let t = self.tables;
        let what = self.dispatch(label, product, self.r_max, &[t.row_job, t.jobs, t.sites, t.adapter, h, y], 1);
        let candidates = up_candidates(self, self.width(product.factor), product.dropout, Lanes::of(rec));
        rec.dispatch_tuned(self.key("lowrank_up", product), candidates, what);
    }

    fn grad(&self, rec: &mut Recorder, label: String, product: Product, g: Tensor, z: Tensor) {
        let t = self.tables;
        let what = self.dispatch(label, product, self.t_max, &[t.jobs, t.sites, g, z, t.grads], 0);
        let candidates = grad_candidates(self, self.width(product.factor), product.dropout, Lanes::of(rec));
        // Only as many ranks as train make work.
        let site = Self { r_max: self.t_max, ..*self };
        rec.dispatch_tuned(site.key("lowrank_grad", product), candidates, what);
    }
}

/// What of the adapter shapes the candidates.
#[derive(Debug, Clone, Copy)]
struct Lanes {
    /// Lanes of a workgroup that is made of whole subgroups, whichever size the driver picks.
    subgroup: usize,
    /// Lanes run one after the other on a CPU: register tiles first, workgroup memory last.
    cpu: bool,
    /// Lanes that can hand numbers round.
    sharing: u32,
}

impl Lanes {
    fn of(rec: &Recorder) -> Self {
        let facts = rec.facts();
        let largest = facts.map_or(32, |f| f.subgroup_sizes.1);
        Self {
            subgroup: (largest as usize).clamp(8, 128),
            cpu: facts.is_some_and(|f| f.is_cpu),
            sharing: facts.map_or(0, Facts::sharing_lanes),
        }
    }

    /// What is worth measuring, the first of it where nothing is measured. The leading `for_gpus` need fast workgroup memory or many
    /// lanes, which a CPU does not have; where a CPU has subgroups, they win over lanes that load alone.
    fn order(self, mut all: Vec<Candidate>, for_gpus: usize) -> Vec<Candidate> {
        if self.cpu {
            all.drain(..for_gpus);
            if self.sharing > 0 {
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

/// More sums than registers are worth measuring: a CPU spills them to its cache. Not where four lanes share (SwiftShader), where so much text
/// takes seconds to compile in a page, nor at widths that are no whole vectors, which belong to toys.
fn tall(site: &LowrankSite, lanes: Lanes) -> bool {
    lanes.cpu && lanes.sharing == 8 && site.vectors()
}

fn down_candidates(site: &LowrankSite, dropout: bool, lanes: Lanes) -> Vec<Candidate> {
    let mut all = Vec::new();
    for rows in [8, 32] {
        let variant = Variant::new().flag_if("DROPOUT", dropout).flag_if("HALF", site.half).with("ROWS", rows as u32);
        all.push(candidate(&DOWN_TILE, variant, [site.rows.div_ceil(rows), site.r_max.div_ceil(BLOCK), 1]));
    }
    let octets = site.r_max.div_ceil(BLOCK);
    // Passes as even as they can be: 48 ranks are twice 24.
    let even = |most: usize| octets.div_ceil(octets.div_ceil(most));
    let mut register = |wg: usize, groups: usize, octets: usize, sharing: u32| {
        let variant = flagged(site, dropout).with("WG", wg as u32).with("GROUPS", groups as u32).flag_if("GROUPS4", groups == 4);
        let ranks = octets * BLOCK;
        let flags = [("RANKS16", 16), ("RANKS24", 24), ("RANKS32", 32), ("RANKS40", 40)];
        let variant = flags.into_iter().fold(variant.with("RANKS", ranks as u32), |v, (flag, least)| v.flag_if(flag, ranks >= least));
        let variant = variant.flag_if("HALF", site.half).sharing(sharing);
        all.push(candidate(&DOWN, variant, [site.rows.div_ceil(wg * groups), site.r_max.div_ceil(ranks), 1]));
    };
    register(8, 4, even(2), 0);
    if lanes.sharing > 0 {
        register(lanes.subgroup, 4, if tall(site, lanes) { even(5) } else { 1 }, lanes.sharing);
        register(lanes.subgroup, 2, even(2), lanes.sharing);
        if octets > 1 {
            register(lanes.subgroup, 4, even(2), lanes.sharing);
        }
    }
    lanes.order(all, 2)
}

fn up_candidates(site: &LowrankSite, width: usize, dropout: bool, lanes: Lanes) -> Vec<Candidate> {
    let one = site.r_max <= BLOCK;
    let mut all = Vec::new();
    // Few rows a tile make many lanes; many make few loads of the factor.
    let many = if one { 64 } else { 16 };
    let few = if one { 4 } else { 16 };
    let shared = (lanes.sharing > 0).then_some((lanes.subgroup, many, lanes.sharing));
    let tall = (tall(site, lanes) && site.r_max > 2 * BLOCK).then_some((lanes.subgroup, 32, lanes.sharing));
    for (wg, rows, sharing) in [(32, few, 0), (8, many, 0)].into_iter().chain(shared).chain(tall) {
        let variant =
            flagged(site, dropout).with("WG", wg as u32).with("ROWS", rows as u32).flag_if("ONE_BLOCK", one).flag_if("ROWS32", rows == 32);
        let variant = variant.flag_if("HALF", site.half).sharing(sharing);
        all.push(candidate(&UP, variant, [width.div_ceil(8 * wg), site.rows.div_ceil(rows), 1]));
    }
    lanes.order(all, 1)
}

fn grad_candidates(site: &LowrankSite, width: usize, dropout: bool, lanes: Lanes) -> Vec<Candidate> {
    let blocks = site.t_max.div_ceil(BLOCK);
    let mut all = Vec::new();
    for (wide, slices) in [(32, 8), (16, 16)] {
        let variant = Variant::new().flag_if("DROPOUT", dropout).with("WIDE", wide as u32).with("SLICES", slices);
        all.push(candidate(&GRAD_SLICED, variant, [width.div_ceil(wide), blocks, site.jobs]));
    }
    // Blocks begin with a whole vector, where the first rank that trains need not.
    let vectors = (site.t_max + 3).div_ceil(BLOCK);
    let shared = (lanes.sharing > 0).then_some((lanes.subgroup, lanes.sharing));
    for (wg, sharing) in [(8, 0)].into_iter().chain(shared) {
        let variant = flagged(site, dropout).with("WG", wg as u32).sharing(sharing);
        all.push(candidate(&GRAD, variant, [width.div_ceil(4 * wg), vectors, site.jobs]));
    }
    lanes.order(all, 2)
}

/// Records `h = drop(x) Aᵀ` `[rows, stride]` and `y += scale · h Bt` for every job; `x` is `[rows, k]`, `y` `[rows, n]`.
///
/// `h` is written wholly; keep it for [`backward`]. Rows without an adapter leave `y` alone.
///
/// # Panics
/// If a tensor is smaller than its shape: a bug in a recording.
pub fn forward(rec: &mut Recorder, label: &str, site: &LowrankSite, x: Tensor, h: Tensor, y: Tensor) {
    site.check(&[("x", x, site.k), ("h", h, site.stride()), ("y", y, site.n)]);
    let down = Product { factor: Factor::A, scaled: false, dropout: site.dropout };
    let up = Product { factor: Factor::Bt, scaled: true, dropout: false };
    site.down(rec, format!("{label}.lowrank_down"), down, x, h);
    site.up(rec, format!("{label}.lowrank_up"), up, h, y);
}

/// Records the gradients of [`forward`]: `dh` `[rows, stride]` is scratch that is written wholly, `grads` and `dx` `[rows, k]` are added to.
///
/// `x` and `h` are those of the forward pass, `dy` is `[rows, n]`. Without `dx` nothing flows on.
///
/// # Panics
/// If a tensor is smaller than its shape: a bug in a recording.
pub fn backward(rec: &mut Recorder, label: &str, site: &LowrankSite, x: Tensor, dy: Tensor, h: Tensor, dh: Tensor, dx: Option<Tensor>) {
    site.check(&[("x", x, site.k), ("h", h, site.stride()), ("dh", dh, site.stride()), ("dy", dy, site.n)]);
    let out = Product { factor: Factor::Bt, scaled: true, dropout: false };
    let into = Product { factor: Factor::A, scaled: false, dropout: site.dropout };
    site.grad(rec, format!("{label}.lowrank_db"), out, h, dy);
    site.down(rec, format!("{label}.lowrank_dh"), out, dy, dh);
    if let Some(dx) = dx {
        site.check(&[("dx", dx, site.k)]);
        site.up(rec, format!("{label}.lowrank_dx"), into, dh, dx);
    }
    site.grad(rec, format!("{label}.lowrank_da"), into, dh, x);
}

impl LowrankSite {
    fn check(&self, tensors: &[(&str, Tensor, usize)]) {
        assert!(self.r_max > 0 && self.jobs > 0, "a low-rank site with r_max {} and {} jobs", self.r_max, self.jobs);
        for (name, tensor, width) in tensors {
            let needed = self.rows * width;
            assert!(tensor.len as usize >= needed, "{name} has {} words, [{}, {width}] needs {needed}", tensor.len, self.rows);
        }
    }
}
